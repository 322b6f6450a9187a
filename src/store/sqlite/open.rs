//! Opening the file: what is checked before it is used.
//!
//! A proxy that starts with an empty or a half-read list of clients lets everybody in, or nobody. So whatever is wrong
//! with the file ends the start, with the reason and what to do; and the file stays as it is, for whoever wants to mend
//! it. It is opened so that closing it moves nothing out of the log, and nothing is written before all checks are done.
//!
//! The whole file is checked page by page (`quick_check`), which finds a page of random bytes anywhere but not every
//! changed bit: SQLite keeps no sums. The figures are in `benches/store.rs`.
//!
//! The header is read before SQLite opens the file, as SQLite would begin to recover what another program has left
//! beside its own database. Closing a file drops the locks that this process has on it; so that must not happen while
//! it is open, and nothing else here opens it but SQLite.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use log::{info, warn};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::super::new_secret;
use super::create::{self, CreateError};
use super::fault::words;
use super::identity::{self, FileIdentity};
use super::meta;
use super::patience::LockPatience;
use super::schema::{self, APPLICATION_ID};

/// Why the database cannot be used. It says which file, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

impl OpenError {
    /// The database at `path` cannot be opened, for `reason`.
    pub(super) fn new(path: &Path, reason: &str) -> Self {
        refusal(path, &format!("cannot be opened: {reason}"), "")
    }
}

/// The open database, to be written to.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    /// Where it is, with links followed.
    pub(super) real: PathBuf,
    pub(super) identity: FileIdentity,
    /// Of the keys of buckets.
    pub(super) secret: u128,
}

/// What to do with a file that cannot be read.
const RESTORE: &str = "restore it from a backup, or move it away to start without clients";

/// Opens the database at `path`, which is absolute; makes it when nothing is there.
pub(super) fn open_or_create(path: &Path, patience: &LockPatience) -> Result<Database, OpenError> {
    let refuse = |reason: &str, remedy: &str| Err(refusal(path, reason, remedy));
    if let Err(error) = fs::metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        if fs::symlink_metadata(path).is_ok() {
            return refuse("is a link that leads to nothing", "mount what it leads to, or remove the link");
        }
        let journal =
            path.with_file_name(format!("{}-journal", path.file_name().unwrap_or_default().to_string_lossy()));
        let [log, _] = identity::beside(path);
        for left in [log, journal] {
            if fs::metadata(&left).is_ok_and(|found| found.len() > 0) {
                let left = left.display();
                let remedy =
                    format!("put it back, or restore it from a backup; delete {left} to start without clients");
                return refuse(&format!("is missing, but {left} is there with changes that belong to it"), &remedy);
            }
        }
        match create::create(path) {
            Ok(made) => tell_new(path, made.as_deref()),
            Err(CreateError::Exists) => {}
            Err(error) => {
                let remedy =
                    "let the user that tollgate runs as make files in its directory, and have room on its disk";
                return refuse(&format!("cannot be made: {}", error.words()), remedy);
            }
        }
    }
    open(path, patience)
}

/// Says that the database at `path` is new. That its directory had to be made may mean that a disk is not mounted or
/// that the path is mistyped, and then all clients are missing.
fn tell_new(path: &Path, made: Option<&Path>) {
    let path = path.display();
    match made {
        Some(made) => warn!(
            "database {path} is new and has no clients; its directory was missing and was made ({}). If there should be \
             clients, look whether the disk is mounted and the path is right",
            made.display()
        ),
        None => info!("database {path} is new and has no clients"),
    }
}

/// Opens the database at `path`, which is absolute.
pub(super) fn open(path: &Path, patience: &LockPatience) -> Result<Database, OpenError> {
    look(path)?;
    let real = fs::canonicalize(path).map_err(|error| refusal(path, &format!("cannot be found: {error}"), ""))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(&real, flags);
    let mut connection = opened.map_err(|error| refused_by_sqlite(path, &error))?;
    check(path, &mut connection, patience)?;
    let mode = prepare(&mut connection).map_err(|error| refused_by_sqlite(path, &error))?;
    if mode != "wal" {
        let remedy = "put it on a file system that is not on the network";
        return Err(refusal(path, &format!("cannot have a write-ahead log there (its journal is {mode})"), remedy));
    }
    let identity = create::sync_directory(&real).and_then(|()| FileIdentity::of(path, &real));
    let identity = identity.map_err(|error| refusal(path, &format!("cannot be looked at: {error}"), ""))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(|error| refused_by_sqlite(path, &error))?;
    let secret = meta::secret(&connection, new_secret()).map_err(|error| refused_by_sqlite(path, &error))?;
    Ok(Database { connection, real, identity, secret })
}

