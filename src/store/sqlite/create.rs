//! Putting a new database in its place, all or nothing.
//!
//! It is made under another name beside the place, closed and synced, and only then linked to its name, which fails
//! when something has come to be there. So a file with this name is whole from its first moment on, and one of zero
//! bytes is never ours. The directory is synced last, and so are the directories that had to be made.
//!
//! Refused: opening it where it shall be, as SQLite does. A crash on the way leaves an empty file, which cannot be told
//! from one that was emptied.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::fault::words;
use super::schema::{APPLICATION_ID, STEPS, migrate};

/// Why a database could not be put in its place.
#[derive(Debug)]
pub(super) enum CreateError {
    /// Something is there already.
    Exists,
    /// The directory or the file system says no.
    Io(io::Error),
    /// SQLite says no.
    Sqlite(rusqlite::Error),
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::AlreadyExists { CreateError::Exists } else { CreateError::Io(error) }
    }
}

impl From<rusqlite::Error> for CreateError {
    fn from(error: rusqlite::Error) -> Self {
        CreateError::Sqlite(error)
    }
}

impl CreateError {
    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            CreateError::Exists => "something is there already".to_owned(),
            CreateError::Io(error) => error.to_string(),
            CreateError::Sqlite(error) => words(error),
        }
    }
}

/// Makes an empty database at `path`, and the directories above it; the topmost of those that had to be made.
pub(super) fn create(path: &Path) -> Result<Option<PathBuf>, CreateError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = make_directories(directory)?;
    build(path, |connection| {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(connection, STEPS).map(drop)
    })
    .and_then(|built| built.put(path))
    .map(|()| made)
}

/// A database under another name. It is removed unless it is [put](Built::put) in its place.
pub(super) struct Built {
    name: PathBuf,
}

/// Makes a database with `fill` under another name beside `path`, and syncs it.
pub(super) fn build(
    path: &Path,
    fill: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
) -> Result<Built, CreateError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    // At random: two processes may do this at once, and both may be process 1 of their containers.
    let built = Built { name: path.with_file_name(format!(".{file}.new-{:016x}", fastrand::u64(..))) };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&built.name, flags)?;
    // It holds digests of keys, and weak keys can be guessed from those. The files that SQLite puts beside it take
    // after it.
    fs::set_permissions(&built.name, Permissions::from_mode(0o600))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    fill(&mut connection)?;
    // One file, without a log beside it.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    File::open(&built.name)?.sync_all()?;
    Ok(built)
}

impl Built {
    /// Gives it its name, if nothing has it.
    pub(super) fn put(self, path: &Path) -> Result<(), CreateError> {
        match fs::hard_link(&self.name, path) {
            // Some file systems have no links. Then the check and the step are two.
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(CreateError::Exists);
                }
                fs::rename(&self.name, path)?;
            }
            linked => linked?,
        }
        sync_directory(path)?;
        Ok(())
    }

    /// Gives it the name of what is there.
    pub(super) fn put_over(self, path: &Path) -> Result<(), CreateError> {
        fs::rename(&self.name, path)?;
        sync_directory(path)?;
        Ok(())
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        // It may have been renamed, or never been made.
        let _ = fs::remove_file(&self.name);
    }
}

/// Makes a directory and those above it, and syncs those that had to be changed for it. Gives the topmost that was
/// made.
pub(super) fn make_directories(directory: &Path) -> io::Result<Option<PathBuf>> {
    let made: Vec<_> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(directory)?;
    made.iter().rev().try_for_each(|made| sync_directory(made))?;
    Ok(made.last().map(|topmost| topmost.to_path_buf()))
}

/// Syncs the directory that `path` stands in, so that the name survives a loss of power.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
