//! A client's connection over HTTP/1: waits for its requests, holds little while it does, closes it well.
//!
//! This stands in for Pingora's own loop, which bounds each read of a header but not their sum (Pingora issue 447),
//! answers malformed headers with an empty body, keeps idle connections for ever, and closes with a reset that can
//! overtake the answer. What is decided here: `limits.header_timeout` counts from the first byte of a header to its
//! last (on a new connection from its start), `limits.keepalive_timeout` bounds the silence between requests, and a
//! client that sends requests ahead gets its answers in order (RFC 9112 section 9.3.2). Requests go
//! [directly](super::direct), or by Pingora's loop where the configuration says so.
//!
//! A connection is awake while it has requests ([`Downstream::serve_requests`]), and for [`DOZE`] after each of them.
//! Then it gives up everything that only requests need: their future, their buffers, the lists of their lines. What is
//! left is the socket, the seat, and a future that waits: 1 to 2 KiB in all, and no buffer. Asleep after every request,
//! each would pay for waking up.
//!
//! When the server stops, each connection gets one more answer, with `Connection: close`. One on which no request is
//! under way is closed after some silence ([`Patience`]), which may be over already. nginx closes idle connections at
//! once, and with them the requests that cross the close on their way; HAProxy has `idle-close-on-response` against
//! that.
//!
//! [`Patience`]: crate::proxy::downstream::patience::Patience

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use crate::clock::{Alarm, Late};
use crate::proxy::downstream::activity::Busy;
use crate::proxy::downstream::address::{ends, tls_version};
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::arrived::{data_of, read_what_is_there};
use crate::proxy::downstream::closing::close;
use crate::proxy::downstream::head::Head;
use crate::proxy::downstream::head_reading::read_head;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::socket::ClientSocket;
use crate::proxy::exchange::asking;
use crate::proxy::exchange::client::ReceivedRequest;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::failure::STOPPED;
use crate::proxy::exchange::http1::Http1Request;
use crate::proxy::exchange::scratch::{Origin, Scratch};
use crate::proxy::exchange::takes::{Purpose, purpose};
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::settings::ListenerRules;
use crate::proxy::pingora::loan::{HalfClose, Loan, Returned};
use crate::proxy::service::begun_head::BegunHead;
use crate::proxy::service::downstream::{After, Downstream, GONE, HeadRefusal};
use crate::proxy::service::handshake::Opened;
use crate::proxy::wire::chunked::MalformedChunks;
use crate::proxy::wire::lines::Lines;
use crate::proxy::wire::order;
use crate::proxy::wire::request_body::Body;

/// For how long a connection is ready for its next request before it falls asleep. Shorter than any [`Patience`] with
/// which a stop waits for silence, so that nobody who dozes has to be told of one.
///
/// [`Patience`]: crate::proxy::downstream::patience::Patience
const DOZE: Duration = Duration::from_millis(250);
/// What is read at first, in bytes. Nearly all headers are shorter.
const FIRST: usize = 4 << 10;

/// A silence that a connection is in.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    /// Whether the connection has not said anything yet.
    fresh: bool,
    /// How many requests of it were refused in a row.
    refused: u32,
}

/// What waiting for a request came to.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and a box for each costs an allocation")]
enum NextRequest {
    /// A request.
    Request(Incoming),
    /// It is silent since then, and may fall asleep.
    Silent(Instant),
    /// The client went, or has to go.
    End,
}

/// A request that has begun to come.
struct Incoming {
    head: Head,
    /// What of its body is still to come.
    body: Body,
    /// What was read behind it.
    ahead: BytesMut,
    since: Arrival,
    /// What it asks for.
    asks: Purpose,
    there: BodyThere,
    /// The promise to serve it.
    _busy: Busy,
}

/// What of a request's body is there.
enum BodyThere {
    /// All of it.
    Whole,
    /// All of it; it came in chunks, and this was in them.
    Chunks(Vec<u8>),
    /// What is behind the header; the rest follows.
    Part,
}

