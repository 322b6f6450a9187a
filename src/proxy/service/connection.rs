//! A client's connection: reads each request's header, lends the connection to Pingora for the rest, closes it well.
//!
//! This stands in for Pingora's own loop, which bounds each read of a header but not their sum (Pingora issue 447),
//! answers malformed headers with an empty body, keeps idle connections for ever, and closes with a reset that can
//! overtake the answer. What is decided here: `limits.header_timeout` counts from the first byte of a header to its
//! last (on a new connection from its start), `limits.keepalive_timeout` bounds the silence between requests, and a
//! client that sends requests ahead gets its answers in order (RFC 9112 section 9.3.2). A request that is plain and there
//! as a whole goes [directly](super::direct), every other one by Pingora.
//!
//! When the server stops, each connection gets one more answer, with `Connection: close`. One on which no request is under
//! way is closed after some silence ([`Patience`]), which may be over already. nginx closes idle connections at once, and
//! with them the requests that cross the close on their way; HAProxy has `idle-close-on-response` against that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::backend::idle::Idle;
use crate::proxy::downstream::activity::{Activity, Busy, Tunnels};
use crate::proxy::downstream::address::peer;
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::arrived::{data_of, read_what_is_there};
use crate::proxy::downstream::budget::Budget;
use crate::proxy::downstream::closing::close;
use crate::proxy::downstream::head;
use crate::proxy::downstream::head::Head;
use crate::proxy::downstream::http2::unseen::Unseen;
use crate::proxy::downstream::pace::Waited;
use crate::proxy::downstream::patience::Patience;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::seats::Seats;
use crate::proxy::exchange::desk::{Desk, Origin};
use crate::proxy::exchange::http1::Whole;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::takes::{Asks, takes};
use crate::proxy::gate::rejection::LINGER;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::pingora::loan::{End, Loan, Returned};
use crate::proxy::service::handshake::Opened;
use crate::proxy::wire::chunked::Malformed;
use crate::proxy::wire::lines::Lines;
use crate::proxy::wire::order;
use crate::proxy::wire::request_body::Body;
use crate::telemetry::AccessRecord;
use crate::tls::TlsListeners;

/// What is read at first, in bytes. Nearly all headers are shorter, and an idle connection holds as much.
const FIRST: usize = 2 << 10;
/// What is read at once while a longer header is coming.
const CHUNK: usize = 4 << 10;
/// Serves connections: one for all listeners of a proxy.
pub struct Downstream {
    pub(in crate::proxy) proxy: Arc<HttpProxy<Proxy>>,
    pub(in crate::proxy) app: Proxy,
    pub(in crate::proxy) idle: Arc<Idle>,
    pub(in crate::proxy) tls: Arc<TlsListeners>,
    pub(in crate::proxy) activity: Arc<Activity>,
    pub(in crate::proxy) patience: Arc<Patience>,
    pub(in crate::proxy) tunnels: Arc<Tunnels>,
    /// What the windows of all connections in HTTP/2 may grow by.
    pub(in crate::proxy) budget: Arc<Budget>,
    seats: Arc<Seats>,
    /// Counts the requests that h2 resets unseen.
    pub(in crate::proxy) unseen: Unseen,
}

/// What waiting for a request came to.
enum Next {
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
    /// What it asks for, when it goes directly; then all of it is there.
    direct: Option<Asks>,
    /// Its body, when it came in chunks and goes directly.
    data: Option<Vec<u8>>,
    /// The promise to serve it.
    _busy: Busy,
}

/// What came is not a request.
pub(in crate::proxy) struct Refusal {
    pub(in crate::proxy) rejection: Rejection,
    pub(in crate::proxy) since: Arrival,
    /// It is work until it is answered.
    pub(in crate::proxy) _busy: Busy,
}

