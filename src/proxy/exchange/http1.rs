//! A client that speaks HTTP/1.1: its requests and its answers, in bytes.

use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::server::ShutdownWatch;
use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use crate::limit::Standing;
use crate::proxy::backend::answer::{Added, Answer};
use crate::proxy::backend::body::{AnswerBody, LAST_CHUNK};
use crate::proxy::downstream::activity::Tunnels;
use crate::proxy::downstream::arrival::is_stopping;
use crate::proxy::downstream::half_closed;
use crate::proxy::downstream::half_closed::HalfClosed;
use crate::proxy::downstream::head::Head;
use crate::proxy::exchange::client::{ReceivedRequest, Recipient, TunnelEnds};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::proxy::CLIENT_TIMEOUT;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::exchange::{request, upgrade};
use crate::proxy::gate::admit::RequestTarget;
use crate::proxy::gate::headers::Sender;
use crate::proxy::gate::headers::Underscores;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::settings::Limits;
use crate::proxy::wire::lines::{Fields, Lines, LinesOf, is};

/// The most of a body that is copied to leave together with its header.
const COPIED: usize = 16 << 10;
/// How many bytes of requests sent ahead are read while one is being answered.
const AHEAD: usize = 4 << 10;
/// How many of them are read at once.
const AHEAD_CHUNK: usize = 512;

/// A request that is there as a whole.
pub(in crate::proxy) struct Http1Request<'r> {
    bytes: &'r [u8],
    head: &'r Head,
    lines: &'r Lines,
    asks: Purpose,
    target: RequestTarget<'r>,
    body: &'r [u8],
    /// The length of the body, where the lines do not tell it.
    length: Option<usize>,
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
        Http1Request { bytes, head, lines, asks, target, body: &bytes[head.end..], length: None }
    }

    /// The same with a body that came in chunks, and has been taken out of them.
    pub(in crate::proxy) fn with_body(bytes: &'r [u8], head: &'r Head, lines: &'r Lines, body: &'r [u8]) -> Self {
        Http1Request { body, length: Some(body.len()), ..Http1Request::new(bytes, head, lines, Purpose::Answer) }
    }

    /// Its lines with their bytes.
    pub(in crate::proxy) fn lines(&self) -> LinesOf<'r> {
        self.lines.of(self.bytes)
    }

    /// Whether the client says that this request is its last one.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        match self.asks {
            Purpose::Answer => request::is_last(self.lines()),
            Purpose::Upgrade => upgrade::has_option(self.lines(), b"close"),
        }
    }

    /// The protocols that it offers.
    fn offered(&self) -> impl Iterator<Item = &'r [u8]> {
        let counts = self.asks == Purpose::Upgrade && self.body().is_empty();
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

    fn body(&self) -> &[u8] {
        self.body
    }

    fn write(&self, out: &mut Vec<u8>, mut sender: Sender, id: &RequestId) {
        // Where no byte is one, no name is looked through for it.
        if memchr::memchr(b'_', &self.bytes[..self.head.end]).is_none() {
            sender.underscores = Underscores::Pass;
        }
        let asked = (self.target.method, self.head.target.of_bytes(self.bytes));
        let lines = self.lines();
        match self.asks {
            Purpose::Answer => request::write(out, asked, || lines.iter(), self.length, (sender, id)),
            Purpose::Upgrade => {
                let going_on = || lines.iter().filter(|(name, _)| upgrade::goes_on(name, lines));
                request::write(out, asked, going_on, None, (sender, id));
                upgrade::append(out, self.offered());
            }
        }
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        self.offered().any(|offered| offered.eq_ignore_ascii_case(protocol))
    }
}

/// A client's connection, while it has a request.
pub(in crate::proxy) struct Http1Recipient<'c> {
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
    /// The limits of the moment, asked when the client ends its side.
    pub(in crate::proxy) limits: &'c (dyn Fn() -> Limits + Sync),
    /// Watches over a client that has ended its side.
    pub(in crate::proxy) half_closed: Option<Box<HalfClosed>>,
}

