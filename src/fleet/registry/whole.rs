//! Taking in the whole table of clients.

use std::collections::HashSet;

use super::answers::{self, LineTurn, Logged, Meta};
use super::came::follows;
use super::outcome::{JoinOutcome, RegistryError};
use super::publish::{CALL, ChangeLine, ENTRIES, PIECE, drawn};
use crate::client::ClientId;
use crate::store::{Adoption, Authored, FleetCursor, WriteError};

impl ChangeLine {
    /// Takes in the whole table, and before it whatever the line still has: that tells what happened on the way to what
    /// is, for the history; and after it the bulks that are not folded in. Then whom none of these knows is dropped,
    /// if the store still has all that it had at the start. Until its end is, the cursor is none of this generation: who
    /// ends in between begins again.
    pub(super) async fn take_all(&self, meta: Meta) -> Result<JoinOutcome, RegistryError> {
        let Some(start) = self.meta().await?.filter(|now| now.generation == meta.generation) else {
            return Ok(JoinOutcome::Unreachable);
        };
        let Meta { lineage, generation, secret, seq, mark } = start;
        let begun = FleetCursor { lineage, generation, secret, seq: 0, mark: 0 };
        self.take_line(begun).await?;
        let mut known = HashSet::new();
        let mut bulks = redis::cmd("LRANGE");
        bulks.arg(self.names.clients("bulks")).arg(0).arg(-1);
        let bulks = self.link.commands(&[bulks], CALL).await?.first().map(answers::numbers).unwrap_or_default();
        self.take_table(begun, &mut known).await?;
        for bulk in bulks {
            // One that is not there was folded in meanwhile, behind where this was.
            if self.take_stage(bulk, begun, Some(&mut known)).await? == 0 {
                return Ok(JoinOutcome::Unreachable);
            }
        }
        let cursor = FleetCursor { seq, mark, ..begun };
        let whole = match self.turn(&cursor, &[], drawn()).await? {
            LineTurn::Done { .. } => true,
            LineTurn::Behind(entries) => follows(&cursor, &entries) != Some(false),
            _ => false,
        };
        if !whole {
            return Ok(JoinOutcome::Unreachable);
        }
        self.store.adopt(Adoption { changes: Vec::new(), cursor, anew: true, known: Some(known) }).wait().await?;
        Ok(JoinOutcome::Joined { secret })
    }

    async fn take_line(&self, begun: FleetCursor) -> Result<(), RegistryError> {
        let mut from = "-".to_owned();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(self.names.clients("log")).arg(&from).arg("+").arg("COUNT").arg(ENTRIES);
            let answers = self.link.commands(&[range], CALL).await?;
            let entries = answers.first().and_then(answers::line);
            let entries = entries.ok_or(RegistryError::Senseless("the line of changes of clients makes no sense"))?;
            let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
            from = format!("({last}-0");
            let mut changes = Vec::new();
            for entry in entries {
                match entry.what {
                    Logged::One(change) => changes.push(*change),
                    Logged::Nonsense => {}
                    Logged::Bulk(_) => {
                        self.take(std::mem::take(&mut changes), begun).await?;
                        // It may be there no more; the table has what it came to.
                        self.take_stage(entry.mark, begun, None).await?;
                    }
                }
            }
            self.take(changes, begun).await?;
        }
    }

    async fn take_table(&self, begun: FleetCursor, known: &mut HashSet<ClientId>) -> Result<(), RegistryError> {
        let (mut place, mut done) = (b"0".to_vec(), 0);
        let mut length = redis::cmd("HLEN");
        length.arg(self.names.clients("all"));
        let all = self.link.commands(&[length], CALL).await?.first().map_or(0, answers::number);
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.names.clients("all")).arg(&place).arg("COUNT").arg(PIECE);
            let answers = self.link.commands(&[scan], CALL).await?;
            let piece = answers.first().and_then(answers::piece);
            let piece = piece.ok_or(RegistryError::Senseless("the table of clients makes no sense"))?;
            done += piece.ids.len() as u64;
            known.extend(piece.ids);
            self.take(piece.changes, begun).await?;
            self.taken.send_replace((done, all.max(done)));
            if piece.next == b"0" {
                return Ok(());
            }
            place = piece.next;
        }
    }

    /// Takes in a bulk from its stage; how many changes it had.
    async fn take_stage(
        &self,
        mark: u64,
        begun: FleetCursor,
        mut known: Option<&mut HashSet<ClientId>>,
    ) -> Result<usize, RegistryError> {
        let mut read = 0;
        loop {
            let piece = self.staged(mark, read).await?;
            read += piece.len();
            let last = piece.len() < PIECE;
            let changes: Vec<Authored> = piece.into_iter().flatten().collect();
            if let Some(known) = &mut known {
                let id = |change: &Authored| {
                    let change = &change.change;
                    change.after.as_ref().or(change.before.as_ref()).map(|record| record.id.clone())
                };
                known.extend(changes.iter().filter_map(id));
            }
            self.take(changes, begun).await?;
            if last {
                return Ok(read);
            }
        }
    }

    async fn take(&self, changes: Vec<Authored>, begun: FleetCursor) -> Result<(), WriteError> {
        let changes = changes.into_iter().map(|change| (0, change)).collect();
        self.store.adopt(Adoption { changes, cursor: begun, anew: true, known: None }).wait().await
    }
}
