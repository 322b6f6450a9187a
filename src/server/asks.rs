//! What a server is asked for, by signals or by its own process.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The log target of what came of what an operator asked for, which the event log writes one by one, also when it
/// repeats.
pub(super) const OPERATOR: &str = "tollgate::operator";

/// The signal of an operator at a keyboard: the second one counts at once. A supervisor may send SIGTERM twice.
pub(super) const INTERRUPT: &str = "SIGINT";

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
    /// What comes the way that `stop` says.
    pub(super) fn new(stop: &'a Stop) -> Self {
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
