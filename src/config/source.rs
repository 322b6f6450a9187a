//! The text of a file that somebody wrote for us: read whole, and bounded in size and in time.
//!
//! The path may lead to anything. What is no file is refused before it is opened, as opening alone may wait, or do
//! something. A pipe is taken, since a shell makes one of `-c <(...)`, but nobody waits for it for long: a reload that
//! waits holds up all further ones.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::clock::{Clock, SystemClock};

/// How long a pipe may take for all of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// Why a file as a whole was refused, and in which line.
pub(super) type FileRefusal = (String, Option<usize>);

/// The text of the file at `path`, which has at most `largest` bytes. Blocks for a second at most, but for what a disk
/// takes.
pub(super) fn read(path: &Path, largest: u64) -> Result<String, FileRefusal> {
    let bytes = read_bytes(path, largest).map_err(|reason| (reason, None))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        ("the file is not text in UTF-8".to_owned(), Some(line))
    })
}

/// What to say of a file with secrets at `path` that others may read or write. That is a warning and no problem: what
/// Kubernetes and Docker mount as a secret is such a file, in a place that nobody else can get to.
pub(super) fn open_to_all(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    let file = path.display();
    (mode & 0o006 != 0).then(|| {
        format!("{file} is open to every user of this machine (mode {mode:03o}); `chmod 600 {file}` closes it")
    })
}

fn read_bytes(path: &Path, largest: u64) -> Result<Vec<u8>, String> {
    let too_large = || format!("the file is larger than {} MiB", largest >> 20);
    // Asked before it is opened, and again of what was opened, which may be another.
    is_readable(fs::metadata(path).map_err(words)?.file_type())?;
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(words)?;
    let metadata = file.metadata().map_err(words)?;
    is_readable(metadata.file_type())?;
    if metadata.len() > largest {
        return Err(too_large());
    }
    let end = SystemClock.now() + PATIENCE;
    let mut bytes = Vec::new();
    while read_more(&mut file, &mut bytes, end)? {
        if bytes.len() as u64 > largest {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// Reads a piece more; whether there may be another.
fn read_more(file: &mut File, bytes: &mut Vec<u8>, end: Instant) -> Result<bool, String> {
    // A regular file is always ready, and so is a pipe whose writer is gone; one that nobody has opened yet is not.
    let left = end.saturating_duration_since(SystemClock.now());
    let nothing = || format!("nothing more came out of it within {} s, and no end", PATIENCE.as_secs());
    let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&limit)) {
        Ok(0) => return Err(nothing()),
        Err(rustix::io::Errno::INTR) => return Ok(true),
        ready => ready.map_err(|error| words(error.into()))?,
    };
    let before = bytes.len();
    match file.take(PIECE as u64).read_to_end(bytes) {
        // At the end of a regular file it is asked once more.
        Ok(_) => Ok(bytes.len() > before),
        Err(error) if error.kind() == ErrorKind::WouldBlock && left.is_zero() => Err(nothing()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(words(error)),
    }
}

fn is_readable(kind: FileType) -> Result<(), String> {
    match () {
        () if kind.is_file() || kind.is_fifo() => Ok(()),
        () if kind.is_dir() => Err("this is a directory, not a file".to_owned()),
        () if kind.is_socket() => Err("this is a socket, not a file".to_owned()),
        () => Err("this is a device, not a file".to_owned()),
    }
}

fn words(error: io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "the file may not be read (permission denied)".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// What is said of `path`, within two seconds.
    fn said(path: &Path) -> String {
        let begin = SystemClock.now();
        let (said, _) = read(path, 1 << 20).unwrap_err();
        assert!(SystemClock.now() - begin < Duration::from_secs(2), "{said}");
        said
    }

    #[test]
    fn what_is_no_file_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(said(&path("missing")), "there is no such file");
        assert_eq!(said(dir.path()), "this is a directory, not a file");
        let _listener = UnixListener::bind(path("socket")).unwrap();
        assert_eq!(said(&path("socket")), "this is a socket, not a file");
        for device in ["/dev/zero", "/dev/null", "/dev/full", "/dev/random"] {
            assert_eq!(said(Path::new(device)), "this is a device, not a file");
            let link = path("link");
            drop(fs::remove_file(&link));
            std::os::unix::fs::symlink(device, &link).unwrap();
            assert_eq!(said(&link), "this is a device, not a file");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        assert_eq!(said(file.path()), "the file is larger than 1 MiB");
        file.as_file().set_len((1 << 20) + 1).unwrap();
        assert_eq!(said(file.path()), "the file is larger than 1 MiB");
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(read(file.path(), 1 << 20).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let nothing = "nothing more came out of it within 1 s, and no end";
        assert_eq!(said(&pipe), nothing, "nobody writes");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut pipe = OpenOptions::new().write(true).open(&pipe).unwrap();
                pipe.write_all(&[b'a'; 200_000]).unwrap();
            });
            assert_eq!(read(&pipe, 1 << 20).unwrap().len(), 200_000);
            writer.join().unwrap();
            // One that is held open without a word, and one that never ends.
            let held = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
            assert_eq!(said(&pipe), nothing);
            drop(held);
            let endless = scope.spawn(|| {
                let mut pipe = OpenOptions::new().write(true).open(&pipe).unwrap();
                while pipe.write_all(&[b'a'; 4096]).is_ok() {}
            });
            assert_eq!(said(&pipe), "the file is larger than 1 MiB");
            endless.join().unwrap();
        });
    }
}
