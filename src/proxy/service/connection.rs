//! A client's connection: reads each request's header, lends the connection to Pingora for the rest, closes it well.
//!
//! This stands in for Pingora's own loop, which bounds each read of a header but not their sum (Pingora issue 447),
//! answers malformed headers with an empty body, keeps idle connections for ever, and closes with a reset that can
//! overtake the answer. What is decided here: `limits.header_timeout` counts from the first byte of a header to its
//! last (on a new connection from its start), `limits.keepalive_timeout` bounds the silence between requests, and a
//! client that sends requests ahead gets its answers in order (RFC 9112 section 9.3.2). A request that is plain goes
//! [directly](super::direct), every other one by Pingora.
//!
//! When the server stops, each connection gets one more answer, with `Connection: close`. One on which no request is under
//! way is closed after some silence ([`Patience`]), which may be over already. nginx closes idle connections at once, and
//! with them the requests that cross the close on their way; HAProxy has `idle-close-on-response` against that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::io::AsyncReadExt;

use crate::proxy::downstream::activity::Busy;
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::arrived::{data_of, read_what_is_there};
use crate::proxy::downstream::closing::close;
use crate::proxy::downstream::head::Head;
use crate::proxy::downstream::head_reading::read_head;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::socket::Socket;
use crate::proxy::exchange::http1::Http1Request;
use crate::proxy::exchange::scratch::{Origin, Scratch};
use crate::proxy::exchange::takes::{Purpose, takes};
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::pingora::loan::{HalfClose, Loan, Returned};
use crate::proxy::service::downstream::{After, Downstream, HeadRefusal};
use crate::proxy::service::handshake::Opened;
use crate::proxy::wire::chunked::MalformedChunks;
use crate::proxy::wire::lines::Lines;
use crate::proxy::wire::order;
use crate::proxy::wire::request_body::Body;

/// What is read at first, in bytes. Nearly all headers are shorter, and an idle connection holds as much.
const FIRST: usize = 2 << 10;
/// What waiting for a request came to.
enum NextRequest {
    /// A request.
    Request(Incoming),
    /// The client went or was silent for too long, or the server stops.
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
    way: RequestWay,
    /// The promise to serve it.
    _busy: Busy,
}

/// Which way a request goes.
enum RequestWay {
    /// Directly, since all of it is there; this is what it asks for.
    Whole(Purpose),
    /// Directly, with this body, which came in chunks.
    Chunks(Vec<u8>),
    /// Directly, and its body follows as it comes.
    Part(Purpose),
    /// By Pingora's loop.
    Loop,
}

impl RequestWay {
    /// The way of a request with this `head`, for what it asks for when it goes directly: `came` has come of its body, behind
    /// which `body` is to come.
    fn of(asks: Option<Purpose>, head: &Head, (body, came): (&Body, &[u8])) -> Self {
        match (asks, &head.body) {
            (None, _) => RequestWay::Loop,
            (Some(asks), Body::Length(_)) if body.is_done() => RequestWay::Whole(asks),
            (Some(asks), Body::Length(_)) => RequestWay::Part(asks),
            (Some(asks), Body::Chunked(chunked)) => {
                data_of(chunked.clone(), came).map_or(RequestWay::Part(asks), RequestWay::Chunks)
            }
        }
    }
}

impl Downstream {
    /// Waits for the next header and reads it into `buffer`, which may hold its start already, and its lines into `lines`.
    /// On a `fresh` connection the wait for its first byte is part of the time that a header may take.
    async fn next(
        &self,
        stream: &mut Stream,
        (buffer, lines): (&mut BytesMut, &mut Lines),
        (fresh, seat): (bool, &Seat),
        shutdown: &mut ShutdownWatch,
    ) -> Result<NextRequest, HeadRefusal> {
        let limits = self.app.limits();
        let mut limit = limits.header_timeout;
        if buffer.is_empty() {
            let opened = self.app.clock().now();
            seat.silent(opened);
            let patience = if fresh { limits.header_timeout } else { limits.keepalive_timeout };
            if !self.first_bytes(stream, buffer, (patience, opened), seat, shutdown).await {
                return Ok(NextRequest::End);
            }
            if fresh {
                limit = limit.saturating_sub(self.app.clock().now().saturating_duration_since(opened));
            }
        } else {
            seat.silent(self.app.clock().now());
        }
        let busy = self.activity.begin();
        let since = self.arrival();
        let read = tokio::select! {
            biased;
            read = timeout(limit, read_head(stream, buffer, lines)) => read,
            () = seat.told() => return Ok(NextRequest::End),
        };
        seat.busy();
        let head = match read {
            Ok(Ok(Some(head))) => Ok(head),
            Ok(Ok(None)) => return Ok(NextRequest::End),
            Ok(Err(rejection)) => Err(rejection),
            Err(_) => Err(Rejection::RequestTimeout),
        };
        let asks = head.as_ref().ok().and_then(|head| takes(head, buffer, lines));
        if let (Some(_), Ok(head)) = (asks, &head) {
            read_what_is_there(stream, buffer, head).await;
        }
        let request = head.and_then(|head| {
            let mut body = head.body.clone();
            let malformed = |MalformedChunks| Rejection::BadRequest("malformed body");
            let end = head.end + body.follow(&buffer[head.end..]).map_err(malformed)?;
            let way = RequestWay::of(asks, &head, (&body, &buffer[head.end..end]));
            Ok((head, body, end, way))
        });
        match request {
            Ok((head, body, end, way)) => {
                let ahead = if end < buffer.len() { buffer.split_off(end) } else { BytesMut::new() };
                Ok(NextRequest::Request(Incoming { head, body, ahead, since, way, _busy: busy }))
            }
            Err(rejection) => Err(HeadRefusal { rejection, since, _busy: busy }),
        }
    }

