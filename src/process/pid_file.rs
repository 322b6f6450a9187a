//! The file that says which process runs, and that one does.
//!
//! The problem: a pid in a file says little. Its process may be dead, its number may be another program's by now, and
//! the file may hold anything.
//!
//! The rule: whoever runs holds a lock on the file, which the kernel lets go when the process ends, however that comes.
//! What stands in the file counts only while it is locked. A successor does not write into its predecessor's file: it
//! locks a new one and renames it over, so that at each moment the path leads to a file that is locked and whole. The
//! predecessor still holds its old file, which has no name any more; it finds that out and removes nothing.
//!
//! Whatever else is at the path is left as it is: a link, a pipe, a directory, a file that holds something else. A pid,
//! or nothing, is what a dead process has left there, and is written over.
//!
//! Refused: asking whether the pid is alive (numbers are given away again); `lockf`, whose lock is lost when any
//! descriptor of the file is closed.

use std::fs::{self, DirBuilder, File, FileType, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

/// How often, and after which pause, a lock is tried for that somebody may hold only to look.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(30);
/// The longest text of a pid file, in bytes.
const LONGEST: u64 = 32;

/// Why a pid file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A process holds it.
    #[error("tollgate already runs with this pid file, {path}{pid}; to replace it: tollgate upgrade", pid = told(*pid))]
    Live {
        /// The file.
        path: PathBuf,
        /// Who holds it, where that could be read.
        pid: Option<u32>,
    },
    /// It cannot be written.
    #[error("pingora.pid_file: {path}: {cause}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

fn told(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A pid file that is ours. Dropping it removes the file, unless another process has put its own in its place.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes our pid to `path` and keeps the file locked; makes its directory when that is missing.
    ///
    /// # Errors
    /// When a living process holds it, or it cannot be written.
    pub fn take(path: &Path) -> Result<Self, PidFileError> {
        let unwritable = |cause| PidFileError::Unwritable { path: path.to_owned(), cause };
        make_directory(path).map_err(unwritable)?;
        is_free(path).map_err(unwritable)?;
        for attempt in 0..TRIES {
            let mut file =
                open(OpenOptions::new().write(true).create(true).truncate(false), path).map_err(unwritable)?;
            match file.try_lock() {
                // The holder may have removed or replaced it between our opening and our locking.
                Ok(()) if is_at(&file, path) => {
                    is_pid_file(&file).map_err(unwritable)?;
                    write(&mut file).map_err(unwritable)?;
                    return Ok(PidFile { path: path.to_owned(), file });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if attempt + 1 < TRIES => std::thread::park_timeout(PAUSE),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(cause)) => return Err(unwritable(cause)),
            }
        }
        Err(PidFileError::Live { path: path.to_owned(), pid: read(path) })
    }

    /// Puts a new file of ours at `path`, whoever has the one that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(path: &Path) -> Result<Self, PidFileError> {
        Ok(PidFile { path: path.to_owned(), file: put(path)? })
    }

    /// Puts ours back after another process had put its own in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_back(&mut self) -> Result<(), PidFileError> {
        if !is_at(&self.file, &self.path) {
            self.file = put(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Between the two steps a successor could put its own there, but one that does has a predecessor that hands
        // over, and that one is not here.
        if is_at(&self.file, &self.path) {
            // A directory that is not ours to write keeps a stale file, which does no harm.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A new file of ours, locked, at `path`.
fn put(path: &Path) -> Result<File, PidFileError> {
    let put = || {
        make_directory(path)?;
        is_free(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // What a process with our number left half done.
        drop(fs::remove_file(&beside));
        let mut file = open(OpenOptions::new().write(true).create_new(true), &beside)?;
        file.lock()?;
        write(&mut file)?;
        fs::rename(&beside, path)?;
        Ok(file)
    };
    put().map_err(|cause| PidFileError::Unwritable { path: path.to_owned(), cause })
}

/// Makes the directory of the file at `path` when it is missing.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.map_or(Ok(()), |directory| DirBuilder::new().recursive(true).mode(0o755).create(directory))
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Neither does it follow a link, nor wait for whoever is at the other end of a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    options.read(true).mode(0o644).custom_flags(flags).open(path)
}

/// What is there, in words, when it is no file.
pub(crate) fn kind(found: FileType) -> &'static str {
    match () {
        () if found.is_file() => "a file",
        () if found.is_dir() => "a directory",
        () if found.is_symlink() => "a symbolic link",
        () if found.is_fifo() => "a pipe",
        () if found.is_socket() => "a socket",
        () => "a device",
    }
}

fn foreign(what: &str) -> io::Error {
    io::Error::other(format!(
        "there is {what}, which is left as it is; must be a pid file, an empty file, or nothing yet"
    ))
}

/// An error when there is something at `path` that is none of ours.
fn is_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(foreign(kind(found.file_type()))),
        Ok(_) => is_pid_file(&open(&mut OpenOptions::new(), path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// An error when `file` holds anything but a pid.
fn is_pid_file(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(foreign(kind(metadata.file_type())));
    }
    let (mut text, mut file) = (Vec::new(), file);
    file.rewind()?;
    file.take(LONGEST + 1).read_to_end(&mut text)?;
    let holds_pid = text.len() as u64 <= LONGEST && text.trim_ascii().iter().all(u8::is_ascii_digit);
    if holds_pid { Ok(()) } else { Err(foreign("a file that holds something else")) }
}

fn write(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Whether `path` leads to `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(path).map(number).ok();
    there.is_some() && file.metadata().map(number).ok() == there
}

/// The pid that stands in the file, if one does.
fn read(path: &Path) -> Option<u32> {
    let mut text = String::new();
    open(&mut OpenOptions::new(), path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Who holds the pid file at `path`; none when nobody does, or it is not there.
///
/// # Errors
/// When that cannot be found out.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let file = match open(&mut OpenOptions::new(), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(read(path)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, Mode};

    use super::*;

    fn pid() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn it_is_made_with_its_directory_locked_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/tollgate/a.pid");
        assert_eq!(holder(&path).unwrap(), None);
        let file = PidFile::take(&path).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), holder(&path).unwrap()), (pid(), Some(std::process::id())));
        let error = PidFile::take(&path).unwrap_err().to_string();
        let said = format!(
            "tollgate already runs with this pid file, {} (pid {}); to replace it: tollgate upgrade",
            path.display(),
            std::process::id()
        );
        assert_eq!(error, said);
        assert_eq!(fs::read_to_string(&path).unwrap(), pid(), "a refused one changes nothing");
        drop(file);
        assert!(!path.exists() && path.parent().unwrap().is_dir());
    }

    #[test]
    fn what_a_dead_process_left_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        for left in ["4194304\n", "1\n", "7", "  12 \n", ""] {
            fs::write(&path, left).unwrap();
            assert_eq!(holder(&path).unwrap(), None, "{left:?}");
            let _file = PidFile::take(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), pid());
        }
    }

    #[test]
    fn what_is_no_pid_file_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.pid"), dir.path().join("other"));
        fs::write(&other, "7\n").unwrap();
        let refused = |what: &str| {
            for error in [PidFile::take(&path).unwrap_err(), PidFile::replace(&path).unwrap_err()] {
                let said = format!("pingora.pid_file: {}: there is {what}, which is left as it is", path.display());
                assert!(error.to_string().starts_with(&said), "{error}");
                assert!(error.to_string().ends_with("must be a pid file, an empty file, or nothing yet"), "{error}");
            }
            assert!(!matches!(holder(&path), Ok(Some(_))), "{what}");
        };
        for text in ["junk\u{0}", &"9".repeat(1_000), "7\n8\n", "-1\n", "worker_processes 4;\n"] {
            fs::write(&path, text).unwrap();
            refused("a file that holds something else");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        for target in [other.as_path(), &dir.path().join("nothing"), Path::new("/dev/null")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            refused("a symbolic link");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "7\n");
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        refused("a pipe");
        fs::remove_file(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        refused("a socket");
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("a directory");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is made beside it");
    }

    #[test]
    fn a_successor_takes_its_place_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        let mut first = PidFile::take(&path).unwrap();
        let second = PidFile::replace(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(!is_at(&first.file, &path) && is_at(&second.file, &path));
        first.put_back().unwrap();
        drop(second);
        assert!(is_at(&first.file, &path), "whoever was replaced removes nothing");
        assert!(matches!(PidFile::take(&path), Err(PidFileError::Live { .. })));
        let third = PidFile::replace(&path).unwrap();
        drop(first);
        assert!(is_at(&third.file, &path));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let path = dir.path().join("file/a.pid");
        for error in [PidFile::take(&path).unwrap_err(), PidFile::replace(&path).unwrap_err()] {
            assert!(error.to_string().starts_with(&format!("pingora.pid_file: {}: ", path.display())), "{error}");
        }
        let path = dir.path().join("a.pid");
        let _file = PidFile::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
