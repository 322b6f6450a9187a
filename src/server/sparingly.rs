//! When to tell of what is counted: at once, and then at most once a minute.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// Remembers what has been told.
#[derive(Debug, Default)]
pub(super) struct Sparingly {
    told: u64,
    at: Option<Instant>,
}

impl Sparingly {
    /// How many to tell about at `now`, when there were `total` since the start.
    pub(super) fn observe(&mut self, total: u64, now: Instant) -> Option<u64> {
        let fresh = total - self.told;
        if fresh == 0 || self.at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            return None;
        }
        *self = Sparingly { told: total, at: Some(now) };
        Some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn it_tells_at_once_and_then_once_a_minute() {
        let clock = ManualClock::new();
        let mut sparingly = Sparingly::default();
        assert_eq!(sparingly.observe(0, clock.now()), None);
        assert_eq!(sparingly.observe(5, clock.now()), Some(5));
        clock.advance(EVERY - Duration::from_nanos(1));
        assert_eq!(sparingly.observe(9, clock.now()), None);
        clock.advance(Duration::from_nanos(1));
        assert_eq!((sparingly.observe(9, clock.now()), sparingly.observe(9, clock.now())), (Some(4), None));
        clock.advance(10 * EVERY);
        assert_eq!((sparingly.observe(9, clock.now()), sparingly.observe(10, clock.now())), (None, Some(1)));
    }
}
