//! From start to stop: the states of a server, and the moves between them.
//!
//! ```text
//!                        hands its sockets over
//! starting ──► ready ◄──────────────────────────► handing over
//!     │          │      takes them back               │
//!     │          ▼                                    ▼
//!     └─────► draining ◄──────────────────────────────┘
//!                │         the successor serves
//!                ▼
//!             stopped
//! ```
//!
//! *Starting*: addresses are bound, pools have their first round of checks, nobody gets in. *Ready*: listeners accept.
//! *Handing over*: another process is about to accept on the same sockets; here nobody gets in any more, the sockets stay
//! open, and what comes meanwhile waits in the kernel's queue. *Draining*, on SIGTERM, SIGINT, when a listener dies, or
//! when the successor serves: the sockets close, requests in flight finish, up to `pingora.grace_period_seconds`.
//! *Stopped*: nothing is in flight any more; buckets are saved and the process exits. An idle server is gone at once. A
//! second SIGINT or SIGTERM while draining ends it at once.
//!
//! From handing over and draining on, each kept connection gets one more answer, which says `Connection: close`. One that
//! stays silent is closed: [`Downstream`](crate::proxy::Downstream) says when.
//!
//! Pingora's own shutdown sleeps the whole grace period even when idle. So the draining happens here, while Pingora
//! still waits to be told of a signal, and then it is told to stop fast, because there is nothing left to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{debug, error, info, warn};
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use super::handover::{Next, Predecessor, Underway};
use super::notify;
use super::process::Process;
use super::reload::Reloader;
use crate::proxy::Activity;
use crate::telemetry::AccessLog;

/// How long connections that were accepted in the last moment get to show their request.
const SETTLE: Duration = Duration::from_millis(100);

/// The signal of an operator at a keyboard: the second one counts at once. A supervisor may send SIGTERM twice.
const INTERRUPT: &str = "SIGINT";

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
    /// Nobody gets in here; another process is about to accept on the same sockets.
    HandingOver,
    /// Nobody gets in any more; requests in flight finish.
    Draining,
    /// Nothing is in flight any more.
    Stopped,
}

impl State {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::HandingOver => "handing_over",
            State::Draining => "draining",
            State::Stopped => "stopped",
        }
    }

    /// Whether it may become `next`.
    fn leads_to(self, next: State) -> bool {
        match (self, next) {
            (State::Starting, State::Ready)
            | (State::Ready, State::HandingOver)
            | (State::HandingOver, State::Ready)
            | (State::Draining, State::Stopped) => true,
            (from, State::Draining) => !matches!(from, State::Draining | State::Stopped),
            _ => false,
        }
    }

    /// Whether what is begun is to be finished and nothing else.
    fn is_stopping(self) -> bool {
        !matches!(self, State::Starting | State::Ready)
    }
}

/// What the services of one server share of its life.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    state: Arc<watch::Sender<State>>,
    /// True while what is begun is to be finished and nothing else; follows `state`.
    stopping: Arc<watch::Sender<bool>>,
    /// The same for the admin API, which goes on while the server drains.
    closing: Arc<watch::Sender<bool>>,
    /// True once another process serves in this one's place.
    succeeded: Arc<AtomicBool>,
    /// True once somebody listens to what the server is asked for.
    attended: Arc<watch::Sender<bool>>,
    failure: Arc<Failure>,
}

#[derive(Debug, Default)]
struct Failure {
    reason: Mutex<Option<String>>,
    happened: tokio::sync::Notify,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let switch = || Arc::new(watch::Sender::new(false));
        let state = Arc::new(watch::Sender::new(State::Starting));
        Lifecycle {
            state,
            stopping: switch(),
            closing: switch(),
            succeeded: Arc::default(),
            attended: switch(),
            failure: Arc::default(),
        }
    }

    /// Where the server is.
    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Whether whoever connects is served: by this process, or by the one that takes its place.
    pub(super) fn is_service_ready(&self) -> bool {
        matches!(self.state(), State::Ready | State::HandingOver) || self.succeeded.load(Ordering::SeqCst)
    }

    /// Calls `tell` if the server is ready, and lets it become nothing else meanwhile: what is told holds. `tell` must
    /// not move the server on.
    fn if_ready(&self, tell: impl FnOnce()) {
        let state = self.state.borrow();
        if *state == State::Ready {
            tell();
        }
    }

    /// Waits until the server fails.
    pub(super) async fn failed(&self) {
        self.failure.happened.notified().await;
    }

    /// Tells of each change of state.
    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Moves on; whether that was possible from where the server is.
    pub(super) fn advance(&self, next: State) -> bool {
        let moved = self.state.send_if_modified(|state| {
            let may = state.leads_to(next);
            if may {
                // Before the state shows: whoever sees that it is ready again must not find it stopping still.
                self.stopping.send_replace(next.is_stopping());
                if next != State::Draining {
                    self.closing.send_replace(next.is_stopping());
                } else if *state == State::HandingOver {
                    self.succeeded.store(true, Ordering::SeqCst);
                }
                *state = next;
            }
            may
        });
        if moved {
            debug!("state: {}", next.name());
        }
        moved
    }

    /// Somebody listens to what the server is asked for from now on.
    pub(super) fn attend(&self) {
        self.attended.send_replace(true);
    }

    /// Waits until somebody listens to what the server is asked for. Before that a signal would end the process, so
    /// nobody is let in.
    pub(super) async fn attended(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.attended.subscribe().wait_for(|attended| *attended).await;
    }

    /// True while no new requests are wanted.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// True while no new requests are wanted for the admin API either, which tells how far a drain is.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
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
    /// The requests in flight.
    pub(super) activity: Arc<Activity>,
    /// The connections of the proxy, which end after the requests on them.
    pub(super) connections: Arc<Activity>,
    /// The connections of the admin API.
    pub(super) admin: Arc<Activity>,
    /// Reopened on SIGUSR1.
    pub(super) access_log: AccessLog,
    /// Asked on SIGHUP.
    pub(super) reloader: Option<Arc<Reloader>>,
    pub(super) grace_period: Duration,
    /// The process, when the server is all of one.
    pub(super) process: Option<Arc<Process>>,
    /// What it hands over on SIGQUIT.
    pub(super) predecessor: Option<Arc<Predecessor>>,
    /// The hand-over after which it leaves, to be finished with the last request.
    pub(super) underway: Arc<Mutex<Option<Underway>>>,
}

