//! One thing that the access log is written to, and how it fares.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::ends::LogEnds;
use super::output::Output;
use super::sink::LineSink;

/// One thing that is written to.
pub(super) struct Outlet {
    /// Lines of this generation go here, and later ones until another outlet's.
    pub(super) from: u64,
    sink: LineSink,
    batch: usize,
    path: Option<PathBuf>,
    is_stdout: bool,
    file: Option<(u64, u64)>,
    /// What people know it by.
    pub(super) name: String,
    /// The latest write failed.
    pub(super) failing: bool,
}

impl Outlet {
    /// Lines from the generation `from` on, to `output`. Whatever else may be the same file must be flushed.
    pub(super) fn new(from: u64, mut output: Output) -> Self {
        output.end_half_line();
        let Output { out, path, batch, name, is_stdout, file } = output;
        Outlet { from, sink: LineSink::new(out), batch, path, is_stdout, file, name, failing: false }
    }

    /// Gathers a line, and writes those before when they become too many.
    pub(super) fn push(&mut self, line: &[u8], shared: &LogEnds) {
        if self.sink.size() + line.len() > self.batch {
            self.flush(shared);
        }
        self.sink.push(line);
    }

    /// Writes what is gathered.
    pub(super) fn flush(&mut self, shared: &LogEnds) {
        if self.sink.size() == 0 {
            return;
        }
        let flushed = self.sink.flush();
        // The reason before the counters, so that whoever sees them grow finds it.
        if self.failing || flushed.failure.is_some() {
            self.failing = flushed.failure.is_some();
            *shared.failure.lock() = flushed.failure.map(|error| error.to_string());
        }
        shared.written.fetch_add(flushed.written, Ordering::Release);
        shared.queue.lose(flushed.dropped);
    }

    /// Opens the file again for lines from the generation `from` on, since it was moved away; standard output as it is
    /// now. This one goes on to take earlier lines. `None` when there is nothing to open, it cannot be opened, or it is
    /// still the same file: then this one takes the later lines, too.
    pub(super) fn reopened(&self, from: u64) -> Option<Outlet> {
        match self.path.as_deref().map(Output::file).or_else(|| self.is_stdout.then(Output::stdout))? {
            Ok(output) => {
                log::info!("access log {}: reopened", self.name);
                // Two outlets to one file would not know of each other's torn lines.
                (output.file.is_none() || output.file != self.file).then(|| Outlet::new(from, output))
            }
            Err(error) => {
                log::warn!("access log {}: reopening failed, the old file is kept: {error}", self.name);
                None
            }
        }
    }

    /// Writes what is gathered, and gives up what could not be.
    pub(super) fn close(mut self, shared: &LogEnds) {
        self.flush(shared);
        shared.queue.lose(self.sink.give_up());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::AccessLogSettings;
    use super::super::sink::tests::Disk;
    use super::*;

    fn shared() -> LogEnds {
        LogEnds::new(AccessLogSettings { target: None, ..AccessLogSettings::default() })
    }

    #[test]
    fn a_torn_line_is_finished_in_its_own_file_after_that_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk, shared) = (dir.path().join("access.log"), Disk::default(), shared());
        let moved = Output { out: Box::new(disk.clone()), path: Some(path.clone()), ..Output::nowhere() };
        let mut old = Outlet::new(0, moved);
        disk.make_room(2);
        old.push(b"one\n", &shared);
        old.flush(&shared);
        let mut new = old.reopened(1).unwrap();
        new.push(b"three\n", &shared);
        // Of a request that had the old destination.
        old.push(b"two\n", &shared);
        old.flush(&shared);
        new.flush(&shared);
        disk.make_room(100);
        old.push(b"late\n", &shared);
        old.close(&shared);
        assert_eq!(disk.text(), "one\nlate\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!((shared.written.load(Ordering::Relaxed), shared.queue.dropped()), (3, 1));
    }

    #[test]
    fn a_file_that_was_not_moved_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let outlet = Outlet::new(0, Output::file(&path).unwrap());
        assert!(outlet.reopened(1).is_none());
        fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        assert!(outlet.reopened(1).is_some());
        // By another name it is the same one.
        fs::remove_file(&path).unwrap();
        fs::hard_link(dir.path().join("access.log.1"), &path).unwrap();
        assert!(outlet.reopened(1).is_none());
    }
}
