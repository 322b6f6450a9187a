//! Since when connections to backends have had nothing to do, for those that Pingora keeps, which does not say it.
//!
//! By descriptor: one that is closed and opened anew is noted anew before anybody asks.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;

/// When each connection was last seen at work. There are as many as there are descriptors.
#[derive(Debug, Default)]
pub struct Rested {
    since: Mutex<HashMap<RawFd, Instant, RandomState>>,
}

impl Rested {
    /// The connection is at work at `now`; for how long it had not been, as far as is known.
    pub(super) fn works(&self, connection: RawFd, now: Instant) -> Duration {
        let before = self.since.lock().insert(connection, now);
        before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn it_rests_from_when_it_last_worked() {
        let (rested, clock) = (Rested::default(), ManualClock::new());
        assert_eq!(rested.works(7, clock.now()), Duration::ZERO);
        clock.advance(Duration::from_secs(1));
        rested.works(7, clock.now());
        rested.works(8, clock.now());
        clock.advance(Duration::from_secs(4));
        assert_eq!(rested.works(7, clock.now()), Duration::from_secs(4));
    }
}
