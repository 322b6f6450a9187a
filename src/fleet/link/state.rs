//! Whether the store can be asked.

use std::time::Instant;

use super::errors::LinkError;

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
        /// Why not.
        why: LinkError,
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
    pub fn why(&self) -> Option<&LinkError> {
        match self {
            LinkState::Reachable { .. } => None,
            LinkState::Unreachable { why, .. } => Some(why),
        }
    }
}
