//! Changes of clients within a transaction of the writer.
//!
//! Each is checked before it writes, so that one that is refused has written nothing and the others in the same
//! transaction go on. A batch checks as it goes, so it has a transaction of its own, which is rolled back when it is
//! refused. Refused: a savepoint for it in the transaction of others. SQLite keeps what it may have to put back in a
//! temporary file, and a failure of that would take the others along.

use std::iter::Peekable;
use std::time::SystemTime;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::plan::{self, ClientSource, Stamp};
use super::super::{
    Batch, BatchItem, Change, Committed, Difference, Profile, Record, Refusal, WriteError, micros, new_secret,
};
use super::credential::credentials_of;
use super::meta;
use super::rows::{self, ClientReader, ReadFailure, signed};
use crate::client::ClientId;

/// Why a write within a transaction failed.
#[derive(Debug)]
pub(super) enum ChangeStop {
    /// The transaction can go on without it: it has written nothing.
    Alone(WriteError),
    /// The transaction must be given up.
    All(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeStop {
    fn from(error: rusqlite::Error) -> Self {
        ChangeStop::All(error)
    }
}

impl From<ReadFailure> for ChangeStop {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Sqlite(error) => ChangeStop::All(error),
            ReadFailure::Row(error) => ChangeStop::Alone(WriteError::Unavailable(error)),
        }
    }
}

/// The clients, within one transaction of the writer.
pub(super) struct ClientRows<'c> {
    connection: &'c Connection,
    reader: ClientReader,
    /// How many clients there are, and the last number that was given away.
    counts: [i64; 2],
    /// The same at the start of the transaction.
    written: [i64; 2],
    /// Whether other nodes make clients too.
    in_fleet: bool,
}

const COUNTS: [&str; 2] = ["clients", "last_number"];

impl ClientSource for ClientRows<'_> {
    type Error = ChangeStop;

    fn number(&mut self) -> Result<u64, ChangeStop> {
        if self.in_fleet {
            // Others give numbers away at the same time. Of 2^62, none comes twice.
            return Ok((new_secret() as u64 >> 2).max(1));
        }
        self.counts[1] += 1;
        Ok(self.counts[1].cast_unsigned())
    }

    fn last_version(&mut self, id: &ClientId) -> Result<u64, ChangeStop> {
        let mut last = self.connection.prepare_cached("SELECT max(version) FROM history WHERE client_id = ?1")?;
        let version: Option<i64> = last.query_row([id.as_str()], |row| row.get(0))?;
        Ok(version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0))
    }
}

impl<'c> ClientRows<'c> {
    /// The clients in the transaction that has begun on `connection`.
    pub(super) fn new(connection: &'c Connection, in_fleet: bool) -> rusqlite::Result<Self> {
        let counts = [meta::get(connection, COUNTS[0])?.unwrap_or(0), meta::get(connection, COUNTS[1])?.unwrap_or(0)];
        Ok(ClientRows { connection, reader: ClientReader::default(), counts, written: counts, in_fleet })
    }

