//! How long a backend has been back, for those who let it start slowly.
//!
//! A backend comes back when it is up after it was down, and when its drain ends. One that a pool gets while it serves,
//! because a name resolves to it or a reload brings it, has come, too: it is as cold. Those that are ready when the
//! first request of all comes have not: a start or an upgrade of tollgate says nothing of how warm they are, and where
//! all start slowly none does. HAProxy and Envoy let the same ones start slowly; nginx only those that were down.
//!
//! The time counts from the first request that could have gone to it, so that it is not over before there was any.

use std::time::{Duration, Instant};

/// The share of a weight, in percent, that is all of it.
pub(in crate::upstream) const WHOLE: u8 = 100;
/// The share that it begins with.
const BEGINNING: u8 = 10;

/// Since when a backend has been there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) enum Warmth {
    /// No request could have gone there yet.
    #[default]
    Novel,
    /// It was away.
    Away,
    /// It came then.
    Since(Instant),
    /// It has been there for long enough.
    Warm,
}

impl Warmth {
    /// Takes note that no request may go there.
    pub(in crate::upstream) fn leave(&mut self) {
        if *self != Warmth::Novel {
            *self = Warmth::Away;
        }
    }

    /// Takes note that a request may go there at `now`, to a pool that is `serving` already or not; the percents of its
    /// weight that it has when they grow to all of it `over` this time.
    pub(in crate::upstream) fn percent(&mut self, now: Instant, over: Duration, serving: bool) -> u8 {
        match *self {
            Warmth::Novel if !serving => *self = Warmth::Warm,
            Warmth::Novel | Warmth::Away => *self = Warmth::Since(now),
            Warmth::Since(since) if now.saturating_duration_since(since) >= over => *self = Warmth::Warm,
            Warmth::Since(_) | Warmth::Warm => {}
        }
        let Warmth::Since(since) = *self else { return WHOLE };
        let passed = now.saturating_duration_since(since).as_secs_f64() / over.as_secs_f64();
        BEGINNING + (f64::from(WHOLE - BEGINNING) * passed) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_weight_grows_from_a_tenth_to_the_whole() {
        let (clock, over) = (ManualClock::new(), Duration::from_secs(30));
        let mut warmth = Warmth::default();
        warmth.leave();
        assert_eq!(warmth.percent(clock.now(), over, false), WHOLE, "who is there first is warm");
        warmth.leave();
        let mut percents = Vec::new();
        for _ in 0..5 {
            percents.push(warmth.percent(clock.now(), over, true));
            clock.advance(over / 3);
        }
        assert_eq!(percents, [10, 40, 70, 100, 100]);
        assert_eq!(warmth, Warmth::Warm);
    }

    #[test]
    fn who_comes_to_others_starts_slowly() {
        let (clock, mut warmth) = (ManualClock::new(), Warmth::default());
        assert_eq!(warmth.percent(clock.now(), Duration::from_secs(1), true), BEGINNING);
    }
}
