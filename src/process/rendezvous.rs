//! Where a successor waits for its predecessor: a socket at a path that both know, for one at a time.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::pid_file::{kind, make_directory};
use crate::clock::Clock;

/// How often the time is looked at.
const ROUND: Duration = Duration::from_millis(50);

/// The socket of a process that waits. Dropping it removes the socket.
#[derive(Debug)]
pub(crate) struct MeetingPlace {
    path: PathBuf,
    listener: UnixListener,
    /// Locked while one waits, so that no other one does.
    _lock: File,
}

impl MeetingPlace {
    /// Waits at `path`. A socket that an earlier process left there is removed; anything else stays as it is.
    ///
    /// # Errors
    /// When another process waits there, or nobody can.
    pub(crate) fn at(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot wait for a predecessor at {}: {error}", path.display());
        let foreign = |path: &Path, found: FileType, wanted: &str| {
            let (path, kind) = (path.display(), kind(found));
            format!("pingora.upgrade_sock: {path}: there is {kind}, which is left as it is; must be {wanted}")
        };
        let is_socket = |found: FileType| match found.is_socket() {
            true => Ok(()),
            false => Err(foreign(path, found, "a socket that an earlier process left, or nothing yet")),
        };
        make_directory(path).map_err(failed)?;
        let there = || fs::symlink_metadata(path).map(|found| found.file_type());
        there().map_or(Ok(()), is_socket)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = Path::new(&beside);
        if let Ok(found) = fs::symlink_metadata(beside)
            && !found.is_file()
        {
            return Err(foreign(beside, found.file_type(), "the lock of an earlier upgrade, or nothing yet"));
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let lock = options.open(beside).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                format!("another upgrade is under way: its successor waits at {}", path.display())
            }
            fs::TryLockError::Error(error) => failed(error),
        })?;
        // What stands there now: another successor may have gone meanwhile.
        if let Ok(found) = there() {
            is_socket(found)?;
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(MeetingPlace { path: path.to_owned(), listener, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Who comes next; nobody when the time is over.
    pub(crate) fn next(&self, end: Instant, clock: &dyn Clock) -> Option<UnixStream> {
        loop {
            if let Ok((stream, _)) = self.listener.accept()
                && stream.set_nonblocking(false).is_ok()
            {
                return Some(stream);
            }
            let left = end.saturating_duration_since(clock.now());
            if left.is_zero() {
                return None;
            }
            let round = left.min(ROUND);
            let left = Timespec { tv_sec: round.as_secs().cast_signed(), tv_nsec: round.subsec_nanos().into() };
            // Whatever woke it up is looked at again.
            let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&left));
        }
    }
}

impl Drop for MeetingPlace {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Whether the process at the other end is one of ours: the same user, or root.
pub(crate) fn trusted(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid() || peer.uid.is_root())
}
