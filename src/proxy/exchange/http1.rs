//! A client that speaks HTTP/1.1: its requests and its answers, in bytes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use h2::Reason;
use http::uri::PathAndQuery;
use http::{Method, Version};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::server::ShutdownWatch;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use crate::proxy::backend::answer::{Added, Answer};
use crate::proxy::backend::body::{AnswerBody, Unmeasured};
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::backend::stream::RequestFields;
use crate::proxy::downstream::activity::Tunnels;
use crate::proxy::downstream::arrival::is_stopping;
use crate::proxy::downstream::half_closed;
use crate::proxy::downstream::half_closed::HalfClosed;
use crate::proxy::downstream::head::Head;
use crate::proxy::exchange::client::{ReceivedRequest, Recipient, TunnelEnds};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::interim::InterimAnswers;
use crate::proxy::exchange::proxy::CLIENT_TIMEOUT;
use crate::proxy::exchange::request::Framing;
use crate::proxy::exchange::rest::RestOverHttp1;
use crate::proxy::exchange::sending::write;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::exchange::{request, upgrade};
use crate::proxy::gate::admit::RequestTarget;
use crate::proxy::gate::headers::Sender;
use crate::proxy::gate::headers::Underscores;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::{LINGER, Rejection};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::settings::Limits;
use crate::proxy::wire::lines::{Fields, Lines, LinesOf, is};
use crate::proxy::wire::request_body::Body;
use crate::upstream::Protocol;

/// The most of a body that is copied to leave together with its header.
const COPIED: usize = 16 << 10;
/// How many bytes of requests sent ahead are read while one is being answered.
const AHEAD: usize = 4 << 10;
/// How many of them are read at once.
const AHEAD_CHUNK: usize = 512;
/// Where the rest of a body goes while nobody takes it.
const NOWHERE: Option<&mut tokio::io::Empty> = None;

/// A request, of whose body all is there, or what is not sent on.
pub(in crate::proxy) struct Http1Request<'r> {
    bytes: &'r [u8],
    head: &'r Head,
    lines: &'r Lines,
    asks: Purpose,
    target: RequestTarget<'r>,
    body: &'r [u8],
    framing: Framing,
    /// Whether some of its body is to come.
    is_part: bool,
}

impl<'r> Http1Request<'r> {
    /// The request in `bytes`, its body included, of which `head` and `lines` tell, and which `asks` for something.
    pub(in crate::proxy) fn new(bytes: &'r [u8], head: &'r Head, lines: &'r Lines, asks: Purpose) -> Self {
        let host = lines.of(bytes).iter().find(|(name, _)| is(name, b"host")).map(|(_, host)| host);
        let path = head.target.of_bytes(bytes).split(|byte| *byte == b'?').next();
        // What has passed the checks of a header is ASCII.
        let text = |bytes: Option<&'r [u8]>| bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default();
        let target =
            RequestTarget { method: text(Some(head.method.of_bytes(bytes))), host: text(host), path: text(path) };
        let (body, framing) = (&bytes[head.end..], Framing::AsSaid);
        Http1Request { bytes, head, lines, asks, target, body, framing, is_part: false }
    }

    /// The same, of whose body nothing is in `bytes`, for it is sent on.
    pub(in crate::proxy) fn part(bytes: &'r [u8], head: &'r Head, lines: &'r Lines, asks: Purpose) -> Self {
        let framing = if let Body::Chunked(_) = head.body { Framing::Chunks } else { Framing::AsSaid };
        Http1Request { framing, is_part: true, ..Http1Request::new(&bytes[..head.end], head, lines, asks) }
    }

    /// The same with a body that came in chunks, and has been taken out of them.
    pub(in crate::proxy) fn with_body(self, body: &'r [u8]) -> Self {
        Http1Request { body, framing: Framing::Length(body.len()), ..self }
    }

