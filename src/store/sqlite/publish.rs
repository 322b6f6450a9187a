//! Publishing what a transaction of the writer changes to the fleet, before it is committed.

use rusqlite::Connection;

use super::super::{Adoption, Authored, FleetCursor, Published, Publisher, WriteError};
use super::adopt;
use super::announce;
use super::queue::{Write, WriteOutcome};
use super::rows::ReadFailure;

/// A transaction that was given up.
pub(super) enum Failed {
    /// The file cannot.
    Store {
        reason: String,
        /// Whether nothing of it was kept for certain.
        known: bool,
    },
    /// Others of the fleet came first.
    Behind(Box<Adoption>),
    /// The fleet cannot.
    Fleet(WriteError),
}

impl From<ReadFailure> for Failed {
    fn from(failure: ReadFailure) -> Self {
        Failed::Store { reason: failure.words(), known: true }
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        ReadFailure::Sqlite(error).into()
    }
}

/// Whether the write may take long.
pub(super) fn is_long(write: &Write) -> bool {
    write.batch().is_some_and(announce::is_long) || write.adoption().is_some_and(announce::is_long_adoption)
}

/// Refuses those that need the fleet; those that do not.
pub(super) fn refuse(group: Vec<Write>, error: &WriteError) -> Vec<Write> {
    let (local, others): (Vec<_>, Vec<_>) = group.into_iter().partition(Write::is_local);
    others.into_iter().for_each(|write| write.refuse(error));
    local
}

/// Looks whether what is answered of writes that change nothing rests on all that the fleet has. While that cannot be
/// asked, a refusal rests on what is kept here; that nothing was to be changed is a write like any other.
pub(super) fn check_seen(
    publisher: Option<&mut Publisher>,
    kept: Option<FleetCursor>,
    (group, outcomes): (&[Write], &[WriteOutcome]),
) -> Result<(), Failed> {
    let (Some(publisher), Some(cursor)) = (publisher, kept) else { return Ok(()) };
    if !outcomes.iter().any(|outcome| outcome.is_idle() || outcome.is_refused()) {
        return Ok(());
    }
    let needs_fleet = |(write, outcome): (&Write, &WriteOutcome)| outcome.is_idle() && !write.is_local();
    match published(publisher(&cursor, Vec::new())) {
        Err(Failed::Fleet(_)) if !group.iter().zip(outcomes).any(needs_fleet) => Ok(()),
        seen => seen.map(drop),
    }
}

/// Where in the line something was published, and what marks it there.
fn published(answer: Published) -> Result<(u64, u64), Failed> {
    match answer {
        Published::Committed { seq, mark } => Ok((seq, mark)),
        Published::Behind(adoption) => Err(Failed::Behind(Box::new(adoption))),
        Published::Unreachable => Err(Failed::Fleet(WriteError::FleetUnreachable)),
        Published::Refused(reason) => Err(Failed::Fleet(WriteError::FleetRefuses(reason))),
        Published::Unknown => Err(Failed::Fleet(WriteError::FleetUnknown)),
    }
}

/// Publishes `changes`, and with them what was changed here alone before; or marks them where nobody publishes.
pub(super) fn publish(
    connection: &Connection,
    publisher: Option<&mut Publisher>,
    alone: bool,
    changes: Vec<Authored>,
) -> Result<(), Failed> {
    // After the writes: what others have changed may have been among them.
    let kept = adopt::cursor(connection)?;
    let (cursor, publisher) = match (kept, publisher) {
        (Some(cursor), Some(publisher)) => (cursor, publisher),
        // A fleet that is not joined yet.
        (None, Some(_)) if !alone && !changes.is_empty() => return Err(Failed::Fleet(WriteError::FleetUnreachable)),
        (None, _) => return Ok(()),
        (Some(_), None) => return Ok(adopt::mark(connection, &changes)?),
    };
    let mut all = adopt::pending(connection)?;
    all.extend(changes);
    if all.is_empty() {
        return Ok(());
    }
    let (seq, mark) = published(publisher(&cursor, all))?;
    adopt::unmark(connection)?;
    Ok(adopt::keep(connection, &FleetCursor { seq, mark, ..cursor })?)
}
