//! How a node and the fleet stand, as far as clients go.

use thiserror::Error;

use crate::fleet::link::LinkError;
use crate::store::{StoreError, WriteError};

/// What came of meeting the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// This node belongs to it.
    Joined {
        /// The secret of the keys of buckets, for all nodes.
        secret: u128,
    },
    /// This node has clients of its own, and the fleet has others.
    Foreign,
    /// The store cannot be reached.
    Unreachable,
}

/// How this node and the fleet stand, as far as clients go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryState {
    /// It has not met the fleet yet, or cannot reach it.
    #[default]
    Away,
    /// It follows.
    Joined,
    /// It has clients of its own and stays apart.
    Foreign,
}

/// Why the clients of the fleet cannot be had.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// This node's file cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node's file does not take it in.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The fleet's store cannot.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What the fleet's store holds makes no sense.
    #[error("{0}")]
    Senseless(&'static str),
}

/// What to do about a node that has clients of its own.
pub const FOREIGN: &str = "this node has clients of its own, and the fleet has others: stop it, and run `tollgate fleet \
    join --import` to add its clients to the fleet's, or `tollgate fleet join --replace` to have the fleet's instead";
