//! One stream of an HTTP/2 connection to a backend: a request, and its answer as HTTP/1.1 would have it.
//!
//! The problem: an exchange has two sides, each of which speaks HTTP/1.1 or HTTP/2. Written for each pair of them it
//! would be there four times.
//!
//! The rule: there is one exchange, and what it writes and reads of a header is HTTP/1.1, or the fields of HTTP/2 where
//! both sides have them anyway. What it wrote in bytes, since rules of a route have been at it, or since nobody knew
//! what the backend speaks, is read here once more and becomes fields (RFC 9113 section 8.3), without those that count
//! for a connection. For a client of HTTP/1.1 the answer becomes the header section that it would have been. Both
//! are looked at by the same rules. Of a body only the data is seen: where it ends is said by the frames.
//!
//! What is read is what the client has taken before: the backend gets its window back only then. What is sent waits
//! for the backend's window. So whoever is slow slows the other side and nobody else. What comes all the same while a
//! client takes nothing, up to the window and its trailers, is taken out of h2 at once, where many small frames and
//! fields cost a multiple of their bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use httparse::Status;
use pingora_core::{Error, ErrorType, Result};

use crate::decimal::put_number;
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::wire::lines::{is, line};
use crate::proxy::wire::trailers::Trailers;
use crate::upstream::StreamSeat;

/// The most lines that a request has here: what a client may send, and what is added.
const MAX_LINES: usize = 320;
/// What is given to a stream at once, in bytes.
const PIECE: usize = 64 << 10;
/// What is done when an answer breaks off.
const READING: &str = "reading an answer";

/// One stream, while it has its request.
#[derive(Debug)]
pub(in crate::proxy) struct BackendStreamed {
    seat: StreamSeat,
    sending: Option<SendStream<Bytes>>,
    receiving: Receiving,
    /// Bytes that were read and that the backend may not send anew yet.
    owed: usize,
    /// What was taken of the body before it was asked for.
    ahead: BytesMut,
    trailers: Trailers,
}

/// A request as HTTP/2 has it.
#[derive(Debug)]
pub(in crate::proxy) struct RequestFields {
    pub(in crate::proxy) method: Method,
    pub(in crate::proxy) target: PathAndQuery,
    /// The fields, and the host among them.
    pub(in crate::proxy) fields: HeaderMap,
}

impl RequestFields {
    /// Those of the request that `head` is, a header section of ours.
    fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut parsed = httparse::Request::new(&mut lines);
        let Ok(Status::Complete(_)) = parsed.parse(head) else { return None };
        let mut fields = HeaderMap::with_capacity(parsed.headers.len());
        for header in parsed.headers.iter() {
            let (name, value) = (HeaderName::from_bytes(header.name.as_bytes()).ok()?, header.value);
            if ![CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name) && (name != TE || is(value, b"trailers")) {
                fields.append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
        let method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
        Some(RequestFields { method, target: PathAndQuery::try_from(parsed.path?).ok()?, fields })
    }

    /// The request, over a connection in TLS if it is `secure`.
    fn request(mut self, secure: bool) -> Option<Request<()>> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        uri.path_and_query = Some(self.target);
        uri.authority = Some(match self.fields.remove(HOST) {
            Some(host) => Authority::try_from(host.as_bytes()).ok()?,
            // One of HTTP/1.0 may name nobody.
            None => Authority::from_static("localhost"),
        });
        let mut request = Request::new(());
        (*request.method_mut(), *request.headers_mut()) = (self.method, self.fields);
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        Some(request)
    }
}

/// How far the answer has come.
#[derive(Debug)]
enum Receiving {
    /// No request was sent.
    Nothing,
    Head(ResponseFuture),
    Body(RecvStream),
    Over,
    /// What came behind the body is not taken.
    Refused,
}

impl BackendStreamed {
    /// One that has not begun.
    pub(in crate::proxy) fn new(seat: StreamSeat) -> Self {
        let (sending, receiving) = (None, Receiving::Nothing);
        BackendStreamed { seat, sending, receiving, owed: 0, ahead: BytesMut::new(), trailers: Trailers::default() }
    }

    /// Sends the header section in `head`, and `body` if that is all of it; else the rest is given to it as a
    /// [`RequestSink`].
    ///
    /// # Errors
    /// When the connection takes no more, or the request is none of HTTP/2.
    pub(in crate::proxy) fn open(&mut self, head: &[u8], body: Option<&[u8]>) -> Result<()> {
        self.open_in_fields(RequestFields::parse(head), body)
    }

