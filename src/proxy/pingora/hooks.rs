//! Pingora's hooks: the way of a request that goes by its loop.
//!
//! A decision in a hook can be tested only through a socket, and the direct way would have to repeat it. So a hook
//! takes from the session what it needs, asks what both ways share, and says the outcome in Pingora's words; only what
//! is particular to Pingora's session stays here. What is known of a request from one hook to the next is in its
//! [`Context`]. No connection changes its protocol here: what may, goes directly.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::timeout;

use crate::proxy::downstream::pace::allowance;
use crate::proxy::exchange::asking;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::counts;
use crate::proxy::exchange::failure::{MALFORMED_BODY, STALLED, TOO_MANY_INTERIM, is_timeout, rejection_for};
use crate::proxy::exchange::outcome::{Break, RequestOutcome};
use crate::proxy::exchange::proxy::{CLIENT_TIMEOUT, Proxy};
use crate::proxy::gate::admit::{Asked, RequestTarget};
use crate::proxy::gate::grpc::{AnswerForm, is_grpc};
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rejection::{LINGER, Rejection};
use crate::proxy::pingora::admitted;
use crate::proxy::pingora::backend_side::Dial;
use crate::proxy::pingora::loan::Loan;
use crate::proxy::pingora::loop_request::LoopRequest;
use crate::proxy::pingora::peer;
use crate::proxy::pingora::{headers, send::send};
use crate::proxy::wire::order;
use crate::upstream::Wanted;

