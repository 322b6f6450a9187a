//! Where a daemon's standard output and standard error go.
//!
//! To the error log, or nowhere; and nowhere else than before when they go to systemd's journal already.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::fstat;
use rustix::stdio::{dup2_stderr, dup2_stdout};

/// Where they go.
#[derive(Clone, Debug)]
pub(super) struct Outputs {
    /// The error log; none is nowhere.
    path: Option<PathBuf>,
    /// They stay as they are.
    journal: bool,
}

impl Outputs {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Outputs { path, journal: is_journal() }
    }

    /// Sends standard output there.
    pub(super) fn redirect_stdout(&self) -> io::Result<()> {
        self.open()?.map_or(Ok(()), |file| Ok(dup2_stdout(file)?))
    }

    /// Sends standard error there.
    pub(super) fn redirect_stderr(&self) -> io::Result<()> {
        self.open()?.map_or(Ok(()), |file| Ok(dup2_stderr(file)?))
    }

    /// Opens the file, and makes it when it is missing; none when everything stays as it is.
    fn open(&self) -> io::Result<Option<File>> {
        if self.journal {
            return Ok(None);
        }
        let Some(path) = &self.path else { return OpenOptions::new().write(true).open("/dev/null").map(Some) };
        // A named pipe opened for writing alone would wait here for its reader, and fail when that one goes.
        let fifo = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        OpenOptions::new().read(fifo).append(true).create(true).mode(0o640).open(path).map(Some).map_err(|error| {
            io::Error::new(error.kind(), format!("the error log {} cannot be opened: {error}", path.display()))
        })
    }
}

/// Whether standard error goes to systemd's journal: whether it is the stream that `JOURNAL_STREAM` names, as
/// systemd.exec(5) has it. The variable alone may be inherited from anywhere.
pub fn is_journal() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM").ok().and_then(|name| {
        let (device, inode) = name.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    fstat(io::stderr().as_fd()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}