impl Http1Recipient<'_> {
    /// Whether no request is to follow this one: the server stops, or the client has nothing more to say.
    fn is_last(&self) -> bool {
        is_stopping(self.shutdown) || (self.half_closed.is_some() && self.ahead.is_empty())
    }

    async fn write(&mut self, bytes: Option<&[u8]>) -> Result<()> {
        let sent = write(self.stream, bytes.unwrap_or(self.out), CLIENT_TIMEOUT).await;
        if bytes.is_none() {
            self.out.clear();
        }
        self.keeps &= sent.is_ok();
        sent
    }
}

/// Sends `bytes` to the client. An error when a part of it takes longer than `limit` or it fails.
async fn write(stream: &mut Stream, bytes: &[u8], limit: Duration) -> Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        left = match timeout(limit, stream.write(left)).await {
            Ok(Ok(0)) => return Err(Error::explain(ErrorType::WriteError, "sending an answer").into_down()),
            Ok(Ok(sent)) => &left[sent..],
            failed => return Err(not_sent(failed.map(|sent| sent.err()))),
        };
    }
    match timeout(limit, stream.flush()).await {
        Ok(Ok(())) => Ok(()),
        failed => Err(not_sent(failed.map(|flushed| flushed.err()))),
    }
}

fn not_sent<E>(failed: Result<Option<std::io::Error>, E>) -> Box<Error> {
    let error = match failed {
        Ok(Some(error)) => Error::because(ErrorType::WriteError, "sending an answer", error),
        Ok(None) => Error::explain(ErrorType::WriteError, "sending an answer"),
        Err(_) => Error::explain(ErrorType::WriteTimedout, "sending an answer"),
    };
    error.into_down()
}

impl Recipient for Http1Recipient<'_> {
    /// What the client sends meanwhile is the start of its next request, and behind 4 KiB of that it cannot be seen
    /// whether it has gone. One that has ended its side is still there, unless `limits.abort_on_half_close` says otherwise.
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

    async fn head(
        &mut self,
        answer: &Answer,
        bytes: &[u8],
        lines: LinesOf<'_>,
        standing: Option<&Standing>,
    ) -> Result<()> {
        self.keeps &= !self.is_last();
        let date = get_cached_date();
        answer.write(self.out, bytes, lines, Added { standing, date: date.as_bytes(), keeps: self.keeps });
        if answer.is_interim() { self.write(None).await } else { Ok(()) }
    }

    async fn pass(&mut self, body: &mut AnswerBody, buffer: &mut BytesMut) -> Result<usize> {
        let ready = body.left().unwrap_or_default().min(buffer.len());
        if ready <= COPIED {
            let malformed = |_| Error::explain(ErrorType::InvalidHTTPHeader, "a malformed body").into_up();
            let bytes = body.take(buffer, self.out).map_err(malformed)?;
            self.write(None).await?;
            return Ok(bytes);
        }
        if !self.out.is_empty() {
            self.write(None).await?;
        }
        self.write(Some(&buffer[..ready])).await?;
        body.skip(buffer, ready);
        Ok(ready)
    }

    fn ends(&mut self) -> Option<TunnelEnds<'_>> {
        Some(TunnelEnds { stream: self.stream, ahead: self.ahead, tunnels: self.tunnels })
    }

    async fn end(&mut self) -> Result<()> {
        self.write(Some(LAST_CHUNK)).await
    }

    async fn reject(&mut self, rejection: Rejection, ctx: &Context, with_body: bool) -> Result<usize> {
        self.keeps &= !self.is_last();
        self.out.clear();
        let body = rejection.append(self.out, &ctx.request_id, ctx.told_standing(), self.keeps, with_body);
        self.write(None).await.map(|()| body)
    }

    fn break_off(&mut self) {
        self.keeps = false;
    }
}
