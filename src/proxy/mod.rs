//! The way of one request through Pingora's hooks, and every answer of our own.
//!
//! ```text
//! connection: header read and checked ─ malformed, too large, too slow ─────► reject
//!   │
//!   ▼ request_filter: admit = route, announced length ── no ───────────────► reject
//!   │
//!   ▼ upstream_peer: lease a backend not yet tried ───── none left ──────────► reject 503
//!   │      ▲
//!   │      └── fail_to_connect: mark it tried, tell its health, next
//!   │      └── error_while_proxy: a kept connection died under an idempotent request: once more, elsewhere
//!   ▼ upstream_request_filter: X-Forwarded-*, X-Request-Id
//!   ▼ response_filter: hop-by-hop headers away
//!   ▼ logging: one line, always; the lease drops with the context
//! ```
//!
//! Retries: a request that could not connect has not been sent and may go on to another backend, whatever its method.
//! One that was sent may have been carried out. It is sent again only when it is idempotent (RFC 9110 section 9.2.2), died
//! on a connection that was kept from an earlier request, no byte of an answer had come, and its body is still at hand;
//! and then only once. When the pool has no other backend, the same one is asked again, over another connection.

mod activity;
mod admit;
mod chunked;
mod connection;
mod context;
mod head;
mod headers;
mod loan;
mod reject;
mod request_id;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use http::header::{EXPECT, TRANSFER_ENCODING};
use log::warn;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::clock::Clock;
use crate::route::RouteTable;
use crate::telemetry::{AccessLog, AccessRecord};
use crate::upstream::{Check, Lease, Pool, reason};
use loan::Loan;

pub use activity::{Activity, Busy};
pub use admit::{Admitted, admit};
pub use connection::Downstream;
pub use context::Context;
pub use reject::Rejection;
pub use request_id::RequestId;
pub use settings::Limits;

/// The longest silence while a body is coming, and the longest that a client may take no byte of its answer; nginx's
/// `client_body_timeout` and `send_timeout`.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The hooks. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    routes: RouteTable<Arc<Pool>>,
    limits: Limits,
    access_log: AccessLog,
    clock: Arc<dyn Clock>,
}

impl Proxy {
    /// A proxy for the pools that `routes` lead to.
    pub fn new(routes: RouteTable<Arc<Pool>>, limits: Limits, access_log: AccessLog, clock: Arc<dyn Clock>) -> Self {
        Proxy { inner: Arc::new(Inner { routes, limits, access_log, clock }) }
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn access_log(&self) -> &AccessLog {
        &self.inner.access_log
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.clock().now(), self.clock().wall())
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default is a compression module, which costs every request and is not offered.
    }