/// The longest silence in a body that comes after its answer.
const LATE_BODY: Duration = Duration::from_secs(1);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = LoopRequest;

    fn new_ctx(&self) -> LoopRequest {
        LoopRequest::new(Context::new(self.arrival(), IpAddr::from([0, 0, 0, 0])))
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default is a compression module, which costs every request and is not offered.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut LoopRequest) -> Result<()> {
        if let Some(admitted) = admitted::of(session) {
            **ctx = admitted;
        }
        ctx.begin(self, session.req_header());
        if session.req_header().version == Version::HTTP_10 {
            // RFC 9110 section 15.2: HTTP/1.0 knows no interim answers.
            session.set_ignore_info_resp(true);
        }
        // What asks for another protocol and may goes directly. Without this Pingora would let some of it happen here.
        session.req_header_mut().remove_header(&UPGRADE);
        let limits = self.limits();
        if !is_grpc(&session.req_header().headers) {
            (ctx.body_timeout, ctx.min_body_rate) = (Some(limits.body_timeout), limits.min_body_rate);
        }
        let patience = body_patience(session, ctx);
        session.set_read_timeout(patience);
        session.set_write_timeout(Some(CLIENT_TIMEOUT));
        if session.req_header().headers.contains_key(EXPECT) {
            // The 100 (Continue) comes before the body by its nature, and is no reason to close the connection.
            session.set_close_on_response_before_downstream_finish(false);
            session.set_total_drain_timeout(Some(LINGER));
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut LoopRequest) -> Result<bool> {
        if !ctx.is_decided() {
            // Nobody decided before, as the session is not one of our own.
            ctx.peer = peer_ip(session);
            if let Some(asking) = self.admit(Asked::by(session.req_header()), ctx) {
                asking::wait(asking, ctx, |ctx| self.admit(Asked::by(session.req_header()), ctx)).await;
            }
        }
        match ctx.rejection {
            None => Ok(false),
            Some(rejection) => self.reject(session, rejection, ctx).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut LoopRequest) -> Result<Box<HttpPeer>> {
        let pool = Arc::clone(ctx.pool().ok_or_else(|| Error::new_str("a request that was not let in has no pool"))?);
        let timeouts = ctx.timeouts().unwrap_or(pool.settings().timeouts);
        if ctx.lease(self.clock()).is_none() {
            let (why, waiter) = ctx.queue_up();
            let mut goes_on = false;
            if let Some(mut waiter) = waiter {
                let turn = timeout(pool.settings().queue.timeout, waiter.turn()).await.ok().flatten();
                goes_on = turn.is_some_and(|lease| ctx.take_up(lease));
                if !goes_on {
                    pool.waited_in_vain();
                }
            }
            if !goes_on {
                ctx.rejection = Some(why);
                return Error::e_explain(ErrorType::HTTPStatus(503), "no backend has room");
            }
            ctx.lease(self.clock());
        }
        match ctx.lease.as_ref().map(|lease| Arc::clone(lease.backend().site())) {
            Some(site) => {
                counts::attempted(ctx);
                let sent_again = ctx.outlives_connections(session.req_header().method.is_idempotent());
                let whose = ctx.whose(&site);
                let (fresh, limit, idle) = (ctx.fresh, timeouts.connect, timeouts.idle);
                let wanted = Wanted { fresh, sent_again, limit, idle, whose };
                ctx.course = Arc::default();
                let to_head = session.req_header().method == Method::HEAD;
                let (proxy, course, trusted) = (self.clone(), Arc::clone(&ctx.course), ctx.behind_proxy());
                let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
                let (limited, rewriting) = (ctx.told_standing().is_some(), ctx.rewriting(secure));
                let traced = ctx.trace.as_ref().is_some_and(|trace| trace.propagates);
                let dial = Dial { proxy, site, wanted, timeouts, to_head, trusted, traced, limited, course, rewriting };
                Ok(Box::new(peer::reached_by(dial)))
            }
            None => Error::e_explain(ErrorType::InternalError, "a backend that came free is gone"),
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut LoopRequest,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let again = self.not_connected(ctx, &error);
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut LoopRequest,
    ) -> Result<()> {
        ctx.idled = ctx.course.idled();
        if let (None, Some(lease)) = (ctx.idled, &ctx.lease) {
            lease.backend().connected();
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut LoopRequest,
    ) -> Result<()> {
        ctx.course.set_request(match Loan::of(session) {
            Some(loan) => loan.lines().to_vec(),
            None => order::text(pairs(&session.req_header().headers)),
        });
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        if let Some(trace) = &mut ctx.trace {
            trace.secure = Some(secure);
        }
        headers::to_backend(request, ctx.sender(secure), &ctx.request_id);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut LoopRequest,
    ) -> Result<()> {
        let limit = ctx.admission.max_body;
        ctx.received(session.body_bytes_read() as u64);
        if session.body_bytes_read() as u64 > limit && !is_grpc(&session.req_header().headers) {
            ctx.rejection = Some(Rejection::BodyTooLarge(limit));
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than it may be");
        }
        if ctx.min_body_rate.is_some() {
            let patience = body_patience(session, ctx);
            session.set_read_timeout(patience);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut LoopRequest,
    ) -> Result<()> {
        if answer.status.is_informational() && ctx.has_too_many_interim() {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, TOO_MANY_INTERIM).into_up());
        }
        if answer.status.is_server_error() {
            let whole = session.is_body_done() && !session.as_downstream().retry_buffer_truncated();
            let repeatable = whole && session.req_header().method.is_idempotent();
            if self.asks_another(ctx, answer.status.as_u16(), repeatable) {
                counts::answered(ctx, answer.status.as_u16(), self.clock().now(), false);
                ctx.asks_another = true;
                return Err(Error::explain(ErrorType::HTTPStatus(502), "another backend is asked").into_up());
            }
        }
        let to_old = session.req_header().version == Version::HTTP_10;
        if let (Some(came), Some(loan)) = (ctx.course.next_answer(), Loan::of(session))
            && !(to_old && answer.status.is_informational())
        {
            loan.add_answer(came);
        }
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 that nobody asked for").into_up());
        } else if answer.status.is_informational() {
            return Ok(());
        } else {
            let has_body = !session.is_body_empty();
            counts::answered(ctx, answer.status.as_u16(), self.clock().now(), has_body);
            // From now on the backend may take its time with the body, and the client with it.
            ctx.min_body_rate = None;
            session.set_read_timeout(ctx.body_timeout);
            // An answer that comes before the body is there is the last on its connection.
            session.set_close_on_response_before_downstream_finish(true);
            if Loan::of(session).is_some_and(Loan::is_last) {
                session.set_keepalive(None);
            }
        }
        ctx.answers(answer.status.as_u16());
        if let Some(costs) = ctx.course.take_costs() {
            self.settle(ctx, |_| costs);
        }
        if let Some(standing) = ctx.told_standing() {
            rate_headers::write(answer, standing);
        }
        if to_old && answer.remove_header(&TRANSFER_ENCODING).is_some() {
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut LoopRequest,
    ) -> Result<Option<Duration>> {
        ctx.sends(body.as_ref().map_or(0, Bytes::len) as u64);
        if end_of_stream && !session.is_body_done() {
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
        ctx: &mut LoopRequest,
        _reused: bool,
    ) -> Box<Error> {
        if std::mem::take(&mut ctx.asks_another) {
            error.set_retry(true);
            return error;
        }
        if let Some(why) = ctx.course.no_answer() {
            // Pingora sees no more than that reading failed.
            error = Error::explain(ErrorType::InvalidHTTPHeader, why).into_up();
        }
        if is_timeout(&error) && !session.is_body_done() && ctx.body_timeout.is_some() {
            // The backend waits for a body that the client does not send.
            ctx.rejection = Some(Rejection::RequestTimeout);
            ctx.error = Some(STALLED.to_owned());
            error.set_retry(false);
            return error;
        }
        ctx.idled = ctx.course.idled();
        let repeatable = !ctx.course.is_heard()
            && session.req_header().method.is_idempotent()
            && session.response_written().is_none()
            && !session.as_downstream().retry_buffer_truncated();
        let midway = session.response_written().is_some_and(|written| !written.status.is_informational());
        let again = self.broke_off(ctx, &error, Break { repeatable, midway });
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut LoopRequest) -> FailToProxy {
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

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut LoopRequest) {
        ctx.end();
        let status = session.response_written().map_or(0, final_status);
        let head = session.req_header();
        let outcome = RequestOutcome {
            version: head.version,
            grpc_status: None,
            // One of gRPC hides the one that everybody else would have got.
            status: match (ctx.form, ctx.rejection) {
                (AnswerForm::Grpc, Some(rejection)) if status != 0 => rejection.status().as_u16(),
                _ => status,
            },
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            error,
        };
        if error.is_none() && ctx.rejection.is_none() {
            counts::passed_on(ctx, status);
        }
        self.ended((RequestTarget::of(head), &head.headers), ctx, outcome);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &LoopRequest, _error: &Error) -> bool {
        true // `report` and the access log say it, in words that repeat, so that repeats can be counted.
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &LoopRequest,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Proxy {
    async fn reject(&self, session: &mut Session, rejection: Rejection, ctx: &mut Context) -> Result<()> {
        ctx.rejection = Some(rejection);
        if session.response_written().is_none_or(|written| written.status.is_informational()) {
            self.choose_words(rejection, &session.req_header().headers, ctx);
        }
        send(session, (rejection, ctx.form), &ctx.request_id, ctx.told()).await
    }
}

/// The lines of a header in a map.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// How long to wait for more of the body. Over HTTP/2 its session knows how fast it comes.
fn body_patience(session: &Session, ctx: &Context) -> Option<Duration> {
    let left = ctx
        .min_body_rate
        .zip(Loan::of(session))
        .map(|(rate, loan)| allowance(rate, session.body_bytes_read() as u64).saturating_sub(loan.waited()));
    ctx.body_timeout.into_iter().chain(left).min()
}

/// The address at the other end of the connection; 0.0.0.0 when the kernel has forgotten it.
fn peer_ip(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip().to_canonical())
}

/// The status of an answer that was begun; 0 while there were only interim ones.
fn final_status(written: &ResponseHeader) -> u16 {
    if written.status.is_informational() && written.status != StatusCode::SWITCHING_PROTOCOLS {
        return 0;
    }
    written.status.as_u16()
}

#[cfg(test)]
mod tests;
