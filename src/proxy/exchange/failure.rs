//! What becomes of a request that failed: what the log says, and what the client gets.

use std::time::Instant;

use log::warn;
use pingora_core::{Error, ErrorSource, ErrorType};

use crate::proxy::exchange::context::{Context, Onward};
use crate::proxy::gate::rejection::Rejection;

/// Says what a backend did to a request, in the log and for the access line. Whether it is tried again.
pub(in crate::proxy) fn report(ctx: &mut Context, (why, now): (&str, Instant), onward: Onward) -> bool {
    let end = ctx.wall(now);
    if let Some(trace) = &mut ctx.trace {
        trace.fail_attempt(end, why);
    }
    if let (Some(pool), Some(backend)) = (ctx.pool(), &ctx.backend) {
        let then = match onward {
            Onward::Again => "; trying again",
            Onward::Unaffordable => "; the retry budget is spent",
            Onward::NoBackend | Onward::NoMore => "",
        };
        warn!("upstream {}: backend {backend}: {why}{then}", pool.name());
    }
    ctx.error = Some(why.to_owned());
    onward == Onward::Again
}

pub(in crate::proxy) const MALFORMED_BODY: &str = "malformed body";
/// What ends the requests that a stop does not wait for.
pub(in crate::proxy) const STOPPED: &str = "the server stopped";
pub(in crate::proxy) const STALLED: &str = "the client did not send its body in time";

pub(in crate::proxy) const TOO_MANY_INTERIM: &str = "more than 64 interim answers";

pub(in crate::proxy) fn is_timeout(error: &Error) -> bool {
    *error.etype() == ErrorType::ReadTimedout
}

/// The answer to a request that failed, unless its client is gone.
pub(in crate::proxy) fn rejection_for(error: &Error) -> Option<Rejection> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout) => {
            Some(Rejection::GatewayTimeout)
        }
        (ErrorSource::Upstream, _) => Some(Rejection::BadGateway),
        (ErrorSource::Downstream, ReadTimedout) => Some(Rejection::RequestTimeout),
        (ErrorSource::Downstream, ReadError | WriteError | WriteTimedout | ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => Some(Rejection::BadRequest(MALFORMED_BODY)),
        _ => Some(Rejection::Internal),
    }
}

/// What becomes of a request that is dropped while it goes on: the server stops, or its own thread has failed.
#[cold]
pub(in crate::proxy) fn cut(ctx: &mut Context) -> Box<Error> {
    ctx.error = Some(if std::thread::panicking() { "internal error" } else { STOPPED }.to_owned());
    Error::explain(ErrorType::ConnectionClosed, "cut").into_in()
}

/// What a client did to its own request, in words.
pub(in crate::proxy) fn client_reason(error: &Error) -> &'static str {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::WriteTimedout) => "the client did not take its answer in time",
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => STALLED,
        (ErrorSource::Downstream, _) => "the client closed the connection",
        (_, other) => other.as_str(),
    }
}
