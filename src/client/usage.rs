//! What a client has done since the process started.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::recording::Recording;

/// Counts a client's requests, by what the limiter said of them: one that was let through and then found no route, or
/// no healthy backend, was allowed. Shared by all versions of the client, so that an edit does not start anew.
///
/// Numbers are counted apart from each other: a reader may see one request counted and the other's moment not yet.
#[derive(Debug, Default)]
pub struct Usage {
    allowed: AtomicU64,
    limited: AtomicU64,
    last_seen: AtomicU64,
    candidate_limited: AtomicU64,
    /// When the second is over that is recorded, in nanoseconds since the Unix epoch.
    second_end: AtomicU64,
    recording: Mutex<Recording>,
}

impl Usage {
    /// Counts a request that its limit let through, at `now` (nanoseconds since the Unix epoch).
    pub fn count_allowed(&self, now: u64) {
        self.allowed.fetch_add(1, Ordering::Relaxed);
        self.count_seen(now);
    }

    /// Counts a request that a limit refused.
    pub fn count_limited(&self, now: u64) {
        self.limited.fetch_add(1, Ordering::Relaxed);
        self.count_seen(now);
    }

    /// Notes a request that was refused for another reason.
    pub fn count_seen(&self, now: u64) {
        // Within the same millisecond nothing that is shown changes, and a hot client's line stays where it is.
        if now.saturating_sub(self.last_seen.load(Ordering::Relaxed)) >= 1_000_000 {
            self.last_seen.store(now, Ordering::Relaxed);
        }
    }

    /// Counts a request that its candidate would have refused.
    pub fn count_candidate_limited(&self) {
        self.candidate_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request at `now` is of another second than the one that is recorded; then that is written down first.
    #[inline]
    pub fn is_second_over(&self, now: u64) -> bool {
        now >= self.second_end.load(Ordering::Relaxed)
    }

    /// Says when the next second is over.
    pub(super) fn set_second_end(&self, nanos: u64) {
        self.second_end.store(nanos, Ordering::Relaxed);
    }

    /// What is recorded.
    pub(super) fn recording(&self) -> &Mutex<Recording> {
        &self.recording
    }

    /// The requests on which its limit decided.
    pub fn requests(&self) -> u64 {
        self.allowed().wrapping_add(self.limited())
    }

    /// The requests that its candidate would have refused.
    pub fn candidate_limited(&self) -> u64 {
        self.candidate_limited.load(Ordering::Relaxed)
    }

    /// The requests that its limit let through.
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// The requests that its bucket refused.
    pub fn limited(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    /// When the last request came, in nanoseconds since the Unix epoch; none came before the first one.
    pub fn last_seen(&self) -> Option<u64> {
        Some(self.last_seen.load(Ordering::Relaxed)).filter(|nanos| *nanos > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_remembers_the_latest() {
        let usage = Usage::default();
        assert_eq!((usage.allowed(), usage.limited(), usage.last_seen()), (0, 0, None));
        usage.count_allowed(5_000_000);
        usage.count_limited(7_000_000);
        usage.count_seen(6_000_000);
        assert_eq!((usage.allowed(), usage.limited(), usage.last_seen()), (1, 1, Some(7_000_000)));
    }
}
