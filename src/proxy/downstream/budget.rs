//! What all connections together may have beyond what each has anyway.

use std::sync::atomic::{AtomicU32, Ordering};

/// What the windows of HTTP/2 may grow by together, in bytes.
pub(in crate::proxy) const BUDGET: u32 = 256 << 20;
/// The part of what is left that may be taken at once: one in so many. So nobody takes the last of it.
const PART: u32 = 16;

/// Bytes that may still be promised to clients. Exact, whatever threads take and give.
#[derive(Debug)]
pub(in crate::proxy) struct WindowBudget(AtomicU32);

impl WindowBudget {
    /// One of which nothing is taken.
    pub(in crate::proxy) fn new() -> Self {
        WindowBudget(AtomicU32::new(BUDGET))
    }

    /// Takes up to `bytes`, as far as that is [allowed](Self::allows); how many.
    pub(in crate::proxy) fn take(&self, bytes: u32) -> u32 {
        let mut taken = 0;
        // It always succeeds in the end.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            taken = bytes.min(left / PART);
            Some(left - taken)
        });
        taken
    }

    /// Takes `bytes` while nobody lacks any; how many.
    pub(in crate::proxy) fn take_of_plenty(&self, bytes: u32) -> u32 {
        if self.0.load(Ordering::Relaxed) > BUDGET / 2 { self.take(bytes) } else { 0 }
    }

    /// Gives back what was taken.
    pub(in crate::proxy) fn give(&self, bytes: u32) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The most that can be taken at once now.
    pub(in crate::proxy) fn allows(&self) -> u32 {
        self.0.load(Ordering::Relaxed) / PART
    }

    /// What is not taken.
    #[cfg(test)]
    pub(in crate::proxy) fn left(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
