//! Coming back when the file was removed or replaced.

use std::time::Instant;

use super::identity::Moved;
use super::writer::Writer;

impl Writer {
    /// Tries to have a file at the path again.
    pub(super) fn recover(&mut self, _moved: Moved, _now: Instant) {}
}
