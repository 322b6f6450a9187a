//! The requests of one client, second by second.

use std::collections::VecDeque;

/// For how long it is kept, in seconds.
pub const RECORDED_SECONDS: u64 = 3_600;
/// Nanoseconds in a second.
pub(super) const BILLION: u64 = 1_000_000_000;
/// How many bits of a word are the number of requests; the others are the low bits of the second.
const COUNT_BITS: u32 = 20;
pub(super) const MOST_REQUESTS: u64 = (1 << COUNT_BITS) - 1;
const SECOND_MASK: u64 = (1 << (u32::BITS - COUNT_BITS)) - 1;
/// For how long whoever wants another's place is looked at, in seconds.
pub(super) const MINUTE: u64 = 60;

/// What is written down of one client.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// The second that goes on, since the Unix epoch.
    pub(super) second: u64,
    /// What the counters said when it began.
    pub(super) base: u64,
    /// The seconds that are over; none of a client that is not recorded.
    pub(super) kept: Option<Box<Seconds>>,
    /// When the minute began in which it wants a place, and what the counters said then.
    pub(super) minute: (u64, u64),
}

/// Seconds with their requests, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    /// The first one that was recorded.
    since: u64,
    /// The latest.
    latest: u64,
    /// All requests in it.
    sum: u64,
    pub(super) words: VecDeque<u32>,
}

impl Seconds {
    /// Adds a second that is over.
    pub(super) fn push(&mut self, second: u64, requests: u64) {
        if requests == 0 {
            return;
        }
        // Of seconds that lie further apart than the words can tell, the earlier ones are over.
        if second > self.latest.saturating_add(RECORDED_SECONDS) {
            self.words.clear();
            self.sum = 0;
        }
        self.since = if self.words.is_empty() { second } else { self.since };
        self.latest = second.max(self.latest);
        let requests = requests.min(MOST_REQUESTS);
        self.words.push_back(((second & SECOND_MASK) << COUNT_BITS | requests) as u32);
        self.sum += requests;
        self.forget(second);
    }

    /// Forgets what is older than an hour at `second`.
    pub(super) fn forget(&mut self, second: u64) {
        while let Some((earliest, requests)) = self.words.front().map(|word| self.read(*word)) {
            if earliest + RECORDED_SECONDS > second {
                break;
            }
            self.words.pop_front();
            self.sum -= u64::from(requests);
        }
        if self.words.capacity() > 4 * self.words.len() + 64 {
            self.words.shrink_to(2 * self.words.len());
        }
    }

    /// The second and its requests.
    pub(super) fn read(&self, word: u32) -> (u64, u32) {
        let (low, requests) = (u64::from(word >> COUNT_BITS), word & MOST_REQUESTS as u32);
        let behind = (self.latest & SECOND_MASK).wrapping_sub(low) & SECOND_MASK;
        (self.latest - behind, requests)
    }

    /// The requests of a minute on average, over the time that it is recorded.
    pub(super) fn per_minute(&self, second: u64) -> u64 {
        let minutes = second.saturating_sub(self.since).div_ceil(MINUTE).clamp(1, RECORDED_SECONDS / MINUTE);
        self.sum / minutes
    }
}