    /// The same where the header section is in these fields, if HTTP/2 can carry it.
    ///
    /// # Errors
    /// As for the other.
    pub(in crate::proxy) fn open_in_fields(&mut self, head: Option<RequestFields>, body: Option<&[u8]>) -> Result<()> {
        let request = head.and_then(|head| head.request(self.seat.secure)).ok_or_else(|| {
            Error::explain(ErrorType::InvalidHTTPHeader, "a request that HTTP/2 cannot carry").into_down()
        })?;
        let at_once = body.is_some_and(<[u8]>::is_empty);
        let (answer, mut sending) = self.seat.sender.send_request(request, at_once).map_err(broken)?;
        if let Some(body @ [_, ..]) = body {
            // It is little, and goes out as the window allows.
            sending.send_data(Bytes::copy_from_slice(body), true).map_err(broken)?;
        }
        (self.sending, self.receiving) = (Some(sending), Receiving::Head(answer));
        Ok(())
    }

    /// Reads on to the end of `buffer`: a header section, or some of the body. 0 at the end of the body.
    pub(in crate::proxy) fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Result<usize>> {
        if !self.ahead.is_empty() {
            self.release(buffer);
            let ahead = std::mem::take(&mut self.ahead);
            let read = ahead.len();
            self.owed += read;
            buffer.unsplit(ahead);
            return Poll::Ready(Ok(read));
        }
        match &mut self.receiving {
            Receiving::Nothing | Receiving::Over => Poll::Ready(Ok(0)),
            Receiving::Refused => Poll::Ready(Err(too_large())),
            Receiving::Head(_) => {
                let before = buffer.len();
                let (status, fields) = ready!(self.poll_head(cx))?;
                put_head(buffer, status, &fields);
                Poll::Ready(Ok(buffer.len() - before))
            }
            Receiving::Body(_) => self.poll_body(cx, buffer),
        }
    }

    /// Reads the header section of an answer, interim or final, as it comes.
    pub(in crate::proxy) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(StatusCode, HeaderMap)>> {
        let Receiving::Head(answer) = &mut self.receiving else {
            return Poll::Ready(Err(Error::explain(ErrorType::ConnectionClosed, READING).into_up()));
        };
        if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
            let (head, ()) = interim.map_err(broken)?.into_parts();
            return Poll::Ready(Ok((head.status, head.headers)));
        }
        let (head, body) = ready!(Pin::new(answer).poll(cx)).map_err(broken)?.into_parts();
        self.receiving = Receiving::Body(body);
        Poll::Ready(Ok((head.status, head.headers)))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Result<usize>> {
        self.release(buffer);
        let Receiving::Body(body) = &mut self.receiving else { return Poll::Ready(Ok(0)) };
        let (before, most) = (buffer.len(), buffer.capacity());
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.owed += data.len();
                    buffer.extend_from_slice(&data);
                    // An empty frame says nothing, but for the end.
                    if buffer.len() >= most || body.is_end_stream() && buffer.len() > before {
                        return Poll::Ready(Ok(buffer.len() - before));
                    }
                }
                Poll::Ready(Some(Err(error))) if buffer.len() == before => {
                    // A backend that has said all may have no use for the rest of the request (RFC 9113 section 8.1).
                    if error.is_remote() && error.is_reset() && error.reason() == Some(Reason::NO_ERROR) {
                        self.receiving = Receiving::Over;
                        return Poll::Ready(Ok(0));
                    }
                    return Poll::Ready(Err(broken(error)));
                }
                Poll::Ready(None) if buffer.len() == before => {
                    ready!(self.poll_end(cx))?;
                    return Poll::Ready(Ok(0));
                }
                Poll::Pending if buffer.len() == before => return Poll::Pending,
                // Seen again by the next one.
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => return Poll::Ready(Ok(buffer.len() - before)),
            }
        }
    }

    /// Gives the backend its window back for what was read, once that is taken.
    fn release(&mut self, buffer: &BytesMut) {
        if let Receiving::Body(body) = &mut self.receiving
            && buffer.is_empty()
            && self.owed > 0
        {
            // Fails only when the stream is gone, which the next read tells.
            let _ = body.flow_control().release_capacity(std::mem::take(&mut self.owed));
        }
    }

    /// Takes what is behind the data.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Receiving::Body(body) = &mut self.receiving else { return Poll::Ready(Ok(())) };
        let trailers = ready!(body.poll_trailers(cx)).map_err(broken)?;
        let trailers = trailers.as_ref().map(Trailers::of_map).unwrap_or_default();
        if trailers.are_too_large() {
            self.receiving = Receiving::Refused;
            return Poll::Ready(Err(too_large()));
        }
        (self.trailers, self.receiving) = (trailers, Receiving::Over);
        Poll::Ready(Ok(()))
    }

    /// Whether nothing follows of the answer behind what was read, no trailers either, that is not here.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        match &self.receiving {
            _ if !self.ahead.is_empty() => false,
            Receiving::Body(body) => body.is_end_stream(),
            Receiving::Over => true,
            Receiving::Nothing | Receiving::Head(_) | Receiving::Refused => false,
        }
    }

    /// The trailers, once the end was read.
    pub(in crate::proxy) fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    /// Gives the request up, for a reason that the backend is told. When it was waited for in vain, others are not to
    /// be.
    pub(in crate::proxy) fn reset(&mut self, reason: Reason, in_vain: bool) {
        if in_vain {
            self.seat.retire();
        }
        if let Some(sending) = &mut self.sending {
            sending.send_reset(reason);
        }
    }
}