    /// Waits for the first bytes of a header, on a connection that is silent since `silent`; whether they came.
    async fn first_bytes(
        &self,
        stream: &mut Stream,
        buffer: &mut BytesMut,
        (patience, silent): (Duration, Instant),
        seat: &Seat,
        shutdown: &mut ShutdownWatch,
    ) -> bool {
        buffer.reserve(FIRST);
        let read = tokio::select! {
            biased;
            read = timeout(patience, stream.read_buf(buffer)) => read,
            () = seat.told() => return false,
            () = stopped(shutdown) => {
                let passed = self.app.clock().now().saturating_duration_since(silent);
                timeout(self.patience.get().saturating_sub(passed), stream.read_buf(buffer)).await
            }
        };
        matches!(read, Ok(Ok(1..)))
    }

    /// Hands one request to Pingora: its header, and what was read of its body, are in `buffer`. Gives the connection
    /// back when it can take another.
    async fn serve(
        &self,
        stream: Stream,
        (buffer, lines): (BytesMut, Vec<u8>),
        (body, ahead, since): (Body, BytesMut, Arrival),
        seat: &Seat,
        shutdown: &Arc<ShutdownWatch>,
    ) -> Option<Returned> {
        let end = if self.app.limits().abort_on_half_close { HalfClose::Gone } else { HalfClose::Waits };
        let since = (since, self.waited());
        let (loan, lender) = Loan::new((stream, end), body, ahead, since, Arc::clone(shutdown));
        let mut session = ServerSession::new_http1(Box::new(loan.with_lines(lines)));
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
}

#[async_trait]
impl ServerApp for Downstream {
    /// What only some connections go through is boxed: the memory of an idle one is that of the largest state it can be in.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let socket = stream.into_any().downcast::<Socket>().ok()?;
        let peer = socket.peer();
        let seat = self.seats.sit(peer)?;
        let _open = self.app.tally().connection();
        let (mut stopping, mut shutdown) = (shutdown.clone(), shutdown.clone());
        // A stop that has begun already counts as a change, too.
        let stopped = *shutdown.borrow_and_update();
        if stopped {
            shutdown.mark_changed();
        }
        let shutdown = Arc::new(shutdown);
        let mut buffer = BytesMut::new();
        let mut stream = match self.open(socket, &seat, &mut stopping).await? {
            Opened::Http1(opened) => opened,
            Opened::Http2(opened, busy) => {
                Box::pin(self.serve_http2(opened, busy, &seat, shutdown)).await;
                return None;
            }
        };
        let origin = Origin { peer, secure: stream.get_ssl_digest().is_some() };
        let (mut lines, mut scratch) = (Lines::default(), Scratch::default());
        let mut fresh = true;
        loop {
            let next = self.next(&mut stream, (&mut buffer, &mut lines), (fresh, &seat), &mut stopping).await;
            let Incoming { head, body, mut ahead, since, way, _busy } = match next {
                Ok(NextRequest::Request(request)) => request,
                Ok(NextRequest::End) => {
                    self.leave(&seat, close(stream, false)).await;
                    return None;
                }
                Err(refusal) => {
                    let refusing = Box::pin(self.refuse(stream, &buffer, refusal));
                    self.leave(&seat, refusing).await;
                    return None;
                }
            };
            fresh = false;
            let request = match &way {
                RequestWay::Whole(asks) => Http1Request::new(&buffer, &head, &lines, *asks),
                RequestWay::Chunks(data) => Http1Request::with_body(&buffer, &head, &lines, data),
                RequestWay::Part(asks) => {
                    let first = buffer.split_off(head.end);
                    let request = Http1Request::part(&buffer, &head, &lines, *asks);
                    let (client, body) = ((&mut stream, &mut ahead), (&request, &head, first));
                    let serving = self.serve_streaming(client, body, (since, origin), &mut scratch, &shutdown);
                    let after = Box::pin(serving).await;
                    if after != After::Next {
                        self.leave(&seat, close(stream, after == After::ReadAndClose)).await;
                        return None;
                    }
                    scratch.tidy();
                    buffer = ahead;
                    continue;
                }
                RequestWay::Loop => {
                    let came = order::text(lines.of(&buffer).iter());
                    let request = (std::mem::take(&mut buffer), came);
                    let serving = self.serve(stream, request, (body, ahead, since), &seat, &shutdown);
                    let returned = Box::pin(serving).await?;
                    (stream, buffer) = (returned.stream, returned.ahead);
                    continue;
                }
            };
            let client = (&mut stream, &mut ahead);
            let keeps = self.serve_directly(client, &request, (since, origin), &mut scratch, &shutdown).await;
            if !keeps {
                self.leave(&seat, close(stream, !ahead.is_empty())).await;
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

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
