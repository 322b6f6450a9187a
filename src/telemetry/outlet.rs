//! One thing that the access log is written to, and how it fares.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::access_log::Shared;
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
    /// What people know it by.
    pub(super) name: String,
    failing: bool,
}

impl Outlet {
    /// Lines from the generation `from` on, to `output`. Whatever else may be the same file must be flushed.
    pub(super) fn new(from: u64, mut output: Output) -> Self {
        output.end_half_line();
        let Output { out, path, batch, name, is_stdout } = output;
        Outlet { from, sink: LineSink::new(out), batch, path, is_stdout, name, failing: false }
    }

    /// Gathers a line, and writes those before when they become too many.
    pub(super) fn push(&mut self, line: &[u8], shared: &Shared) {
        if self.sink.size() + line.len() > self.batch {
            self.flush(shared);
        }
        self.sink.push(line);
    }

    /// Writes what is gathered.
    pub(super) fn flush(&mut self, shared: &Shared) {
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

    /// Opens the file again for lines from the generation `from` on, since it was moved away; standard output as it is now.
    /// This one goes on to take earlier lines. `None` when there is nothing to open, or it cannot be opened: then this one
    /// takes the later lines, too.
    pub(super) fn reopened(&mut self, from: u64, shared: &Shared) -> Option<Outlet> {
        // The path may still be this file, and half a line of it must not come behind a line of the other.
        self.flush(shared);
        match self.path.as_deref().map(Output::file).or_else(|| self.is_stdout.then(Output::stdout))? {
            Ok(output) => {
                shared.queue.lose(self.sink.give_up());
                log::info!("access log {}: reopened", self.name);
                Some(Outlet::new(from, output))
            }
            Err(error) => {
                log::warn!("access log {}: reopening failed, the old file is kept: {error}", self.name);
                None
            }
        }
    }

    /// Writes what is gathered, and gives up what could not be.
    pub(super) fn close(mut self, shared: &Shared) {
        self.flush(shared);
        if self.failing {
            // Of whatever is written to from now on nothing bad is known.
            *shared.failure.lock() = None;
        }
        shared.queue.lose(self.sink.give_up());
    }
}
