//! The access log, the event log, the metrics, the latest refusals, traces.
//!
//! The access log has a line for each request and must never hold one up: lines go through a bounded queue to a thread
//! of their own, and what that thread cannot write in time is dropped and counted. The event log is for people: what
//! happens seldom, in words, with repeats summed up so that a burst of failures stays readable. It has a queue and a
//! thread, too: whoever logs never waits for standard error.

mod access_field;
mod access_log;
pub mod decisions;
mod drops;
mod ends;
pub mod events;
mod explanation;
mod fleet;
mod line_text;
pub mod metrics;
mod outlet;
mod output;
mod queue;
mod record;
mod repeats;
mod series;
mod settings;
mod sink;
mod spool;
mod switch;
mod talkers;
mod timestamp;
mod trace;
mod writer;

pub use access_field::{AccessField, NamedField};
pub use access_log::AccessLog;
pub use decisions::{LatestRefusals, Refused};
pub use events::{EventLog, EventLogGuard};
pub use explanation::{ExplainedPolicy, Explanation};
pub use fleet::{FleetNode, FleetState, FleetStore, FleetView, LeaseCounts, ShowFleet};
pub use metrics::{
    IntroductionFault, Metrics, MetricsParts, PolicyTally, PolicyVerdict, SeatLimit, Tally, TextFormat, Verdict,
};
pub use record::AccessRecord;
pub use series::{BackendStates, CountedSoFar, KEPT, Latency, MOST_CHANGES, Sample, Series};
pub use settings::{AccessLogFormat, AccessLogSettings, AccessLogTarget};
pub use switch::Prepared;
pub use talkers::{Talk, Talker, TalkersBy};
pub(crate) use timestamp::rfc3339;
pub use trace::{
    AttemptSpan, CAN_EXPORT, RequestSpan, RequestTrace, SpanId, SpanQueue, TraceId, TraceParent, Tracing,
    TracingSettings,
};
pub use writer::{AccessLogGuard, AccessLogWriter};
