//! Reading what came in the line, and the stages that it names.

use super::answers::{self, LogEntry, Logged};
use super::publish::{CALL, ChangeLine, PIECE};
use crate::fleet::link::LinkError;
use crate::store::{Adoption, Authored, FleetCursor};

/// What came after a cursor.
pub(super) enum Came {
    /// This is to be taken in next.
    Next(Adoption),
    /// Some of it is there no more.
    Gone,
    /// The change at the cursor is another one than was seen.
    Other,
}

/// Whether the first of `entries` is the change at `cursor`, or what comes right behind it; none when it is later.
pub(super) fn follows(cursor: &FleetCursor, entries: &[LogEntry]) -> Option<bool> {
    let LogEntry { seq, mark, .. } = entries.first()?;
    // Nothing stands at the first number.
    let first = *seq == 2 && cursor.seq == 1;
    (*seq == cursor.seq || first).then_some(first || *mark == cursor.mark)
}

impl ChangeLine {
    /// What is to be taken in of what came after `cursor`: changes up to the next bulk, or a bulk as a whole.
    pub(super) async fn what_came(&self, cursor: &FleetCursor, entries: Vec<LogEntry>) -> Result<Came, LinkError> {
        match follows(cursor, &entries) {
            Some(true) => {}
            Some(false) => return Ok(Came::Other),
            None => return Ok(Came::Gone),
        }
        let mut next = Adoption { changes: Vec::new(), cursor: *cursor, anew: false, known: None };
        for LogEntry { seq, mark, what } in entries.into_iter().filter(|entry| entry.seq > cursor.seq) {
            let count = match what {
                Logged::Bulk(count) => count,
                Logged::One(change) => {
                    next.changes.push((seq, *change));
                    (next.cursor.seq, next.cursor.mark) = (seq, mark);
                    continue;
                }
                Logged::Nonsense => {
                    passed_over(seq);
                    (next.cursor.seq, next.cursor.mark) = (seq, mark);
                    continue;
                }
            };
            if next.cursor.seq == cursor.seq {
                let Some(changes) = self.bulk(seq, mark, count).await? else { return Ok(Came::Gone) };
                next.changes = changes;
                (next.cursor.seq, next.cursor.mark) = (seq, mark);
            }
            break;
        }
        Ok(if next.cursor.seq == cursor.seq { Came::Gone } else { Came::Next(next) })
    }

    /// All of a bulk; none when it is not there as it was.
    async fn bulk(&self, seq: u64, mark: u64, count: usize) -> Result<Option<Vec<(u64, Authored)>>, LinkError> {
        let (mut changes, mut read) = (Vec::new(), 0);
        while read < count {
            let piece = self.staged(mark, read).await?;
            if piece.len() != PIECE.min(count - read) {
                return Ok(None);
            }
            read += piece.len();
            for change in piece {
                match change {
                    Some(change) => changes.push((seq, change)),
                    None => passed_over(seq),
                }
            }
        }
        Ok(Some(changes))
    }

    /// A piece of a stage; none for what makes no sense in it.
    pub(super) async fn staged(&self, mark: u64, from: usize) -> Result<Vec<Option<Authored>>, LinkError> {
        let mut range = redis::cmd("LRANGE");
        range.arg(self.stage(mark)).arg(from * 3).arg((from + PIECE) * 3 - 1);
        let answers = self.link.commands(&[range], CALL).await?;
        Ok(answers.first().map(answers::staged).unwrap_or_default())
    }
}

fn passed_over(seq: u64) {
    log::error!(target: "tollgate::fleet", "change {seq} of the fleet's clients makes no sense and is passed over");
}