    /// Its lines with their bytes.
    pub(in crate::proxy) fn lines(&self) -> LinesOf<'r> {
        self.lines.of(self.bytes)
    }

    /// Whether it is one of HTTP/1.0.
    pub(in crate::proxy) fn is_bare(&self) -> bool {
        self.head.version == 0
    }

    /// Whether the client says that this request is its last one.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        match self.asks {
            _ if self.head.version == 0 => !upgrade::has_option(self.lines(), b"keep-alive"),
            Purpose::Answer => request::is_last(self.lines()),
            Purpose::Special | Purpose::Expectation | Purpose::Upgrade => upgrade::has_option(self.lines(), b"close"),
        }
    }

    /// The protocols that it offers.
    fn offered(&self) -> impl Iterator<Item = &'r [u8]> {
        let counts = self.asks == Purpose::Upgrade && self.body().is_empty() && !self.is_part;
        upgrade::offers(self.lines()).filter(move |_| counts)
    }
}

impl ReceivedRequest for Http1Request<'_> {
    fn fields(&self) -> impl Fields {
        self.lines()
    }

    fn target(&self) -> RequestTarget<'_> {
        self.target
    }

    fn version(&self) -> Version {
        if self.is_bare() { Version::HTTP_10 } else { Version::HTTP_11 }
    }

    fn asked(&self) -> &[u8] {
        self.head.target.of_bytes(self.bytes)
    }

    fn body(&self) -> &[u8] {
        self.body
    }

    fn length(&self) -> Option<u64> {
        match (self.is_part, &self.head.body) {
            (false, _) => Some(self.body.len() as u64),
            (true, Body::Length(length)) => Some(*length),
            (true, Body::Chunked(_)) => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>, _to: Protocol, mut sender: Sender, id: &RequestId) {
        // Where no byte is one, no name is looked through for it.
        if memchr::memchr(b'_', &self.bytes[..self.head.end]).is_none() {
            sender.underscores = Underscores::Pass;
        }
        let asked = (self.target.method, self.head.target.of_bytes(self.bytes));
        let lines = self.lines();
        match self.asks {
            Purpose::Answer => request::write(out, asked, || lines.iter(), self.framing, (sender, id)),
            Purpose::Special | Purpose::Expectation | Purpose::Upgrade => {
                let going_on = || lines.iter().filter(|(name, _)| upgrade::goes_on(name, lines));
                request::write(out, asked, going_on, self.framing, (sender, id));
                upgrade::append(out, self.offered());
            }
        }
    }

    fn in_fields(&self, sender: Sender, id: &RequestId) -> Option<RequestFields> {
        let lines = self.lines();
        let going_on = || {
            let all = self.asks == Purpose::Answer;
            lines.iter().filter(move |(name, _)| all || upgrade::goes_on(name, lines))
        };
        Some(RequestFields {
            method: Method::from_bytes(self.target.method.as_bytes()).ok()?,
            target: PathAndQuery::try_from(self.asked()).ok()?,
            fields: request::fields(going_on, self.framing, false, (sender, id))?,
        })
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        self.offered().any(|offered| offered.eq_ignore_ascii_case(protocol))
    }
}

/// A client's connection, while it has a request of whose body `R` is to come.
pub(in crate::proxy) struct Http1Recipient<'c, R> {
    /// The connection.
    pub(in crate::proxy) stream: &'c mut Stream,
    /// What came over it behind the request.
    pub(in crate::proxy) ahead: &'c mut BytesMut,
    /// What is to be sent.
    pub(in crate::proxy) out: &'c mut Vec<u8>,
    /// True when the server stops.
    pub(in crate::proxy) shutdown: &'c ShutdownWatch,
    /// Where it counts when it becomes a tunnel.
    pub(in crate::proxy) tunnels: &'c Tunnels,
    /// Whether it stays after the answer.
    pub(in crate::proxy) keeps: bool,
    /// Whether it speaks HTTP/1.0: it knows neither chunks nor interim answers.
    pub(in crate::proxy) bare: bool,
    /// The limits of the moment, asked when the client ends its side.
    pub(in crate::proxy) limits: &'c (dyn Fn() -> Limits + Sync),
    /// Interim answers that it has not taken yet.
    pub(in crate::proxy) interim: InterimAnswers,
    /// Watches over a client that has ended its side.
    pub(in crate::proxy) half_closed: Option<Box<HalfClosed>>,
    /// What of the request's body is to come.
    pub(in crate::proxy) rest: R,
}

