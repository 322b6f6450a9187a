//! The services that Pingora runs for us, each on a runtime of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use log::{info, warn};
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::ServiceReadyNotifier;
use pingora_core::services::background::BackgroundService;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{interval, sleep};

use super::core::Core;
use super::lifecycle::{Lifecycle, State};
use super::reload::Watch;
use super::sparingly::Sparingly;
use super::ticker;
use crate::client::Recorder;
use crate::clock::{Clock, Timeline};
use crate::proxy::Activity;
use crate::telemetry::{AccessLogGuard, AccessLogWriter, EventLog, Metrics, Series, SpanQueue, Tally};
use crate::tls::{AcmeKeeper, AcmeNews, AcmeSettings, PairNews, PairWatch, TlsListeners};
use crate::upstream::{Pool, Transport, health};

/// How often idle connections to backends are looked through when none of them is closed.
const SWEEP_TICK: Duration = Duration::from_millis(500);
/// How often they are at most: how exactly is known when they were closed, and what it costs to have many that are.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// How often the files of certificates are looked at.
const CERTIFICATES_TICK: Duration = Duration::from_secs(2);
/// How often it is said that a certificate is not valid.
const LAPSES_TICK: Duration = Duration::from_secs(60 * 60);
/// How often it is looked whether a certificate is to be asked for.
const ACME_TICK: Duration = Duration::from_secs(2);
/// How often the logs' summaries are written.
const TELEMETRY_TICK: Duration = Duration::from_secs(1);

/// Checks the backends of every pool. Ready after the first round of all of them. Pools come and go with reloads.
pub(super) struct Health {
    pools: Vec<Arc<Pool>>,
    orders: Mutex<Option<mpsc::UnboundedReceiver<Watch>>>,
    clock: Arc<dyn Clock>,
}

impl Health {
    /// Checks `pools` at first, and then what `orders` say.
    pub(super) fn new(pools: Vec<Arc<Pool>>, orders: mpsc::UnboundedReceiver<Watch>, clock: Arc<dyn Clock>) -> Self {
        Health { pools, orders: Mutex::new(Some(orders)), clock }
    }
}

#[async_trait]
impl BackgroundService for Health {
    async fn start_with_ready_notifier(&self, mut shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        let Some(mut orders) = self.orders.lock().take() else { return };
        let mut watches = Watches { running: Vec::new(), tasks: JoinSet::new(), clock: Arc::clone(&self.clock) };
        watches.begin(&self.pools, ready);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Watch::Begin(pools, checked)) => watches.begin(&pools, checked),
                    Some(Watch::End(pools)) => watches.end(&pools),
                    None => return,
                },
                Some(_) = watches.tasks.join_next() => {}
                _ = shutdown.wait_for(|stopping| *stopping) => return,
            }
        }
    }
}

/// The running watches, one for each pool.
struct Watches {
    running: Vec<(Arc<Pool>, AbortHandle)>,
    tasks: JoinSet<()>,
    clock: Arc<dyn Clock>,
}

impl Watches {
    /// Watches `pools`; drops `checked` when each was checked once.
    fn begin(&mut self, pools: &[Arc<Pool>], checked: impl Send + Sync + 'static) {
        let checked = Arc::new(checked);
        for pool in pools {
            let checked = Arc::clone(&checked);
            let watch = health::watch(Arc::clone(pool), Arc::clone(&self.clock), move || drop(checked));
            self.running.push((Arc::clone(pool), self.tasks.spawn(watch)));
        }
    }

    fn end(&mut self, pools: &[Arc<Pool>]) {
        let pools: HashSet<_> = pools.iter().map(Arc::as_ptr).collect();
        self.running.retain(|(watched, task)| {
            let goes = pools.contains(&Arc::as_ptr(watched));
            if goes {
                task.abort();
            }
            !goes
        });
    }
}

