//! Carries out what a server is asked for while it runs, and tells Pingora when to stop.
//!
//! Pingora's own shutdown sleeps the whole grace period even when idle. So the draining happens here, while Pingora
//! still waits to be told of a signal, and then it is told to stop fast, because there is nothing left to wait for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use parking_lot::Mutex;
use pingora_core::server::{RunArgs, Server as PingoraServer, ShutdownSignal, ShutdownSignalWatch};
use tokio::time::{sleep, timeout};

use super::asks::{Ask, Asks, INTERRUPT, OPERATOR, Stop};
use super::core::ServerActivity;
use super::handover::{Next, Predecessor, Underway};
use super::lifecycle::{Lifecycle, State};
use super::logs::Logs;
use super::reload::Reloader;
use crate::process::notify;
use crate::proxy::Tunnels;
use crate::upstream::Pools;

/// How long connections that were accepted in the last moment get to show their request.
const SETTLE: Duration = Duration::from_millis(100);

/// How long requests that are cut may take to write their access line.
const CUT: Duration = Duration::from_millis(500);

/// How long saving may take after the last request.
const LAST_WORK: Duration = Duration::from_secs(30);

/// Tells Pingora when to stop, which is when everything is drained.
pub(super) struct Conductor {
    pub(super) lifecycle: Lifecycle,
    pub(super) stop: Stop,
    /// What is under way.
    pub(super) traffic: ServerActivity,
    /// The connections that are tunnels, which end when there is no more time.
    pub(super) tunnels: Arc<Tunnels>,
    /// Where requests wait for backends, which they may while it drains, but no longer.
    pub(super) pools: Option<Arc<Pools>>,
    /// Reopened on SIGUSR1.
    pub(super) logs: Logs,
    /// Asked on SIGHUP.
    pub(super) reloader: Option<Arc<Reloader>>,
    pub(super) grace_period: Duration,
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
                    Ask::Reopen => self.logs.reopen(),
                    Ask::HandOver => match self.hand_over(&mut asks).await {
                        Next::Stay => {}
                        Next::Leave(underway) => {
                            *self.underway.lock() = Some(underway);
                            let busy = self.traffic.requests.busy();
                            info!("handed over: draining for {:?} at most; requests in flight: {busy}", self.grace_period);
                            break true;
                        }
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
        if !leaves && self.logs.process.is_some() {
            notify::stopping().or_log();
        }
        self.drain(&mut asks).await;
        ShutdownSignal::FastShutdown
    }
}

impl Conductor {
    /// Runs the services of `pingora` until everything is drained. Blocks the thread.
    pub(super) fn run(self, pingora: PingoraServer) {
        pingora.run(RunArgs { shutdown_signal: Box::new(self) });
    }

    /// Hands over to a successor, if there is one.
    async fn hand_over(&self, asks: &mut Asks<'_>) -> Next {
        match &self.predecessor {
            Some(predecessor) => predecessor.conduct(asks, &self.logs).await,
            None => {
                warn!(target: OPERATOR, "SIGQUIT: there is nothing to hand over here");
                Next::Stay
            }
        }
    }

    fn tell_of_the_stop(&self, name: &str) {
        let busy = self.traffic.requests.busy();
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
            self.traffic.requests.idle().await;
            self.traffic.connections.idle().await;
            info!("drained");
            self.lifecycle.advance(State::Stopped);
            self.traffic.admin.idle().await;
        };
        tokio::pin!(finished);
        let grace_period = sleep(self.grace_period);
        tokio::pin!(grace_period);
        loop {
            tokio::select! {
                () = &mut finished => return,
                () = &mut grace_period => {
                    warn!("the grace period is over; requests cut: {}", self.traffic.requests.busy());
                    break;
                }
                ask = asks.next() => match ask {
                    Ask::Stop(INTERRUPT) => {
                        warn!("{INTERRUPT}: not waiting any longer; requests cut: {}", self.traffic.requests.busy());
                        break;
                    }
                    Ask::Stop(name) => info!("{name}: draining already"),
                    Ask::HandOver => info!("SIGQUIT: draining already"),
                    Ask::Reopen => self.logs.reopen(),
                    Ask::Reload => info!("SIGHUP: not reloading, since the server stops"),
                }
            }
        }
        if self.pools.as_ref().is_some_and(|pools| pools.close_queues() > 0) {
            // For what those are told that waited.
            let _ = timeout(SETTLE, self.traffic.requests.idle()).await;
        }
        self.tunnels.end().await;
        self.lifecycle.advance(State::Stopped);
    }

    /// Reloads beside everything else: a slow one delays no other signal. What comes of it is logged.
    fn reload(&self) {
        info!("SIGHUP: reloading the configuration");
        let Some(reloader) = self.reloader.clone() else {
            return error!(target: OPERATOR, "configuration not reloaded: there is none");
        };
        let (is_process, lifecycle) = (self.logs.process.is_some(), self.lifecycle.clone());
        drop(tokio::spawn(async move {
            if is_process && let Some(word) = lifecycle.if_ready(notify::reloading) {
                word.or_log();
            }
            let outcome = reloader.reload().await;
            if is_process {
                let status = if outcome.is_ok() { "serving" } else { "a reload was refused; serving" };
                // To systemd a successor may be the one that counts by now.
                if let Some(word) = lifecycle.if_ready(|| notify::serving(status)) {
                    word.or_log();
                }
            }
        }));
    }
}

/// Waits until what was cut is gone from the threads that served it, but not for long.
pub(super) fn cut_requests_end(traffic: &ServerActivity) {
    if traffic.requests.busy() > 0
        && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
    {
        let _ = runtime.block_on(async { timeout(CUT, traffic.requests.idle()).await });
    }
}

/// Does `work` after the last request, for as long as [`LAST_WORK`] at most: a disk that hangs does not keep the
/// process, and neither does anything a user who asks again.
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
                name = asked_again(stop) => warn!("{name}: not waiting any longer; what is not saved yet is left"),
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