impl BodyThere {
    /// What is to come of the body behind this `head`, where in `bytes` ends what has come, and what that is.
    fn behind(head: &Head, asks: Purpose, bytes: &[u8]) -> Result<(Body, usize, Self), Rejection> {
        let mut body = head.body.clone();
        let malformed = |MalformedChunks| Rejection::BadRequest("malformed body");
        let end = head.end + body.follow(&bytes[head.end..]).map_err(malformed)?;
        let there = Self::of((head, asks), &body, &bytes[head.end..end]);
        Ok((body, end, there))
    }

    /// What of the body behind this `head` is there: `came` has come of it, behind which `body` is to come.
    fn of((head, asks): (&Head, Purpose), body: &Body, came: &[u8]) -> Self {
        match &head.body {
            Body::Length(_) if body.is_done() => BodyThere::Whole,
            Body::Length(_) => BodyThere::Part,
            Body::Chunked(_) if !asks.sends_at_once() => BodyThere::Part,
            Body::Chunked(chunked) => data_of(chunked.clone(), came).map_or(BodyThere::Part, BodyThere::Chunks),
        }
    }
}

impl Downstream {
    /// Waits for the next header, unless one has `begun` to come that has so much time left, and reads it into
    /// `buffer`, which may hold its start already, and its lines into `lines`.
    async fn next(
        &self,
        stream: &mut Stream,
        (buffer, lines): (&mut BytesMut, &mut Lines),
        begun: Option<Duration>,
        (seat, alarm): (&Seat, &mut Alarm),
    ) -> Result<NextRequest, HeadRefusal> {
        let limits = self.app.limits();
        if begun.is_none() {
            let silent = self.app.clock().now();
            seat.silent(silent);
            if buffer.is_empty() {
                let doze = DOZE.min(limits.keepalive_timeout);
                let read = tokio::select! {
                    biased;
                    read = alarm.within(doze, read_some(stream, buffer)) => read,
                    () = seat.told() => return Ok(NextRequest::End),
                };
                match read {
                    Ok(Ok(1..)) => {}
                    Ok(_) => return Ok(NextRequest::End),
                    Err(Late) => return Ok(NextRequest::Silent(silent)),
                }
            }
        }
        let limit = begun.unwrap_or(limits.header_timeout);
        let busy = self.activity.begin();
        let since = self.app.arrival();
        let mut begun = BegunHead { downstream: self, stream, buffer, since, lost: Some(STOPPED) };
        let read = tokio::select! {
            biased;
            read = alarm.within(limit, read_head(begun.stream, begun.buffer, lines)) => read,
            () = seat.told() => {
                begun.lost = Some("its connection was closed to make room for another");
                return Ok(NextRequest::End);
            }
        };
        begun.lost = matches!(read, Ok(Ok(None))).then_some(GONE);
        drop(begun);
        seat.busy();
        let head = match read {
            Ok(Ok(Some(head))) => Ok(head),
            Ok(Ok(None)) => return Ok(NextRequest::End),
            Ok(Err(rejection)) => Err(rejection),
            Err(_) => Err(Rejection::RequestTimeout),
        };
        let asks = head.as_ref().map_or(Purpose::Special, |head| purpose(head, buffer, lines));
        if let (true, Ok(head)) = (asks.sends_at_once(), &head) {
            read_what_is_there(stream, buffer, head).await;
        }
        match head.and_then(|head| Ok((BodyThere::behind(&head, asks, buffer)?, head))) {
            Ok(((body, end, there), head)) => {
                let ahead = if end < buffer.len() { buffer.split_off(end) } else { BytesMut::new() };
                Ok(NextRequest::Request(Incoming { head, body, ahead, since, asks, there, _busy: busy }))
            }
            Err(rejection) => Err(HeadRefusal { rejection, since, _busy: busy }),
        }
    }

