//! Another target or form for the access log, or its file opened again, while requests are recorded.
//!
//! The problem: a line is made on its request's thread and written by another one. While the destination changes, some
//! threads hold lines in the old form that are not in the queue yet; those must not end up in the new file.
//!
//! The rule: each destination has a generation, and each line that of the destination it was made for. The writer keeps
//! an outlet for every generation that may still have lines, and sorts by it. A request's thread holds the destination
//! until its line is queued, so once nobody holds an old one, what is queued by then is all there is for it, and its
//! outlet is closed.
//!
//! Refused: a lock that keeps request threads out meanwhile, since one of them may be put to sleep inside; a marker in
//! the queue, which late lines overtake and which finds no room when the queue is full; a new queue and a new thread,
//! which would make two threads that write to one standard output.

use std::io;

use super::ends::NextOutput;
use super::output::{LogTarget, Output};
use super::{AccessLog, AccessLogSettings};

/// A target that is open and not yet written to. Dropping it changes nothing but that a missing file was created.
#[must_use = "the access log stays as it is until this is applied"]
#[derive(Debug)]
pub struct Prepared {
    settings: AccessLogSettings,
    /// `None` when the target is the present one.
    output: Option<Output>,
}

impl AccessLog {
    /// Opens the target of `settings`, to be [applied](AccessLog::apply). Call it once the writer was started. Blocks
    /// as opening a file does.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it. Nothing has changed then.
    pub fn prepare(&self, settings: &AccessLogSettings) -> io::Result<Prepared> {
        let settings = settings.absolute();
        let present = self.shared.as_ref().map(|shared| shared.destination.load());
        // A target that stays is not opened a second time: the two would not know of each other's half lines.
        let stays = present.is_none_or(|present| present.settings.target == settings.target);
        let output = if stays { None } else { Some(LogTarget::open(settings.target.as_ref())?.start()?) };
        Ok(Prepared { settings, output })
    }

    /// Switches to what was prepared, and returns at once: lines recorded before go to the old target in the old form,
    /// lines recorded afterwards to the new one in the new form. None is lost over it, and none is written twice.
    ///
    /// What was prepared must be applied before something else is. An access log that is off for good stays so.
    pub fn apply(&self, prepared: Prepared) {
        let Some(shared) = &self.shared else { return };
        let Prepared { settings, output } = prepared;
        let mut switches = shared.switches.lock();
        if output.is_some() || shared.destination.load().settings != settings {
            shared.switch(&mut switches, settings, output.map(NextOutput::Output));
        }
    }
}

#[cfg(test)]
mod tests;