impl Downstream {
    /// Serves with `proxy`, whose hooks are `app`, or over the connections in `idle`; over TLS where `tls` says so; counts
    /// its work in `activity`. When the server stops, silent connections end as `patience` says. Each
    /// has one of the `seats`, which it was let in for.
    pub fn new(
        (proxy, app): (HttpProxy<Proxy>, Proxy),
        idle: Arc<Idle>,
        tls: Arc<TlsListeners>,
        (activity, patience): (Arc<Activity>, Arc<Patience>),
        seats: Arc<Seats>,
    ) -> Self {
        let unseen = Unseen::new(Arc::clone(app.tally()));
        Downstream {
            proxy: Arc::new(proxy),
            app,
            idle,
            tls,
            activity,
            patience,
            tunnels: Arc::default(),
            budget: Arc::new(Budget::new()),
            seats,
            unseen,
        }
    }

    /// Those of its connections that speak another protocol by now.
    pub fn tunnels(&self) -> Arc<Tunnels> {
        Arc::clone(&self.tunnels)
    }

    /// Waits for the next header and reads it into `buffer`, which may hold its start already, and its lines into `lines`.
    /// On a `fresh` connection the wait for its first byte is part of the time that a header may take.
    async fn next(
        &self,
        stream: &mut Stream,
        (buffer, lines): (&mut BytesMut, &mut Lines),
        (fresh, seat): (bool, &Seat),
        shutdown: &mut ShutdownWatch,
    ) -> Result<Next, Refusal> {
        let limits = self.app.limits();
        let mut limit = limits.header_timeout;
        if buffer.is_empty() {
            let opened = self.app.clock().now();
            seat.silent(opened);
            let patience = if fresh { limits.header_timeout } else { limits.keepalive_timeout };
            if !self.first_bytes(stream, buffer, (patience, opened), seat, shutdown).await {
                return Ok(Next::End);
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
            () = seat.told() => return Ok(Next::End),
        };
        seat.busy();
        let head = match read {
            Ok(Ok(Some(head))) => Ok(head),
            Ok(Ok(None)) => return Ok(Next::End),
            Ok(Err(rejection)) => Err(rejection),
            Err(_) => Err(Rejection::RequestTimeout),
        };
        let asks = head.as_ref().ok().and_then(|head| takes(head, buffer, lines));
        if let (Some(_), Ok(head)) = (asks, &head) {
            read_what_is_there(stream, buffer, head).await;
        }
        let request = head.and_then(|head| {
            let mut body = head.body.clone();
            let malformed = |Malformed| Rejection::BadRequest("malformed body");
            let end = head.end + body.follow(&buffer[head.end..]).map_err(malformed)?;
            let data = match &head.body {
                Body::Chunked(chunked) if asks.is_some() => data_of(chunked.clone(), &buffer[head.end..end]),
                _ => None,
            };
            let direct = asks.filter(|_| body.is_done() && (data.is_some() || matches!(body, Body::Length(_))));
            Ok((head, body, end, (direct, data)))
        });
        match request {
            Ok((head, body, end, (direct, data))) => {
                let ahead = if end < buffer.len() { buffer.split_off(end) } else { BytesMut::new() };
                Ok(Next::Request(Incoming { head, body, ahead, since, direct, data, _busy: busy }))
            }
            Err(rejection) => Err(Refusal { rejection, since, _busy: busy }),
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
        let end = if self.app.limits().abort_on_half_close { End::Gone } else { End::Waits };
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

    /// Answers what is not a request, and closes.
    pub(in crate::proxy) async fn refuse(
        &self,
        mut stream: Stream,
        head: &[u8],
        Refusal { rejection, since, _busy }: Refusal,
    ) {
        let request_id = RequestId::random();
        let mut answer = Vec::new();
        let body = rejection.append(&mut answer, &request_id, None, false, !head::is_for_head(head));
        let sent = timeout(LINGER, async {
            stream.write_all(&answer).await?;
            stream.flush().await
        });
        let sent = matches!(sent.await, Ok(Ok(())));
        let sent = sent.then_some(body);
        self.record_refusal(rejection, head::request_line(head), &request_id, sent, since, peer(&stream));
        close(stream, true).await;
    }

    /// What counts how long is waited.
    pub(in crate::proxy) fn waited(&self) -> Waited {
        Waited::new(Arc::clone(&self.app.inner.clock))
    }

    /// Now.
    pub(in crate::proxy) fn arrival(&self) -> Arrival {
        Arrival { at: self.app.clock().now(), wall: self.app.clock().wall() }
    }

    /// Counts and logs what was refused before it was a request; `sent` are the bytes of the answer's body, none when the
    /// client never got the answer.
    pub(in crate::proxy) fn record_refusal(
        &self,
        rejection: Rejection,
        (method, path): (&str, &[u8]),
        request_id: &RequestId,
        sent: Option<usize>,
        since: Arrival,
        peer: IpAddr,
    ) {
        let status = sent.map_or(0, |_| rejection.status().as_u16());
        let duration = self.app.clock().now().saturating_duration_since(since.at);
        self.app.tally().unrouted().record(status, duration);
        self.app.access_log().record(&AccessRecord {
            request_id: request_id.as_str(),
            method,
            path,
            bytes_out: sent.unwrap_or_default() as u64,
            status,
            duration,
            error: Some(&rejection.reason()),
            ..AccessRecord::bare(since.wall, peer)
        });
    }
}

/// Reads the rest of a header, with its target in origin form; `None` when the client went.
pub(in crate::proxy) async fn read_head(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    lines: &mut Lines,
) -> Result<Option<Head>, Rejection> {
    let mut seen = 0;
    loop {
        // A header is parsed when its end may be there, and once before that, to refuse what never was one.
        if (seen == 0 || head::is_whole(buffer, seen) || buffer.len() > head::MAX_HEAD)
            && let Some(head) = head::check(buffer, lines)?
        {
            let Some(rewritten) = head::in_origin_form(buffer, &head, lines) else { return Ok(Some(head)) };
            *buffer = rewritten;
            return head::check(buffer, lines);
        }
        seen = buffer.len();
        buffer.reserve(CHUNK);
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return Ok(None);
        }
    }
}

#[async_trait]
impl ServerApp for Downstream {
    /// What only some connections go through is boxed: the memory of an idle one is that of the largest state it can be in.
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let seat = self.seats.sit(peer(&stream))?;
        let _open = self.app.tally().connection();
        let (mut stopping, mut shutdown) = (shutdown.clone(), shutdown.clone());
        // A stop that has begun already counts as a change, too.
        let stopped = *shutdown.borrow_and_update();
        if stopped {
            shutdown.mark_changed();
        }
        let shutdown = Arc::new(shutdown);
        let mut buffer = BytesMut::new();
        match self.open(stream, &seat, &mut stopping).await? {
            Opened::Http1(opened) => stream = opened,
            Opened::Http2(opened, busy) => {
                Box::pin(self.serve_http2(opened, busy, &seat, shutdown)).await;
                return None;
            }
        }
        let origin = Origin { peer: peer(&stream), secure: stream.get_ssl_digest().is_some() };
        let (mut lines, mut desk) = (Lines::default(), Desk::default());
        let mut fresh = true;
        loop {
            let next = self.next(&mut stream, (&mut buffer, &mut lines), (fresh, &seat), &mut stopping).await;
            let Incoming { head, body, mut ahead, since, direct, data, _busy } = match next {
                Ok(Next::Request(request)) => request,
                Ok(Next::End) => {
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
            let Some(asks) = direct else {
                let came = order::text(lines.of(&buffer).iter());
                let request = (std::mem::take(&mut buffer), came);
                let serving = self.serve(stream, request, (body, ahead, since), &seat, &shutdown);
                let returned = Box::pin(serving).await?;
                (stream, buffer) = (returned.stream, returned.ahead);
                continue;
            };
            let request = match &data {
                Some(data) => Whole::with_body(&buffer, &head, &lines, data),
                None => Whole::new(&buffer, &head, &lines, asks),
            };
            let client = (&mut stream, &mut ahead);
            let keeps = self.serve_directly(client, &request, (since, origin), &mut desk, &shutdown).await;
            if !keeps {
                self.leave(&seat, close(stream, !ahead.is_empty())).await;
                return None;
            }
            desk.tidy();
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
