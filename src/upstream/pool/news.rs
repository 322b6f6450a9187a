//! What is to be said in the event log of something that happens under a lock.
//!
//! Whoever says it under the lock has everybody wait who wants to look at the pool, for as long as the log takes. So
//! lines are gathered, and said when what gathered them is dropped. Made before the lock is taken, it is dropped after
//! the lock, whichever way leads out.

use log::Level;

/// Lines to be said when this is dropped.
#[derive(Debug, Default)]
pub(in crate::upstream) struct News(Vec<(&'static str, Level, String)>);

impl News {
    /// Something to be said under the log target `target`.
    pub(super) fn add(&mut self, target: &'static str, level: Level, line: String) {
        self.0.push((target, level, line));
    }
}

impl Drop for News {
    fn drop(&mut self) {
        for (target, level, line) in self.0.drain(..) {
            log::log!(target: target, level, "{line}");
        }
    }
}
