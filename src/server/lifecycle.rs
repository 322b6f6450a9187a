//! From start to stop.
//!
//! ```text
//! starting ──► ready ──► draining ──► stopped
//!     │          │           ▲
//!     └── fails ─┴───────────┘  (exit 1)
//! ```
//!
//! *Starting*: addresses are bound, pools have their first round of checks, nobody gets in. *Ready*: listeners accept.
//! *Draining*, on SIGTERM, SIGINT or when the last listener dies: listeners close, idle connections close, requests in
//! flight finish, up to `pingora.grace_period_seconds`. *Stopped*: everything is written and the process exits; an idle
//! server is gone at once. A second SIGINT or SIGTERM while draining ends it at once.
//!
//! Pingora's own shutdown sleeps the whole grace period even when idle. So the draining happens here, while Pingora
//! still waits to be told of a signal, and then it is told to stop fast, because there is nothing left to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::proxy::Activity;
use crate::telemetry::AccessLog;

/// How long connections that were accepted in the last moment get to show their request.
const SETTLE: Duration = Duration::from_millis(100);

/// How long saving may take after the last request.
const LAST_WORK: Duration = Duration::from_secs(30);

/// Stops a server from within its process; for tests, and for servers that are part of another program.
#[derive(Clone, Debug)]
pub struct StopHandle {
    requested: Arc<watch::Sender<bool>>,
}

impl StopHandle {
    /// A handle that has not been used.
    pub fn new() -> Self {
        StopHandle { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets the server drain and stop, as SIGTERM does.
    pub fn stop(&self) {
        self.requested.send_replace(true);
    }

    async fn requested(&self) {
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.requested.subscribe().wait_for(|requested| *requested).await;
    }
}

impl Default for StopHandle {
    fn default() -> Self {
        Self::new()
    }
}

/// What a server answers to.
#[derive(Clone, Debug)]
pub enum Stop {
    /// The signals of its process. Of several servers in one process, all of them stop.
    Signals,
    /// A handle.
    Handle(StopHandle),
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody gets in yet.
    Starting,
    /// Listeners accept.
    Ready,
    /// Nobody gets in any more; requests in flight finish.
    Draining,
}

impl State {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
        }
    }
}

/// What the services of one server share of its life.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    /// True once listeners accept.
    listening: Arc<AtomicBool>,
    /// True from draining on.
    stopping: Arc<watch::Sender<bool>>,
    failure: Arc<Failure>,
}

#[derive(Debug, Default)]
struct Failure {
    reason: Mutex<Option<String>>,
    happened: tokio::sync::Notify,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Lifecycle { listening: Arc::default(), stopping: Arc::new(watch::Sender::new(false)), failure: Arc::default() }
    }

    /// Where the server is.
    pub(super) fn state(&self) -> State {
        match (*self.stopping.borrow(), self.listening.load(Ordering::SeqCst)) {
            (true, _) => State::Draining,
            (false, true) => State::Ready,
            (false, false) => State::Starting,
        }
    }

    /// Listeners accept from now on.
    pub(super) fn listening(&self) {
        self.listening.store(true, Ordering::SeqCst);
    }

    /// Turns true when the server starts to drain.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Ends the server because it cannot do its work any more. The first reason counts.
    pub(super) fn fail(&self, reason: String) {
        self.failure.reason.lock().get_or_insert(reason);
        self.failure.happened.notify_one();
    }

    /// Why the server failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.reason.lock().clone()
    }
}

/// Tells Pingora when to stop, which is when everything is drained.
pub(super) struct Conductor {
    pub(super) lifecycle: Lifecycle,
    pub(super) stop: Stop,
    pub(super) activity: Arc<Activity>,
    /// Reopened on SIGUSR1.
    pub(super) access_log: AccessLog,
    pub(super) grace_period: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Conductor {
    async fn recv(&self) -> ShutdownSignal {
        let mut asks = match &self.stop {
            Stop::Signals => Asks::Signals(Signals::new()),
            Stop::Handle(handle) => Asks::Handle(handle),
        };
        tokio::select! {
            name = self.asked_to_stop(&mut asks) => {
                let busy = self.activity.busy();
                info!("{name}: draining for {:?} at most; requests in flight: {busy}", self.grace_period);
            }
            () = self.lifecycle.failure.happened.notified() => {
                error!("stopping: {}", self.lifecycle.failure().unwrap_or_default());
            }
        }
        self.lifecycle.stopping.send_replace(true);
        tokio::select! {
            () = self.drained() => info!("drained"),
            () = sleep(self.grace_period) => {
                warn!("the grace period is over; requests cut: {}", self.activity.busy());
            }
            name = self.asked_to_stop(&mut asks), if matches!(asks, Asks::Signals(_)) => {
                warn!("{name} again; requests cut: {}", self.activity.busy());
            }
        }
        ShutdownSignal::FastShutdown
    }
}

impl Conductor {
    async fn drained(&self) {
        sleep(SETTLE).await;
        self.activity.idle().await;
    }

    /// Who asks, once somebody does.
    async fn asked_to_stop(&self, asks: &mut Asks<'_>) -> &'static str {
        let signals = match asks {
            Asks::Signals(signals) => signals,
            Asks::Handle(handle) => {
                handle.requested().await;
                return "asked to stop";
            }
        };
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return "SIGTERM",
                _ = signals.interrupt.recv() => return "SIGINT",
                _ = signals.reopen.recv() => {
                    info!("SIGUSR1: reopening the access log");
                    self.access_log.reopen();
                }
            }
        }
    }
}

/// Does `work` after the last request, for as long as [`LAST_WORK`] at most: a disk that hangs does not keep the process, and
/// neither does anything a user who asks again.
pub(super) fn finish(stop: &Stop, work: impl FnOnce() + Send + 'static) {
    let (done, finished) = tokio::sync::oneshot::channel();
    let worker = std::thread::Builder::new().name("finish".to_owned()).spawn(move || {
        work();
        // Nobody listens any more when it was given up.
        let _ = done.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (worker, runtime) {
        (Ok(_), Ok(runtime)) => runtime.block_on(async {
            tokio::select! {
                _ = finished => {}
                name = asked_again(stop) => warn!("{name} again; what is not saved yet is left"),
                () = sleep(LAST_WORK) => warn!("saving takes longer than {LAST_WORK:?}; what is not saved yet is left"),
            }
        }),
        (Ok(worker), Err(_)) => drop(worker.join()),
        (Err(error), _) => error!("nothing is saved: {error}"),
    }
}

/// Who asks the process to stop, once somebody does.
async fn asked_again(stop: &Stop) -> &'static str {
    let Stop::Signals = stop else { return std::future::pending().await };
    let mut signals = Signals::new();
    tokio::select! {
        _ = signals.terminate.recv() => "SIGTERM",
        _ = signals.interrupt.recv() => "SIGINT",
    }
}

/// Where requests to stop come from.
enum Asks<'a> {
    Signals(Signals),
    Handle(&'a StopHandle),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| signal(kind).expect("the kernel lets every process handle these signals");
        Signals {
            terminate: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
            reopen: listen(SignalKind::user_defined1()),
        }
    }
}
