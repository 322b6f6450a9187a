//! Keeps the [`SearchText`] of the clients up to date.
//!
//! The rule: the text is that of one moment, which the history's sequence names. Whoever searches brings it up to the
//! moment of the own transaction, from what the history has had since; so a search sees every write that was answered
//! before, of other processes too, and its page and its total are of one moment. When much has changed, or the history
//! has forgotten some of it meanwhile, the text is made anew: a quarter of a second for a million clients. A thread does
//! the same each second, so that searches find little to do, the first one too.
//!
//! The text takes as much memory as names and notes have bytes. What is more than [`SHARE`] for each client is not kept:
//! long notes on most clients would take more than the clients themselves. Then a search reads all rows.
//!
//! Refused: following the writer, which would pay for searches with each write.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::search_text::{SearchPass, SearchPiece, SearchText};
use super::{feed, meta, rows};

/// How many bytes the text may have for each client, and in any case: a quarter of what a client takes in memory.
pub(super) const SHARE: usize = 96;
pub(super) const LEAST: usize = 1 << 20;
/// A change costs some twenty times what a client costs when the text is made anew.
const CHANGE_COST: u64 = 20;
/// From one look at the history to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// What searches look through.
#[derive(Debug)]
pub(super) struct Search {
    kept: Arc<KeptText>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct KeptText {
    known: Mutex<Option<KnownText>>,
    ending: AtomicBool,
}

/// The clients at one moment.
#[derive(Clone, Debug)]
struct KnownText {
    /// The last change of all before it.
    sequence: i64,
    /// None when it would be too large.
    text: Option<SearchText>,
}

impl Search {
    /// Of the clients that `connection` reads. Searches do without the thread when there is none to be had.
    pub(super) fn new(connection: Connection) -> Self {
        let (kept, (stop, stopped)) = (Arc::<KeptText>::default(), channel());
        let keeper = Arc::clone(&kept);
        let run = move || {
            while !keeper.ending.load(Ordering::Relaxed) {
                // Whoever searches is told.
                let _ = connection.unchecked_transaction().and_then(|moment| keeper.text(&moment));
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("store-search".to_owned()).spawn(run).ok();
        Search { kept, stop: Some(stop), thread }
    }

    /// Looks through all clients of the moment, whose transaction has read nothing yet.
    pub(super) fn look(&self, moment: &Connection, pass: &mut SearchPass) -> rusqlite::Result<()> {
        match self.kept.text(moment)? {
            Some(text) => text.look(pass),
            None => each_piece(moment, |piece| {
                pass.look(&piece);
                true
            })?,
        }
        Ok(())
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.kept.ending.store(true, Ordering::Relaxed);
        self.stop.take();
        // It gives its connection up, which is to be closed before the writer's.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl KeptText {
    /// The text of the moment, whose transaction has read nothing yet; none when it would be too large.
    fn text(&self, moment: &Connection) -> rusqlite::Result<Option<SearchText>> {
        let mut known = self.known.lock();
        // The transaction begins with this read, behind the lock: so the text is never younger.
        let last = feed::last(moment)?;
        let clients = meta::get(moment, "clients")?.unwrap_or(0).unsigned_abs();
        let mut text = None;
        if let Some(known) = &*known {
            let changes_since = last.abs_diff(known.sequence);
            let are_few = changes_since.saturating_mul(CHANGE_COST) < clients;
            match &known.text {
                text if changes_since == 0 => return Ok(text.clone()),
                None if are_few => return Ok(None),
                Some(before) if are_few => {
                    text = changes(moment, known.sequence, last)?.map(|changes| before.with(changes));
                }
                _ => {}
            }
        }
        let most = LEAST.max(usize::try_from(clients).unwrap_or(usize::MAX).saturating_mul(SHARE));
        let text = match text {
            Some(text) => text,
            None => self.all(moment, most)?,
        };
        let text = Some(text).filter(|text| text.len() <= most);
        *known = Some(KnownText { sequence: last, text: text.clone() });
        Ok(text)
    }

    /// The text made anew; not to its end when it is too large, or when nobody can ask for it any more.
    fn all(&self, moment: &Connection, most: usize) -> rusqlite::Result<SearchText> {
        let (mut text, mut len) = (SearchText::default(), 0);
        each_piece(moment, |piece| {
            text.push(&piece);
            len += piece.len();
            len <= most && !self.ending.load(Ordering::Relaxed)
        })?;
        Ok(text)
    }
}

/// By their names the notes of the clients that have changed from one entry of the history to another; none of those
/// that are gone. None at all when the history has forgotten some of it, or has been put back.
fn changes(moment: &Connection, seen: i64, last: i64) -> rusqlite::Result<Option<BTreeMap<String, Option<String>>>> {
    let mut later = moment.prepare_cached("SELECT client_id FROM history WHERE sequence > ?1 AND sequence <= ?2")?;
    let mut note = moment.prepare_cached("SELECT note FROM clients WHERE client_id = ?1")?;
    let (mut changes, mut found) = (BTreeMap::new(), later.query((seen, last))?);
    let mut entries = 0;
    while let Some(row) = found.next()? {
        entries += 1;
        if let Entry::Vacant(change) = changes.entry(row.get(0)?) {
            let note = note.query_row([change.key()], |row| row.get(0)).optional()?;
            change.insert(note);
        }
    }
    Ok((entries == last - seen).then_some(changes))
}

/// Gives `each` the text of all clients in pieces, until it returns false.
fn each_piece(moment: &Connection, mut each: impl FnMut(Vec<u8>) -> bool) -> rusqlite::Result<()> {
    let mut all = moment.prepare_cached("SELECT client_id, note FROM clients ORDER BY client_id")?;
    let (mut piece, mut found) = (SearchPiece::default(), all.query([])?);
    while let Some(row) = found.next()? {
        // Text that is none, as only another program writes it, is found by nobody.
        let (id, note) = (rows::text(row, 0).unwrap_or_default(), rows::text(row, 1).unwrap_or_default());
        if let Some(full) = piece.add(id, note)
            && !each(full)
        {
            return Ok(());
        }
    }
    each(piece.take());
    Ok(())
}
