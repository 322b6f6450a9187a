//! Buckets in the file.

use std::collections::HashSet;

use rusqlite::{Connection, TransactionBehavior};

use super::super::{Moment, Saved, SavedOwed, Snapshot};
use super::meta;
use super::rows::{self, ClientReader, ReadFailure};
use crate::clock::BootTime;
use crate::limit::{Payer, PolicyId};

const TIMELINE: &str = "saved_timeline";
const WALL: &str = "saved_wall";
/// The time since the machine's start: the two halves of which start it was, the nanoseconds, and the wall clock of the
/// same moment. A process of a version that does not know them leaves them as they were, and then the last one tells.
const BOOT: [&str; 4] = ["saved_boot_high", "saved_boot_low", "saved_boot_nanos", "saved_boot_wall"];

/// Writes a snapshot, within a transaction. In the order of the payers, as each is a place in a b-tree.
pub(super) fn save(connection: &Connection, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let Snapshot { changed, dropped, owed, at } = snapshot;
    save_owed(connection, owed)?;
    let mut changed: Vec<_> = changed.iter().collect();
    let mut dropped: Vec<_> = dropped.iter().collect();
    dropped.sort_unstable();
    let mut forget = connection.prepare_cached("DELETE FROM buckets WHERE (kind, payload) = (?1, ?2)")?;
    let mut forget_within =
        connection.prepare_cached("DELETE FROM policy_buckets WHERE (policy, kind, payload) = (?1, ?2, ?3)")?;
    for payer in &dropped {
        let ((kind, payload), policy) = (payer.parts(), payer.policy());
        match policy {
            None => forget.execute((kind, payload.cast_signed()))?,
            Some(policy) => forget_within.execute((policy.bits().cast_signed(), kind, payload.cast_signed()))?,
        };
    }
    // Stable, so that of two of the same payer the last one counts.
    changed.sort_by_key(|saved| saved.payer);
    let sql = format!("INSERT OR REPLACE INTO buckets ({}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows::BUCKET);
    let mut put = connection.prepare_cached(&sql)?;
    let sql =
        format!("INSERT OR REPLACE INTO policy_buckets ({}, policy) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows::BUCKET);
    let mut put_within = connection.prepare_cached(&sql)?;
    for &Saved { payer, bucket, quota } in changed {
        let ((kind, payload), (tokens, fraction)) = (payer.parts(), bucket.tokens().parts());
        let [capacity, rate] = rows::quota(quota);
        let (payload, fraction, at) = (payload.cast_signed(), fraction.cast_signed(), bucket.at().cast_signed());
        match payer.policy() {
            None => put.execute((kind, payload, tokens, fraction, at, capacity, rate))?,
            Some(policy) => {
                let policy = policy.bits().cast_signed();
                put_within.execute((kind, payload, tokens, fraction, at, capacity, rate, policy))?
            }
        };
    }
    meta::set(connection, TIMELINE, at.timeline.cast_signed())?;
    meta::set(connection, WALL, at.wall.cast_signed())?;
    match at.boot {
        Some(BootTime { id, nanos }) => {
            let values = [(id >> 64) as u64, id as u64, nanos, at.wall];
            BOOT.iter().zip(values).try_for_each(|(name, value)| meta::set(connection, name, value.cast_signed()))
        }
        None => BOOT.iter().try_for_each(|name| meta::remove(connection, name)),
    }
}

/// Writes what is owed now.
fn save_owed(connection: &Connection, owed: &[SavedOwed]) -> rusqlite::Result<()> {
    let mut forget =
        connection.prepare_cached("DELETE FROM fleet_owed WHERE (policy, kind, payload) = (?1, ?2, ?3)")?;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO fleet_owed VALUES (?, ?, ?, ?, ?, ?)")?;
    for SavedOwed { payer, tokens, quota } in owed {
        let ((kind, payload), policy) = (payer.parts(), payer.policy().map_or(0, PolicyId::bits));
        let (policy, payload, [capacity, rate]) = (policy.cast_signed(), payload.cast_signed(), rows::quota(*quota));
        match tokens {
            0 => forget.execute((policy, kind, payload))?,
            _ => put.execute((policy, kind, payload, tokens.cast_signed(), capacity, rate))?,
        };
    }
    Ok(())
}

/// Gives `each` all that is owed.
pub(super) fn load_owed(connection: &Connection, each: &mut dyn FnMut(SavedOwed)) -> Result<(), ReadFailure> {
    let mut reader = ClientReader::default();
    let mut all = connection.prepare(
        "SELECT kind, payload, tokens, NULL, NULL, capacity, rate, nullif(policy, 0) FROM fleet_owed \
         ORDER BY policy, kind, payload",
    )?;
    let mut owed = all.query([])?;
    while let Some(row) = owed.next()? {
        each(reader.owed(row)?);
    }
    Ok(())
}

/// The moment of the last save; none when there never was one.
fn moment(connection: &Connection) -> rusqlite::Result<Option<Moment>> {
    let get = |name: &str| meta::get(connection, name).map(|value| value.map(i64::cast_unsigned));
    let (Some(timeline), Some(wall)) = (get(TIMELINE)?, get(WALL)?) else { return Ok(None) };
    let [high, low, nanos, of] = [get(BOOT[0])?, get(BOOT[1])?, get(BOOT[2])?, get(BOOT[3])?];
    let id = high.zip(low).map(|(high, low)| u128::from(high) << 64 | u128::from(low));
    let boot = id.zip(nanos).filter(|_| of == Some(wall)).map(|(id, nanos)| BootTime { id, nanos });
    Ok(Some(Moment { timeline, wall, boot }))
}

/// Makes the buckets in `new` those in `old`, and the moment of the last save with them, in one transaction. Of those
/// of clients only where a client has the same name and number in both.
///
/// Those of policies are not carried over: in part they go by the secret of their database. What is owed is, as whoever
/// saves it says only what changes.
///
/// What `new` had is given up: its instants are those of another time, and no process goes by them any more.
pub(super) fn carry_over(old: &Connection, new: &mut Connection) -> rusqlite::Result<()> {
    let transaction = new.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM buckets", [])?;
    transaction.execute("DELETE FROM policy_buckets", [])?;
    transaction.execute("DELETE FROM fleet_owed", [])?;
    let (client, _) = Payer::client(0).parts();
    let mut same = HashSet::new();
    {
        let mut find = transaction.prepare("SELECT 1 FROM clients WHERE (client_id, number) = (?1, ?2)")?;
        let mut all = old.prepare("SELECT client_id, number FROM clients ORDER BY client_id")?;
        let mut clients = all.query([])?;
        while let Some(row) = clients.next()? {
            let (id, number): (String, i64) = (row.get(0)?, row.get(1)?);
            if find.exists((&id, number))? {
                same.insert(number);
            }
        }
        let mut put =
            transaction.prepare(&format!("INSERT INTO buckets ({}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows::BUCKET))?;
        let mut all = old.prepare(&format!("SELECT {} FROM buckets ORDER BY kind, payload", rows::BUCKET))?;
        let mut buckets = all.query([])?;
        while let Some(row) = buckets.next()? {
            let mut bucket = [0_i64; 7];
            for (column, value) in bucket.iter_mut().enumerate() {
                *value = row.get(column)?;
            }
            if bucket[0] != i64::from(client) || same.contains(&bucket[1]) {
                put.execute(bucket)?;
            }
        }
        let mut put = transaction.prepare("INSERT INTO fleet_owed VALUES (?, ?, ?, ?, ?, ?)")?;
        let mut all = old.prepare("SELECT policy, kind, payload, tokens, capacity, rate FROM fleet_owed")?;
        let mut owed = all.query([])?;
        while let Some(row) = owed.next()? {
            let mut columns = [0_i64; 6];
            for (column, value) in columns.iter_mut().enumerate() {
                *value = row.get(column)?;
            }
            if columns[1] != i64::from(client) || same.contains(&columns[2]) {
                put.execute(columns)?;
            }
        }
    }
    for name in [TIMELINE, WALL].into_iter().chain(BOOT) {
        match meta::get(old, name)? {
            Some(value) => meta::set(&transaction, name, value)?,
            None => meta::remove(&transaction, name)?,
        }
    }
    transaction.commit()
}

/// Gives `each` every bucket; the moment of the last save. Within a transaction, so that they belong together.
pub(super) fn load(connection: &Connection, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, ReadFailure> {
    let mut reader = ClientReader::default();
    let plain = format!("SELECT {}, NULL FROM buckets", rows::BUCKET);
    let within = format!("SELECT {}, policy FROM policy_buckets", rows::BUCKET);
    for all in [plain, within] {
        let mut all = connection.prepare(&all)?;
        let mut saved = all.query([])?;
        while let Some(row) = saved.next()? {
            each(reader.bucket(row)?);
        }
    }
    Ok(moment(connection)?)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::snapshot;
    use super::super::schema::{STEPS, migrate};
    use super::*;
    use crate::client::Quota;

    fn owed(connection: &Connection) -> Vec<SavedOwed> {
        let mut all = Vec::new();
        load_owed(connection, &mut |owed| all.push(owed)).unwrap();
        all
    }

    #[test]
    fn a_file_from_before_has_nothing_owed_and_a_place_for_it() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch(STEPS[0]).unwrap();
        file.pragma_update(None, "user_version", 1).unwrap();
        assert_eq!(migrate(&mut file, STEPS).unwrap(), 1);
        assert_eq!(owed(&file), []);
        let one = SavedOwed { payer: Payer::client(1), tokens: 2, quota: Quota::new(30, 1.0).unwrap() };
        save(&file, &Snapshot { owed: vec![one], ..snapshot(vec![], vec![], 10) }).unwrap();
        assert_eq!((migrate(&mut file, STEPS).unwrap(), owed(&file)), (1, vec![one]));
    }

    #[test]
    fn what_is_owed_is_carried_over_but_of_clients_that_are_gone() {
        let [mut old, mut new] = [(); 2].map(|()| Connection::open_in_memory().unwrap());
        for file in [&mut old, &mut new] {
            migrate(file, STEPS).unwrap();
        }
        let owes = |payer| SavedOwed { payer, tokens: 2, quota: Quota::new(30, 1.0).unwrap() };
        let address = Payer::address([203, 0, 113, 7].into(), 64);
        let all = [Payer::client(1), address, Payer::everybody(PolicyId::of("all"))].map(owes);
        save(&old, &Snapshot { owed: all.to_vec(), ..snapshot(vec![], vec![], 10) }).unwrap();
        save(&new, &Snapshot { owed: vec![owes(Payer::client(9))], ..snapshot(vec![], vec![], 10) }).unwrap();
        carry_over(&old, &mut new).unwrap();
        assert_eq!(owed(&new), all[1..]);
    }

    #[test]
    fn the_machines_own_clock_counts_only_with_the_wall_clock_it_was_saved_with() {
        let mut file = Connection::open_in_memory().unwrap();
        migrate(&mut file, STEPS).unwrap();
        let saved = snapshot(vec![], vec![], 10);
        save(&file, &saved).unwrap();
        assert_eq!(moment(&file), Ok(Some(saved.at)));
        // A version that knows nothing of it saves once more.
        meta::set(&file, TIMELINE, 20).unwrap();
        meta::set(&file, WALL, 21).unwrap();
        assert_eq!(moment(&file), Ok(Some(Moment { timeline: 20, wall: 21, boot: None })));
    }
}