    async fn early_request_filter(&self, session: &mut Session, _ctx: &mut Context) -> Result<()> {
        session.set_read_timeout(Some(CLIENT_TIMEOUT));
        session.set_write_timeout(Some(CLIENT_TIMEOUT));
        if session.req_header().headers.contains_key(EXPECT) {
            // The 100 (Continue) comes before the body by its nature, and is no reason to close the connection.
            session.set_close_on_response_before_downstream_finish(false);
            session.set_total_drain_timeout(Some(reject::LINGER));
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.client = client_ip(session);
        match admit(session.req_header(), &self.inner.routes, self.limits()) {
            Ok(admitted) => {
                ctx.pool = Some(admitted.pool);
                Ok(false)
            }
            Err(rejection) => {
                ctx.rejection = Some(rejection);
                reject::send(session, rejection, ctx.request_id).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let pool = ctx.pool.as_ref().ok_or_else(|| Error::new_str("no pool"))?;
        let lease = pool.lease(&ctx.tried).or_else(|| if ctx.resent { pool.lease(&[]) } else { None });
        let Some(lease) = lease else {
            ctx.rejection = Some(Rejection::NoHealthyBackend(retry_after(pool)));
            return Err(Error::explain(ErrorType::HTTPStatus(503), "no healthy backend is left"));
        };
        let peer = peer(&lease, pool);
        ctx.lease = Some(lease);
        ctx.attempts += 1;
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let why = reason(&error);
        if let (Some(pool), Some(lease)) = (&ctx.pool, &ctx.lease) {
            pool.connect_failed(lease.backend(), self.clock().now(), &why);
        }
        let again = ctx.may_try_again();
        report(ctx, &why, again);
        ctx.give_up_backend();
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        if let (false, Some(pool), Some(lease)) = (reused, &ctx.pool, &ctx.lease) {
            pool.connected(lease.backend());
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::to_backend(request, ctx.client, ctx.request_id)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if session.body_bytes_read() as u64 > self.limits().max_body {
            ctx.rejection = Some(Rejection::BodyTooLarge);
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than limits.max_body");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        _ctx: &mut Context,
    ) -> Result<()> {
        headers::to_client(answer);
        if session.req_header().version == Version::HTTP_10 && answer.remove_header(&TRANSFER_ENCODING).is_some() {
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let broken =
            matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed);
        let again = reused
            && broken
            && *error.esource() == ErrorSource::Upstream
            && !ctx.resent
            && ctx.may_try_again()
            && session.req_header().method.is_idempotent()
            && session.response_written().is_none()
            && !session.as_downstream().retry_buffer_truncated();
        if *error.esource() == ErrorSource::Upstream {
            report(ctx, &reason(&error), again);
        }
        if again {
            ctx.resent = true;
            ctx.give_up_backend();
        }
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let malformed = Loan::of(session).is_some_and(Loan::is_malformed).then_some(Rejection::BadRequest);
        let rejection = ctx.rejection.or(malformed).or_else(|| rejection_for(error));
        if let Some(rejection) = rejection {
            ctx.rejection = Some(rejection);
            // When this fails the client is gone, which the access log says.
            let _ = reject::send(session, rejection, ctx.request_id).await;
        }
        let error_code = rejection.map_or(0, |rejection| rejection.status().as_u16());
        FailToProxy { error_code, can_reuse_downstream: true }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if !session.is_body_done()
            && let Some(loan) = Loan::of(session)
        {
            loan.set_unread();
        }
        let head = session.req_header();
        let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
        let because = ctx.error.as_deref().or(ctx.rejection.map(Rejection::message)).or(error.map(client_reason));
        self.access_log().record(&AccessRecord {
            ts: ctx.started_wall,
            request_id: ctx.request_id.as_str(),
            client_ip: ctx.client.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            method: head.method.as_str(),
            host: admit::host(head).as_bytes(),
            path: head.uri.path().as_bytes(),
            status,
            duration: self.clock().now().saturating_duration_since(ctx.started),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            upstream: ctx.pool.as_ref().map(|pool| pool.name()),
            backend: ctx.lease.as_ref().map(|lease| lease.backend().address()),
            attempts: ctx.attempts,
            error: because,
        });
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true // `report` and the access log say it, in words that repeat, so that repeats can be counted.
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Who sent the request.
fn client_ip(session: &Session) -> Option<IpAddr> {
    Some(session.client_addr()?.as_inet()?.ip().to_canonical())
}

/// How Pingora is to connect to the leased backend.
fn peer(lease: &Lease, pool: &Pool) -> HttpPeer {
    let timeouts = pool.settings().timeouts;
    let mut peer = HttpPeer::new(lease.backend().address(), false, String::new());
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    peer
}

/// Seconds until another try is worth it: by then every backend has been checked again, or has rested.
fn retry_after(pool: &Pool) -> u64 {
    let health = &pool.settings().health;
    let wait = match health.check {
        Check::None => crate::upstream::health::REST,
        _ => health.interval,
    };
    wait.as_millis().div_ceil(1000).max(1) as u64
}

/// Says what a backend did to a request, in the log and for the access line.
fn report(ctx: &mut Context, why: &str, again: bool) {
    if let (Some(pool), Some(lease)) = (&ctx.pool, &ctx.lease) {
        let then = if again { "; trying another backend" } else { "" };
        warn!("upstream {}: backend {}: {why}{then}", pool.name(), lease.backend().address());
    }
    ctx.error = Some(why.to_owned());
}

/// The answer to a request that failed, unless its client is gone.
fn rejection_for(error: &Error) -> Option<Rejection> {
    use ErrorType::{ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout};
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => Some(Rejection::GatewayTimeout),
        (ErrorSource::Upstream, _) => Some(Rejection::BadGateway),
        (ErrorSource::Downstream, ReadTimedout) => Some(Rejection::RequestTimeout),
        (ErrorSource::Downstream, ReadError | WriteError | WriteTimedout | ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => Some(Rejection::BadRequest),
        _ => Some(Rejection::Internal),
    }
}

/// What a client did to its own request, in words.
fn client_reason(error: &Error) -> &'static str {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::WriteTimedout) => "the client did not take its answer in time",
        (ErrorSource::Downstream, _) => "the client closed the connection",
        (_, other) => other.as_str(),
    }
}
