//! What is counted of a request for the metrics.

use std::time::{Duration, Instant};

use pingora_core::Error;

use crate::proxy::exchange::context::Context;
use crate::proxy::gate::admit::Limit;
use crate::telemetry::{Tally, Verdict};
use crate::upstream::is_backends_fault;

/// Counts what the limiter decided, if it was asked.
pub(in crate::proxy) fn decided(tally: &Tally, ctx: &Context) {
    match ctx.admission.limit {
        Some(Limit::Allowed(_)) => tally.decided(Verdict::Allowed),
        Some(Limit::Limited(_)) => tally.decided(Verdict::Limited),
        Some(Limit::Blocked) => tally.decided(Verdict::Blocked),
        Some(Limit::Unlimited) => tally.decided(Verdict::Unlimited),
        None => {}
    }
    if let Some(goes) = ctx.admission.candidate {
        tally.tried(goes);
    }
}

/// Counts an attempt that was given a backend, if it is not the first.
pub(in crate::proxy) fn attempted(ctx: &Context) {
    if let (Some(pool), 2..) = (ctx.pool(), ctx.attempts) {
        pool.retried();
    }
}

/// Counts an answer of this status, the header of which was there at `now`, for rules that go by how soon a backend
/// answers. One that says that the backend failed is none. That of a request whose body is `sent_on` as it comes says
/// how fast its client is.
pub(in crate::proxy) fn answered(ctx: &Context, status: u16, now: Instant, sent_on: bool) {
    match &ctx.lease {
        Some(lease) if status >= 500 => lease.let_down(now, ctx.timeouts().unwrap_or_default().read),
        Some(lease) if !sent_on => lease.answered(now),
        _ => {}
    }
}

/// Counts an attempt that its backend failed after it was connected, as was known at `now`.
pub(in crate::proxy) fn failed(ctx: &Context, error: &Error, now: Instant) {
    if let (Some(lease), true) = (&ctx.lease, is_backends_fault(error)) {
        lease.backend().failed();
        lease.let_down(now, ctx.timeouts().unwrap_or_default().read);
    }
}

/// Counts a request that has ended.
pub(in crate::proxy) fn ended(tally: &Tally, ctx: &Context, status: u16, duration: Duration) {
    ctx.pool().map_or(tally.unrouted(), |pool| pool.traffic()).record(status, duration);
}
