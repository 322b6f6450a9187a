//! What the access log is written to: opened early so that a wrong path is found at the start, and opened again later.
//!
//! Pipes and terminals get at most 4 KiB at a time, which the kernel takes whole or not at all
//! ([`PIPE_BUF`](https://man7.org/linux/man-pages/man7/pipe.7.html)), so that lines of another writer on the same pipe,
//! such as our own standard error, never land inside ours. Files are appended to, which keeps the writes of two
//! processes apart during an upgrade. [`std::io::stdout`] is not used, because its buffer keeps half lines across
//! errors.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::AccessLogTarget;

/// How much goes to a regular file in one write.
const FILE_BATCH: usize = 64 << 10;
/// How much goes to anything else in one write.
const PIPE_BATCH: usize = 4096;

/// What standard output is called.
const STDOUT: &str = "on standard output";

/// Something open.
pub(super) struct Output {
    /// Not buffered.
    pub(super) out: Box<dyn Write + Send>,
    /// Where it was opened, if it is a file.
    pub(super) path: Option<PathBuf>,
    /// How much it gets in one write, unless one line is longer.
    pub(super) batch: usize,
    /// What people know it by.
    pub(super) name: String,
    /// Whether it is the standard output of this process.
    pub(super) is_stdout: bool,
    /// Device and inode, by which two outputs are known to be one file.
    pub(super) file: Option<(u64, u64)>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Output {
    /// What an access log that is off writes to, if it did.
    pub(super) fn nowhere() -> Self {
        Output {
            out: Box::new(io::sink()),
            path: None,
            batch: PIPE_BATCH,
            name: "(off)".to_owned(),
            is_stdout: false,
            file: None,
        }
    }

    fn new(file: File, path: Option<PathBuf>) -> Self {
        let metadata = file.metadata().ok();
        let regular = metadata.as_ref().is_some_and(fs::Metadata::is_file);
        let name = path.as_ref().map_or_else(|| STDOUT.to_owned(), |path| path.display().to_string());
        Output {
            out: Box::new(file),
            path,
            batch: if regular { FILE_BATCH } else { PIPE_BATCH },
            name,
            is_stdout: false,
            file: metadata.map(|metadata| (metadata.dev(), metadata.ino())),
        }
    }

    /// Opens the file at `path` for appending and creates it when missing.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        // A named pipe opened for writing alone would wait here for its reader, and fail when that one goes.
        let fifo = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let file = OpenOptions::new().read(fifo).append(true).create(true).open(path)?;
        Ok(Output::new(file, Some(path.to_owned())))
    }

    /// What is standard output now. A daemon whose log was rotated has another one than before.
    pub(super) fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Output { is_stdout: true, ..Output::new(file, None) })
    }

    /// Ends the half line that an earlier process may have left. To be called right before the first write, by whoever
    /// writes: a write of our own that is under way looks like half a line, too.
    pub(super) fn end_half_line(&mut self) {
        if self.path.as_deref().is_some_and(ends_inside_a_line) {
            // Where this fails the lines after it fail too, and that is reported.
            self.out.write_all(b"\n").ok();
        }
    }
}

/// Whether an earlier process left half a line; `false` where that cannot be found out.
fn ends_inside_a_line(path: &Path) -> bool {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(0, |metadata| metadata.len());
    let mut last = [b'\n'];
    length > 0 && File::open(path).and_then(|file| file.read_exact_at(&mut last, length - 1)).is_ok() && last != [b'\n']
}

/// An output that may still have to be opened.
pub(super) enum LogTarget {
    /// Standard output, taken when the writer starts: becoming a daemon replaces it.
    Stdout,
    /// Something open.
    Open(Output),
}

impl LogTarget {
    /// Opens what can be opened now.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub(super) fn open(target: Option<&AccessLogTarget>) -> io::Result<Self> {
        match target {
            None => Ok(LogTarget::Open(Output::nowhere())),
            Some(AccessLogTarget::Stdout) => Ok(LogTarget::Stdout),
            Some(AccessLogTarget::File(path)) => Output::file(path).map(LogTarget::Open).map_err(|error| {
                io::Error::new(error.kind(), format!("access log {} cannot be opened: {error}", path.display()))
            }),
        }
    }

    /// Opens the rest.
    pub(super) fn start(self) -> io::Result<Output> {
        match self {
            LogTarget::Stdout => Output::stdout(),
            LogTarget::Open(output) => Ok(output),
        }
    }

    /// Any writer.
    #[cfg(test)]
    pub(super) fn of(out: impl Write + Send + 'static) -> Self {
        LogTarget::Open(Output { out: Box::new(out), name: STDOUT.to_owned(), ..Output::nowhere() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/access.log");
        let Err(error) = LogTarget::open(Some(&AccessLogTarget::File(path.clone()))) else {
            panic!("opened");
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with(&format!("access log {} cannot be opened: ", path.display())), "{error}");
        assert!(LogTarget::open(Some(&AccessLogTarget::File(dir.path().to_owned()))).is_err());
    }

    #[test]
    fn half_a_line_of_an_earlier_process_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        for (before, after) in [("", "new\n"), ("old\n", "old\nnew\n"), ("old\nha", "old\nha\nnew\n")] {
            fs::write(&path, before).unwrap();
            let mut output = Output::file(&path).unwrap();
            output.end_half_line();
            output.out.write_all(b"new\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn only_regular_files_get_large_writes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Output::file(&dir.path().join("access.log")).unwrap().batch, FILE_BATCH);
        assert_eq!(Output::file(Path::new("/dev/null")).unwrap().batch, PIPE_BATCH);
    }
}
