//! What an attempt at a backend comes to, and what a request comes to in the end: counted, told, logged. By whichever
//! way it went.

use http::Version;
use http::header::{REFERER, USER_AGENT};
use std::time::Duration;

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::proxy::backend::stream::is_unprocessed;
use crate::proxy::downstream::head::protocol_name;
use crate::proxy::exchange::context::{Context, Onward};
use crate::proxy::exchange::counts;
use crate::proxy::exchange::failure::{STALLED, client_reason, is_timeout, report};
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::relay::Relay;
use crate::proxy::gate::admit::{Limit, RequestTarget};
use crate::proxy::gate::grpc::{AnswerForm, status_for};
use crate::proxy::gate::identify::Caller;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::lines::Fields;
use crate::telemetry::{AccessRecord, RequestSpan};
use crate::upstream::{after_rest, is_backends_fault, reason, silent_midway};

/// How far an attempt had come that broke off.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Break {
    /// Whether the request may be carried out twice, nothing of an answer has come, and it is still there as a whole.
    pub(in crate::proxy) repeatable: bool,
    /// Whether the answer's header had been passed on.
    pub(in crate::proxy) midway: bool,
}

/// What a request came to.
pub(in crate::proxy) struct RequestOutcome<'a> {
    /// In which version of HTTP it came.
    pub(in crate::proxy) version: Version,
    /// The status of the answer, 0 when none was sent.
    pub(in crate::proxy) status: u16,
    /// Bytes of the request's body.
    pub(in crate::proxy) bytes_in: u64,
    /// Bytes of the answer's body.
    pub(in crate::proxy) bytes_out: u64,
    /// What a gRPC call came to.
    pub(in crate::proxy) grpc_status: Option<u32>,
    /// What went wrong, unless the context knows it better.
    pub(in crate::proxy) error: Option<&'a Error>,
}

impl Proxy {
    /// Takes note that the request's backend could not be reached; whether there is to be another attempt.
    pub(in crate::proxy) fn not_connected(&self, ctx: &mut Context, error: &Error) -> bool {
        let why = reason(error);
        // What this machine could not do says nothing about the backend.
        if let (true, Some(pool), Some(lease)) = (is_backends_fault(error), ctx.pool(), &ctx.lease) {
            pool.connect_failed(lease, self.clock().now(), &why);
        }
        let onward = if ctx.retry_on().connect { ctx.goes_on((false, false), self.clock()) } else { Onward::NoMore };
        if let (Onward::NoBackend, Some(pool)) = (onward, ctx.pool()) {
            // All have been tried, or those that have not have no room.
            ctx.rejection = Some(ctx.why_none(pool));
        }
        report(ctx, (&why, self.clock().now()), onward)
    }

    /// Takes note that the exchange with the request's backend broke off; whether to send it once more.
    pub(in crate::proxy) fn broke_off(
        &self,
        ctx: &mut Context,
        error: &Error,
        Break { repeatable, midway }: Break,
    ) -> bool {
        use ErrorType::{ConnectionClosed, H2Error, ReadError, ReadTimedout, WriteError, WriteTimedout};
        let on = ctx.retry_on();
        let unprocessed = is_unprocessed(error);
        let (wanted, late) = match error.etype() {
            _ if unprocessed => (on.connect || on.broken, false),
            ReadError | WriteError | ConnectionClosed | H2Error => (on.broken, false),
            ReadTimedout | WriteTimedout => (on.timeout, true),
            _ => (false, false),
        };
        if *error.esource() != ErrorSource::Upstream {
            return false;
        }
        counts::failed(ctx, error, self.clock().now());
        let why = match (ctx.timeouts(), ctx.idled) {
            (Some(limits), _) if midway && is_timeout(error) => silent_midway(limits.read),
            (_, Some(idle)) if !(midway || is_timeout(error) || idle.is_zero()) => after_rest(&reason(error), idle),
            _ => reason(error),
        };
        let kept = unprocessed || (ctx.idled.is_some() && !late);
        let onward = if repeatable && wanted { ctx.goes_on((kept, late), self.clock()) } else { Onward::NoMore };
        let again = report(ctx, (&why, self.clock().now()), onward);
        ctx.fresh = again && !late;
        again
    }

    /// Whether the request is to be sent to another backend, since its present one has answered with this `status`.
    /// `repeatable` is as in [`Break`]. If so, the next one has been chosen.
    pub(in crate::proxy) fn asks_another(&self, ctx: &mut Context, status: u16, repeatable: bool) -> bool {
        let again = repeatable && ctx.retry_on().status(status) && ctx.asks_another(self.clock());
        if again {
            report(ctx, (&format!("answered {status}"), self.clock().now()), Onward::Again);
        }
        again
    }

