//! Telling other processes that a batch is under way.
//!
//! A batch of a million clients holds SQLite's lock for longer than a lock may be held, and during an upgrade the other
//! process must not refuse its writes for that. So whoever begins one that may take long writes down in the file, in a
//! transaction before, until when it may last; and whoever finds the file locked reads that, which a lock does not
//! prevent, and waits on.
//!
//! The note goes with the batch, in the same transaction. When the process ends in between it stays, and lapses: the
//! lock is gone with the process, so the note keeps nobody waiting.
//!
//! Refused: to wait that long for every lock. One that is not tollgate's is to be answered soon.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::super::{Adoption, Batch, micros};
use super::meta;
use crate::clock::{Clock, SystemClock};

/// Until when the batch may last, in microseconds since the Unix epoch.
const UNTIL: &str = "batch_until";
/// How long one may last.
const LASTS: Duration = Duration::from_secs(60);
/// Smaller ones take less than a second.
const LARGE: usize = 10_000;

/// Whether the batch may take long.
pub(super) fn is_long(batch: &Batch) -> bool {
    batch.prune || batch.items.len() >= LARGE
}

/// Whether taking in what others have changed may take long.
pub(super) fn is_long_adoption(adoption: &Adoption) -> bool {
    adoption.changes.len() >= LARGE
}

/// Says that a batch begins.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    meta::set(connection, UNTIL, micros(SystemClock.wall() + LASTS))
}

/// Says that it has ended.
pub(super) fn end(connection: &Connection) -> rusqlite::Result<()> {
    meta::remove(connection, UNTIL)
}

/// Whether `error` means that the file is locked, and what locks it may be a batch.
pub(super) fn is_reason(connection: &Connection, error: &rusqlite::Error) -> bool {
    let locked = matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked));
    let now = micros(SystemClock.wall());
    locked && meta::get(connection, UNTIL).is_ok_and(|until| until.is_some_and(|until| now < until))
}
