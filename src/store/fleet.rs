//! What a store of clients shares with those of other nodes.
//!
//! The problem: a write on any node must hold on all, and two nodes that write at once must end with the same.
//!
//! The rule: who writes has seen everything. The changes of a fleet are numbered in one line, and a store keeps up to
//! which one it has taken them in. What a transaction changes is handed to a [`Publisher`] before it is committed here;
//! that succeeds only at the end of the line. When others came first, the transaction is rolled back, their changes are
//! taken in, and it is run again. So what must be free or unchanged is checked where it always is.
//!
//! Changes that were made here alone (the fleet's store was away, and whoever wrote wanted it so) are marked, and go
//! along with the next that are published. Where two changes of a client meet, the newer one holds: that of the higher
//! version, then the later, then that of the client with the higher number. What
//! was made here alone and is not newer never was, in the history neither. Where both are of one version, what comes of
//! them has the next one, so that who has seen either is told that there was another.

use std::collections::HashSet;
use std::time::SystemTime;

use super::{Committed, micros};
use crate::client::ClientId;

/// A change, by whom, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Authored {
    /// What was changed. It has an action.
    pub change: Committed,
    /// By whom.
    pub by: String,
    /// When, to the microsecond.
    pub at: SystemTime,
}

impl Authored {
    /// By what the newer of two changes of a client is told: its version after it, when, the client's number.
    pub fn order(&self) -> (u64, i64, u64) {
        let number = self.change.after.as_ref().or(self.change.before.as_ref()).map_or(0, |record| record.number);
        (self.change.version(), micros(self.at), number)
    }
}

/// Which fleet a store belongs to, and how far it has taken in its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetCursor {
    /// The fleet, for good.
    pub lineage: u64,
    /// Differs when the fleet's store has lost something since.
    pub generation: u64,
    /// The secret of the keys of buckets, the same on all nodes.
    pub secret: u128,
    /// The number of the last change that is taken in; 0 when there is none in this generation.
    pub seq: u64,
    /// What the fleet's store gave that change, at random: by it a number that now means another change is found out.
    pub mark: u64,
}

/// Changes of other nodes, to be taken in as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// Them with their numbers, in their order; those of a bulk have one number.
    pub changes: Vec<(u64, Authored)>,
    /// What is kept with them.
    pub cursor: FleetCursor,
    /// Whether they are taken in whatever was kept before, and the cursor with them. Otherwise only what is behind the
    /// kept cursor is, and nothing when that is of another generation.
    pub anew: bool,
    /// With the last piece of all that the fleet has: whom it knows. Any other client goes that was not changed here
    /// alone; it was deleted so long ago that nothing tells of it any more.
    pub known: Option<HashSet<ClientId>>,
}

/// What became of changes that were to be published.
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// The fleet has them; the last one has this number and mark.
    Committed {
        /// Its number.
        seq: u64,
        /// Its mark.
        mark: u64,
    },
    /// Others came first, with these.
    Behind(Adoption),
    /// The fleet's store cannot be reached.
    Unreachable,
    /// It does not take them, for this reason.
    Refused(String),
    /// It did not answer; it may have them.
    Unknown,
}

/// Publishes what a transaction changes, given how far this store has come. Runs on the writer's thread, which waits
/// for it; it must not call the repository.
pub type Publisher = Box<dyn FnMut(&FleetCursor, Vec<Authored>) -> Published + Send>;