    /// Counts and logs a request that has ended: what it asked for, with which header.
    pub(in crate::proxy) fn ended(
        &self,
        (target, fields): (RequestTarget<'_>, &impl Fields),
        ctx: &Context,
        outcome: RequestOutcome<'_>,
    ) {
        let caller = ctx.admission.caller.as_ref();
        // A request that went well in the end went well; its attempts tell the rest.
        let failed = outcome.error.is_some() || ctx.rejection.is_some();
        let rejected = ctx.rejection.filter(|_| ctx.error.is_none()).map(Rejection::reason);
        let because = ctx.error.as_deref().or(rejected.as_deref());
        let because = because.or(outcome.error.map(client_reason)).filter(|_| failed);
        let grpc = (ctx.form == AnswerForm::Grpc).then(|| u32::from(status_for(outcome.status)));
        let duration = self.clock().now().saturating_duration_since(ctx.started);
        counts::ended(self.tally(), ctx, outcome.status, duration);
        write_down(ctx, target, (outcome.status, duration, because));
        if !self.access_log().is_on() {
            return;
        }
        let paid = ctx.admission.paid.as_ref();
        let candidate = (ctx.admission.candidate == Some(false)).then_some("candidate");
        let shadow = match (paid.and_then(|paid| paid.shadow()), candidate) {
            (Some(policies), Some(candidate)) => Some(format!("{policies},{candidate}")),
            (policies, candidate) => policies.or(candidate.map(str::to_owned)),
        };
        let limited_by = match ctx.rejection {
            Some(Rejection::TooManyAtOnce) => Some("max_concurrent"),
            _ => ctx.admission.standings().and_then(|all| all.refused_by()).map(|(name, _)| name),
        };
        let of_header = self.access_log().tells_of_header();
        let said = |name| if of_header { fields.all_of(name).next() } else { None };
        self.access_log().record(&AccessRecord {
            ts: ctx.started_wall,
            request_id: ctx.request_id.as_str(),
            client_id: caller.and_then(|caller| Some(caller.client.as_ref()?.0.id.as_str())),
            client_ip: caller.map_or(ctx.peer, |caller| caller.address),
            identity: caller.map(Caller::identity),
            method: target.method,
            host: target.host.as_bytes(),
            path: target.path.as_bytes(),
            protocol: protocol_name(outcome.version),
            tls_version: ctx.tls_version,
            referer: said(&REFERER),
            user_agent: said(&USER_AGENT),
            status: outcome.status,
            grpc_status: grpc.filter(|_| outcome.status != 0).or(outcome.grpc_status),
            duration,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            upstream: ctx.pool().map(|pool| pool.name()),
            backend: ctx.backend.as_ref(),
            attempts: ctx.attempts,
            limit: ctx.admission.limit.as_ref().map(Limit::name),
            tokens: ctx.standing().map(|standing| standing.tokens().to_f64()),
            limited_by,
            shadow: shadow.as_deref(),
            trace_id: ctx.trace.as_ref().map(|trace| trace.own.trace),
            error: because,
        });
    }
}

/// Has a request written down in its trace, if it is to be.
fn write_down(ctx: &Context, target: RequestTarget<'_>, (status, duration, error): (u16, Duration, Option<&str>)) {
    let Some(trace) = &ctx.trace else { return };
    let caller = ctx.admission.caller.as_ref();
    trace.finish(|attempts| RequestSpan {
        own: trace.own,
        parent: trace.parent,
        start: ctx.started_wall,
        end: ctx.started_wall + duration,
        method: target.method.to_owned(),
        secure: trace.secure,
        host: target.host.to_owned(),
        path: target.path.to_owned(),
        status,
        address: caller.map_or(ctx.peer, |caller| caller.address),
        client: caller.and_then(|caller| Some(caller.client.as_ref()?.0.id.as_str().to_owned())),
        upstream: ctx.pool().map(|pool| pool.name().to_owned()),
        limit: ctx.admission.limit.as_ref().map(Limit::name),
        request_id: ctx.request_id.as_str().to_owned(),
        error: error.map(str::to_owned),
        attempts,
    });
}

/// Whether an exchange failed with `error` because of the body that `relay` sends on; says so in `ctx`.
pub(in crate::proxy) fn fails_by_its_body(relay: &Relay, error: &Error, ctx: &mut Context) -> bool {
    let rejection = relay.rejection().or((is_timeout(error) && relay.is_owed()).then_some(Rejection::RequestTimeout));
    if rejection == Some(Rejection::RequestTimeout) {
        // Maybe the backend waits for what the client does not send.
        ctx.error = Some(STALLED.to_owned());
    }
    ctx.rejection = rejection.or(ctx.rejection);
    rejection.is_some()
}
