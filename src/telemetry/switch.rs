//! Another target or format for the access log, or its file opened again, while requests are recorded.
//!
//! The problem: a line is made on its request's thread and written by another one. While the destination changes, some
//! threads hold lines in the old form that are not in the queue yet; those must not end up in the new file.
//!
//! The rule: each destination has a generation, and each line that of the destination it was made for. The writer keeps an
//! outlet for every generation that may still have lines, and sorts by it. A request's thread holds the destination until
//! its line is queued, so once nobody holds an old one, what is queued by then is all there is for it, and its outlet is
//! closed.
//!
//! Refused: a lock that keeps request threads out meanwhile, since one of them may be put to sleep inside; a marker in the
//! queue, which late lines overtake and which finds no room when the queue is full; a new queue and a new thread, which
//! would make two threads that write to one standard output.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access_log::Shared;
use super::output::{Output, Target};
use super::{AccessLog, AccessLogSettings};

/// Where lines go, and in which form.
#[derive(Debug)]
pub(super) struct Destination {
    /// One more than that of the one before.
    pub(super) generation: u64,
    /// With an absolute path.
    pub(super) settings: AccessLogSettings,
}

/// What is written to from some generation on.
#[derive(Debug)]
pub(super) enum Next {
    /// Something else than before.
    Output(Output),
    /// The same path, opened again.
    Reopened,
}

/// What the writer has yet to do.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// What is written to from some generation on.
    pub(super) waiting: VecDeque<(u64, Next)>,
    /// Destinations of before. Whoever holds one beside this may still queue a line for it.
    retired: Vec<Arc<Destination>>,
}

impl Switches {
    /// The oldest generation that may still get lines; [`u64::MAX`] when the present one is the only one.
    pub(super) fn oldest(&mut self) -> u64 {
        // Exclusive access also makes visible what was queued before the others let go.
        self.retired.retain_mut(|destination| Arc::get_mut(destination).is_none());
        self.retired.iter().map(|destination| destination.generation).min().unwrap_or(u64::MAX)
    }
}

/// A target that is open and not yet written to. Dropping it changes nothing but that a missing file was created.
#[must_use = "the access log stays as it is until this is applied"]
#[derive(Debug)]
pub struct Prepared {
    settings: AccessLogSettings,
    /// `None` when the target is the present one.
    output: Option<Output>,
}

impl AccessLog {
    /// Opens the target of `settings`, to be [applied](AccessLog::apply). Call it once the writer was started. Blocks as
    /// opening a file does.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it. Nothing has changed then.
    pub fn prepare(&self, settings: &AccessLogSettings) -> io::Result<Prepared> {
        let settings = settings.absolute();
        let present = self.shared.as_ref().map(|shared| shared.destination.load());
        // A target that stays is not opened a second time: the two would not know of each other's half lines.
        let stays = present.is_none_or(|present| present.settings.target == settings.target);
        let output = if stays { None } else { Some(Target::open(settings.target.as_ref())?.start()?) };
        Ok(Prepared { settings, output })
    }

    /// Switches to what was prepared, and returns at once: lines recorded before go to the old target in the old form, lines
    /// recorded afterwards to the new one in the new form. None is lost over it, and none is written twice.
    ///
    /// What was prepared must be applied before something else is. An access log that is off for good stays so.
    pub fn apply(&self, prepared: Prepared) {
        let Some(shared) = &self.shared else { return };
        let Prepared { settings, output } = prepared;
        let mut switches = shared.switches.lock();
        if output.is_some() || shared.destination.load().settings.format != settings.format {
            shared.switch(&mut switches, settings, output.map(Next::Output));
        }
    }
}

impl Shared {
    /// Has the file opened again for what is recorded from now on.
    pub(super) fn reopen(&self) {
        let mut switches = self.switches.lock();
        // It is opened when the writer gets there, so once is enough while the writer is stuck.
        if !matches!(switches.waiting.back(), Some((_, Next::Reopened))) {
            let settings = self.destination.load().settings.clone();
            self.switch(&mut switches, settings, Some(Next::Reopened));
        }
    }

    fn switch(&self, switches: &mut Switches, settings: AccessLogSettings, next: Option<Next>) {
        let (generation, on) = (self.destination.load().generation + 1, settings.target.is_some());
        // Those that nobody holds any more need not wait for the writer.
        switches.oldest();
        // Before any line of that generation.
        switches.waiting.extend(next.map(|next| (generation, next)));
        switches.retired.push(self.destination.swap(Arc::new(Destination { generation, settings })));
        self.on.store(on, Ordering::Relaxed);
        self.switching.store(true, Ordering::SeqCst);
        self.queue.ring();
    }
}

#[cfg(test)]
mod tests;
