//! What is counted about the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The upper bounds of the histogram's buckets, in seconds; one more is for what took longer.
pub const BOUNDS: [f64; 11] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreFigures {
    /// Round trips that took at most as long as each of [`BOUNDS`] but longer than the one before; then all longer.
    pub seconds: [u64; BOUNDS.len() + 1],
    /// What they took in all, in seconds.
    pub seconds_sum: f64,
    /// Calls without an answer, or with an error for one, and tries to connect in vain.
    pub errors: u64,
    /// What the last ping took.
    pub latency: Option<Duration>,
    /// Keys that the store threw away for want of memory, over all its nodes; none while not known.
    pub evicted_keys: Option<u64>,
    /// What the store does when its memory is full; none while not known.
    pub maxmemory_policy: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    seconds: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
    errors: AtomicU64,
    seen: Mutex<SeenLast>,
}

/// What was seen last.
#[derive(Clone, Debug, Default)]
struct SeenLast {
    latency: Option<Duration>,
    evicted: Option<u64>,
    policy: Option<String>,
}

impl Counted {
    pub(super) fn failed(&self, calls: usize) {
        self.errors.fetch_add(calls as u64, Ordering::Relaxed);
    }

    pub(super) fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.seconds[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn pinged(&self, time: Duration) {
        self.seen.lock().latency = Some(time);
    }

    pub(super) fn evicted(&self, keys: u64) {
        self.seen.lock().evicted = Some(keys);
    }

    pub(super) fn policy(&self, policy: Option<String>) {
        self.seen.lock().policy = policy;
    }

    pub(super) fn read(&self) -> StoreFigures {
        let seen = self.seen.lock().clone();
        StoreFigures {
            seconds: std::array::from_fn(|bucket| self.seconds[bucket].load(Ordering::Relaxed)),
            seconds_sum: self.nanos.load(Ordering::Relaxed) as f64 / 1e9,
            errors: self.errors.load(Ordering::Relaxed),
            latency: seen.latency,
            evicted_keys: seen.evicted,
            maxmemory_policy: seen.policy,
        }
    }
}
