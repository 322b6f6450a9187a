//! A client that speaks HTTP/2: one stream of it, and its answer.

pub(in crate::proxy) mod received;

use std::future::poll_fn;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::{Error, ErrorType, Result};

use crate::clock::Alarm;
use crate::proxy::backend::answer::Answer;
use crate::proxy::backend::body::AnswerBody;
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::downstream::activity::Tunnels;
use crate::proxy::downstream::http2::ends::StreamEnds;
use crate::proxy::downstream::http2::sections::UntakenSections;
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::exchange::client::{Recipient, TunnelEnds};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::proxy::CLIENT_TIMEOUT;
use crate::proxy::exchange::rest::RestOverHttp2;
use crate::proxy::exchange::untaken::UntakenAnswers;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::rejection::bytes_of;
use crate::proxy::wire::lines::{LinesOf, is};
use crate::proxy::wire::trailers::Trailers;

/// Where the rest of a body goes while nobody takes it.
const NOWHERE: Option<&mut tokio::io::Empty> = None;

/// Who gets the answer on a stream, over which `R` of the request's body is to come.
pub(in crate::proxy) struct Http2Recipient<'h, R> {
    respond: SendResponse<Bytes>,
    /// The header, until it is sent.
    head: Option<Response<()>>,
    /// For the body, once the header is sent.
    writer: Option<SendStream<Bytes>>,
    /// What of the request's body is to come.
    pub(in crate::proxy) rest: R,
    /// Where that counts which the client does not take, and how much it has taken.
    untaken: &'h UntakenAnswers,
    sections: &'h UntakenSections,
    taken: usize,
    gave_up: Option<Reason>,
    /// What comes when it becomes a tunnel, and where that counts.
    tunnel: Option<(Upload, &'h Tunnels)>,
    /// The tunnel, and what came before it.
    ends: Option<Box<StreamEnds>>,
    ahead: BytesMut,
}

impl<'h, R: RestOverHttp2> Http2Recipient<'h, R> {
    /// Answers by `respond`. What the client does not take counts in `untaken`.
    pub(in crate::proxy) fn new(
        respond: SendResponse<Bytes>,
        rest: R,
        (untaken, sections): (&'h UntakenAnswers, &'h UntakenSections),
    ) -> Self {
        Http2Recipient {
            respond,
            head: None,
            writer: None,
            rest,
            untaken,
            sections,
            taken: 0,
            gave_up: None,
            tunnel: None,
            ends: None,
            ahead: BytesMut::new(),
        }
    }

    /// The same, which can become a tunnel by which `upload` comes, and count among `tunnels`.
    pub(in crate::proxy) fn with_tunnel(self, upload: Upload, tunnels: &'h Tunnels) -> Self {
        Http2Recipient { tunnel: Some((upload, tunnels)), ..self }
    }

    /// What would have come by a tunnel, if it has become none.
    pub(in crate::proxy) fn untunnelled(self) -> Option<Upload> {
        self.tunnel.map(|(upload, _)| upload)
    }

    /// What of the request's body is left.
    pub(in crate::proxy) fn into_rest(self) -> R {
        self.rest
    }

    /// Takes the `head` of an answer: what is told beside what the backend says is added.
    fn take(&mut self, answer: &Answer, mut head: Response<()>, standing: Option<Standings<'_>>) -> Result<()> {
        if answer.is_interim() {
            if !self.sections.add_interim(head.headers()) {
                return Ok(());
            }
            return self.respond.send_informational(head).map_err(gone);
        }
        let headers = head.headers_mut();
        if let Some(length) = answer.told_length() {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if let Some(standing) = standing {
            rate_headers::write(headers, standing);
        }
        headers.insert(DATE, get_cached_date());
        self.head = Some(head);
        Ok(())
    }

    /// Sends `data`, before it the header if it was not sent yet, and after it the `end`. What comes of the request's
    /// body meanwhile goes `to` the backend, if there is one.
    async fn send(&mut self, mut data: Bytes, end: bool, mut to: Option<&mut impl RequestSink>) -> Result<()> {
        if let Some(head) = self.head.take() {
            if !self.sections.add(head.headers()) {
                return Err(too_much());
            }
            let at_once = end && data.is_empty();
            self.writer = Some(self.respond.send_response(head, at_once).map_err(gone)?);
            if at_once {
                return Ok(());
            }
        }
        let Some(writer) = &mut self.writer else { return Err(Error::new_str("a body before its header").into_in()) };
        if data.is_empty() {
            return if end { writer.send_data(data, true).map_err(gone) } else { Ok(()) };
        }
        writer.reserve_capacity(data.len());
        let (rest, untaken, length, mut held) = (&mut self.rest, self.untaken, data.len(), None);
        while !data.is_empty() {
            let room = poll_fn(|cx| {
                let room = writer.poll_capacity(cx);
                if room.is_pending() {
                    held.get_or_insert_with(|| untaken.hold(length));
                    return to.as_mut().map_or(Poll::Pending, |to| {
                        to.look_ahead(cx);
                        rest.poll(cx, &mut **to).map(Err)
                    });
                }
                room.map(Ok)
            });
            let room = match Alarm::default().within(CLIENT_TIMEOUT, room).await {
                Ok(room) => Ok(room?),
                Err(late) => Err(late),
            };
            let room = match room {
                Ok(Some(room)) => room.map_err(gone)?,
                Ok(None) => return Err(Error::explain(ErrorType::ConnectionClosed, "the stream is closed").into_down()),
                Err(_) => return Err(Error::explain(ErrorType::WriteTimedout, "sending an answer").into_down()),
            };
            let part = data.split_to(room.min(data.len()));
            self.taken += part.len();
            writer.send_data(part, end && data.is_empty()).map_err(gone)?;
        }
        Ok(())
    }
}

/// The client is gone, or reset the stream.
fn gone(error: h2::Error) -> Box<Error> {
    Error::because(ErrorType::ConnectionClosed, "the client gave the stream up", error).into_down()
}

/// The client does not take what it has asked for.
fn too_much() -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, "the client takes no header sections").into_down()
}

