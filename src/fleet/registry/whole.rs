//! Taking in the whole table of clients.

use std::collections::{HashMap, HashSet};

use super::answers::{self, LineTurn, Logged, Meta};
use super::came::follows;
use super::outcome::{JoinOutcome, RegistryError};
use super::publish::{CALL, ChangeLine, ENTRIES, PIECE, drawn};
use crate::client::ClientId;
use crate::fleet::link::LinkError;
use crate::store::{Adoption, Authored, FleetCursor, Reply, WriteError};

/// How many changes the file takes in with one transaction. They come in no order, so that each of a few writes pages of
/// its own: of five hundred clients more than of five thousand for each; the writes of others wait for a tenth of a second.
const AT_ONCE: usize = 5_000;

/// [`Authored::order`].
type ChangeOrder = (u64, i64, u64);

/// How far a take of the whole has come.
struct Taking {
    begun: FleetCursor,
    /// The last change of each client that was taken in with a bulk: the table has most of them again.
    of_bulks: HashMap<ClientId, ChangeOrder>,
    /// Whom the fleet knows, whether it has them now or not.
    known: HashSet<ClientId>,
    /// What is to be taken in next.
    next: Vec<(u64, Authored)>,
    /// What is being taken in, while more is read.
    under_way: Option<Reply<()>>,
}

impl Taking {
    fn new(begun: FleetCursor) -> Self {
        Taking { begun, of_bulks: HashMap::new(), known: HashSet::new(), next: Vec::new(), under_way: None }
    }

    fn is_new(&self, change: &Authored) -> bool {
        self.of_bulks.is_empty() || id_of(change).is_none_or(|id| self.of_bulks.get(&id) != Some(&change.order()))
    }
}

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
        self.taken.send_replace((0, self.all().await?));
        let mut taking = Taking::new(begun);
        self.take_line(&mut taking).await?;
        // What the line's bulks brought was in force once, and needs not be so now.
        taking.known.clear();
        let mut bulks = redis::cmd("LRANGE");
        bulks.arg(self.names.clients("bulks")).arg(0).arg(-1);
        let bulks = self.link.commands(&[bulks], CALL).await?.first().map(answers::numbers).unwrap_or_default();
        self.take_table(&mut taking).await?;
        for bulk in bulks {
            // One that is not there was folded in meanwhile, behind where this was.
            if self.take_stage(bulk, &mut taking).await? == 0 {
                return Ok(JoinOutcome::Unreachable);
            }
        }
        self.take_next(&mut taking).await?;
        let cursor = FleetCursor { seq, mark, ..begun };
        let whole = match self.turn(&cursor, &[], drawn()).await? {
            LineTurn::Done { .. } => true,
            LineTurn::Behind(entries) => follows(&cursor, &entries) != Some(false),
            _ => false,
        };
        if !whole {
            return Ok(JoinOutcome::Unreachable);
        }
        if let Some(last) = taking.under_way {
            last.wait().await?;
        }
        let known = Some(taking.known);
        self.store.adopt(Adoption { changes: Vec::new(), cursor, anew: true, known }).wait().await?;
        self.taken.send_replace((0, 0));
        Ok(JoinOutcome::Joined { secret })
    }

    async fn take_line(&self, taking: &mut Taking) -> Result<(), RegistryError> {
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
                        self.take(std::mem::take(&mut changes), taking).await?;
                        // It may be there no more; the table has what it came to.
                        self.take_stage(entry.mark, taking).await?;
                    }
                }
            }
            self.take(changes, taking).await?;
            self.taken.send_modify(|_| ());
        }
    }

    async fn take_table(&self, taking: &mut Taking) -> Result<(), RegistryError> {
        let (mut place, mut done) = (b"0".to_vec(), 0);
        let all = self.all().await?;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.names.clients("all")).arg(&place).arg("COUNT").arg(PIECE);
            let answers = self.link.commands(&[scan], CALL).await?;
            let piece = answers.first().and_then(answers::piece);
            let mut piece = piece.ok_or(RegistryError::Senseless("the table of clients makes no sense"))?;
            done += piece.ids.len() as u64;
            taking.known.extend(piece.ids);
            piece.changes.retain(|change| taking.is_new(change));
            self.take(piece.changes, taking).await?;
            self.taken.send_replace((done, all.max(done)));
            if piece.next == b"0" {
                return Ok(());
            }
            place = piece.next;
        }
    }

    /// How many clients the table has, those that were deleted among them.
    pub(super) async fn all(&self) -> Result<u64, LinkError> {
        let mut length = redis::cmd("HLEN");
        length.arg(self.names.clients("all"));
        Ok(self.link.commands(&[length], CALL).await?.first().map_or(0, answers::number))
    }

    /// Takes in a bulk from its stage; how many changes it had.
    async fn take_stage(&self, mark: u64, taking: &mut Taking) -> Result<usize, RegistryError> {
        let mut read = 0;
        loop {
            let piece = self.staged(mark, read).await?;
            read += piece.len();
            let last = piece.len() < PIECE;
            let mut changes: Vec<Authored> = piece.into_iter().flatten().collect();
            taking.known.extend(changes.iter().filter_map(id_of));
            changes.retain(|change| taking.is_new(change));
            taking.of_bulks.extend(changes.iter().filter_map(|change| Some((id_of(change)?, change.order()))));
            self.take(changes, taking).await?;
            // Whoever waits for the table hears that something comes.
            self.taken.send_modify(|_| ());
            if last {
                return Ok(read);
            }
        }
    }

    async fn take(&self, changes: Vec<Authored>, taking: &mut Taking) -> Result<(), WriteError> {
        taking.next.extend(changes.into_iter().map(|change| (0, change)));
        if taking.next.len() < AT_ONCE {
            return Ok(());
        }
        self.take_next(taking).await
    }

    /// Hands over what is next to the file, once that has taken in what was before.
    async fn take_next(&self, taking: &mut Taking) -> Result<(), WriteError> {
        if let Some(before) = taking.under_way.take() {
            before.wait().await?;
        }
        let changes = std::mem::take(&mut taking.next);
        let adoption = Adoption { changes, cursor: taking.begun, anew: true, known: None };
        taking.under_way = Some(self.store.adopt(adoption));
        Ok(())
    }
}

/// Whose change it is.
pub(super) fn id_of(change: &Authored) -> Option<ClientId> {
    let change = &change.change;
    change.after.as_ref().or(change.before.as_ref()).map(|record| record.id.clone())
}
