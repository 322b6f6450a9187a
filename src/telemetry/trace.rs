//! Which trace a request belongs to, as W3C's Trace Context tells it from one server to the next.
//!
//! The problem: who looks into what one click has set off at five servers needs one name for it at all of them. Anybody
//! can send a `traceparent`, and asks with it that all five write down what they did.
//!
//! The rule: a `traceparent` that is right names the trace, and the backend gets the same trace with a span of ours as
//! the parent of its own; `tracestate` goes with it as it came. One that is absent, wrong, or there several times begins
//! a new trace, and what `tracestate` says of another is dropped. Whether the request is written down says a trusted
//! proxy; of everybody else the flag does not count, or a stranger could have all of its requests written down, and the
//! `sample` of the configuration decides, by chance and not by the trace's id, which a stranger can choose, too.
//!
//! The recommendation of 2020 has one flag, so no other is passed on. A later version is read as far as it is the same,
//! and answered by this one, as it asks.

#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
mod no_export;
mod parent;
mod queue;
mod spans;

use std::sync::Arc;
use std::time::SystemTime;

#[cfg(feature = "otlp")]
use export::send_all;
#[cfg(not(feature = "otlp"))]
use no_export::send_all;
pub use parent::{SpanId, TraceId, TraceParent};
pub use queue::SpanQueue;
pub use spans::{AttemptSpan, RequestSpan};

use crate::upstream::ConnectAddress;

/// Whether this build can send spans anywhere.
pub const CAN_EXPORT: bool = cfg!(feature = "otlp");

impl SpanQueue {
    /// Begins to send spans once there was one; to be called about once a second, when the process forks no more.
    pub fn tend(self: &Arc<Self>) {
        self.start(send_all);
    }

    /// Has what waits sent. Waits a second at most.
    pub fn stop(self: &Arc<Self>) {
        self.tend();
        self.end();
    }
}

/// What is done about traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// Whether backends are told of the trace. Otherwise they get what the client says of it.
    pub propagate: bool,
    /// The share of requests that is written down, from 0 to 1, where no trusted proxy has decided.
    pub sample: f64,
    /// Where spans are sent to, by OTLP over HTTP; none where they are sent nowhere.
    pub otlp: Option<Arc<str>>,
}

/// The same, with the means to do it.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// What is done.
    pub settings: TracingSettings,
    /// Where spans are put.
    pub queue: Arc<SpanQueue>,
}

/// The trace of one request.
#[derive(Debug)]
pub struct RequestTrace {
    /// What backends are told: the trace, our span in it, and whether it is written down.
    pub own: TraceParent,
    /// The span that asks us, in the same trace.
    pub parent: Option<SpanId>,
    /// Whether backends are told.
    pub propagates: bool,
    /// Whether it came over TLS, once that is known.
    pub secure: Option<bool>,
    /// Where what is known of it goes in the end, where it is written down.
    outlet: Option<(Arc<SpanQueue>, Arc<str>)>,
    attempts: Vec<AttemptSpan>,
}

impl RequestTrace {
    /// That of a request with these values of `traceparent`, whose sender is `trusted` or not.
    pub fn of<'h>(
        mut sent: impl Iterator<Item = &'h [u8]>,
        trusted: bool,
        Tracing { settings: TracingSettings { propagate, sample, otlp }, queue }: &Tracing,
    ) -> Self {
        let parent = match (sent.next(), sent.next()) {
            (Some(value), None) => TraceParent::parse(value),
            _ => None,
        };
        let decided = parent.filter(|_| trusted).map(|parent| parent.sampled);
        let own = TraceParent {
            trace: parent.map_or_else(TraceId::random, |parent| parent.trace),
            span: SpanId::random(),
            sampled: decided.unwrap_or_else(|| fastrand::f64() < *sample),
        };
        let outlet = otlp.as_ref().filter(|_| own.sampled).map(|to| (Arc::clone(queue), Arc::clone(to)));
        let parent = parent.map(|parent| parent.span);
        RequestTrace { own, parent, propagates: *propagate, secure: None, outlet, attempts: Vec::new() }
    }

    /// Takes note of an attempt at this backend.
    pub fn begin_attempt(&mut self, start: SystemTime, backend: &ConnectAddress) {
        if self.outlet.is_some() {
            let (id, backend) = (SpanId::random(), backend.clone());
            self.attempts.push(AttemptSpan { id, start, end: None, backend, status: 0, error: None });
        }
    }

    /// Takes note of the status of an answer to the last attempt.
    pub fn answer_attempt(&mut self, status: u16) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.status = status;
        }
    }

    /// Takes note of why the last attempt failed.
    pub fn fail_attempt(&mut self, end: SystemTime, why: &str) {
        if let Some(attempt) = self.attempts.last_mut() {
            (attempt.end, attempt.error) = (Some(end), Some(why.to_owned()));
        }
    }

    /// Has what is known of the request sent, if it is to be: what `told` makes of its attempts.
    pub fn finish(&self, told: impl FnOnce(Vec<AttemptSpan>) -> RequestSpan) {
        if let Some((queue, to)) = &self.outlet {
            queue.put(Arc::clone(to), Box::new(told(self.attempts.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
