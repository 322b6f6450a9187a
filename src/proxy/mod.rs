//! The way of one request, and every answer of our own.
//!
//! A plain request goes directly (module `direct`); every other one through Pingora's hooks, which are below. Both ways take the same
//! steps and share what decides in them.
//!
//! ```text
//! connection: header read and checked ─ malformed, too large, too slow ─────► reject
//!   │
//!   ▼ request_filter: admit = who, bucket, route, announced length ── no ────► reject
//!   │
//!   ▼ upstream_peer: lease a backend not yet tried ───── none left ──────────► reject 503
//!   │      ▲
//!   │      └── fail_to_connect: mark it tried, tell its health, next
//!   │      └── error_while_proxy: a kept connection died under an idempotent request: once more, elsewhere
//!   ▼ upstream_request_filter: X-Forwarded-*, X-Request-Id
//!   ▼ response_filter: hop-by-hop headers away, rate headers on
//!   ▼ logging: one line, always; the lease drops with the context
//! ```
//!
//! Retries: a request that could not connect has not been sent and may go on to another backend, whatever its method.
//! One that was sent may have been carried out. It is sent again only when it is idempotent (RFC 9110 section 9.2.2),
//! died on a connection that was kept from an earlier request, no byte of an answer had come, and its body is still at
//! hand; and then only once. When the pool has no other backend, the same one is asked again, over another connection.

mod activity;
mod admit;
mod chunked;
mod connection;
mod context;
mod counts;
mod direct;
mod explain;
mod failure;
mod head;
mod headers;
mod http2;
mod identify;
mod lines;
mod loan;
mod outcome;
mod parts;
mod patience;
mod peer;
mod rate_headers;
mod refused;
mod reject;
mod request_id;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::client::Directory;
use crate::clock::Clock;
use crate::limit::Nanos;
use crate::telemetry::{AccessLog, Explanation, Tally};
use failure::{MALFORMED_BODY, STALLED, is_timeout, rejection_for};
use headers::X_REQUEST_ID;
use loan::Loan;

pub use activity::{Activity, Busy};
pub use admit::{Admission, Asked, Gate, Limit, Target};
pub use connection::Downstream;
pub use context::Context;
pub use direct::Idle;
pub use identify::{Caller, Identity, KeySource, Recognised, UnknownKey, Walk, identify};
pub use lines::Fields;
use outcome::Outcome;
pub use parts::{ProxyParts, RateRules, Rules};
pub use patience::Patience;
pub use reject::Rejection;
pub use request_id::RequestId;
pub use settings::Limits;

/// The longest silence while a body is coming, and the longest that a client may take no byte of its answer; nginx's
/// `client_body_timeout` and `send_timeout`.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest silence in a body that comes after its answer.
const LATE_BODY: Duration = Duration::from_secs(1);

/// The hooks. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<ProxyParts>,
}

impl Proxy {
    /// A proxy of these parts.
    pub fn new(parts: ProxyParts) -> Self {
        Proxy { inner: Arc::new(parts) }
    }

    /// What the configuration says now.
    fn rules(&self) -> Guard<Arc<Rules>> {
        self.inner.rules.load()
    }

    fn limits(&self) -> Limits {
        self.rules().limits
    }

    fn access_log(&self) -> &AccessLog {
        &self.inner.access_log
    }