    /// The connection of the transaction.
    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Writes the counts; to be called before the transaction is committed.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        for ((name, now), before) in COUNTS.into_iter().zip(self.counts).zip(self.written) {
            if now != before {
                meta::set(self.connection, name, now)?;
            }
        }
        Ok(())
    }

    /// Carries out one change.
    pub(super) fn change(&mut self, change: &Change) -> Result<Committed, ChangeStop> {
        let Change { id, by, at, rollback, edit, .. } = change;
        let stamp = Stamp::new(by.clone(), *at, *rollback);
        let before = self.get(id)?;
        let after = plan::run(id, edit, before.as_ref()).map_err(ChangeStop::Alone)?;
        let counts = self.counts;
        let committed = plan::outcome(id, before, after, &stamp, self)?;
        if committed.action.is_none() {
            return Ok(committed);
        }
        if let Err(refusal) = plan::check_name(id, &committed) {
            self.counts = counts;
            return Err(ChangeStop::Alone(refusal.into()));
        }
        let (release, claim) = credentials_of(&committed);
        for credential in &claim {
            if let Some(other) = credential.owner(self.connection)?.filter(|other| other != id) {
                self.counts = counts;
                return Err(ChangeStop::Alone(credential.taken(id, other)));
            }
        }
        for credential in release.iter().filter(|old| !claim.contains(old)) {
            credential.release(self.connection)?;
        }
        for credential in claim.iter().filter(|new| !release.contains(new)) {
            credential.claim(self.connection, id)?;
        }
        self.write(&committed, &stamp)?;
        Ok(committed)
    }

    /// Carries out a batch. The transaction is to be rolled back when the batch is refused or was a dry run.
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<Difference, ChangeStop> {
        let stamp = Stamp::new(batch.by.clone(), batch.at, false);
        let mut items: Vec<_> = batch.items.iter().collect();
        items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let (mut difference, clients) = (Difference::default(), items.len());
        // Half of it is to look at them; what is to be done then is not known yet.
        batch.progress.expect(clients, 2 * clients);
        if batch.prune {
            self.compare_all(items, &stamp, &mut difference)?;
            batch.progress.count(clients);
        } else {
            for item in items {
                batch.progress.count(1);
                let before = self.get(&item.id)?;
                self.compare(&item.id, before, Some(item), &stamp, &mut difference)?;
            }
        }
        // A credential may pass from one client to another: all are released before any is claimed. In order, as each
        // is a place in a b-tree.
        let mut release = Vec::new();
        let mut claim = Vec::new();
        for (index, committed) in difference.changes.iter().enumerate() {
            let (old, new) = credentials_of(committed);
            release.extend(old.iter().filter(|old| !new.contains(old)).copied());
            claim.extend(new.iter().filter(|new| !old.contains(new)).map(|new| (*new, index)));
        }
        release.sort_unstable();
        claim.sort_unstable();
        batch.progress.expect(clients, clients + claim.len() + difference.changes.len());
        for credential in &release {
            credential.release(self.connection)?;
        }
        for (credential, index) in &claim {
            batch.progress.count(1);
            let Some(Record { id, .. }) = &difference.changes[*index].after else { continue };
            if !credential.claim(self.connection, id)? {
                let other = credential.owner(self.connection)?.unwrap_or_else(|| id.clone());
                return Err(ChangeStop::Alone(credential.taken(id, other)));
            }
        }
        for committed in &difference.changes {
            batch.progress.count(1);
            self.write(committed, &stamp)?;
        }
        Ok(difference)
    }

    /// Compares `items`, in the order of their names, with all clients; those that are not among them are to be
    /// deleted.
    fn compare_all(
        &mut self,
        items: Vec<&BatchItem>,
        stamp: &Stamp,
        difference: &mut Difference,
    ) -> Result<(), ChangeStop> {
        let mut all =
            self.connection.prepare_cached(&format!("SELECT {} FROM clients ORDER BY client_id", rows::RECORD))?;
        let mut present = all.query([])?;
        let mut items: Peekable<_> = items.into_iter().peekable();
        while let Some(row) = present.next()? {
            let before = self.reader.record(row)?;
            while let Some(item) = items.next_if(|item| item.id < before.id) {
                self.compare(&item.id, None, Some(item), stamp, difference)?;
            }
            let item = items.next_if(|item| item.id == before.id);
            self.compare(&before.id.clone(), Some(before), item, stamp, difference)?;
        }
        for item in items {
            self.compare(&item.id, None, Some(item), stamp, difference)?;
        }
        Ok(())
    }

    /// Adds what becomes of one client to the difference.
    fn compare(
        &mut self,
        id: &ClientId,
        before: Option<Record>,
        after: Option<&BatchItem>,
        stamp: &Stamp,
        difference: &mut Difference,
    ) -> Result<(), ChangeStop> {
        let old = before.as_ref().map(|before| &before.profile);
        let present = old.map(|old| &old.api_keys[..]).unwrap_or_default();
        let after = after.map(|BatchItem { profile, keys, of_plan, .. }| {
            let profile = profile.clone();
            let profile = if let Some(old) = old { profile.keeping_own(old, *of_plan) } else { profile };
            keys.clone().of(present).map(|api_keys| Profile { api_keys, ..profile })
        });
        let after = after.transpose().map_err(|wrong| ChangeStop::Alone(Refusal::of_keys(id)(wrong).into()))?;
        let committed = plan::outcome(id, before, after, stamp, self)?;
        plan::check_name(id, &committed).map_err(|refusal| ChangeStop::Alone(refusal.into()))?;
        match committed.action {
            Some(_) => difference.changes.push(committed),
            None => difference.unchanged += 1,
        }
        Ok(())
    }

    pub(super) fn get(&mut self, id: &ClientId) -> Result<Option<Record>, ReadFailure> {
        get(self.connection, &mut self.reader, id)
    }

    /// Writes the client and its history. The credentials are somebody else's matter.
    fn write(&mut self, committed: &Committed, stamp: &Stamp) -> Result<(), ChangeStop> {
        self.put(committed)?;
        record(self.connection, committed, (&stamp.by, stamp.at), Value::Null)
    }

    /// Writes the client.
    pub(super) fn put(&mut self, committed: &Committed) -> Result<(), ChangeStop> {
        match (&committed.before, &committed.after) {
            (before, Some(after)) => {
                let mut put = self.connection.prepare_cached(&format!(
                    "INSERT OR REPLACE INTO clients ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    rows::RECORD
                ))?;
                put.execute(params_from_iter(rows::record(after)))?;
                self.counts[0] += i64::from(before.is_none());
            }
            (Some(before), None) => {
                let id = before.id.as_str();
                self.connection.prepare_cached("DELETE FROM clients WHERE client_id = ?1")?.execute([id])?;
                self.counts[0] -= 1;
            }
            (None, None) => {}
        }
        Ok(())
    }
}

