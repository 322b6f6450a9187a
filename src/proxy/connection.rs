//! A client's connection: reads each request's header, lends the connection to Pingora for the rest, closes it well.
//!
//! This stands in for Pingora's own loop, which bounds each read of a header but not their sum (Pingora issue 447),
//! answers malformed headers with an empty body, keeps idle connections for ever, and closes with a reset that can
//! overtake the answer. What is decided here: `limits.header_timeout` counts from the first byte of a header to its last
//! (on a new connection from its start), `limits.keepalive_timeout` bounds the silence between requests, and a client that
//! sends requests ahead gets its answers in order (RFC 9112 section 9.3.2).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{Shutdown, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::activity::{Activity, Busy};
use super::chunked::Malformed;
use super::head::{self, Head};
use super::loan::{Body, Loan, Returned};
use super::reject::LINGER;
use super::{Proxy, Rejection, RequestId};
use crate::telemetry::AccessRecord;

/// What is read at once while a header is coming.
const CHUNK: usize = 4 << 10;
/// The longest a single read lasts while a connection is being closed.
const LINGER_READ: Duration = Duration::from_secs(1);

/// Serves connections: one for all listeners of a proxy.
pub struct Downstream {
    proxy: Arc<HttpProxy<Proxy>>,
    app: Proxy,
    activity: Arc<Activity>,
}

/// What waiting for a request came to.
enum Next {
    /// A request: what of its body is still to come, what was read behind it, and the promise to serve it.
    Request(Body, BytesMut, Busy),
    /// The client went or was silent for too long, or the server stops.
    End,
}

impl Downstream {
    /// Serves with `proxy`, whose hooks are `app`; counts its work in `activity`.
    pub fn new(proxy: HttpProxy<Proxy>, app: Proxy, activity: Arc<Activity>) -> Self {
        Downstream { proxy: Arc::new(proxy), app, activity }
    }

    /// Waits for the next header and reads it into `buffer`, which may hold its start already.
    async fn next(
        &self,
        stream: &mut Stream,
        buffer: &mut BytesMut,
        patience: Duration,
        shutdown: &mut ShutdownWatch,
    ) -> Result<Next, Rejection> {
        if buffer.is_empty() {
            buffer.reserve(CHUNK);
            let read = tokio::select! {
                biased;
                read = timeout(patience, stream.read_buf(buffer)) => read,
                _ = shutdown.wait_for(|stopping| *stopping) => return Ok(Next::End),
            };
            if !matches!(read, Ok(Ok(1..))) {
                return Ok(Next::End);
            }
        }
        let busy = self.activity.begin();
        let rest = async {
            let mut seen = 0;
            loop {
                // A header is parsed when its end may be there, and once before that, to refuse what never was one.
                if (seen == 0 || head::is_whole(buffer, seen) || buffer.len() > head::MAX_HEAD)
                    && let Some(head) = head::check(buffer)?
                {
                    return Ok(Some(head));
                }
                seen = buffer.len();
                buffer.reserve(CHUNK);
                if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
                    return Ok(None);
                }
            }
        };
        match timeout(self.app.limits().header_timeout, rest).await {
            Ok(Ok(Some(Head { end, mut body }))) => {
                let part = body.follow(&buffer[end..]).map_err(|Malformed| Rejection::BadRequest)?;
                let ahead = if end + part < buffer.len() { buffer.split_off(end + part) } else { BytesMut::new() };
                Ok(Next::Request(body, ahead, busy))
            }
            Ok(Ok(None)) => Ok(Next::End),
            Ok(Err(rejection)) => Err(rejection),
            Err(_) => Err(Rejection::RequestTimeout),
        }
    }

    /// Hands one request to Pingora: its header, and what was read of its body, are in `buffer`. Gives the connection back
    /// when it can take another.
    async fn serve(
        &self,
        stream: Stream,
        buffer: BytesMut,
        (body, ahead): (Body, BytesMut),
        shutdown: &ShutdownWatch,
    ) -> Option<Returned> {
        let (loan, lender) = Loan::new(stream, body, ahead);
        let mut session = ServerSession::new_http1(Box::new(loan));
        session.set_pipelined_prefix(buffer);
        let kept = self.proxy.process_new_http(session, shutdown).await.is_some();
        let returned = lender.take_back()?;
        if kept || returned.reusable {
            return Some(returned);
        }
        let more = returned.unread || !returned.ahead.is_empty();
        close(returned.stream, more).await;
        None
    }

    /// Answers what is not a request, and closes.
    async fn refuse(&self, mut stream: Stream, rejection: Rejection, since: (std::time::Instant, SystemTime)) {
        let request_id = RequestId::random();
        let answer = rejection.to_bytes(request_id);
        let sent = timeout(LINGER, async {
            stream.write_all(&answer).await?;
            stream.flush().await
        });
        let sent = matches!(sent.await, Ok(Ok(())));
        self.app.access_log().record(&AccessRecord {
            ts: since.1,
            request_id: request_id.as_str(),
            client_ip: peer(&stream),
            method: "-",
            host: b"",
            path: b"",
            status: if sent { rejection.status().as_u16() } else { 0 },
            duration: self.app.clock().now().saturating_duration_since(since.0),
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            backend: None,
            attempts: 0,
            error: Some(rejection.message()),
        });
        close(stream, true).await;
    }
}

#[async_trait]
impl ServerApp for Downstream {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let mut stopping = shutdown.clone();
        let mut buffer = BytesMut::new();
        let mut patience = self.app.limits().header_timeout;
        loop {
            let clock = self.app.clock();
            let since = (clock.now(), clock.wall());
            let (body, ahead, _busy) = match self.next(&mut stream, &mut buffer, patience, &mut stopping).await {
                Ok(Next::Request(body, ahead, busy)) => (body, ahead, busy),
                Ok(Next::End) => return None,
                Err(rejection) => {
                    self.refuse(stream, rejection, since).await;
                    return None;
                }
            };
            let returned = self.serve(stream, std::mem::take(&mut buffer), (body, ahead), shutdown).await?;
            stream = returned.stream;
            buffer = returned.ahead;
            patience = self.app.limits().keepalive_timeout;
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Closes the connection. When the client may still be sending, its bytes are read for a while first: closing with unread
/// data makes the kernel send a reset, which can overtake the answer (RFC 9112 section 9.6).
async fn close(mut stream: Stream, more: bool) {
    Shutdown::shutdown(stream.as_mut()).await;
    if !more {
        return;
    }
    let discard = async {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        while let Ok(Ok(1..)) = timeout(LINGER_READ, stream.read_buf(&mut bytes)).await {
            bytes.clear();
        }
    };
    let _ = timeout(LINGER, discard).await;
}

/// The address at the other end.
fn peer(stream: &Stream) -> IpAddr {
    stream
        .get_socket_digest()
        .and_then(|digest| Some(digest.peer_addr()?.as_inet()?.ip().to_canonical()))
        .unwrap_or(IpAddr::from([0, 0, 0, 0]))
}