impl<R: RestOverHttp1> Http1Recipient<'_, R> {
    /// Whether no request is to follow this one: the server stops, or the client has nothing more to say.
    fn is_last(&self) -> bool {
        is_stopping(self.shutdown) || (self.half_closed.is_some() && self.ahead.is_empty())
    }

    /// Sends `bytes`, or else what is to be sent, behind interim answers that are not. What comes of the request's body
    /// meanwhile goes `to` the backend, if there is one.
    async fn write(&mut self, bytes: Option<&[u8]>, mut to: Option<&mut impl RequestSink>) -> Result<()> {
        let all;
        let bytes = if self.interim.are_sent() {
            bytes
        } else {
            all = [&self.interim.take(), bytes.unwrap_or(self.out)].concat();
            self.out.clear();
            Some(&all[..])
        };
        let (rest, ahead) = (&mut self.rest, &mut *self.ahead);
        let sent = write(self.stream, bytes.unwrap_or(self.out), CLIENT_TIMEOUT, |cx, stream| match &mut to {
            Some(to) => {
                to.look_ahead(cx);
                rest.poll(cx, (stream, ahead), &mut **to)
            }
            None => Poll::Pending,
        });
        let sent = sent.await;
        if bytes.is_none() {
            self.out.clear();
        }
        self.keeps &= sent.is_ok();
        sent
    }
}

impl<R: RestOverHttp1> Http1Recipient<'_, R> {
    /// Waits until the client goes.
    ///
    /// What it sends meanwhile is the start of its next request, and behind 4 KiB of that it cannot be seen
    /// whether it has gone. One that has ended its side is still there, unless `limits.abort_on_half_close` says
    /// otherwise.
    fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Box<Error>> {
        let gone = || Error::explain(ErrorType::ConnectionClosed, "the client went").into_down();
        while self.half_closed.is_none() && self.ahead.len() < AHEAD {
            let mut bytes = [0; AHEAD_CHUNK];
            let mut bytes = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut bytes));
            if half_closed::is_end(&read, bytes.filled().len()) {
                if (self.limits)().abort_on_half_close {
                    return Poll::Ready(gone());
                }
                self.half_closed = Some(Box::new(HalfClosed::new()));
            } else if let Err(error) = read {
                return Poll::Ready(Error::because(ErrorType::ReadError, "the client went", error).into_down());
            }
            self.ahead.extend_from_slice(bytes.filled());
        }
        match &mut self.half_closed {
            Some(watch) => watch.poll_reset(cx, self.stream).map(|()| gone()),
            None => Poll::Pending,
        }
    }

    /// Reads the rest of the request's body for nothing; whether its end was reached.
    async fn discard(&mut self) -> bool {
        let Http1Recipient { rest, stream, ahead, .. } = self;
        let end = poll_fn(|cx| rest.poll_discard(cx, (stream, ahead)));
        let whole = matches!(timeout(LINGER, end).await, Ok(Ok(())));
        if !whole {
            rest.set_exhausted();
        }
        whole
    }
}