/// Writes a change into the history, with this sequence number; the next one when it is null. What has that number, or
/// is of that client and version, is replaced.
pub(super) fn record(
    connection: &Connection,
    committed: &Committed,
    (by, at): (&str, SystemTime),
    sequence: Value,
) -> Result<(), ChangeStop> {
    let Some(action) = committed.action else { return Ok(()) };
    let Some(shown) = committed.after.as_ref().or(committed.before.as_ref()) else { return Ok(()) };
    let before = committed.before.as_ref();
    let head = [
        sequence,
        Value::Text(shown.id.as_str().to_owned()),
        Value::Integer(signed(committed.version())),
        Value::Integer(micros(at)),
        Value::Text(by.to_owned()),
        Value::Text(action.name().to_owned()),
        Value::Integer(signed(shown.number)),
        Value::Integer(micros(shown.created_at)),
        before.map_or(Value::Null, |before| Value::Integer(micros(before.updated_at))),
    ];
    let (was, is) = (before.map(|before| &before.profile), committed.after.as_ref().map(|after| &after.profile));
    let mut record = connection.prepare_cached(&format!(
        "INSERT OR REPLACE INTO history ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows::HISTORY
    ))?;
    record.execute(params_from_iter(head.into_iter().chain(rows::profile(was)).chain(rows::profile(is))))?;
    Ok(())
}

/// The client with this name.
pub(super) fn get(
    connection: &Connection,
    reader: &mut ClientReader,
    id: &ClientId,
) -> Result<Option<Record>, ReadFailure> {
    let mut get = connection.prepare_cached(&format!("SELECT {} FROM clients WHERE client_id = ?1", rows::RECORD))?;
    let mut found = get.query([id.as_str()])?;
    found.next()?.map(|row| reader.record(row)).transpose()
}
