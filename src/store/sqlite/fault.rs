//! Whether writes fail now, why, and saying so once.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::ErrorCode;

use super::super::StoreError;

/// Where the store's events are logged.
const TARGET: &str = "tollgate::store";

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
        let mut present = self.reason.lock();
        if present.as_ref() != Some(&told) {
            log::error!(target: TARGET, "writes to the database fail: {told}; limits go on from memory");
            *present = Some(told.clone());
        }
        StoreError(told)
    }

    /// Writes work.
    pub(super) fn end(&self, path: &Path) {
        if self.reason.lock().take().is_some() {
            log::info!(target: TARGET, "writes to the database work again: {}", path.display());
        }
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
