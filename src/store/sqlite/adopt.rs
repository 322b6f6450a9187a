//! What is kept of the fleet, and taking in what other nodes have changed.

use std::collections::{HashMap, HashSet};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::super::{Action, Adoption, Authored, Committed, FleetCursor, Profile, Record};
use super::changes::{self, ChangeStop, ClientRows};
use super::credential::{Credential, credentials_of};
use super::fault::TARGET;
use super::meta;
use super::rows::{self, ClientReader, ReadFailure, signed};
use crate::client::ClientId;

const LINEAGE: &str = "fleet_lineage";
const GENERATION: &str = "fleet_generation";
const SEQ: &str = "fleet_seq";
const MARK: &str = "fleet_mark";

/// A client that was made this many microseconds after its last change, with a lower version, was made anew: its
/// deletion had been forgotten, which takes a day at least. Half of one is left for clocks.
const FORGOTTEN: i64 = 12 * 60 * 60 * 1_000_000;

/// What becomes of clients that were changed here alone and elsewhere.
#[derive(Default)]
struct Met {
    /// What was made elsewhere is newer than what was made here, which is from this version on.
    lost: HashMap<ClientId, u64>,
    /// Both have come to one version, and have been answered with it; what comes of it has another.
    even: Vec<ClientId>,
}

/// How far the file has taken in the fleet's changes; none when it belongs to no fleet.
pub(super) fn cursor(connection: &Connection) -> rusqlite::Result<Option<FleetCursor>> {
    let get = |name| meta::get(connection, name).map(|value| value.map(i64::cast_unsigned));
    let (Some(lineage), Some(generation)) = (get(LINEAGE)?, get(GENERATION)?) else { return Ok(None) };
    let (seq, mark) = (get(SEQ)?.unwrap_or(0), get(MARK)?.unwrap_or(0));
    Ok(Some(FleetCursor { lineage, generation, secret: meta::secret(connection, 0)?, seq, mark }))
}

/// Keeps how far the file has come.
pub(super) fn keep(connection: &Connection, cursor: &FleetCursor) -> rusqlite::Result<()> {
    let FleetCursor { lineage, generation, secret, seq, mark } = *cursor;
    let numbers = [(LINEAGE, lineage), (GENERATION, generation), (SEQ, seq), (MARK, mark)];
    numbers.into_iter().try_for_each(|(name, value)| meta::set(connection, name, value.cast_signed()))?;
    meta::replace_secret(connection, secret)
}

/// Marks what was changed here alone.
pub(super) fn mark(connection: &Connection, changes: &[Authored]) -> rusqlite::Result<()> {
    let mut mark =
        connection.prepare_cached("INSERT OR IGNORE INTO fleet_pending (client_id, version) VALUES (?, ?)")?;
    for Authored { change, .. } in changes {
        if let Some(id) = change.after.as_ref().or(change.before.as_ref()).map(|record| &record.id) {
            mark.execute((id.as_str(), signed(change.version())))?;
        }
    }
    Ok(())
}

/// All changes of clients that were changed here alone. `CROSS JOIN` has SQLite begin with those, which are few: else it
/// reads the whole history for them, each time.
const PENDING: &str = "FROM history WHERE sequence IN (SELECT h.sequence FROM fleet_pending AS p
    CROSS JOIN history AS h ON h.client_id = p.client_id AND h.version >= p.version) ORDER BY sequence";
/// The last one of each.
const LAST_PENDING: &str = "SELECT client_id, p.version, h.version, h.changed_at, h.number
    FROM fleet_pending AS p CROSS JOIN history AS h USING (client_id)
    WHERE h.version = (SELECT max(version) FROM history WHERE client_id = p.client_id)";

/// Whatever was changed here alone, in its order.
pub(super) fn pending(connection: &Connection) -> Result<Vec<Authored>, ReadFailure> {
    let sql = format!("SELECT {} {PENDING}", rows::HISTORY);
    let (mut reader, mut changes) = (ClientReader::default(), Vec::new());
    let mut select = connection.prepare_cached(&sql)?;
    let mut found = select.query([])?;
    while let Some(row) = found.next()? {
        changes.push(reader.authored(row)?);
    }
    Ok(changes)
}