    /// Waits for the first bytes of a request; none when the client goes, is silent for too long, or has to go.
    async fn sleep(
        &self,
        stream: &mut Stream,
        silence: Silence,
        seat: &Seat,
        stopping: &mut ShutdownWatch,
    ) -> Option<BytesMut> {
        let limits = self.app.limits();
        let patience = if silence.fresh { limits.header_timeout } else { limits.keepalive_timeout };
        let mut buffer = BytesMut::new();
        let read = tokio::select! {
            biased;
            read = timeout(self.left(patience, silence.since), read_some(stream, &mut buffer)) => read,
            () = seat.told() => return None,
            () = stopped(stopping) => {
                timeout(self.left(self.patience.get(), silence.since), read_some(stream, &mut buffer)).await
            }
        };
        matches!(read, Ok(Ok(1..))).then_some(buffer)
    }

    /// What holds for the connections of this listener that come now.
    fn rules_of(&self, listener: SocketAddr) -> ListenerRules {
        self.app.rules().listeners.get(&listener).copied().unwrap_or_default()
    }

    /// What is left by now of a `limit` that counts since then.
    pub(in crate::proxy) fn left(&self, limit: Duration, since: Instant) -> Duration {
        limit.saturating_sub(self.app.clock().now().saturating_duration_since(since))
    }

    /// Hands one request that was let in to Pingora: its header, and what was read of its body, are in `buffer`. Gives
    /// the connection back when it can take another.
    async fn serve_by_loop(
        &self,
        stream: Stream,
        (buffer, lines, ctx): (BytesMut, Vec<u8>, Context),
        (body, ahead): (Body, BytesMut),
        seat: &Seat,
        shutdown: &Arc<ShutdownWatch>,
    ) -> Option<Returned> {
        let end = if self.app.limits().abort_on_half_close { HalfClose::Gone } else { HalfClose::Waits };
        let (loan, lender) = Loan::new((stream, end), body, ahead, self.waited(), Arc::clone(shutdown));
        let mut session = ServerSession::new_http1(Box::new(loan.with_request(lines, Box::new(ctx))));
        session.set_pipelined_prefix(buffer);
        let kept = self.proxy.process_new_http(session, shutdown).await.is_some();
        let returned = lender.take_back()?;
        // Whatever Pingora thinks, the next request starts where this one ends for us, or not at all.
        if returned.complete && (kept || returned.reusable) {
            return Some(returned);
        }
        let more = !returned.exhausted && (!returned.complete || !returned.ahead.is_empty());
        self.leave(seat, close(returned.stream, more)).await;
        None
    }

    /// Serves the request that begins with `buffer`, after a `silence`, and those that follow it, until the connection
    /// falls silent again. Gives it back then; none when it is closed.
    ///
    /// Long because what a request borrows stands here from one request to the next, and nothing of it moves.
    async fn serve_requests(
        &self,
        (mut stream, mut buffer): (Stream, BytesMut),
        silence: Silence,
        origin: Origin<'_>,
        seat: &Seat,
        shutdown: &Arc<ShutdownWatch>,
    ) -> Option<(Stream, Silence)> {
        let (mut lines, mut scratch) = (Lines::default(), Scratch::default());
        let limit = self.app.limits().header_timeout;
        let mut refused = silence.refused;
        let mut begun = Some(if silence.fresh { self.left(limit, silence.since) } else { limit });
        loop {
            let heard = (seat, &mut scratch.alarm);
            let next = self.next(&mut stream, (&mut buffer, &mut lines), begun.take(), heard).await;
            let Incoming { head, body, mut ahead, since, asks, there, _busy } = match next {
                Ok(NextRequest::Request(request)) => request,
                Ok(NextRequest::Silent(since)) => return Some((stream, Silence { since, fresh: false, refused })),
                Ok(NextRequest::End) => {
                    Box::pin(self.leave(seat, close(stream, false))).await;
                    return None;
                }
                Err(refusal) => {
                    let refusing = Box::pin(self.refuse(stream, &buffer, refusal));
                    self.leave(seat, refusing).await;
                    return None;
                }
            };
            let request = match &there {
                BodyThere::Whole => Http1Request::new(&buffer, &head, &lines, asks),
                BodyThere::Chunks(data) => Http1Request::new(&buffer, &head, &lines, asks).with_body(data),
                BodyThere::Part => Http1Request::part(&buffer, &head, &lines, asks),
            };
            let mut ctx = Context::of(since, origin);
            if let Some(asking) = request.admit(&self.app, origin, &mut ctx) {
                Box::pin(asking::decide(asking, (&request, origin), &self.app, &mut ctx)).await;
            }
            ctx.count_in(&mut refused);
            ctx.meet(|| ends(stream.get_socket_digest()?.as_ref()));
            if ctx.rejection.is_none() && asks.goes_by_loop(ctx.direct) {
                let came = order::text(lines.of(&buffer).iter());
                let request = (std::mem::take(&mut buffer), came, ctx);
                let serving = self.serve_by_loop(stream, request, (body, ahead), seat, shutdown);
                let returned = Box::pin(serving).await?;
                (stream, buffer) = (returned.stream, returned.ahead);
                continue;
            }
            let client = (&mut stream, &mut ahead);
            let after = if let BodyThere::Part = there {
                let first = buffer.split_off(head.end);
                let request = Http1Request::part(&buffer, &head, &lines, asks);
                let body = (&request, &head, first);
                Box::pin(self.serve_streaming(client, body, (&mut ctx, origin.secure), &mut scratch, shutdown)).await
            } else {
                self.serve_directly(client, &request, (&mut ctx, origin.secure), &mut scratch, shutdown).await
            };
            if after != After::Next {
                self.leave(seat, close(stream, after == After::ReadAndClose)).await;
                return None;
            }
            scratch.tidy();
            if !ahead.is_empty() || buffer.capacity() > FIRST {
                buffer = ahead;
            } else {
                buffer.clear();
            }
        }
    }
}

