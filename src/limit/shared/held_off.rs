//! Buckets of which nothing is held for a moment.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

/// How long: until whoever fills a bucket has waited for the slowest node, and has filled it.
const HELD_OFF: Nanos = 500_000_000;

/// Some buckets, by their bits, and until when.
#[derive(Debug, Default)]
pub(super) struct HeldOff {
    buckets: Mutex<Vec<(u128, Nanos)>>,
    /// When all of them are over.
    until: AtomicU64,
}

impl HeldOff {
    /// Puts a bucket in.
    pub(super) fn put(&self, bits: u128, now: Nanos) {
        let mut buckets = self.buckets.lock();
        buckets.retain(|(of, until)| *of != bits && now < *until);
        buckets.push((bits, now.saturating_add(HELD_OFF)));
        self.until.fetch_max(now.saturating_add(HELD_OFF), Ordering::SeqCst);
    }

    /// Whether a bucket is one of them.
    pub(super) fn has(&self, key: Key, now: Nanos) -> bool {
        now < self.until.load(Ordering::SeqCst)
            && self.buckets.lock().iter().any(|(bits, until)| *bits == key.bits() && now < *until)
    }
}