fn status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("it was found to be one from 100 to 999")
}

impl<R: RestOverHttp2> Recipient for Http2Recipient<'_, R> {
    const TAKES_FIELDS: bool = true;

    type Rest = R;

    fn gather(&mut self, cx: &mut std::task::Context<'_>) {
        self.rest.gather(cx);
    }

    fn reads_ahead(&self) -> usize {
        self.untaken.room(self.taken)
    }

    fn rest(&mut self) -> &mut R {
        &mut self.rest
    }

    fn poll_meanwhile(&mut self, cx: &mut std::task::Context<'_>, to: &mut impl RequestSink) -> Poll<Box<Error>> {
        if let Poll::Ready(error) = self.rest.poll(cx, to) {
            return Poll::Ready(error);
        }
        let reset = match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|reset| match reset {
            Ok(reason) => {
                self.gave_up = Some(reason);
                Error::explain(ErrorType::ConnectionClosed, format!("the client gave the stream up: {reason}"))
                    .into_down()
            }
            Err(error) => gone(error),
        })
    }

    async fn head(
        &mut self,
        answer: &Answer,
        _bytes: &[u8],
        lines: LinesOf<'_>,
        standing: Option<Standings<'_>>,
    ) -> Result<()> {
        let mut head = Response::new(());
        // What is a change of protocol over HTTP/1.1 is a success here (RFC 8441 section 5).
        *head.status_mut() = if answer.switches() { StatusCode::OK } else { status(answer.status) };
        let headers = head.headers_mut();
        let accepted = |name: &[u8]| answer.switches() && is(name, b"sec-websocket-accept");
        for (name, value) in answer.lines(lines, standing.is_some()).filter(|(name, _)| !accepted(name)) {
            // The parser took them, so they are a name and a value.
            let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a malformed header").into_up());
            };
            headers.append(name, value);
        }
        self.take(answer, head, standing)
    }

    fn head_in_fields(
        &mut self,
        answer: &Answer,
        mut fields: HeaderMap,
        standing: Option<Standings<'_>>,
    ) -> Result<()> {
        answer.pass_fields(&mut fields, standing.is_some());
        let mut head = Response::new(());
        (*head.status_mut(), *head.headers_mut()) = (status(answer.status), fields);
        self.take(answer, head, standing)
    }

    async fn pass(&mut self, body: &mut AnswerBody, buffer: &mut BytesMut, to: &mut impl RequestSink) -> Result<usize> {
        let malformed = |_| Error::explain(ErrorType::InvalidHTTPHeader, "a malformed body").into_up();
        let data = body.take_data(buffer).map_err(malformed)?;
        let bytes = data.len();
        let trailers = if body.is_done() { body.trailers() } else { Trailers::default() };
        self.send(data, body.is_done() && trailers.is_empty(), Some(to)).await?;
        if let (false, Some(writer)) = (trailers.is_empty(), &mut self.writer) {
            let trailers = trailers.to_map();
            if !self.sections.add(&trailers) {
                return Err(too_much());
            }
            writer.send_trailers(trailers).map_err(gone)?;
        }
        Ok(bytes)
    }

    /// Nothing: only a stream ends with the answer, and it is read on without holding up anybody.
    async fn finish(&mut self, _to: &mut impl RequestSink) -> Result<()> {
        Ok(())
    }

    async fn reject(&mut self, rejection: Rejection, ctx: &Context, with_body: bool) -> Result<usize> {
        let body = rejection.body_of(ctx.form, &ctx.request_id, ctx.told());
        self.head = Some(rejection.header(ctx.form, &body, &ctx.request_id, ctx.told()));
        let body = if with_body { bytes_of(body) } else { Bytes::new() };
        let bytes = body.len();
        self.send(body, true, NOWHERE).await?;
        Ok(bytes)
    }

    fn ends(&mut self) -> Option<TunnelEnds<'_>> {
        let ((upload, tunnels), writer) = self.tunnel.take().zip(self.writer.take())?;
        let stream = &mut **self.ends.insert(Box::new(StreamEnds::new(upload, writer)));
        Some(TunnelEnds { stream, ahead: &mut self.ahead, tunnels })
    }

    fn break_off(&mut self, reason: Reason) {
        if reason == Reason::NO_ERROR {
            return;
        }
        match &mut self.writer {
            Some(writer) => writer.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn knows_resets(&self) -> bool {
        true
    }

    fn gave_up(&self) -> Option<Reason> {
        self.gave_up
    }
}