#[async_trait]
impl ShutdownSignalWatch for Conductor {
    async fn recv(&self) -> ShutdownSignal {
        let mut asks = Asks::new(&self.stop);
        self.lifecycle.attend();
        let leaves = loop {
            tokio::select! {
                ask = asks.next() => match ask {
                    Ask::Stop(name) => {
                        self.tell_of_the_stop(name);
                        break false;
                    }
                    Ask::Reopen => self.reopen(),
                    Ask::HandOver => match self.hand_over(&mut asks).await {
                        Next::Stay => {}
                        Next::Leave => break true,
                        Next::Stop(name) => {
                            self.tell_of_the_stop(name);
                            break false;
                        }
                        Next::Fail => {
                            self.tell_of_the_failure();
                            break false;
                        }
                    }
                    Ask::Reload => self.reload(),
                },
                () = self.lifecycle.failed() => {
                    self.tell_of_the_failure();
                    break false;
                }
            }
        };
        // To systemd the successor is the service by now, and that does not stop.
        if !leaves && self.process.is_some() {
            notify::stopping();
        }
        self.drain(&mut asks).await;
        ShutdownSignal::FastShutdown
    }
}

impl Conductor {
    fn tell_of_the_stop(&self, name: &str) {
        let busy = self.activity.busy();
        info!("{name}: draining for {:?} at most; requests in flight: {busy}", self.grace_period);
    }

    fn tell_of_the_failure(&self) {
        error!("stopping: {}", self.lifecycle.failure().unwrap_or_default());
    }

    /// Finishes what is begun, for as long as the grace period at most, or until somebody is impatient.
    async fn drain(&self, asks: &mut Asks<'_>) {
        self.lifecycle.advance(State::Draining);
        let finished = async {
            sleep(SETTLE).await;
            self.activity.idle().await;
            self.connections.idle().await;
            info!("drained");
            self.lifecycle.advance(State::Stopped);
            self.admin.idle().await;
        };
        tokio::pin!(finished);
        let grace_period = sleep(self.grace_period);
        tokio::pin!(grace_period);
        loop {
            tokio::select! {
                () = &mut finished => return,
                () = &mut grace_period => {
                    warn!("the grace period is over; requests cut: {}", self.activity.busy());
                    break;
                }
                ask = asks.next() => match ask {
                    Ask::Stop(INTERRUPT) => {
                        warn!("{INTERRUPT} again; requests cut: {}", self.activity.busy());
                        break;
                    }
                    Ask::Stop(name) => info!("{name}: draining already"),
                    Ask::HandOver => info!("SIGQUIT: draining already"),
                    Ask::Reopen => self.reopen(),
                    Ask::Reload => info!("SIGHUP: not reloading, since the server stops"),
                }
            }
        }
        self.lifecycle.advance(State::Stopped);
    }

    /// Reloads beside everything else: a slow one delays no other signal. What comes of it is logged.
    fn reload(&self) {
        info!("SIGHUP: reloading the configuration");
        let Some(reloader) = self.reloader.clone() else {
            return error!("configuration not reloaded: there is none");
        };
        let (is_process, lifecycle) = (self.process.is_some(), self.lifecycle.clone());
        drop(tokio::spawn(async move {
            if is_process {
                lifecycle.if_ready(notify::reloading);
            }
            let outcome = reloader.reload().await;
            if is_process {
                let status = if outcome.is_ok() { "serving" } else { "a reload was refused; serving" };
                // To systemd a successor may be the one that counts by now.
                lifecycle.if_ready(|| notify::serving(status));
            }
        }));
    }

