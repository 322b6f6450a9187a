//! Following the changes of clients that another process makes in the same file.
//!
//! The history is numbered by a sequence that only rises, and transactions are one after the other, so whoever
//! remembers the last number it has seen finds every later change, once and in order. The writer looks before its own
//! changes in the same transaction, and moves on past them; so its own never come back to it.
//!
//! A sequence that has fallen means that the content was put back from outside, through SQLite (`.restore`), in the
//! same file. What this process knows of was there and is not any more, and no entry says what became of it. So from
//! then on nothing is written, and that is a fault that only a new start ends: it reads all clients anew.

use rusqlite::Connection;

use super::super::{Committed, StoreError};
use super::fault::TARGET;
use super::rows::{self, ClientReader, ReadFailure};

/// How far this process has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feed {
    seen: i64,
    /// SQLite's own mark: differs when another connection has committed. None to have the next look find something.
    data_version: Option<i64>,
    /// Whether the sequence has ever fallen.
    fallen: bool,
}

impl Feed {
    /// From now on.
    pub(super) fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let data_version = Some(data_version(connection)?);
        Ok(Feed { seen: last(connection)?, data_version, fallen: false })
    }

    /// The changes that are not seen yet, and the feed after them. Within a transaction for writing nothing comes in
    /// between.
    ///
    /// # Errors
    /// When they cannot be read; when the sequence has fallen, now or ever.
    pub(super) fn read(&mut self, connection: &Connection) -> Result<(Vec<Committed>, Self), ReadFailure> {
        let last = last(connection)?;
        self.fallen |= last < self.seen;
        if self.fallen {
            let reason = "its content was put back to an earlier state; restart tollgate";
            return Err(ReadFailure::Row(StoreError(reason.to_owned())));
        }
        let mut changes = Vec::new();
        if last > self.seen {
            let mut reader = ClientReader::default();
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
                    Err(ReadFailure::Row(error)) => log::error!(target: TARGET, "a change is passed over: {error}"),
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok((changes, Feed { seen: last, ..*self }))
    }

    /// The same feed after all changes that are there.
    pub(super) fn past(self, connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Feed { seen: last(connection)?, ..self })
    }

    /// The same feed in a copy of the file.
    pub(super) fn moved_to(self, connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Feed { data_version: Some(data_version(connection)?), ..self })
    }

    /// Whether another connection has committed since the last call. Costs some microseconds, and takes no lock.
    pub(super) fn is_behind(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let data_version = Some(data_version(connection)?);
        Ok(std::mem::replace(&mut self.data_version, data_version) != data_version)
    }

    /// Has the next look find that another connection has committed: what it committed could not be read.
    pub(super) fn look_again(&mut self) {
        self.data_version = None;
    }
}

/// The number of the last change of all.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    let mut last = connection.prepare_cached("SELECT max(sequence) FROM history")?;
    let last: Option<i64> = last.query_row([], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_is_looked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tollgate.db");
        let connections = [Connection::open(&path).unwrap(), Connection::open(&path).unwrap()];
        connections[0].execute_batch("CREATE TABLE history (sequence INTEGER PRIMARY KEY)").unwrap();
        let mut feed = Feed::new(&connections[1]).unwrap();
        assert!(!feed.is_behind(&connections[1]).unwrap());
        connections[0].execute_batch("INSERT INTO history VALUES (1)").unwrap();
        assert!(feed.is_behind(&connections[1]).unwrap() && !feed.is_behind(&connections[1]).unwrap());
        feed.look_again();
        assert!(feed.is_behind(&connections[1]).unwrap() && !feed.is_behind(&connections[1]).unwrap());
    }
}
