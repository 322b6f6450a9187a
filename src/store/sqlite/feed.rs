//! Following the changes of clients that another process makes in the same file.
//!
//! The history is numbered by a sequence that only rises, and transactions are one after the other, so whoever
//! remembers the last number it has seen finds every later change, once and in order. The writer looks before its own
//! changes in the same transaction, and moves on past them; so its own never come back to it.
//!
//! An entry stays for a minute at least. A process that was stopped for longer than that, while one client was changed
//! more than a hundred times, misses the steps between, not the result.

use rusqlite::Connection;

use super::super::Committed;
use super::fault::TARGET;
use super::rows::{self, Failure, Reader};

/// How far this process has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feed {
    seen: i64,
    /// SQLite's own mark: differs when another connection has committed.
    data_version: i64,
}

impl Feed {
    /// From now on.
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let data_version = data_version(connection)?;
        Ok(Feed { seen: last(connection)?, data_version })
    }

    /// The changes that are not seen yet, and the feed after them. Within a transaction for writing nothing comes in
    /// between.
    pub(super) fn read(self, connection: &Connection) -> Result<(Vec<Committed>, Self), Failure> {
        let last = last(connection)?;
        let mut changes = Vec::new();
        if last > self.seen {
            let mut reader = Reader::default();
            let sql = format!(
                "SELECT {} FROM history WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence",
                rows::HISTORY
            );
            let mut later = connection.prepare_cached(&sql)?;
            let mut found = later.query((self.seen, last))?;
            while let Some(row) = found.next()? {
                match reader.committed(row) {
                    Ok(change) => changes.push(change),
                    // Nobody could write any more if this one had to be read first.
                    Err(Failure::Row(error)) => log::error!(target: TARGET, "a change is passed over: {error}"),
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok((changes, Feed { seen: last, ..self }))
    }

    /// The same feed after all changes that are there.
    pub(super) fn past(self, connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Feed { seen: last(connection)?, ..self })
    }

    /// The same feed in a copy of the file.
    pub(super) fn moved_to(self, connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Feed { data_version: data_version(connection)?, ..self })
    }

    /// Whether another connection has committed since the last call. Costs some microseconds, and takes no lock.
    pub(super) fn is_behind(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let data_version = data_version(connection)?;
        Ok(std::mem::replace(&mut self.data_version, data_version) != data_version)
    }
}

fn last(connection: &Connection) -> rusqlite::Result<i64> {
    let mut last = connection.prepare_cached("SELECT max(sequence) FROM history")?;
    let last: Option<i64> = last.query_row([], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