/// Closes the connections to backends that have waited for too long, and those that the backend has closed.
pub(super) struct Sweep {
    pub(super) transport: Arc<Transport>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl BackgroundService for Sweep {
    async fn start(&self, shutdown: ShutdownWatch) {
        let stopping = shutdown.clone();
        ticker::run("closing idle connections", SWEEP_PAUSE, shutdown, || async {
            let mut stopping = stopping.clone();
            tokio::select! {
                () = self.transport.rung() => {}
                () = sleep(SWEEP_TICK) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            self.transport.sweep(self.clock.now());
        })
        .await;
    }
}

/// Takes up renewed certificates, renews the keys of tickets, and warns of certificates that are not valid for as long
/// as they are served.
pub(super) struct Certificates {
    pub(super) tls: Arc<TlsListeners>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl BackgroundService for Certificates {
    async fn start(&self, shutdown: ShutdownWatch) {
        // The start and each reload have told of them already.
        let (mut told, watch) = (self.clock.now(), Arc::new(Mutex::new(PairWatch::default())));
        ticker::run("certificates", CERTIFICATES_TICK, shutdown, || {
            let (now, wall) = (self.clock.now(), self.clock.wall());
            if now.saturating_duration_since(told) >= LAPSES_TICK {
                told = now;
                self.tls.lapsed(wall).iter().for_each(|lapse| warn!("{lapse}"));
            }
            if let Err(error) = self.tls.tickets().rotate(now) {
                warn!("the keys of TLS tickets cannot be renewed: {error}");
            }
            let (tls, watch) = (Arc::clone(&self.tls), Arc::clone(&watch));
            async move {
                // It fails only where the runtime ends, and with it the server.
                let news = spawn_blocking(move || watch.lock().look(&tls, now, wall)).await;
                for news in news.unwrap_or_default() {
                    match news {
                        PairNews::Renewed(told) => info!("{told}"),
                        PairNews::Stuck(told) => warn!("{told}"),
                    }
                }
            }
        })
        .await;
    }
}

/// Gets certificates from authorities, and others before they end, once clients get in.
pub(super) struct AcmeOrders {
    tls: Arc<TlsListeners>,
    acme: Arc<AcmeKeeper>,
    clock: Arc<dyn Clock>,
    lifecycle: Lifecycle,
    /// Whether there is a listener without TLS.
    plain: bool,
}

#[async_trait]
impl BackgroundService for AcmeOrders {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut told = false;
        let mut ready = self.lifecycle.states();
        let mut stopping = shutdown.clone();
        tokio::select! {
            // The sender lives in `lifecycle`.
            _ = ready.wait_for(|state| *state == State::Ready) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        ticker::run("ACME", ACME_TICK, shutdown, || {
            let all = self.tls.iter().filter_map(|(_, terminator)| Some(terminator.tls().acme?.settings));
            let all: HashSet<_> = all.collect();
            if !all.is_empty() && self.acme.is_in_memory() && !std::mem::replace(&mut told, true) {
                warn!("ACME: without a database, certificates are kept in memory: the next process asks for others");
            }
            let mut stopping = stopping.clone();
            async move {
                // What is half done is left, and another process asks anew.
                tokio::select! {
                    () = self.ask(all) => {}
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
            }
        })
        .await;
    }
}

impl AcmeOrders {
    /// Of this server, which has a `plain` listener or none.
    pub(super) fn new(core: &Core, plain: bool) -> Self {
        let (tls, acme, clock) = (Arc::clone(&core.tls), Arc::clone(&core.acme), Arc::clone(&core.clock));
        AcmeOrders { tls, acme, clock, lifecycle: core.lifecycle.clone(), plain }
    }

    /// Asks for what is due of these, and has it served.
    async fn ask(&self, all: HashSet<AcmeSettings>) {
        for settings in all {
            let (now, wall) = (self.clock.now(), self.clock.wall());
            match self.acme.look(&settings, self.plain, (now, wall)).await {
                Some(AcmeNews::Obtained(told)) => {
                    // First served, then told: whoever waits for the line finds the certificate that it speaks of.
                    if let Some(pair) = self.acme.pair(&settings, self.clock.wall()) {
                        for (_, terminator) in self.tls.iter() {
                            terminator.renew(&pair);
                        }
                    }
                    info!("{told}");
                }
                Some(AcmeNews::Failed(told)) => warn!("{told}"),
                None => {}
            }
        }
    }
}

/// Runs the access log's writer, writes the logs' summaries once a second, tells of what leaves no access line, has a
/// look at whose requests are recorded, and takes the samples that the page shows.
pub(super) struct Telemetry {
    writer: Mutex<Option<AccessLogWriter>>,
    guard: LogGuard,
    events: Option<EventLog>,
    tally: Arc<Tally>,
    spans: Arc<SpanQueue>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    series: Arc<Series>,
    requests: Arc<Activity>,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
    lifecycle: Lifecycle,
}

/// Keeps the access log's writer running.
pub(super) type LogGuard = Arc<Mutex<Option<AccessLogGuard>>>;

impl Telemetry {
    pub(super) fn new(writer: AccessLogWriter, events: Option<EventLog>, metrics: Arc<Metrics>, core: &Core) -> Self {
        Telemetry {
            writer: Mutex::new(Some(writer)),
            guard: LogGuard::default(),
            events,
            tally: Arc::clone(&core.tally),
            spans: Arc::clone(&core.spans),
            recorder: Arc::clone(&core.recorder),
            metrics,
            series: Arc::clone(&core.series),
            requests: Arc::clone(&core.traffic.requests),
            clock: Arc::clone(&core.clock),
            timeline: core.timeline,
            lifecycle: core.lifecycle.clone(),
        }
    }

    /// What to drop once the last line is recorded.
    pub(super) fn guard(&self) -> LogGuard {
        Arc::clone(&self.guard)
    }

    /// Takes the sample of the second that is over, and puts together whose requests it had.
    fn sample(&self) {
        let since_epoch = self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.tally.collect_talkers(since_epoch);
        self.series.take(since_epoch, self.metrics.counted(), self.requests.busy());
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
        let (mut ticks, mut malformed) = (interval(TELEMETRY_TICK), Sparingly::default());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|stopping| *stopping) => return,
            }
            let now = self.clock.now();
            self.recorder.look(self.timeline.nanos(now));
            self.sample();
            self.spans.tend();
            let event = self.guard.lock().as_mut().and_then(|guard| guard.tick(now));
            if let Some(event) = event {
                warn!("{event}");
            }
            if let Some(count) = malformed.observe(self.tally.malformed_targets(), now) {
                warn!(
                    "HTTP/2: requests that were reset in the last minute, since their target is no URI (characters such as \" \
                     and < must be escaped): {count}"
                );
            }
            if let Some(events) = &self.events {
                events.flush_due(now);
            }
        }
    }
}
