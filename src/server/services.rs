//! The services that Pingora runs for us, each on a runtime of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::ServiceReadyNotifier;
use pingora_core::services::background::BackgroundService;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::lifecycle::Lifecycle;
use crate::clock::Clock;
use crate::telemetry::{AccessLogGuard, AccessLogWriter, EventLog};
use crate::upstream::{Pool, health};

/// How often the logs' summaries are written.
const TELEMETRY_TICK: Duration = Duration::from_secs(1);

/// Checks the backends of every pool. Ready after the first round of all of them.
pub(super) struct Health {
    pub(super) pools: Vec<Arc<Pool>>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl BackgroundService for Health {
    async fn start_with_ready_notifier(&self, mut shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        // The notifier tells when its last owner drops it.
        let ready = Arc::new(ready);
        let mut watches = JoinSet::new();
        for pool in &self.pools {
            let ready = Arc::clone(&ready);
            watches.spawn(health::watch(Arc::clone(pool), Arc::clone(&self.clock), move || drop(ready)));
        }
        drop(ready);
        let _ = shutdown.wait_for(|stopping| *stopping).await;
    }
}

/// Runs the access log's writer and writes the logs' summaries once a second.
pub(super) struct Telemetry {
    writer: Mutex<Option<AccessLogWriter>>,
    guard: LogGuard,
    events: Option<EventLog>,
    clock: Arc<dyn Clock>,
    lifecycle: Lifecycle,
}

/// Keeps the access log's writer running.
pub(super) type LogGuard = Arc<Mutex<Option<AccessLogGuard>>>;

impl Telemetry {
    pub(super) fn new(
        writer: AccessLogWriter,
        events: Option<EventLog>,
        clock: Arc<dyn Clock>,
        lifecycle: Lifecycle,
    ) -> Self {
        Telemetry { writer: Mutex::new(Some(writer)), guard: LogGuard::default(), events, clock, lifecycle }
    }

    /// What to drop once the last line is recorded.
    pub(super) fn guard(&self) -> LogGuard {
        Arc::clone(&self.guard)
    }
}

#[async_trait]
impl BackgroundService for Telemetry {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // The thread starts here, in the service, because the process may fork before its services start.
        match self.writer.lock().take().map(AccessLogWriter::start) {
            Some(Ok(guard)) => *self.guard.lock() = Some(guard),
            Some(Err(error)) => return self.lifecycle.fail(format!("cannot write the access log: {error}")),
            None => return,
        }
        let mut ticks = interval(TELEMETRY_TICK);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|stopping| *stopping) => return,
            }
            let now = self.clock.now();
            if let Some(guard) = self.guard.lock().as_mut() {
                guard.tick(now);
            }
            if let Some(events) = &self.events {
                events.flush_due(now);
            }
        }
    }
}
