//! Coming back when the file was removed or replaced.
//!
//! The connection still has everything that was ever acknowledged, as the system keeps an open file. So a file that
//! stays missing is written anew from it, and so is one whose log was taken away. Another file at the path is an
//! operator who restores a backup: when it is sound, what it holds is what counts, and the followers are told the
//! difference.
//!
//! The connection to the old file is given up last, when the new one is open; and without touching the files beside the
//! path, which are the new one's by then.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::super::{Action, Committed, Record};
use super::buckets;
use super::create::{self, CreateError};
use super::fault::words;
use super::feed::Feed;
use super::identity::Moved;
use super::open::{self, Database};
use super::rows::{self, ClientReader, ReadFailure};
use super::shared::Reading;
use super::writer::{Lost, Writer};

/// How long a file may be missing before it is written anew while nobody changes a client: whoever puts another in its
/// place may do it in two steps. After a change that had to be refused it is written anew at once, so that the next one
/// is kept.
const GRACE: Duration = Duration::from_secs(3);

impl Writer {
    /// Why nothing can be written while the file is `moved`.
    pub(super) fn lost(&mut self, moved: Moved, now: Instant) -> String {
        match &self.lost {
            Some(lost) if lost.moved == moved => lost.reason.clone(),
            _ => {
                let reason = moved.words();
                self.lost = Some(Lost { moved, since: now, reason: reason.clone() });
                reason
            }
        }
    }

    /// Tries to have a sound file at the path again; when it is missing and this is not `urgent`, only after a while.
    pub(super) fn recover(&mut self, moved: Moved, now: Instant, urgent: bool) {
        let reason = self.lost(moved, now);
        let since = self.lost.as_ref().map_or(now, |lost| lost.since);
        let recovered = match moved {
            // From a file that was cut short none is written.
            Moved::Missing | Moved::Log if self.length.1 => Err(Moved::Cut.words()),
            Moved::Missing if !urgent && now < since + GRACE => Err(reason),
            Moved::Missing | Moved::Log => self.write_anew(moved),
            Moved::Replaced => self.adopt(),
            Moved::Unseen(_) | Moved::Cut => Err(reason),
        };
        match recovered {
            Ok(()) => {
                self.lost = None;
                self.succeed();
            }
            Err(reason) => {
                self.fail(&reason);
                self.lost = Some(Lost { moved, since, reason });
            }
        }
    }

    /// Whether the file is where it was, and has all that it had. Shorter it may be when somebody has tidied it
    /// (`VACUUM`); then it is read once, as far as `quick_check` does, which takes a second or two for a million clients.
    pub(super) fn whereabouts(&mut self) -> Result<(), Moved> {
        let (length, (was, cut)) = (self.database.identity.check()?, self.length);
        if !cut && length < was {
            match self.is_sound(length) {
                Some(sound) => self.length = (length, !sound),
                None => return Err(Moved::Unseen(io::ErrorKind::ResourceBusy)),
            }
        }
        if self.length.1 {
            return Err(Moved::Cut);
        }
        self.length.0 = length;
        Ok(())
    }

