//! What is counted of a request for the metrics.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use pingora_core::Error;

use crate::proxy::backend::stream::is_unprocessed;
use crate::proxy::exchange::context::Context;
use crate::proxy::gate::admit::Limit;
use crate::proxy::gate::identify::Caller;
use crate::telemetry::{Talker, Tally, Verdict};
use crate::upstream::{DurationExemplar, is_backends_fault, reason};

/// Counts what the limiter decided, if it was asked, and whose request it is; those of an IPv6 network of `ipv6_prefix`
/// bits are one caller's.
#[inline]
pub(in crate::proxy) fn decided(tally: &Tally, ctx: &Context, ipv6_prefix: u8) {
    let verdict = ctx.admission.limit.map(|limit| match limit {
        Limit::Allowed(_) => Verdict::Allowed,
        Limit::Limited(_) => Verdict::Limited,
        Limit::Blocked => Verdict::Blocked,
        Limit::Unlimited => Verdict::Unlimited,
    });
    tally.decided(verdict, || ctx.admission.caller.as_ref().and_then(|caller| talker(caller, ipv6_prefix)));
    if let Some(goes) = ctx.admission.candidate {
        tally.tried(goes);
    }
}

/// What a caller is told by.
#[cold]
fn talker(caller: &Caller, ipv6_prefix: u8) -> Option<Talker> {
    if let Some((client, _)) = &caller.client {
        return Some(Talker::Client(client.id.clone()));
    }
    let address = caller.address.to_canonical();
    let network = IpNet::new(address, if address.is_ipv4() { 32 } else { ipv6_prefix }).ok()?;
    Some(Talker::Address(network.trunc()))
}

/// Counts an attempt that was given a backend, if it is not the first.
pub(in crate::proxy) fn attempted(ctx: &Context) {
    if let (Some(pool), Some(lease), 2..) = (ctx.pool(), &ctx.lease, ctx.attempts) {
        pool.retried();
        lease.backend().retried();
    }
}

/// Counts an answer of this status, the header of which was there at `now`, for rules that go by what a backend answers
/// and how soon. One that says that the backend failed is none. That of a request whose body is `sent_on` as it comes
/// says how fast its client is. Whether it is a good one is known at its [end](passed_on).
pub(in crate::proxy) fn answered(ctx: &mut Context, status: u16, now: Instant, sent_on: bool) {
    if let Some(trace) = &mut ctx.trace {
        trace.answer_attempt(status);
    }
    match &ctx.lease {
        Some(lease) if status >= 500 => {
            lease.let_down(now, ctx.timeouts().unwrap_or_default().read);
            if let Some(pool) = ctx.pool() {
                pool.erred(lease, (now, ctx.wall(now)), || format!("it answered {status}"));
            }
        }
        Some(lease) if !sent_on => lease.answered(now),
        _ => {}
    }
}

/// Counts an answer of this status that was passed on to its end; that of a 101 is its header.
pub(in crate::proxy) fn passed_on(ctx: &Context, status: u16) {
    if let (Some(lease), 101 | 200..500) = (&ctx.lease, status) {
        lease.backend().did_well();
    }
}

/// Counts an attempt that its backend failed after it was connected, as was known at `now`. What it has not begun with,
/// it has not failed at.
pub(in crate::proxy) fn failed(ctx: &Context, error: &Error, now: Instant) {
    if let (Some(lease), true) = (&ctx.lease, is_backends_fault(error) && !is_unprocessed(error)) {
        lease.backend().failed();
        lease.let_down(now, ctx.timeouts().unwrap_or_default().read);
        if let Some(pool) = ctx.pool() {
            pool.erred(lease, (now, ctx.wall(now)), || reason(error));
        }
    }
}

/// Counts a request that has ended, and names it beside those that took as long if its trace is written down.
pub(in crate::proxy) fn ended(tally: &Tally, ctx: &Context, status: u16, duration: Duration) {
    let traffic = ctx.pool().map_or(tally.unrouted(), |pool| pool.traffic());
    traffic.record(status, duration);
    if let Some(trace) = ctx.trace.as_ref().filter(|trace| trace.own.sampled) {
        let (trace, end) = (u128::from_be_bytes(trace.own.trace.bytes()), ctx.started_wall + duration);
        traffic.name_exemplar(DurationExemplar { trace, duration, end });
    }
}
