//! Whether writes fail now, why, and saying so once.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::ErrorCode;

use super::super::StoreError;

/// Where the store's events are logged.
pub(super) const TARGET: &str = "tollgate::store";

/// The state of the writes of one file. Every change of it is one line in the log.
#[derive(Debug, Default)]
pub(super) struct Fault {
    reason: Mutex<Option<String>>,
    errors: AtomicU64,
}

impl Fault {
    /// Why writes fail now.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    /// How many write transactions have failed.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Counts a write transaction that failed.
    pub(super) fn count(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes fail for `reason`; what to answer to them.
    pub(super) fn begin(&self, path: &Path, reason: &str) -> StoreError {
        let told = format!("{}: {reason}", path.display());
        if self.set(Some(told.clone())) {
            log::error!(target: TARGET, "writes to the database fail: {told}; limits go on from memory");
        }
        StoreError(told)
    }

    /// Writes work.
    pub(super) fn end(&self, path: &Path) {
        if self.set(None) {
            log::info!(target: TARGET, "writes to the database work again: {}", path.display());
        }
    }

    /// Whether that is another state than before.
    fn set(&self, reason: Option<String>) -> bool {
        let mut present = self.reason.lock();
        let changed = *present != reason;
        *present = reason;
        changed
    }
}

/// What SQLite's error means, in words.
pub(super) fn words(error: &rusqlite::Error) -> String {
    let meaning = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process holds it locked",
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "it, its directory or its file system is read-only",
        Some(ErrorCode::SystemIoFailure) => "the disk does not read or write it",
        Some(ErrorCode::CannotOpen) => "it, or the files -wal and -shm beside it, cannot be opened or made",
        Some(ErrorCode::PermissionDenied) => "access is denied",
        Some(ErrorCode::DatabaseCorrupt) => "it is corrupt",
        Some(ErrorCode::NotADatabase) => "it is no SQLite database",
        Some(ErrorCode::OutOfMemory) => "SQLite got no memory",
        Some(ErrorCode::TooBig) => "a value is too big",
        _ => return format!("SQLite says: {error}"),
    };
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    format!("{meaning} (SQLite code {code}: {error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_once() {
        let (fault, path) = (Fault::default(), Path::new("/data/x.db"));
        assert!(!fault.set(None));
        assert_eq!(fault.begin(path, "the disk is full").0, "/data/x.db: the disk is full");
        assert_eq!(fault.reason().as_deref(), Some("/data/x.db: the disk is full"));
        assert!(!fault.set(fault.reason()));
        assert!(fault.set(Some("another".to_owned())) && fault.set(None) && !fault.set(None));
    }

    #[test]
    fn errors_are_in_words_and_keep_their_code() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let said = words(&rusqlite::Error::SqliteFailure(full, Some("database or disk is full".to_owned())));
        assert_eq!(said, "the disk is full (SQLite code 13: database or disk is full)");
    }
}
