//! Whether the file at the path is still the one that is open.
//!
//! SQLite goes on writing to a file that was deleted or replaced, and says that all is well; what it wrote is gone with
//! the last process that has it open. So nothing is acknowledged unless the path still leads to the open file, and to
//! the log and the index beside it. The inode of an open file is not given to another one, so device and inode tell.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A device and an inode on it.
pub(super) type Inode = (u64, u64);

/// The open files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    /// The path that was given; it may lead to the database by a symbolic link.
    path: PathBuf,
    database: Inode,
    /// The write-ahead log and its index.
    beside: [(PathBuf, Inode); 2],
}

/// What became of the open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing is at the path.
    Missing,
    /// Another file is at the path.
    Replaced,
    /// The database is there; the log or its index beside it is not, or is another.
    Log,
    /// The file has been made shorter than it must be.
    Cut,
    /// The path cannot be looked at.
    Unseen(io::ErrorKind),
}

impl Moved {
    /// In words.
    pub(super) fn words(self) -> String {
        match self {
            Moved::Missing => "the file was removed".to_owned(),
            Moved::Replaced => "another file was put in its place".to_owned(),
            Moved::Log => "its -wal or -shm file was removed or replaced".to_owned(),
            Moved::Cut => {
                "the file was cut short, and what it held is lost: put a backup in its place by `mv`".to_owned()
            }
            Moved::Unseen(kind) => format!("the file cannot be looked at: {kind}"),
        }
    }
}

impl FileIdentity {
    /// The database itself: its device, and its inode there.
    pub(super) fn database(&self) -> Inode {
        self.database
    }

    /// Of the database at `path`, which is `real` when links are followed, and which is open.
    pub(super) fn of(path: &Path, real: &Path) -> io::Result<Self> {
        let [log, index] = beside(real);
        let (log_inode, index_inode) = (inode(&log)?, inode(&index)?);
        Ok(FileIdentity {
            path: path.to_owned(),
            database: inode(path)?,
            beside: [(log, log_inode), (index, index_inode)],
        })
    }

    /// The length of the database, when all of them are where they were. Two or three calls of `stat`, some
    /// microseconds.
    pub(super) fn check(&self) -> Result<u64, Moved> {
        let length = match std::fs::metadata(&self.path) {
            Ok(found) if inode_of(&found) == self.database => found.len(),
            Ok(_) => return Err(Moved::Replaced),
            Err(error) => return Err(missing(&error)),
        };
        let there = |(path, known): &(PathBuf, Inode)| inode(path).is_ok_and(|found| found == *known);
        if self.beside.iter().all(there) { Ok(length) } else { Err(Moved::Log) }
    }

    /// The files beside the path that belong to the open database.
    pub(super) fn left_beside(&self) -> impl Iterator<Item = &Path> {
        let ours = |(path, known): &&(PathBuf, Inode)| inode(path).is_ok_and(|found| found == *known);
        self.beside.iter().filter(ours).map(|(path, _)| path.as_path())
    }
}

fn missing(error: &io::Error) -> Moved {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Moved::Missing,
        kind => Moved::Unseen(kind),
    }
}

/// The log and its index of the database at `real`.
pub(super) fn beside(real: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| {
        let mut name = real.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

fn inode(path: &Path) -> io::Result<Inode> {
    std::fs::metadata(path).map(|found| inode_of(&found))
}

fn inode_of(found: &Metadata) -> Inode {
    (found.dev(), found.ino())
}
