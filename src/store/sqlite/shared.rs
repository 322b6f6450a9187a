//! What the writer of a file and those who read it share.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::super::{Follower, HistoryRules, Publisher, StoreError};
use super::fault::Fault;
use super::identity::FileIdentity;
use super::open::Database;
use super::reads::{self, Readers};
use super::rows::ReadFailure;
use super::search::Search;

/// What the writer and those who ask it share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// Of the keys of buckets; that of the file as it was opened first.
    pub(super) secret: u128,
    pub(super) fault: Fault,
    pub(super) followers: Mutex<Vec<Follower>>,
    /// Publishes changes to the fleet; none where there is no fleet.
    pub(super) publisher: Mutex<Option<Publisher>>,
    pub(super) history: Mutex<HistoryRules>,
    /// None once it is closed.
    pub(super) reading: RwLock<Option<Arc<Reading>>>,
}

/// The connections for reading, and the file that they read.
pub(super) struct Reading {
    pub(super) readers: Readers,
    pub(super) search: Search,
    pub(super) real: PathBuf,
    pub(super) identity: FileIdentity,
}

impl Shared {
    pub(super) fn reading(&self) -> Result<Arc<Reading>, StoreError> {
        self.reading.read().clone().ok_or_else(|| self.error("is closed"))
    }

    pub(super) fn close_readers(&self) {
        self.reading.write().take();
    }

    pub(super) fn error(&self, reason: &str) -> StoreError {
        StoreError(format!("{}: {reason}", self.path.display()))
    }

    pub(super) fn failed(&self, failure: ReadFailure) -> StoreError {
        self.error(&failure.words())
    }

    /// What to answer when there is no writer: it was closed, or has failed.
    pub(super) fn ended(&self) -> StoreError {
        let Some(reason) = self.fault.reason() else { return self.error("is closed") };
        self.fault.count();
        StoreError(reason)
    }
}

impl Reading {
    pub(super) fn open(database: &Database) -> rusqlite::Result<Self> {
        let (real, identity) = (database.real.clone(), database.identity.clone());
        let search = Search::new(reads::connect(&real)?);
        Ok(Reading { readers: Readers::open(&real)?, search, real, identity })
    }
}
