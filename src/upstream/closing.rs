//! When a backend closes idle connections.
//!
//! The problem: a server closes a connection that is idle for too long. A request that is on its way at that moment
//! dies, and one that may not be repeated is lost. How long too long is, few servers say, and an operator who has to
//! say it for them gets it wrong, or does not know that there is something to say.
//!
//! The rule: what a backend says (`Keep-Alive: timeout=5`) is obeyed, for that connection. Beyond that its timer is
//! learned from the ages at which its idle connections are found closed ([`ages`]). A connection that is nearly as old
//! as that gets only requests that can be sent again. It stays open, and so closes one day, or does not, and tells
//! whether what is known of the timer still holds: a timer that was raised is noticed without risking a request. What
//! is known is the backend's own; another one at the same address starts with nothing.
//!
//! Refused: closing connections before their time, as nothing would be learned any more; asking the backend, as few
//! know how to answer; taking a new connection for each request that may not be repeated, which costs all of them what
//! few would have lost.

mod ages;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use ages::{ClosingAges, LEAST_MARGIN};

/// The most that is kept from a moment that a backend names: its clock is no worse than that.
const MOST_MARGIN: Duration = Duration::from_secs(1);
/// The milliseconds that stand for something that is not known.
const UNKNOWN: u64 = u64::MAX;

/// What is known of when one backend closes idle connections. Any thread may use it at any time; asking costs one load.
#[derive(Debug)]
pub struct IdleClosing {
    ages: Mutex<ClosingAges>,
    /// Up to which age a connection is surely open, as far as was learned.
    safe_millis: AtomicU64,
}

impl Default for IdleClosing {
    fn default() -> Self {
        IdleClosing { ages: Mutex::default(), safe_millis: AtomicU64::new(UNKNOWN) }
    }
}

impl IdleClosing {
    /// The age at which the backend closes an idle connection, once that is learned.
    pub fn closes_after(&self) -> Option<Duration> {
        self.ages.lock().timer().map(|timer| timer.closes_after)
    }

    /// Up to which age a connection gets requests that cannot be sent again. [`Duration::MAX`] when nothing is learned.
    pub fn safe_age(&self) -> Duration {
        duration(&self.safe_millis)
    }

    /// How long a connection may be idle whose backend says that it closes it once it is idle for `timeout`.
    pub fn said(timeout: Duration) -> Duration {
        let margin = (timeout / 10).clamp(LEAST_MARGIN, MOST_MARGIN).min(timeout / 2);
        timeout - margin
    }

    /// Takes note that a connection that was idle for `age` was closed by the backend just before `now`.
    pub fn closed(&self, age: Duration, now: Instant) {
        self.learn(|ages| ages.closed(age, now));
    }

    /// Takes note that connections that are idle since those moments are open at `now`.
    pub fn open(&self, idle_since: impl Iterator<Item = Instant>, now: Instant) {
        // As long as nothing is known there is nothing to doubt.
        if self.safe_millis.load(Ordering::Relaxed) != UNKNOWN {
            self.learn(|ages| {
                idle_since.for_each(|since| {
                    ages.open(now.saturating_duration_since(since), now);
                });
            });
        }
    }

    fn learn(&self, learn: impl FnOnce(&mut ClosingAges)) {
        let mut ages = self.ages.lock();
        learn(&mut ages);
        let safe = ages.timer().map_or(UNKNOWN, |timer| millis(timer.safe_age));
        self.safe_millis.store(safe, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(UNKNOWN)
}

fn duration(millis: &AtomicU64) -> Duration {
    match millis.load(Ordering::Relaxed) {
        UNKNOWN => Duration::MAX,
        millis => Duration::from_millis(millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_a_backend_says_is_obeyed_with_a_margin() {
        for (said, longest) in
            [(0, 0), (100, 50), (1_000, 750), (2_000, 1_750), (5_000, 4_500), (15_000, 14_000), (600_000, 599_000)]
        {
            assert_eq!(IdleClosing::said(Duration::from_millis(said)), Duration::from_millis(longest), "{said}");
        }
        assert!(IdleClosing::said(Duration::MAX) > Duration::from_secs(1 << 40));
    }

    #[test]
    fn what_is_learned_reaches_those_who_ask_and_is_forgotten() {
        let (closing, clock) = (IdleClosing::default(), ManualClock::new());
        assert_eq!((closing.closes_after(), closing.safe_age()), (None, Duration::MAX));
        for _ in 0..2 {
            clock.advance(3 * SECOND);
            closing.closed(3 * SECOND, clock.now());
        }
        assert_eq!((closing.closes_after(), closing.safe_age()), (Some(3 * SECOND), 2 * SECOND));
        for _ in 0..100 {
            let since = clock.now();
            clock.advance(20 * SECOND);
            closing.open([since, clock.now()].into_iter(), clock.now());
        }
        assert_eq!((closing.closes_after(), closing.safe_age()), (None, Duration::MAX));
    }
}