impl<R: RestOverHttp1> Recipient for Http1Recipient<'_, R> {
    type Rest = R;

    fn rest(&mut self) -> &mut R {
        &mut self.rest
    }

    fn poll_meanwhile(&mut self, cx: &mut std::task::Context<'_>, to: &mut impl RequestSink) -> Poll<Box<Error>> {
        if !self.interim.are_sent()
            && let Poll::Ready(Err(error)) = self.interim.poll_send(cx, self.stream)
        {
            return Poll::Ready(Error::because(ErrorType::WriteError, "sending an interim answer", error).into_down());
        }
        if let Poll::Ready(error) = self.rest.poll(cx, (self.stream, self.ahead), to) {
            return Poll::Ready(error);
        }
        match self.rest.relay() {
            // What comes is of the body.
            Some(relay) if !relay.is_read() => Poll::Pending,
            _ => self.poll_gone(cx),
        }
    }

    async fn head(
        &mut self,
        answer: &Answer,
        bytes: &[u8],
        lines: LinesOf<'_>,
        standing: Option<Standings<'_>>,
    ) -> Result<()> {
        let bare = self.bare;
        if bare && answer.is_interim() {
            return Ok(());
        }
        // An answer that comes before the body is there is the last on its connection.
        let is_read = answer.is_interim() || self.rest.relay().is_none_or(|relay| relay.is_read());
        self.keeps &= is_read && !self.is_last() && !(bare && answer.body.is_unmeasured());
        let date = get_cached_date();
        let added = Added { standing, date: date.as_bytes(), keeps: self.keeps, bare };
        if answer.is_interim() {
            self.interim.add(|out| answer.write(out, bytes, lines, added));
        } else {
            answer.write(self.out, bytes, lines, added);
        }
        Ok(())
    }

    async fn pass(&mut self, body: &mut AnswerBody, buffer: &mut BytesMut, to: &mut impl RequestSink) -> Result<usize> {
        let ready = body.left().unwrap_or_default().min(buffer.len());
        if ready <= COPIED {
            let malformed = |_| Error::explain(ErrorType::InvalidHTTPHeader, "a malformed body").into_up();
            let how = if self.bare { Unmeasured::Bare } else { Unmeasured::WithTrailers };
            let bytes = body.take(buffer, self.out, how).map_err(malformed)?;
            self.write(None, Some(to)).await?;
            return Ok(bytes);
        }
        if !self.out.is_empty() {
            self.write(None, Some(&mut *to)).await?;
        }
        self.write(Some(&buffer[..ready]), Some(to)).await?;
        body.skip(buffer, ready);
        Ok(ready)
    }

    fn ends(&mut self) -> Option<TunnelEnds<'_>> {
        Some(TunnelEnds { stream: self.stream, ahead: self.ahead, tunnels: self.tunnels })
    }

    async fn finish(&mut self, to: &mut impl RequestSink) -> Result<()> {
        if let Some(relay) = self.rest.relay() {
            relay.answer_ends();
        }
        let end = poll_fn(|cx| {
            let failed = self.rest.poll(cx, (self.stream, self.ahead), to);
            match self.rest.relay() {
                Some(relay) if failed.is_pending() && !relay.is_over() => Poll::Pending,
                _ => Poll::Ready(failed),
            }
        });
        match end.await {
            // What the backend does not take any more, it does not want.
            Poll::Ready(error) if *error.esource() != ErrorSource::Upstream => Err(error),
            _ => Ok(()),
        }
    }

    async fn reject(&mut self, rejection: Rejection, ctx: &Context, with_body: bool) -> Result<usize> {
        // A 408 is sent because the client's bytes stopped coming: there is nothing to read to the end.
        let reads_on = rejection != Rejection::RequestTimeout && self.rest.is_worth_reading();
        self.keeps &= reads_on && !ctx.closes && !self.is_last();
        self.out.clear();
        let body = rejection.append(ctx.form, self.out, &ctx.request_id, ctx.told(), (self.keeps, with_body));
        self.write(None, NOWHERE).await?;
        if reads_on && self.rest.relay().is_some_and(|relay| !relay.is_read()) {
            self.keeps &= self.discard().await;
        }
        Ok(body)
    }

    fn break_off(&mut self, _reason: Reason) {
        self.keeps = false;
    }
}