/// Nothing is changed here alone any more.
pub(super) fn unmark(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM fleet_pending")?.execute([]).map(drop)
}

/// Gives `each` the last change of every client that is or was, until it returns false.
pub(super) fn latest(connection: &Connection, each: &mut dyn FnMut(Authored) -> bool) -> Result<(), ReadFailure> {
    let sql = format!(
        "SELECT {} FROM history WHERE version = (SELECT max(version) FROM history AS newer
             WHERE newer.client_id = history.client_id)",
        rows::HISTORY
    );
    let mut reader = ClientReader::default();
    let mut select = connection.prepare(&sql)?;
    let mut found = select.query([])?;
    while let Some(row) = found.next()? {
        if !each(reader.authored(row)?) {
            break;
        }
    }
    Ok(())
}

/// The text that is kept by this name.
pub(super) fn note(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let mut get = connection.prepare_cached("SELECT value FROM fleet_notes WHERE name = ?1")?;
    get.query_row([name], |row| row.get(0)).optional()
}

/// Those whose names begin like this, in the order of their names.
pub(super) fn notes(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT name, value FROM fleet_notes WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name";
    let mut all = connection.prepare_cached(sql)?;
    all.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Keeps a text by its name, or forgets it.
pub(super) fn keep_note(connection: &Connection, name: &str, value: Option<&str>) -> rusqlite::Result<()> {
    let Some(value) = value else {
        return connection.prepare_cached("DELETE FROM fleet_notes WHERE name = ?1")?.execute([name]).map(drop);
    };
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO fleet_notes (name, value) VALUES (?1, ?2)")?;
    put.execute((name, value)).map(drop)
}

impl ClientRows<'_> {
    /// Takes in what others have changed; what that changed here. It is never refused: where it needs what a client has
    /// that was changed here alone, that client loses it.
    pub(super) fn adopt(&mut self, adoption: &Adoption) -> Result<Vec<Committed>, ChangeStop> {
        let kept = cursor(self.connection())?.filter(|kept| kept.lineage == adoption.cursor.lineage);
        let kept = kept.filter(|kept| kept.generation == adoption.cursor.generation);
        if kept.is_none() && !adoption.anew {
            return Ok(Vec::new());
        }
        let seen = kept.map_or(0, |kept| kept.seq);
        let mut told = Vec::new();
        let coming =
            || adoption.changes.iter().filter(|(seq, _)| adoption.anew || *seq > seen).map(|(_, change)| change);
        let mut met = self.meet(coming())?;
        for authored in coming() {
            self.adopt_one(authored, &mut met, &mut told)?;
        }
        for id in met.even {
            self.raise(&id, &mut told)?;
        }
        if let Some(known) = &adoption.known {
            self.drop_unknown(known, &mut told)?;
        }
        if kept.is_none() || adoption.cursor.seq > seen {
            keep(self.connection(), &adoption.cursor)?;
        }
        Ok(told)
    }

    /// Finds out which clients that were changed here alone come, and what comes of them.
    fn meet<'a>(&self, coming: impl Iterator<Item = &'a Authored>) -> Result<Met, ChangeStop> {
        let mut pending = HashMap::new();
        let mut select = self.connection().prepare_cached(LAST_PENDING)?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let [from, version, number] = [row.get(1)?, row.get(2)?, row.get(4)?].map(i64::cast_unsigned);
            pending.insert(row.get::<_, String>(0)?, (from, (version, row.get(3)?, number)));
        }
        let mut last = HashMap::new();
        for change in coming.filter(|_| !pending.is_empty()) {
            let shown = change.change.after.as_ref().or(change.change.before.as_ref());
            if let Some(id) = shown.map(|record| &record.id).filter(|id| pending.contains_key(id.as_str())) {
                last.insert(id, change.order());
            }
        }
        let mut met = Met::default();
        for (id, order) in last {
            let (from, own) = pending[id.as_str()];
            if order > own {
                met.lost.insert(id.clone(), from);
            }
            if order != own && order.0 == own.0 {
                met.even.push(id.clone());
            }
        }
        Ok(met)
    }

    fn adopt_one(&mut self, authored: &Authored, met: &mut Met, told: &mut Vec<Committed>) -> Result<(), ChangeStop> {
        let Authored { change, by, at } = authored;
        let Some(id) = change.after.as_ref().or(change.before.as_ref()).map(|record| record.id.clone()) else {
            return Ok(());
        };
        let connection = self.connection();
        let stamp = (by.as_str(), *at);
        let order = authored.order();
        let known = |sql: &str, version: u64| -> rusqlite::Result<_> {
            let mut find = connection.prepare_cached(sql)?;
            let read = |row: &rusqlite::Row<'_>| {
                let [version, at, number, sequence] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?];
                Ok(((i64::cast_unsigned(version), at, i64::cast_unsigned(number)), sequence))
            };
            find.query_row((id.as_str(), signed(version)), read).optional()
        };
        let latest = "SELECT version, changed_at, number, sequence FROM history
            WHERE client_id = ?1 AND version <= ?2 ORDER BY version DESC LIMIT 1";
        let newest = known(latest, u64::MAX)?.map(|(newest, _)| newest);
        // Who made it had forgotten that it was deleted.
        let reborn = change.action == Some(Action::Create)
            && newest.is_some_and(|newest| newest > order && order.1.saturating_sub(newest.1) >= FORGOTTEN)
            && !self.is_pending(&id)?;
        let lost = met.lost.get(&id).copied().filter(|from| order.0 >= *from);
        if let Some(newest) = newest.filter(|_| !reborn && lost.is_none())
            && (newest > order || newest == order && !self.is_pending(&id)?)
        {
            // Of two changes to one version, the history keeps the newer one, everywhere the same.
            let same =
                "SELECT version, changed_at, number, sequence FROM history WHERE client_id = ?1 AND version = ?2";
            if let Some((_, sequence)) = known(same, order.0)?.filter(|(other, _)| *other < order) {
                changes::record(connection, change, stamp, Value::Integer(sequence))?;
            }
            return Ok(());
        }
        let before = self.get(&id)?;
        let here = Committed { before, after: change.after.clone(), action: change.action };
        self.move_credentials(&id, &here, authored, told)?;
        self.put(&here)?;
        changes::record(connection, change, stamp, Value::Null)?;
        if let Some(from) = lost {
            // What was changed here alone never was. What has just been recorded has the highest number.
            met.lost.remove(&id);
            let mut forget = connection.prepare_cached(
                "DELETE FROM history WHERE client_id = ?1 AND version >= ?2 AND sequence < last_insert_rowid()",
            )?;
            forget.execute((id.as_str(), signed(from)))?;
        }
        if reborn {
            let mut forget = connection.prepare_cached("DELETE FROM history WHERE client_id = ?1 AND version > ?2")?;
            forget.execute((id.as_str(), signed(order.0)))?;
        }
        self.forget_pending(&id)?;
        if here.before.is_some() || here.after.is_some() {
            told.push(here);
        }
        Ok(())
    }

    /// Gives a client the credentials that it has after a change, and takes those that it had.
    fn move_credentials(
        &mut self,
        id: &ClientId,
        here: &Committed,
        authored: &Authored,
        told: &mut Vec<Committed>,
    ) -> Result<(), ChangeStop> {
        let connection = self.connection();
        let (release, claim) = credentials_of(here);
        for credential in release.iter().filter(|old| !claim.contains(old)) {
            credential.release_of(connection, id)?;
        }
        for credential in &claim {
            if let Some(other) = credential.owner(connection)?.filter(|other| other != id) {
                credential.release(connection)?;
                self.bereave(&other, credential, authored, told)?;
            }
            credential.claim(connection, id)?;
        }
        Ok(())
    }

    /// Gives a client that came to one version here alone and elsewhere the next one, which is a change of its own
    /// that is yet to be published: whoever has seen either change has not seen what came of both.
    fn raise(&mut self, id: &ClientId, told: &mut Vec<Committed>) -> Result<(), ChangeStop> {
        let connection = self.connection();
        let Some(before) = self.get(id)? else { return Ok(()) };
        let at = before.updated_at;
        let after = Record { version: before.version + 1, ..before.clone() };
        let change = Committed { before: Some(before), after: Some(after), action: Some(Action::Update) };
        self.put(&change)?;
        changes::record(connection, &change, ("fleet", at), Value::Null)?;
        mark(connection, &[Authored { change: change.clone(), by: String::new(), at }])?;
        told.push(change);
        Ok(())
    }

    /// Deletes whom the fleet does not know any more, as of their last change: nobody else has a later one either.
    fn drop_unknown(&mut self, known: &HashSet<ClientId>, told: &mut Vec<Committed>) -> Result<(), ChangeStop> {
        let connection = self.connection();
        let mut gone = Vec::new();
        {
            let mut all = connection.prepare_cached(
                "SELECT client_id FROM clients WHERE client_id NOT IN (SELECT client_id FROM fleet_pending)",
            )?;
            let mut names = all.query([])?;
            while let Some(name) = names.next()? {
                let name: String = name.get(0)?;
                gone.extend(ClientId::parse(&name).ok().filter(|id| !known.contains(id)));
            }
        }
        for id in gone {
            let Some(before) = self.get(&id)? else { continue };
            let at = before.updated_at;
            let change = Committed { before: Some(before), after: None, action: Some(Action::Delete) };
            for credential in credentials_of(&change).0 {
                credential.release_of(connection, &id)?;
            }
            self.put(&change)?;
            changes::record(connection, &change, ("fleet", at), Value::Null)?;
            told.push(change);
        }
        Ok(())
    }

    /// Whether the client was changed here alone.
    fn is_pending(&self, id: &ClientId) -> rusqlite::Result<bool> {
        let mut find = self.connection().prepare_cached("SELECT 1 FROM fleet_pending WHERE client_id = ?1")?;
        find.exists([id.as_str()])
    }

    fn forget_pending(&self, id: &ClientId) -> rusqlite::Result<()> {
        let mut forget = self.connection().prepare_cached("DELETE FROM fleet_pending WHERE client_id = ?1")?;
        forget.execute([id.as_str()]).map(drop)
    }

    /// Takes a credential from a client that was changed here alone, which is a change of its own; one that is left
    /// without any would have its name for one, so it is deleted. The others lose it by a change that is yet to come.
    fn bereave(
        &mut self,
        other: &ClientId,
        lost: &Credential,
        cause: &Authored,
        told: &mut Vec<Committed>,
    ) -> Result<(), ChangeStop> {
        let connection = self.connection();
        if !self.is_pending(other)? {
            return Ok(());
        }
        let Some(before) = self.get(other)? else { return Ok(()) };
        let mut profile: Profile = before.profile.clone();
        match lost {
            Credential::Key(digest) => profile.api_keys.retain(|key| key.digest.as_bytes() != digest),
            Credential::Network(network) => profile.addresses.retain(|address| address != network),
        }
        let bare = profile.api_keys.is_empty() && profile.addresses.is_empty();
        let after =
            (!bare).then(|| Record { profile, updated_at: cause.at, version: before.version + 1, ..before.clone() });
        let action = if bare { Action::Delete } else { Action::Update };
        log::warn!(
            target: TARGET,
            "client {other} was changed here alone and has lost {} to another client of the fleet",
            if bare { "its only credential, and is deleted," } else { "a credential" }
        );
        let change = Committed { before: Some(before), after, action: Some(action) };
        self.put(&change)?;
        changes::record(connection, &change, ("fleet", cause.at), Value::Null)?;
        told.push(change);
        Ok(())
    }
}

impl ClientReader {
    /// The change that a row of [`rows::HISTORY`] records, with who made it and when.
    fn authored(&mut self, row: &rusqlite::Row<'_>) -> Result<Authored, ReadFailure> {
        let (change, entry) = (self.committed(row)?, self.entry(row)?);
        Ok(Authored { change, by: entry.by, at: entry.at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{STEPS, migrate};
    use super::*;

    #[test]
    fn what_was_changed_here_alone_is_found_without_reading_the_whole_history() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, STEPS).unwrap();
        for sql in [format!("SELECT * {PENDING}"), LAST_PENDING.to_owned()] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.query_map([], |row| row.get::<_, String>("detail")).unwrap();
            let scans: Vec<_> = steps.map(Result::unwrap).filter(|step| step.starts_with("SCAN")).collect();
            assert_eq!(scans, ["SCAN p"], "{sql}");
        }
    }
}
