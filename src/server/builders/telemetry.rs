//! Telemetry: what writes the logs, and what is counted.

use std::sync::Arc;

use crate::server::core::Core;
use crate::server::fleet;
use crate::server::services::{LogGuard, Telemetry};
use crate::telemetry::{AccessLogWriter, EventLog, Metrics, MetricsParts};

/// What tells of all the others.
pub(in crate::server) struct TelemetryPlane {
    /// The service that has the logs written.
    pub(in crate::server) service: Telemetry,
    /// To be dropped once the last line is recorded.
    pub(in crate::server) guard: LogGuard,
    pub(in crate::server) metrics: Arc<Metrics>,
}

impl TelemetryPlane {
    pub(in crate::server) fn new(core: &Core, writer: AccessLogWriter, events: Option<EventLog>) -> Self {
        let store = core.store.clone();
        let metrics = Metrics::new(MetricsParts {
            pools: Arc::clone(&core.pools),
            tally: Arc::clone(&core.tally),
            access_log: core.access_log.clone(),
            spans: Arc::clone(&core.spans),
            events: events.clone(),
            limiter: Arc::clone(&core.limiter) as _,
            tls: Arc::clone(&core.tls),
            persist_errors: Box::new(move || store.errors()),
            fleet: fleet::show(core.fleet.clone()),
        });
        let metrics = Arc::new(metrics);
        let service = Telemetry::new(writer, events, Arc::clone(&metrics), core);
        TelemetryPlane { guard: service.guard(), service, metrics }
    }
}