    /// Opens the logs again, since they were moved away.
    pub(super) fn reopen(&self) {
        info!("SIGUSR1: reopening the logs");
        self.access_log.reopen();
        if let Some(process) = &self.process {
            process.reopen_error_log();
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

/// Who is impatient, once somebody is.
async fn asked_again(stop: &Stop) -> &'static str {
    let mut asks = Asks::new(stop);
    loop {
        match (stop, asks.next().await) {
            (Stop::Signals, Ask::Stop(INTERRUPT)) => return INTERRUPT,
            (Stop::Signals, _) => {}
            // What a handle says, it says once.
            (Stop::Handle(_), _) => std::future::pending().await,
        }
    }
}

/// What a server is asked for.
pub(super) enum Ask {
    /// To stop; by whom.
    Stop(&'static str),
    /// To reopen its logs.
    Reopen,
    /// To hand over to a successor.
    HandOver,
    /// To read its configuration again.
    Reload,
}

/// Where that comes from.
pub(super) enum Asks<'a> {
    Signals(Signals),
    Handle(&'a StopHandle),
    /// A handle that was used.
    Nobody,
}

impl<'a> Asks<'a> {
    fn new(stop: &'a Stop) -> Self {
        match stop {
            Stop::Signals => Asks::Signals(Signals::new()),
            Stop::Handle(handle) => Asks::Handle(handle),
        }
    }

    /// The next one. Dropping the future before it is done loses none.
    pub(super) async fn next(&mut self) -> Ask {
        match self {
            Asks::Signals(signals) => tokio::select! {
                _ = signals.terminate.recv() => Ask::Stop("SIGTERM"),
                _ = signals.interrupt.recv() => Ask::Stop(INTERRUPT),
                _ = signals.reopen.recv() => Ask::Reopen,
                _ = signals.quit.recv() => Ask::HandOver,
                _ = signals.reload.recv() => Ask::Reload,
            },
            Asks::Handle(handle) => {
                handle.requested().await;
                *self = Asks::Nobody;
                Ask::Stop("asked to stop")
            }
            Asks::Nobody => std::future::pending().await,
        }
    }
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    quit: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| signal(kind).expect("the kernel lets every process handle these signals");
        Signals {
            terminate: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
            reopen: listen(SignalKind::user_defined1()),
            quit: listen(SignalKind::quit()),
            reload: listen(SignalKind::hangup()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [State; 5] = [State::Starting, State::Ready, State::HandingOver, State::Draining, State::Stopped];

    #[test]
    fn only_the_moves_of_the_drawing_are_made() {
        let moves: Vec<_> = ALL
            .iter()
            .flat_map(|from| ALL.iter().filter(|to| from.leads_to(**to)).map(|to| (from.name(), to.name())))
            .collect();
        let expected = [
            ("starting", "ready"),
            ("starting", "draining"),
            ("ready", "handing_over"),
            ("ready", "draining"),
            ("handing_over", "ready"),
            ("handing_over", "draining"),
            ("draining", "stopped"),
        ];
        assert_eq!(moves, expected);
    }

    #[test]
    fn who_sees_a_state_sees_what_follows_from_it() {
        let lifecycle = Lifecycle::new();
        let (states, stopping, closing) = (lifecycle.states(), lifecycle.stopping(), lifecycle.closing());
        lifecycle.advance(State::Ready);
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                for _ in 0..20_000 {
                    assert!(lifecycle.advance(State::HandingOver) && lifecycle.advance(State::Ready));
                }
            });
            while !moving.is_finished() {
                // No state comes as long as this one is looked at.
                let state = states.borrow();
                let seen = (*stopping.borrow(), *closing.borrow());
                assert_eq!(seen, (state.is_stopping(), state.is_stopping()), "{}", state.name());
            }
        });
    }

    #[test]
    fn the_admin_api_goes_on_while_the_server_drains_and_not_while_it_hands_over() {
        let lifecycle = Lifecycle::new();
        let (stopping, closing) = (lifecycle.stopping(), lifecycle.closing());
        let mut seen = Vec::new();
        let moves = [State::Ready, State::HandingOver, State::Ready, State::Draining, State::Ready, State::Stopped];
        for state in moves {
            seen.push((lifecycle.advance(state), *stopping.borrow(), *closing.borrow()));
        }
        let (no, yes) = (false, true);
        let expected = [(yes, no, no), (yes, yes, yes), (yes, no, no), (yes, yes, no), (no, yes, no), (yes, yes, yes)];
        assert_eq!((seen.as_slice(), lifecycle.state()), (&expected[..], State::Stopped));
        assert!(!lifecycle.is_service_ready());

        let lifecycle = Lifecycle::new();
        let moves = [State::Ready, State::HandingOver, State::Draining];
        assert!(moves.into_iter().all(|state| lifecycle.advance(state)));
        assert!(*lifecycle.stopping().borrow() && *lifecycle.closing().borrow(), "the successor has the sockets");
        assert!(lifecycle.is_service_ready(), "the successor serves");
    }
}
