//! Whether the store can be asked.

use std::time::Instant;

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

    /// Since when it does or does not.
    pub fn since(&self) -> Instant {
        match self {
            LinkState::Reachable { since } | LinkState::Unreachable { since, .. } => *since,
        }
    }

    /// Why it does not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            LinkState::Reachable { .. } => None,
            LinkState::Unreachable { reason, .. } => Some(reason),
        }
    }
}