    /// Whether the file of this length is sound for who opens it now; unknown where it cannot be opened or read.
    fn is_sound(&self, length: u64) -> Option<bool> {
        // SQLite takes away the log of an empty one.
        if length == 0 {
            return Some(false);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let said = Connection::open_with_flags(&self.shared.path, flags)
            .and_then(|fresh| fresh.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
        match said {
            Ok(said) => Some(said == "ok"),
            Err(error) => {
                let unsound = [Some(ErrorCode::DatabaseCorrupt), Some(ErrorCode::NotADatabase)];
                unsound.contains(&error.sqlite_error_code()).then_some(false)
            }
        }
    }

    /// Copies what the open file holds to the path.
    fn write_anew(&mut self, moved: Moved) -> Result<(), String> {
        let explain = |reason: String| format!("{}, and cannot be written anew: {reason}", moved.words());
        self.copy(moved).map_err(explain)?;
        let database = open::open(&self.shared.path, &self.patience).map_err(|error| explain(error.to_string()))?;
        let feed = self.feed.moved_to(&database.connection).map_err(|error| explain(words(&error)))?;
        self.use_instead(database).map_err(|error| explain(words(&error)))?;
        self.feed = feed;
        // What was committed while the file went, and not acknowledged, came along.
        self.catch_up()
    }

    fn copy(&mut self, moved: Moved) -> Result<(), String> {
        // All goes from the log into the file, wherever that has gone to; so the log can be removed.
        let emptied = empty_log(&self.database.connection).map_err(|error| words(&error))?;
        if moved == Moved::Log && !emptied {
            return Err("somebody reads it".to_owned());
        }
        let path = &self.shared.path;
        // A link that leads nowhere stays, and its end is made.
        let linked = moved == Moved::Log || fs::symlink_metadata(path).is_ok();
        let place = if linked { self.database.real.clone() } else { path.clone() };
        let in_words = |error: CreateError| error.words();
        create::make_directories(place.parent().unwrap_or(Path::new("/"))).map_err(|error| error.to_string())?;
        let built = create::build(&place, |copy| copy_all(&self.database.connection, copy)).map_err(in_words)?;
        if self.database.identity.check().err() != Some(moved) {
            return Err("it is being changed".to_owned());
        }
        self.remove_left_beside()?;
        if moved == Moved::Log { built.put_over(&place) } else { built.put(&place) }.map_err(in_words)
    }

    /// Goes over to the file at the path, if it is sound.
    fn adopt(&mut self) -> Result<(), String> {
        if self.length.1 {
            // What the old one held cannot be compared with it. The log is of no use to anybody, and would be taken for
            // the new one's at the next start.
            self.remove_left_beside()?;
            return Err("another file was put in the place of one that was cut short: restart tollgate".to_owned());
        }
        let explain = |reason: String| format!("another file was put in its place, and cannot be used: {reason}");
        let told = |failure: ReadFailure| explain(failure.words());
        // Our log beside the new file is not the new file's.
        empty_log(&self.database.connection).map_err(|error| explain(words(&error)))?;
        self.remove_left_beside().map_err(explain)?;
        let mut database = open::open(&self.shared.path, &self.patience).map_err(|error| explain(error.to_string()))?;
        let feed = Feed::new(&database.connection).map_err(|error| told(error.into()))?;
        self.catch_up().map_err(explain)?;
        let changes = difference(&self.database.connection, &database.connection).map_err(told)?;
        // Those in memory are saved as they change, and the others are in the old file only.
        buckets::carry_over(&self.database.connection, &mut database.connection).map_err(|error| told(error.into()))?;
        self.use_instead(database).map_err(|error| told(error.into()))?;
        self.feed = feed;
        self.tell(&changes);
        Ok(())
    }

    /// Removes the log and its index that belong to the file that is open, not to one at the path.
    fn remove_left_beside(&self) -> Result<(), String> {
        let remove = |path: &Path| fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()));
        self.database.identity.left_beside().try_for_each(remove)
    }

    /// Uses `database` from now on.
    fn use_instead(&mut self, database: Database) -> rusqlite::Result<()> {
        let reading = Reading::open(&database)?;
        self.database.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        *self.shared.reading.write() = Some(Arc::new(reading));
        self.database = database;
        (self.durable, self.length) = (None, (0, false));
        Ok(())
    }
}

/// Moves all of the log into the file; false when a reader is in the way.
fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}

fn copy_all(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    match Backup::new(from, to)?.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)),
    }
}

/// What makes the clients in `old` those in `new`: first all deletions, as numbers and credentials may have passed from
/// one to another.
fn difference(old: &Connection, new: &Connection) -> Result<Vec<Committed>, ReadFailure> {
    let sql = format!("SELECT {} FROM clients ORDER BY client_id", rows::RECORD);
    let (mut old, mut new) = (old.prepare(&sql)?, new.prepare(&sql)?);
    let (mut old, mut new) = (old.query([])?, new.query([])?);
    let mut reader = ClientReader::default();
    let mut next = |rows: &mut rusqlite::Rows<'_>| -> Result<Option<Record>, ReadFailure> {
        rows.next()?.map(|row| reader.record(row)).transpose()
    };
    let (mut before, mut after) = (next(&mut old)?, next(&mut new)?);
    let (mut deleted, mut others) = (Vec::new(), Vec::new());
    let mut delete =
        |before| deleted.push(Committed { before: Some(before), after: None, action: Some(Action::Delete) });
    loop {
        match (before.take(), after.take()) {
            (None, None) => break,
            (Some(was), is) if is.as_ref().is_none_or(|is| was.id < is.id) => {
                delete(was);
                (before, after) = (next(&mut old)?, is);
            }
            (was, Some(is)) if was.as_ref().is_none_or(|was| is.id < was.id) => {
                others.push(Committed { before: None, after: Some(is), action: Some(Action::Create) });
                (before, after) = (was, next(&mut new)?);
            }
            (Some(was), Some(is)) => {
                if was.number != is.number {
                    delete(was);
                    others.push(Committed { before: None, after: Some(is), action: Some(Action::Create) });
                } else if was != is {
                    others.push(Committed { before: Some(was), after: Some(is), action: Some(Action::Update) });
                }
                (before, after) = (next(&mut old)?, next(&mut new)?);
            }
            // One of the arms above has matched.
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
    deleted.append(&mut others);
    Ok(deleted)
}
