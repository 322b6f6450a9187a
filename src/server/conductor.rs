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
use tokio::time::sleep;

use super::OPERATOR;
use super::asks::{Ask, Asks, INTERRUPT, Stop};
use super::handover::{Next, Predecessor, Underway};
use super::lifecycle::{Lifecycle, State};
use super::reload::Reloader;
use crate::process::{Process, notify};
use crate::proxy::{Activity, Tunnels};
use crate::telemetry::AccessLog;

/// How long connections that were accepted in the last moment get to show their request.
const SETTLE: Duration = Duration::from_millis(100);

/// How long saving may take after the last request.
const LAST_WORK: Duration = Duration::from_secs(30);

/// Tells Pingora when to stop, which is when everything is drained.
pub(super) struct Conductor {
    pub(super) lifecycle: Lifecycle,
    pub(super) stop: Stop,
    /// The requests in flight.
    pub(super) activity: Arc<Activity>,
    /// The connections of the proxy, which end after the requests on them.
    pub(super) connections: Arc<Activity>,
    /// Those of them that are tunnels, which end when there is no more time.
    pub(super) tunnels: Arc<Tunnels>,
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
                        warn!("{INTERRUPT}: not waiting any longer; requests cut: {}", self.activity.busy());
                        break;
                    }
                    Ask::Stop(name) => info!("{name}: draining already"),
                    Ask::HandOver => info!("SIGQUIT: draining already"),
                    Ask::Reopen => self.reopen(),
                    Ask::Reload => info!("SIGHUP: not reloading, since the server stops"),
                }
            }
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
        let (is_process, lifecycle) = (self.process.is_some(), self.lifecycle.clone());
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

    /// Opens the logs again, since they were moved away.
    pub(super) fn reopen(&self) {
        info!("SIGUSR1: reopening the logs");
        // The error log first: a daemon's standard output, where access lines may go, is that, too.
        if let Some(process) = &self.process {
            process.reopen_error_log();
        }
        self.access_log.reopen();
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
