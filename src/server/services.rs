//! The services that Pingora runs for us, each on a runtime of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::background::BackgroundService;
use pingora_core::services::listening::Service as ListeningService;
use pingora_core::services::{Service, ServiceReadyNotifier, ServiceWithDependents};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::lifecycle::Lifecycle;
use super::socket::Bound;
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

/// Listens on sockets that are bound already. The server fails when it cannot, or when it ends before it should.
pub(super) struct Listening<A> {
    service: ListeningService<A>,
    sockets: Vec<Bound>,
    addresses: Vec<SocketAddr>,
    lifecycle: Lifecycle,
    announce: Option<Box<dyn FnOnce() + Send + Sync>>,
    until_drained: bool,
}

impl<A> Listening<A> {
    pub(super) fn new(name: &str, app: A, sockets: Vec<Bound>, threads: usize, lifecycle: Lifecycle) -> Self {
        let mut service = ListeningService::new(name.to_owned(), app);
        service.threads = Some(threads);
        let addresses: Vec<_> = sockets.iter().map(Bound::address).collect();
        for address in &addresses {
            service.add_tcp(&address.to_string());
        }
        Listening { service, sockets, addresses, lifecycle, announce: None, until_drained: false }
    }

    /// Calls `announce` once clients get in.
    pub(super) fn announced(self, announce: impl FnOnce() + Send + Sync + 'static) -> Self {
        Listening { announce: Some(Box::new(announce)), ..self }
    }

    /// Goes on while the server drains, and ends with it.
    pub(super) fn until_drained(self) -> Self {
        Listening { until_drained: true, ..self }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceWithDependents for Listening<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        // Pingora's own watch turns only when everything is drained.
        let stopping = if self.until_drained { shutdown } else { self.lifecycle.stopping() };
        let _end = EndsTheServer { lifecycle: &self.lifecycle, name: Service::name(&self.service).to_owned() };
        for socket in self.sockets.drain(..) {
            let address = socket.address();
            match socket.listen() {
                Ok(descriptor) => {
                    if let Some(fds) = &fds {
                        fds.lock().add(address.to_string(), descriptor);
                    }
                }
                Err(error) => return self.lifecycle.fail(error.to_string()),
            }
        }
        ready.notify_ready();
        if let Some(announce) = self.announce.take() {
            announce();
        }
        Service::start_service(&mut self.service, fds, stopping, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.service)
    }

    fn on_startup_delay(&self, _time_waited: Duration) {}

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(SocketAddr::to_string).collect())
    }
}

/// A listening service that ends, by a panic too, takes the server with it, unless the server is stopping anyway.
struct EndsTheServer<'a> {
    lifecycle: &'a Lifecycle,
    name: String,
}

impl Drop for EndsTheServer<'_> {
    fn drop(&mut self) {
        if !*self.lifecycle.stopping().borrow() {
            self.lifecycle.fail(format!("the {} service ended", self.name));
        }
    }
}
