//! How far something is that takes long.
//!
//! It is shown on standard error where that is a terminal that can show it, with rate and time left, and is wiped away at
//! its end. In a pipe, a file or a service nothing is said, so what a script reads is the outcome alone.

use std::io::{self, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often what has no end that is known moves.
const TICK: Duration = Duration::from_millis(100);
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
const STREAM: &str = "{spinner} {msg}: {bytes}, {bytes_per_sec}";
const ITEMS: &str = "{msg} {wide_bar} {human_pos}/{human_len}, {per_sec}, {eta} left";
const WAIT: &str = "{spinner} {msg}: {elapsed}";

/// How far something is; dropping it wipes it away.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of something that moves bytes, so many in all where that is known.
    pub(super) fn bytes(what: impl Into<String>, all: Option<u64>) -> Self {
        let bar = all.map_or_else(ProgressBar::no_length, ProgressBar::new);
        Progress(bar.with_style(style(if all.is_some() { BYTES } else { STREAM })).with_message(what.into()))
    }

    /// Of something whose end nobody knows.
    pub(super) fn waiting(what: &'static str) -> Self {
        let bar = ProgressBar::no_length();
        wait(&bar, what);
        Progress(bar)
    }

    /// Whether anybody sees it.
    pub(super) fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Waits for something else from now on.
    pub(super) fn wait(&self, what: &'static str) {
        wait(&self.0, what);
    }

    /// Of one thing after the other.
    pub(super) fn items(what: &'static str) -> Self {
        let progress = Progress(ProgressBar::no_length());
        progress.count(what);
        progress
    }

    /// Does one thing after the other from now on.
    pub(super) fn count(&self, what: &'static str) {
        count(&self.0, what);
    }

    /// Says that `done` of `all` are done.
    pub(super) fn set(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// Counts what is read, and from its end on waits for what comes of it.
    pub(super) fn upload<R: Read>(&self, reader: R, then: &'static str) -> WatchedReader<R> {
        WatchedReader { reader, bar: self.0.clone(), then }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Something that is read while it is shown how far that is.
pub(super) struct WatchedReader<R> {
    reader: R,
    bar: ProgressBar,
    then: &'static str,
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            wait(&self.bar, self.then);
        }
        self.bar.inc(read as u64);
        Ok(read)
    }
}

fn count(bar: &ProgressBar, what: &'static str) {
    bar.disable_steady_tick();
    bar.set_style(style(ITEMS));
    bar.set_message(what);
    bar.reset();
}

fn wait(bar: &ProgressBar, what: &'static str) {
    bar.set_style(style(WAIT));
    bar.set_message(what);
    bar.reset_elapsed();
    bar.enable_steady_tick(TICK);
}

fn style(template: &str) -> ProgressStyle {
    // Each is one, as a test shows.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_one() {
        for template in [BYTES, STREAM, ITEMS, WAIT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
