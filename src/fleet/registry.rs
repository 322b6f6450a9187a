//! Clients everywhere: what one node writes, all have.
//!
//! The problem: a client that is made, changed or deleted on any node must be so on all, within a second; two nodes that
//! write at once must end with the same; no write that was answered may be lost, whatever ends in between.
//!
//! The rule: who writes has seen everything. The store holds one line of changes, numbered from 2 on (a stream, cut to
//! the last 100,000), and each client's last change (a hash, with those that were deleted within the time that the history
//! goes back; bulks are folded in behind them). A node's [store](crate::store) publishes what a transaction changes before it commits, by a script that adds to the line only for who has seen its
//! end. So every node's file is the same at the same number, and what must be free or unchanged is checked there.
//!
//! - **Generation**: made anew whenever the store was empty, or turned out to have lost what a node had seen (a replica
//!   that was promoted without it: the marks of changes tell). Then every node offers all it has, the newer change of a
//!   client holds, and takes in the whole table. A node that is new, or has been away for longer than the line is kept,
//!   takes in the whole table too, and drops whom that does not know; but for what was made there alone.
//! - **Lineage**: one for good. A node that has clients and meets another lineage stays apart.
//! - **Following**: `XREAD` wakes the node, and every 500 ms it looks anyway; each time the script for adding, with
//!   nothing to add, says what came since, and whether the store still has what was seen.
//!
//! Refused: pub/sub alone, which loses what was said while nobody listened; clocks for who wins where the line says it;
//! a node that owns the clients, which is one more thing that can be away.

mod answers;
mod came;
mod outcome;
mod publish;
mod serving;
mod sync;
mod tend;
#[cfg(test)]
mod tests;
mod whole;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::link::{LinkError, StoreLink};
use crate::store::sqlite::Sqlite;
use crate::store::{Published, Publisher};
pub use outcome::{FOREIGN, JoinOutcome, RegistryError, RegistryState};
use publish::{ChangeLine, PublishAsk};

/// How long a start waits, in all, for what is new, where the node has had all of the fleet's clients.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// Is told how many clients of how many are taken in.
pub type TakingIn<'t> = &'t mut (dyn FnMut(u64, u64) + Send);

/// The clients of the fleet and this node's part in them. Clones are the same one.
#[derive(Clone)]
pub struct ClientRegistry(Arc<ChangeLine>);

impl ClientRegistry {
    /// The registry under `prefix`, for the clients in `store`.
    pub fn new(link: StoreLink, store: Sqlite, prefix: &str) -> Self {
        ClientRegistry(Arc::new(ChangeLine::new(link, store, prefix)))
    }

    /// What the store of clients publishes through. It fails at once while the store cannot be reached; otherwise
    /// whatever [runs](ClientRegistry::run) answers.
    pub fn publisher(&self) -> Publisher {
        let (asks, state) = (self.0.asks.clone(), self.0.link.state());
        Box::new(move |cursor, changes| {
            match state.borrow().why() {
                None => {}
                Some(LinkError::Refused(reason) | LinkError::Script(reason)) => {
                    return Published::Refused(reason.clone());
                }
                Some(_) => return Published::Unreachable,
            }
            let (answer, answered) = std::sync::mpsc::sync_channel(1);
            match asks.try_send(PublishAsk { cursor: *cursor, changes, answer }) {
                // Every call to the store has its time, so there will be an answer, or whoever runs has stopped.
                Ok(()) => answered.recv().unwrap_or(Published::Unknown),
                Err(_) => Published::Unreachable,
            }
        })
    }

    /// How this node and the fleet stand.
    pub fn state(&self) -> watch::Receiver<RegistryState> {
        self.0.state.subscribe()
    }

    /// Meets the fleet, if the store can be reached within `patience`, and comes level with it. A node that has had all
    /// of the fleet's clients, whatever has changed since, waits no longer than a second in all, and has joined
    /// then; what is new comes in once this [runs](ClientRegistry::run). One that has not goes on for as long as no more
    /// than `patience` passes without a piece of the whole table that is taken in; `tell` hears how many clients are, of
    /// about how many. Only before this runs.
    ///
    /// # Errors
    /// When this node's file cannot take in what the fleet has, or that makes no sense.
    pub async fn join_at_start(&self, patience: Duration, tell: TakingIn<'_>) -> Result<JoinOutcome, RegistryError> {
        let had = self.0.cursor().await?.is_some_and(|cursor| cursor.seq > 0);
        let mut late = pin!(sleep(CATCHING_UP));
        let met = {
            let mut state = self.0.link.state();
            let meeting = async {
                match state.wait_for(|state| state.is_reachable()).await {
                    Ok(_) => self.0.meet().await.map(Some),
                    Err(_) => Ok(None),
                }
            };
            tokio::select! {
                biased;
                met = meeting => met,
                () = &mut late, if had => Ok(None),
                () = sleep(patience) => Ok(None),
            }
        };
        let meeting = match met {
            Ok(Some(Some(meeting))) => meeting,
            Ok(Some(None)) => return Ok(JoinOutcome::Foreign),
            Ok(None) | Err(RegistryError::Link(_)) => return Ok(JoinOutcome::Unreachable),
            Err(error) => return Err(error),
        };
        let (secret, has_all) = (meeting.meta.secret, meeting.has_all);
        let mut taken = self.0.taken.subscribe();
        let mut joining = pin!(self.0.come_level(meeting));
        loop {
            tokio::select! {
                biased;
                Ok(()) = taken.changed() => {
                    let (done, all) = *taken.borrow_and_update();
                    if all > 0 {
                        tell(done, all);
                    }
                }
                outcome = &mut joining => return match outcome {
                    Err(RegistryError::Link(_)) => Ok(JoinOutcome::Unreachable),
                    outcome => outcome,
                },
                () = &mut late, if has_all => return Ok(JoinOutcome::Joined { secret }),
                () = sleep(patience) => return Ok(JoinOutcome::Unreachable),
            }
        }
    }

    /// How many of the fleet's clients are taken in, and of about how many, while this node takes in all of them.
    pub fn taking_in(&self) -> Option<(u64, u64)> {
        let taken = *self.0.taken.borrow();
        (*self.0.state.borrow() == RegistryState::Away && taken != (0, 0)).then_some(taken)
    }

    /// Publishes for the store and takes in what others publish, until `shutdown` says that the server stops.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let Some(asked) = self.0.asked.lock().take() else { return };
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => {}
            () = self.0.serve(asked) => {}
            () = self.0.keep_up() => {}
            () = self.0.tend() => {}
        }
        self.0.state.send_replace(RegistryState::Away);
    }
}