/// Reads what has come to the end of `buffer`, which has no more room than it needs; how many bytes that are, 0 at the
/// end of the connection.
pub(super) async fn read_some(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [const { MaybeUninit::uninit() }; FIRST];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

#[async_trait]
impl ServerApp for Downstream {
    /// What only some connections go through is boxed: the memory of an idle one is that of the largest state it can be
    /// in.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let mut socket = stream.into_any().downcast::<ClientSocket>().ok()?;
        let mut seat = self.seats.sit(socket.peer())?;
        let since = self.app.clock().now();
        let _open = self.app.tally().connection();
        let (mut stopping, mut shutdown) = (shutdown.clone(), shutdown.clone());
        // A stop that has begun already counts as a change, too.
        if *shutdown.borrow_and_update() {
            shutdown.mark_changed();
        }
        let shutdown = Arc::new(shutdown);
        let rules = self.rules_of(socket.listener());
        if let Some(expected) = rules.proxy_protocol {
            seat = Box::pin(self.introduce(&mut socket, expected, (seat, since), &mut stopping)).await?;
        }
        let peer = socket.peer();
        let (mut stream, http2) = match self.open(socket, (&seat, since), rules.h2c, &mut stopping).await? {
            Opened::Http1(stream) => (stream, None),
            Opened::Http2(stream, busy) => (stream, Some(busy)),
        };
        let shown = stream.get_ssl().and_then(TlsRef::peer_certificate_der);
        let shown = shown.map(|certificate| Box::new(ShownCertificate::of(certificate)));
        let (secure, tls_version) = (stream.get_ssl_digest().is_some(), tls_version(&stream));
        let (redirect, certificate) = (rules.redirect_to_https, shown.as_deref());
        let origin = Origin { peer, secure, tls_version, redirect, certificate };
        if let Some(busy) = http2 {
            Box::pin(self.serve_http2((stream, origin), busy, &seat, shutdown)).await;
            return None;
        }
        let mut silence = Silence { since, fresh: true, refused: 0 };
        seat.silent(silence.since);
        loop {
            let Some(buffer) = self.sleep(&mut stream, silence, &seat, &mut stopping).await else {
                Box::pin(self.leave(&seat, close(stream, false))).await;
                return None;
            };
            let serving = self.serve_requests((stream, buffer), silence, origin, &seat, &shutdown);
            (stream, silence) = Box::pin(serving).await?;
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
