//! A copy of a database that a process may be writing to.
//!
//! The copy is of one moment: one read transaction holds it, so that writers go on and change nothing of it. It is made
//! under another name beside its place and put there whole, as a new database is (`create`), so a backup that was broken
//! off is no file, and one that is there is sound: its pages are checked before it gets its name. It is one file, without
//! a log beside it.
//!
//! Refused: `VACUUM INTO`, which may number rows anew; copying the files, which tears them apart.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::create::{self, CreateError};
use super::fault::words;
use super::open;
use super::patience::LockPatience;

/// How many pages are copied between two times that the progress is told.
const PAGES: i32 = 2_500;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupDone {
    /// How many clients.
    pub clients: u64,
    /// How large it is, in bytes.
    pub bytes: u64,
}

/// Copies the database at `from` to `to`, where nothing may be yet; both are absolute. `progress` is told how
/// many bytes are copied, and of how many. Blocks until the copy is on disk.
///
/// # Errors
/// In words, with the path that they are about. Nothing is left at `to` then that was not there before.
pub fn backup(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<BackupDone, String> {
    let there = || format!("{}: something is there already, and a backup overwrites nothing", to.display());
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(there());
    }
    let directory = to.parent().unwrap_or(to);
    if !directory.is_dir() {
        return Err(format!("{}: there is no directory {}", to.display(), directory.display()));
    }
    open::look(from).map_err(|error| error.to_string())?;
    let unreadable = |error: rusqlite::Error| format!("database {} cannot be read: {}", from.display(), words(&error));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut source = Connection::open_with_flags(from, flags).map_err(unreadable)?;
    LockPatience::new().keep(&mut source).map_err(unreadable)?;
    // From its first read on the transaction sees one moment.
    let moment = source.unchecked_transaction().map_err(unreadable)?;
    let clients = moment.query_row("SELECT count(*) FROM clients", [], |row| row.get::<_, i64>(0));
    let clients = clients.map_err(unreadable)?.unsigned_abs();
    let mut unsound = None;
    let built = create::build(to, |copy| {
        copy_in_steps(&moment, copy, progress)?;
        let said: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        unsound = Some(said).filter(|said| said != "ok");
        Ok(())
    });
    let failed = |error: CreateError| match error {
        CreateError::Exists => there(),
        error => format!("{}: the backup cannot be made: {}", to.display(), error.words()),
    };
    let built = built.map_err(failed)?;
    if let Some(said) = unsound {
        return Err(format!("database {} is corrupt: {}", from.display(), said.replace('\n', " ")));
    }
    built.put(to).map_err(failed)?;
    let bytes = std::fs::metadata(to).map_or(0, |found| found.len());
    Ok(BackupDone { clients, bytes })
}

fn copy_in_steps(from: &Connection, to: &mut Connection, progress: &mut dyn FnMut(u64, u64)) -> rusqlite::Result<()> {
    let page: u64 = from.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
    let copying = Backup::new(from, to)?;
    loop {
        match copying.step(PAGES)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {
                let left = copying.progress();
                let bytes = |pages: i32| u64::from(pages.unsigned_abs()) * page;
                progress(bytes(left.pagecount - left.remaining), bytes(left.pagecount));
            }
            _ => return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)),
        }
    }
}