impl RequestSink for BackendStreamed {
    fn poll_parts(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>], last: bool) -> Poll<io::Result<usize>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Poll::Ready(if last {
                sending.send_data(Bytes::new(), true).map_err(io::Error::other).map(|()| 0)
            } else {
                Ok(0)
            });
        }
        let wanted = length.min(PIECE);
        sending.reserve_capacity(wanted);
        let mut room = sending.capacity();
        if room == 0 {
            room = match ready!(sending.poll_capacity(cx)) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let taken = room.min(wanted);
        let mut data = BytesMut::with_capacity(taken);
        for part in parts {
            let left = taken - data.len();
            data.extend_from_slice(&part[..part.len().min(left)]);
        }
        let end = last && taken == length;
        Poll::Ready(sending.send_data(data.freeze(), end).map_err(io::Error::other).map(|()| taken))
    }

    fn finish(&mut self, trailers: &Trailers) -> io::Result<()> {
        let Some(sending) = &mut self.sending else { return Err(io::ErrorKind::NotConnected.into()) };
        sending.send_trailers(trailers.to_map()).map_err(io::Error::other)
    }

    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        while let Receiving::Body(body) = &mut self.receiving {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.ahead.extend_from_slice(&data),
                // Where it fails, it fails again for who reads on.
                Poll::Ready(None) if matches!(self.poll_end(cx), Poll::Ready(Ok(()))) => {}
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => return,
            }
        }
    }
}

fn too_large() -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, "its trailers are too large").into_up()
}

/// Appends the header section that an answer would have had over HTTP/1.1.
fn put_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    put_number(status.as_u16().into(), &mut head);
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        line(&mut head, name.as_str().as_bytes(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    out.extend_from_slice(&head);
}

/// What the backend, or its connection, did to the stream.
pub(in crate::proxy) fn broken(error: h2::Error) -> Box<Error> {
    let kind = match (error.is_reset(), error.is_go_away()) {
        (true, _) => ErrorType::H2Error,
        (_, true) if error.is_library() => ErrorType::InvalidH2,
        _ => ErrorType::ConnectionClosed,
    };
    let words = match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => format!("it reset the stream: {reason:?}"),
        Some(reason) => format!("its HTTP/2 is malformed: {reason:?}"),
        None => READING.to_owned(),
    };
    Error::because(kind, words, error).into_up()
}

/// Why the other side reset a stream, when `error` is that it did.
pub(in crate::proxy) fn reset_by(error: &Error) -> Option<Reason> {
    let cause: &h2::Error = error.root_cause().downcast_ref()?;
    cause.reason().filter(|_| cause.is_reset() && cause.is_remote())
}

/// Whether a backend has said that it has not begun with the request: it may be sent again, whatever it is (RFC 9113
/// section 8.7).
pub(in crate::proxy) fn is_unprocessed(error: &Error) -> bool {
    let Some(cause) = error.root_cause().downcast_ref::<h2::Error>() else { return false };
    cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(Reason::REFUSED_STREAM))
}
