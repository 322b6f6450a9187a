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
//! - A store that answers, and cannot do what it is for (`OOM`, `READONLY`, `LOADING`, `CLUSTERDOWN`, …), counts as unreachable:
//!   each node goes by what is to be done then, rather than to ask in vain for each request. What it says is the reason.
//!   A connection is of use when a trial of a write is answered well, one for each slot that is used; after
//!   one that was of none any more for such a reason the next try waits longer, so that a store at the brink of its
//!   memory does not come and go all the time.
//! - What is wrong or not allowed (`NOPERM`) leaves it reachable, and is told as what it refuses.
//! - Answers that say "not here" and "try again" (`MOVED`, `BUSY`, …) are errors of that call alone. Who says "not here"
//!   and was taken for the only server is a node of a Cluster, and counts as unreachable.
//!
//! A Cluster whose nodes all answer pings may do nothing else. What it says then the library keeps to itself, and tries
//! again for longer than a caller waits; so when a call was not answered in time, writes are tried with more patience.
//!
//! A Cluster that loses a primary: the library learns the new slots before it sends anything else, so calls about
//! healthy slots fail with the others until then, and the link counts as unreachable. Name several of its nodes: the
//! link begins again with those that are named.

mod core;
mod errors;
mod figures;
mod opening;
mod sentinels;
mod session;
mod state;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout;

pub use errors::LinkError;
pub use figures::{BOUNDS, StoreFigures};
pub use session::Blocking;
pub use state::LinkState;

use crate::clock::Clock;

use self::core::LinkCore;
use super::script::Script;
use super::settings::FleetSettings;
use errors::StoreFault;

#[cfg(test)]
pub(crate) mod tests;

/// The link to the store; clones are the same one.
#[derive(Clone)]
pub struct StoreLink(Arc<LinkCore>);

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
        StoreLink(Arc::new(LinkCore::new(settings, clock)))
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
        let commands = calls.iter().map(ScriptCall::command).collect();
        let end = self.0.clock.now() + limit;
        let (mut answers, session) = match self.0.session.load_full() {
            Some(session) => (self.0.send(&session, commands, limit).await, session),
            None => return vec![Err(self.0.unreachable()); calls.len()],
        };
        let unknown = |answer: &Result<Value, StoreFault>| matches!(answer, Err(fault) if fault.is_unknown_script());
        let again: Vec<usize> = (0..answers.len()).filter(|index| unknown(&answers[*index])).collect();
        if !again.is_empty() {
            let rest = || end.saturating_duration_since(self.0.clock.now());
            if let Ok(Ok(())) = timeout(rest(), session.load_scripts()).await {
                let commands = again.iter().map(|index| calls[*index].command()).collect();
                let second = self.0.send(&session, commands, rest()).await;
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
        let answers = self.0.send(&session, commands.to_vec(), limit).await;
        answers.into_iter().map(|answer| answer.map_err(|fault| fault.error)).collect()
    }

    /// A connection of its own, for commands that wait in the store.
    pub async fn blocking(&self) -> Result<Blocking, LinkError> {
        let state = self.state();
        let opened_in = state.borrow().clone();
        let Some(session) = self.0.session.load_full() else { return Err(self.0.unreachable()) };
        let opened = timeout(session::CONNECTING, session.beside(&self.0.settings)).await;
        let opened = opened.map_err(|_| LinkError::Unreachable("no connection in time".to_owned()))?;
        Ok(Blocking::new(opened?, state, opened_in))
    }

    /// Whether the store can be asked, now and from now on.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.state.subscribe()
    }

    /// The primary that is spoken to, where sentinels name it.
    pub fn primary(&self) -> Option<String> {
        self.0.session.load().as_ref()?.primary.as_ref().map(ToString::to_string)
    }

    /// What the store refuses although it answers, if it did so lately; for people.
    pub fn refuses(&self) -> Option<String> {
        self.0.refuses()
    }

    /// What was counted since the start.
    pub fn figures(&self) -> StoreFigures {
        self.0.counted.read()
    }
}