/// What can be seen without SQLite.
pub(super) fn look(path: &Path) -> Result<(), OpenError> {
    let refuse = |reason: &str, remedy: &str| Err(refusal(path, reason, remedy));
    let access = "let the user that tollgate runs as read and write it";
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return refuse("cannot be there: a part of its path is a file", "name a file in a directory");
        }
        Err(error) => return refuse(&format!("cannot be looked at: {error}"), access),
    };
    if found.is_dir() {
        return refuse("is a directory", "name a file in it");
    }
    if !found.is_file() {
        return refuse("is no regular file", "name one");
    }
    if found.len() == 0 {
        let remedy = "restore it from a backup, or delete it to start without clients";
        return refuse("is empty (0 bytes), so it was cut off: a database never is", remedy);
    }
    if found.permissions().readonly() {
        return refuse("is read-only", "make it writable for the user that tollgate runs as (chmod u+w)");
    }
    let mut header = Vec::with_capacity(100);
    let read = File::open(path).and_then(|file| file.take(100).read_to_end(&mut header));
    if let Err(error) = read {
        return refuse(&format!("cannot be read: {error}"), access);
    }
    if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
        return refuse("is no SQLite database, or its beginning is destroyed", RESTORE);
    }
    let application = header[68..72].iter().fold(0, |id: u32, byte| (id << 8) | u32::from(*byte));
    if application != APPLICATION_ID.cast_unsigned() {
        let reason = format!("is a SQLite database of another program (application id {application:#010x})");
        return refuse(&reason, "name another file; tollgate makes a new one where there is none");
    }
    // SQLite takes a last page that is cut off for one that ends in zeros. While there is a log, the file may be in the
    // middle of growing.
    let whole = size(&header);
    let [log, _] = identity::beside(&fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    if found.len() < whole && fs::metadata(log).map_or(0, |log| log.len()) == 0 {
        return refuse(&format!("is corrupt: it was cut off, {} bytes of {whole} are there", found.len()), RESTORE);
    }
    Ok(())
}

/// How long the file is, by its header: at 16 the size of a page, at 28 how many there are.
fn size(header: &[u8]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
    // A page of 64 KiB is written as 1.
    let page = Some(number(&header[16..18])).filter(|page| *page != 1).unwrap_or(1 << 16);
    page * number(&header[28..32])
}

/// What SQLite can see without writing.
fn check(path: &Path, connection: &mut Connection, patience: &LockPatience) -> Result<(), OpenError> {
    let by_sqlite = |error: rusqlite::Error| refused_by_sqlite(path, &error);
    // Whatever fails from here on, closing the connection leaves the file and its log alone.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(by_sqlite)?;
    patience.keep(connection).map_err(by_sqlite)?;
    if connection.is_readonly("main").map_err(by_sqlite)? {
        let remedy = "let the user that tollgate runs as write it, or mount its file system for writing";
        return Err(refusal(path, "can only be read", remedy));
    }
    // A root file system that is read-only may leave no directory for temporary files.
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY").map_err(by_sqlite)?;
    let (known, version) = (schema::STEPS.len(), schema::version(connection).map_err(by_sqlite)?);
    if version > known {
        let reason = format!("has version {version} of its tables; this tollgate knows them up to version {known}");
        return Err(refusal(path, &reason, "start the tollgate that wrote it, or restore the backup made before it"));
    }
    // Whether it can be locked for writing. Nothing is written.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(by_sqlite)?;
    transaction.commit().map_err(by_sqlite)?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(by_sqlite)?;
    if sound != "ok" {
        return Err(refusal(path, &format!("is corrupt: {}", sound.replace('\n', " ")), RESTORE));
    }
    for table in schema::TABLES {
        let find =
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0));
        let found: i64 = find.map_err(by_sqlite)?;
        if found == 0 {
            return Err(refusal(path, &format!("is damaged: its table {table} is missing"), RESTORE));
        }
    }
    Ok(())
}

/// What is written once all is well; which journal it has then.
fn prepare(connection: &mut Connection) -> rusqlite::Result<String> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    schema::migrate(connection, schema::STEPS)?;
    // A statement's plan does not depend on what is bound to it; otherwise SQLite plans some anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // After a large batch the log is cut back to this.
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))?;
    // In KiB, when negative. As much as a batch of a million clients makes good use of.
    connection.pragma_update(None, "cache_size", -(64 << 10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(mode)
}

fn refusal(path: &Path, reason: &str, remedy: &str) -> OpenError {
    let end = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    OpenError(format!("database {} {reason}{end}", path.display()))
}

fn refused_by_sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "end the process that holds it, and start again",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => RESTORE,
        Some(ErrorCode::DiskFull) => "make room on its disk",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "let the user that tollgate runs as write it and its directory"
        }
        _ => "look at the disk that it is on, or restore it from a backup",
    };
    refusal(path, &format!("cannot be opened: {}", words(error)), remedy)
}
