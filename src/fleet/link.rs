//! The way to the store: one connection, or one to each node of a Cluster, that a task of ours keeps up.
//!
//! The problem: a store goes away, comes back elsewhere, stands still, is loading; callers have 25 ms. The rules:
//!
//! - Connecting never keeps a caller waiting. While there is no connection, or the store does not answer, every call
//!   fails at once.
//! - Each call has a deadline. One that ran out [may have been carried out](LinkError::TimedOut) all the same.
//! - A ping every 100 ms; 250 ms after the last sign of life (a ping's answer, or any other), the store is unreachable,
//!   and whoever still waits is told.
//! - Tried again after 50 ms to 1 s, drawn at random, so that many nodes do not come at once.
//! - Answers that say "not now" or "not here" (`LOADING`, `READONLY`, `OOM`, …) count as unreachable. Those that say
//!   that the server is not the one to ask bring a new connection.

mod errors;
mod figures;
mod session;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub use errors::LinkError;
pub use figures::{BOUNDS, StoreFigures};
pub use session::Blocking;

use crate::clock::Clock;

use super::script::Script;
use super::settings::FleetSettings;
use errors::Fault;
use figures::Counted;
use session::Session;

#[cfg(test)]
pub(crate) mod tests;

/// The link to the store; clones are the same one.
#[derive(Clone)]
pub struct StoreLink(Arc<Inner>);

struct Inner {
    settings: FleetSettings,
    clock: Arc<dyn Clock>,
    session: ArcSwapOption<Session>,
    state: watch::Sender<LinkState>,
    /// When something last answered, in nanoseconds after `start`.
    sign: AtomicU64,
    start: Instant,
    /// Somebody saw that the connection is of no use any more, and why.
    broken: Notify,
    why: Mutex<Option<String>>,
    counted: Counted,
}

/// Whether the store can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It answers.
    Reachable {
        /// Since when.
        since: Instant,
    },
    /// It does not.
    Unreachable {
        /// Since when.
        since: Instant,
        /// Why not, for people.
        reason: String,
    },
}

impl LinkState {
    /// Whether it answers.
    pub fn is_reachable(&self) -> bool {
        matches!(self, LinkState::Reachable { .. })
    }
}

/// One call of a script.
#[derive(Clone, Debug)]
pub struct ScriptCall {
    /// Which.
    pub script: &'static Script,
    /// The keys it touches, all under one hash tag.
    pub keys: Vec<Vec<u8>>,
    /// Everything else.
    pub args: Vec<Vec<u8>>,
}

impl ScriptCall {
    fn command(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.sha()).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }
}

impl StoreLink {
    /// A link that is not connected before it [runs](StoreLink::run).
    pub fn new(settings: &FleetSettings, clock: Arc<dyn Clock>) -> Self {
        let start = clock.now();
        let state = LinkState::Unreachable { since: start, reason: "not connected yet".to_owned() };
        StoreLink(Arc::new(Inner {
            settings: settings.clone(),
            clock,
            session: ArcSwapOption::empty(),
            state: watch::Sender::new(state),
            sign: AtomicU64::new(0),
            start,
            broken: Notify::new(),
            why: Mutex::new(None),
            counted: Counted::default(),
        }))
    }

    /// Connects, and connects again, until `shutdown` says that the server stops. The last connection stays for what is
    /// to be said at the end.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => {}
            () = self.0.keep() => {}
        }
    }

    /// Runs scripts, in one go; an answer for each, in order. A script that the store has forgotten is loaded and
    /// called again, once.
    pub async fn calls(&self, calls: &[ScriptCall], limit: Duration) -> Vec<Result<Value, LinkError>> {
        let commands: Vec<Cmd> = calls.iter().map(ScriptCall::command).collect();
        let end = self.0.clock.now() + limit;
        let (mut answers, session) = match self.0.session.load_full() {
            Some(session) => (self.0.send(&session, &commands, limit).await, session),
            None => return vec![Err(self.0.unreachable()); calls.len()],
        };
        let unknown = |answer: &Result<Value, Fault>| matches!(answer, Err(fault) if fault.is_unknown_script());
        let again: Vec<usize> = (0..answers.len()).filter(|index| unknown(&answers[*index])).collect();
        if !again.is_empty() {
            let rest = || end.saturating_duration_since(self.0.clock.now());
            if let Ok(Ok(())) = timeout(rest(), session.load_scripts()).await {
                let commands: Vec<Cmd> = again.iter().map(|index| commands[*index].clone()).collect();
                let second = self.0.send(&session, &commands, rest()).await;
                for (index, answer) in again.into_iter().zip(second) {
                    answers[index] = answer;
                }
            }
        }
        answers.into_iter().map(|answer| answer.map_err(|fault| fault.error)).collect()
    }

    /// Runs plain commands, in one go; all their answers, or the first error. On a Cluster all are about keys of one
    /// hash tag.
    pub async fn commands(&self, commands: &[Cmd], limit: Duration) -> Result<Vec<Value>, LinkError> {
        let Some(session) = self.0.session.load_full() else { return Err(self.0.unreachable()) };
        let answers = self.0.send(&session, commands, limit).await;
        answers.into_iter().map(|answer| answer.map_err(|fault| fault.error)).collect()
    }

    /// A connection of its own, for commands that wait in the store.
    pub async fn blocking(&self) -> Result<Blocking, LinkError> {
        let Some(session) = self.0.session.load_full() else { return Err(self.0.unreachable()) };
        let opened = timeout(watching::CONNECTING, session.beside(&self.0.settings)).await;
        let opened = opened.map_err(|_| LinkError::Unreachable("no connection in time".to_owned()))?;
        Ok(Blocking::new(opened.map_err(LinkError::Unreachable)?, self.state()))
    }

    /// Whether the store can be asked, now and from now on.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.state.subscribe()
    }

    /// What was counted since the start.
    pub fn figures(&self) -> StoreFigures {
        self.0.counted.read()
    }
}

impl Inner {
    fn unreachable(&self) -> LinkError {
        self.counted.failed(1);
        let reason = match &*self.state.borrow() {
            LinkState::Unreachable { reason, .. } => reason.clone(),
            LinkState::Reachable { .. } => "the connection was lost".to_owned(),
        };
        LinkError::Unreachable(reason)
    }

    /// Sends commands and waits for their answers, at most so long, and not once the store counts as unreachable.
    async fn send(&self, session: &Session, commands: &[Cmd], limit: Duration) -> Vec<Result<Value, Fault>> {
        let begun = self.clock.now();
        let mut state = self.state.subscribe();
        let answers = tokio::select! {
            biased;
            answers = session.send(commands, limit) => answers,
            _ = state.wait_for(|state| !state.is_reachable()) => vec![Err(Fault::late()); commands.len()],
        };
        let faults: Vec<&Fault> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        self.counted.failed(faults.len());
        if let Some(fault) = faults.iter().find(|fault| fault.breaks) {
            self.break_off(fault.error.to_string());
        }
        if faults.iter().all(|fault| fault.answered) {
            self.alive();
            self.counted.took(self.clock.now().saturating_duration_since(begun));
        }
        answers
    }

    fn alive(&self) {
        let nanos = self.clock.now().saturating_duration_since(self.start).as_nanos();
        self.sign.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last_sign(&self) -> Instant {
        self.start + Duration::from_nanos(self.sign.load(Ordering::Relaxed))
    }

    /// Has the connection replaced.
    fn break_off(&self, reason: String) {
        *self.why.lock() = Some(reason);
        self.broken.notify_one();
    }
}
