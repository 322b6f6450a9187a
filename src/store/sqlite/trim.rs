//! Forgetting old history, a piece at a time.
//!
//! The problem: every change is kept, and whoever changes a client every second fills the disk.
//!
//! The rule: the writer walks over the history from its beginning to its end, some thousand entries a second, and
//! begins anew an hour after it has come there, at once when the rules change. Clients that were changed more often
//! than may be kept are looked at each second as well, so that nobody waits for the walk. What goes are entries beyond
//! the newest `keep` of a client, and those older than `age`; never the one that says what a client is now, so a client
//! that is there always has one. Of a deleted client all go in the end.
//!
//! Two things stay for the [feed](super::feed): the newest entry of all, whose number is where others have come to, and
//! whatever is younger than [`YOUNG`], which another process may not have read yet.
//!
//! Refused: a trigger, or a deletion with each change, which costs every writer and takes from another process what it
//! has yet to follow; one large deletion, which others wait for.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::super::{Committed, HistoryRules, micros};
use crate::client::ClientId;

/// How many entries are looked at in one step; some milliseconds.
const PIECE: i64 = 2_000;
/// How many clients are looked at in one step besides.
const CLIENTS: usize = 256;
/// From the end of one walk to the start of the next.
const REST: Duration = Duration::from_secs(60 * 60);
/// Others have followed what is older than this; they look five times a second.
const YOUNG: Duration = Duration::from_secs(5);

/// Which entries of `history` go: parameters 1 to 3 are the count, the age and the youth, as moments.
const GOES: &str = "sequence < (SELECT max(sequence) FROM history) AND changed_at < ?3
    AND (version <= (SELECT max(version) FROM history AS newer WHERE newer.client_id = history.client_id) - ?1
        OR changed_at < ?2 AND version IS NOT (SELECT version FROM clients WHERE clients.client_id = history.client_id))";

/// How far the walk has come.
#[derive(Debug)]
pub(super) struct Trim {
    rules: HistoryRules,
    /// The number of the last entry that was looked at; none while it rests.
    at: Option<i64>,
    /// When it began to rest.
    since: Instant,
    /// Clients that have more entries than may be kept, with their version.
    long: HashMap<ClientId, u64>,
}

impl Trim {
    /// Begins to walk at `now`.
    pub(super) fn new(rules: HistoryRules, now: Instant) -> Self {
        Trim { rules, at: Some(0), since: now, long: HashMap::new() }
    }

    /// Takes note of what was changed.
    pub(super) fn changed(&mut self, changes: &[Committed]) {
        for after in changes.iter().filter_map(|change| change.after.as_ref()) {
            if after.version > self.rules.keep.get() {
                self.long.insert(after.id.clone(), after.version);
            }
        }
    }

    /// Takes the next step under `rules`; how many entries went.
    ///
    /// # Errors
    /// SQLite's. Nothing went then, and the next step tries it again.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        rules: HistoryRules,
        (now, wall): (Instant, SystemTime),
    ) -> rusqlite::Result<usize> {
        if rules != self.rules || now.saturating_duration_since(self.since) >= REST {
            (self.rules, self.since) = (rules, now);
            self.at.get_or_insert(0);
        }
        if self.at.is_none() && self.long.is_empty() {
            return Ok(0);
        }
        let before = |age: Duration| wall.checked_sub(age).map_or(i64::MIN, micros);
        let keep = i64::try_from(rules.keep.get()).unwrap_or(i64::MAX);
        let (old, young) = (before(rules.age), before(YOUNG));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut gone, mut next, mut done) = (0, self.at, Vec::new());
        if let Some(at) = self.at {
            next = piece(&transaction, at)?;
            let mut delete = transaction
                .prepare_cached(&format!("DELETE FROM history WHERE sequence > ?4 AND sequence <= ?5 AND {GOES}"))?;
            gone += delete.execute(params![keep, old, young, at, next.unwrap_or(i64::MAX)])?;
        }
        for (id, version) in self.long.iter().take(CLIENTS) {
            let mut delete =
                transaction.prepare_cached(&format!("DELETE FROM history WHERE client_id = ?4 AND {GOES}"))?;
            gone += delete.execute(params![keep, old, young, id.as_str()])?;
            let mut left =
                transaction.prepare_cached("SELECT 1 FROM history WHERE client_id = ?1 AND version <= ?2")?;
            if !left.exists(params![id.as_str(), version.saturating_sub(rules.keep.get()).cast_signed()])? {
                done.push(id.clone());
            }
        }
        transaction.commit()?;
        if next.is_none() && self.at.is_some() {
            self.since = now;
        }
        self.at = next;
        self.long.retain(|id, _| !done.contains(id));
        Ok(gone)
    }
}

/// The number of the last entry of the piece behind `at`; none when the end is in it.
fn piece(connection: &Connection, at: i64) -> rusqlite::Result<Option<i64>> {
    let mut last = connection
        .prepare_cached("SELECT sequence FROM history WHERE sequence > ?1 ORDER BY sequence LIMIT 1 OFFSET ?2")?;
    last.query_row((at, PIECE - 1), |row| row.get(0)).optional()
}
