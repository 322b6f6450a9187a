//! What stands in the file, and how an older file becomes a present one.
//!
//! | table | holds |
//! |---|---|
//! | `clients` | the clients, by name: a page, a look-up and the list of all read one b-tree in order |
//! | `keys`, `networks` | who has which credential, so that none has two owners; an id that is its own one counts |
//! | `history` | every change, by a sequence number that only rises: also what other processes read to follow |
//! | `buckets` | the buckets that are not full |
//! | `policy_buckets` | those of policies |
//! | `fleet_pending` | clients that were changed here alone, from which version on |
//! | `fleet_notes` | texts that are kept of the fleet |
//! | `fleet_owed` | what was given while the fleet's store was away, and it is to be told of; 0 for no policy |
//! | `meta` | single numbers: how many clients, the last number given away, the last save's moment, a batch's end |
//!
//! Rates are whole nanotokens a second, times whole microseconds since the Unix epoch. 64 bits without a sign (the
//! payload of a bucket's key, its instant) stand in SQLite's signed integers bit by bit.
//!
//! What few clients have stands in one column of text, `more`, as JSON (the module [`more`](super::more)): it came
//! later, and one column is all that it adds to a table that has it once for each client and twice for each change.
//! Columns that came later are added where they are missing ([`LATER`]), which is no new version: the tollgate that was
//! there before opens the file still. What it writes of a client lacks them.
//!
//! Refused: a rowid table with an index on the name, as the list of all in its order would look up every row on its
//! own; profiles as JSON, which SQLite cannot check; a table of changes to follow beside the history, which would write
//! every change twice.

use rusqlite::{Connection, TransactionBehavior};

/// Marks a SQLite file as tollgate's: "toll".
pub(super) const APPLICATION_ID: i32 = 0x746f_6c6c;

/// The columns of a profile, in the order in which [`rows`](super::rows) reads and writes them.
const V1: &str = "
CREATE TABLE clients (
    client_id  TEXT PRIMARY KEY NOT NULL,
    number     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    capacity   INTEGER NOT NULL,
    rate       INTEGER NOT NULL,
    mode       TEXT NOT NULL,
    addresses  TEXT NOT NULL,
    api_key    BLOB,
    note       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    digest    BLOB PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE networks (
    network   TEXT PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    sequence          INTEGER PRIMARY KEY,
    client_id         TEXT NOT NULL,
    version           INTEGER NOT NULL,
    changed_at        INTEGER NOT NULL,
    actor             TEXT NOT NULL,
    action            TEXT NOT NULL,
    number            INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    before_updated_at INTEGER,
    before_capacity   INTEGER,
    before_rate       INTEGER,
    before_mode       TEXT,
    before_addresses  TEXT,
    before_api_key    BLOB,
    before_note       TEXT,
    after_capacity    INTEGER,
    after_rate        INTEGER,
    after_mode        TEXT,
    after_addresses   TEXT,
    after_api_key     BLOB,
    after_note        TEXT
) STRICT;
CREATE UNIQUE INDEX history_by_client ON history (client_id, version);
CREATE TABLE buckets (
    kind     INTEGER NOT NULL,
    payload  INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    fraction INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    rate     INTEGER NOT NULL,
    PRIMARY KEY (kind, payload)
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('clients', 0), ('last_number', 0);
";

/// Buckets of policies, by 56 bits of the policy's name. Apart from the others, which a process of the older version
/// reads all of and would not understand. And what is kept of a fleet.
const LATER_TABLES: &str = "
CREATE TABLE IF NOT EXISTS policy_buckets (
    policy   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    payload  INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    fraction INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    rate     INTEGER NOT NULL,
    PRIMARY KEY (policy, kind, payload)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fleet_pending (
    client_id TEXT PRIMARY KEY NOT NULL,
    version   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fleet_notes (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fleet_owed (
    policy   INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    payload  INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    rate     INTEGER NOT NULL,
    PRIMARY KEY (policy, kind, payload)
) STRICT, WITHOUT ROWID;
";

/// What makes a file of version n a file of version n + 1, from the empty one on. Never change a step that was
/// released. During an upgrade the process of the older version goes on for a while with the newer file, so a step adds
/// and takes nothing away.
pub(super) const STEPS: &[&str] = &[V1];

/// Columns that came after [`V1`]: the table, the name, the type. Null where a version wrote that did not know them.
const LATER: [(&str, &str, &str); 3] =
    [("clients", "more", "TEXT"), ("history", "before_more", "TEXT"), ("history", "after_more", "TEXT")];

/// The tables that must be there.
pub(super) const TABLES: [&str; 6] = ["clients", "keys", "networks", "history", "buckets", "meta"];

/// Brings the file up to the version that `steps` lead to, all or nothing, in one transaction; from which version.
///
/// # Errors
/// SQLite's. A file that is newer is left as it is; see [`version`].
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read within the transaction: another process may have been faster.
    let from = version(&transaction)?;
    for step in steps.iter().skip(from) {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(LATER_TABLES)?;
    for (table, column, kind) in LATER {
        let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let there: i64 = transaction.query_row(sql, (table, column), |row| row.get(0))?;
        if there == 0 {
            transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    if from < steps.len() {
        transaction.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(i64::MAX))?;
    }
    transaction.commit()?;
    Ok(from)
}

/// The version of the file; the largest number there is for one that makes no sense.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_keeps_what_it_has() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut connection, STEPS).unwrap(), 0);
        connection.execute("INSERT INTO meta VALUES ('kept', 7)", []).unwrap();
        let next = [STEPS[0], "ALTER TABLE meta ADD COLUMN unit TEXT; UPDATE meta SET unit = 'x';"];
        assert_eq!(migrate(&mut connection, &next).unwrap(), 1);
        assert_eq!(migrate(&mut connection, &next).unwrap(), 2);
        let kept = connection.query_row("SELECT value, unit FROM meta WHERE name = 'kept'", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        });
        assert_eq!((kept.unwrap(), version(&connection).unwrap()), ((7, "x".to_owned()), 2));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, STEPS).unwrap();
        let broken = [STEPS[0], "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1);"];
        assert!(migrate(&mut connection, &broken).is_err());
        let extra =
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'", [], |row| row.get(0));
        assert_eq!((extra, version(&connection).unwrap()), (Ok(0), 1));
    }
}