    fn tally(&self) -> &Arc<Tally> {
        &self.inner.tally
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    /// Decides on a request. The bucket is asked at the present moment, not at the one when the request began: a header
    /// that comes slowly must not buy tokens of the past.
    fn admit(&self, asked: Asked<'_, impl Fields>, ctx: &mut Context) -> Result<(), Rejection> {
        let rules = self.rules();
        ctx.max_body = rules.limits.max_body;
        ctx.rate_headers = rules.rate.is_some_and(|rate| rate.headers);
        self.gate(&rules, &self.inner.directory.load()).admit(asked, ctx.peer, self.nanos(), &mut ctx.admission)
    }

    /// Who would send a request with these headers over a connection from `peer`, how that is found out, and what the
    /// request would get at the present moment. Goes the way of a real request, but takes no token and counts nothing.
    pub fn explain(&self, peer: IpAddr, headers: &HeaderMap) -> Explanation {
        let rules = self.rules();
        let mut explained = self.gate(&rules, &self.inner.directory.load()).explain(headers, peer, self.nanos());
        explained
            .write_headers(rules.rate.is_some_and(|rate| rate.headers))
            .expect("all values are digits, quotes and letters");
        explained
    }

    fn gate<'g>(&'g self, rules: &'g Rules, directory: &'g Directory) -> Gate<'g> {
        Gate {
            identity: &rules.identity,
            directory,
            limiter: rules.rate.map(|rate| (self.inner.limiter.as_ref(), rate.default)),
            routes: &rules.routes,
            limits: &rules.limits,
        }
    }

    /// The limiter's time.
    fn nanos(&self) -> Nanos {
        self.inner.timeline.nanos(self.clock().now())
    }

    async fn reject(&self, session: &mut Session, rejection: Rejection, ctx: &mut Context) -> Result<()> {
        ctx.rejection = Some(rejection);
        reject::send(session, rejection, &ctx.request_id, ctx.told_standing()).await
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

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if let Some(loan) = Loan::of(session) {
            (ctx.started, ctx.started_wall) = (loan.since().at, loan.since().wall);
        }
        if session.req_header().version == Version::HTTP_10 {
            // RFC 9110 section 15.2: HTTP/1.0 knows no interim answers.
            session.set_ignore_info_resp(true);
        }
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
        ctx.peer = peer_ip(session);
        let outcome = self.admit(Asked::by(session.req_header()), ctx);
        counts::decided(self.tally(), ctx);
        if ctx.behind_proxy()
            && let Some(given) = session.get_header(X_REQUEST_ID).and_then(|id| RequestId::given(id.as_bytes()))
        {
            ctx.request_id = given;
        }
        match outcome {
            Ok(()) => Ok(false),
            Err(rejection) => {
                if let Some(refused) = refused::of(Target::of(session.req_header()), ctx, rejection) {
                    self.inner.decisions.record(refused);
                }
                self.reject(session, rejection, ctx).await.map(|()| true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let pool = Arc::clone(ctx.pool().ok_or_else(|| Error::new_str("a request that was not let in has no pool"))?);
        let (fresh, timeouts) = (ctx.resent.is_some() || !self.inner.pooled, pool.settings().timeouts);
        match ctx.lease().map(|lease| lease.backend().address()) {
            Some(address) => {
                counts::attempted(ctx);
                Ok(Box::new(peer::to(address, &timeouts, fresh)))
            }
            None => {
                ctx.rejection = Some(Rejection::NoHealthyBackend(pool.retry_after()));
                Error::e_explain(ErrorType::HTTPStatus(503), "no healthy backend is left")
            }
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let again = self.not_connected(ctx, &error);
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
        if let (false, Some(lease)) = (reused, &ctx.lease) {
            lease.backend().connected();
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::to_origin_form(request)?;
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let sender = headers::Sender { peer: ctx.peer, trusted: ctx.behind_proxy(), secure };
        headers::to_backend(request, sender, &ctx.request_id)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if session.body_bytes_read() as u64 > ctx.max_body && !session.was_upgraded() {
            ctx.rejection = Some(Rejection::BodyTooLarge);
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than limits.max_body");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::to_client(answer);
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            upgrade(session, answer)?;
        } else if answer.status.is_informational() {
            return Ok(());
        } else {
            // An answer that comes before the body is there is the last on its connection.
            session.set_close_on_response_before_downstream_finish(true);
            if Loan::of(session).is_some_and(Loan::is_last) {
                session.set_keepalive(None);
            }
        }
        if let Some(standing) = ctx.told_standing() {
            rate_headers::write(answer, standing)?;
        }
        if session.req_header().version == Version::HTTP_10 && answer.remove_header(&TRANSFER_ENCODING).is_some() {
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        _ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if end_of_stream && !session.was_upgraded() && !session.is_body_done() {
            // The backend has said all it had to say, so nobody waits for a body that does not come.
            session.set_read_timeout(Some(LATE_BODY));
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        if is_timeout(&error) && !session.is_body_done() {
            // The backend waits for a body that the client does not send.
            ctx.rejection = Some(Rejection::RequestTimeout);
            ctx.error = Some(STALLED.to_owned());
            error.set_retry(false);
            return error;
        }
        let repeatable = reused
            && session.req_header().method.is_idempotent()
            && session.response_written().is_none()
            && !session.as_downstream().retry_buffer_truncated();
        let again = self.broke_off(ctx, &error, repeatable);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let malformed =
            Loan::of(session).is_some_and(Loan::is_malformed).then_some(Rejection::BadRequest(MALFORMED_BODY));
        let rejection = ctx.rejection.or(malformed).or_else(|| rejection_for(error));
        if let Some(rejection) = rejection {
            // When this fails the client is gone, which the access log says.
            let _ = self.reject(session, rejection, ctx).await;
        }
        let error_code = rejection.map_or(0, |rejection| rejection.status().as_u16());
        FailToProxy { error_code, can_reuse_downstream: true }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let outcome = Outcome {
            status: session.response_written().map_or(0, |answer| answer.status.as_u16()),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            error,
        };
        self.ended(Target::of(session.req_header()), ctx, outcome);
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

/// The address at the other end of the connection; 0.0.0.0 when the kernel has forgotten it.
fn peer_ip(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip().to_canonical())
}

/// Lets the connection change its protocol, if the client asked for it.
fn upgrade(session: &Session, answer: &ResponseHeader) -> Result<()> {
    if !session.is_upgrade_req() || answer.version != Version::HTTP_11 {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 that nobody asked for").into_up());
    }
    if let Some(loan) = Loan::of(session) {
        loan.set_upgraded();
    }
    Ok(())
}
