//! How soon a backend is to be expected to answer: a moving average that follows peaks at once.
//!
//! The rule is that of Finagle and Linkerd ("peak EWMA"). What was measured loses weight with the time that passes and
//! not with the requests that come, by the factor e every ten seconds (Finagle's `decayTime`, Linkerd's default), so a
//! busy backend and a quiet one are judged over the same time. A measurement above the average takes its place at once:
//! one that becomes slow is avoided after its first slow answer. While nothing is measured the estimate sinks towards
//! nothing, so whoever was slow is tried again: one ten times slower than the others after 23 s, by one request.
//!
//! Failures are averaged in, however high they count. As a peak, one failure that is the request's own fault would keep
//! a backend without work for minutes; averaged in, a hundred failures in a row, which take no time, weigh as much as
//! the time in which they came. In Finagle a failure that comes fast counts as a fast answer, and draws more requests.
//!
//! In Finagle reading the estimate moves it, too, so that between two choices nothing but a peak is left of what was
//! measured. Here only measuring does.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time in which a measurement loses all of its weight but an e-th.
const DECAY: Duration = Duration::from_secs(10);

/// How soon one backend is to be expected to answer. Costs a lock that is held for some nanoseconds.
#[derive(Debug, Default)]
pub(super) struct ResponseTime(Mutex<Option<Estimate>>);

#[derive(Clone, Copy, Debug)]
struct Estimate {
    nanos: f64,
    at: Instant,
}

impl Estimate {
    /// What of it is left at `now`: 1 is all.
    fn left(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

impl ResponseTime {
    /// Takes note of an answer that `took` so long and was there at `now`.
    pub(super) fn answered(&self, took: Duration, now: Instant) {
        self.measure(took, now, true);
    }

    /// Takes note of a failure at `now` that counts as an answer which `took` so long.
    pub(super) fn failed(&self, took: Duration, now: Instant) {
        self.measure(took, now, false);
    }

    fn measure(&self, took: Duration, now: Instant, peak: bool) {
        let took = took.as_nanos() as f64;
        let mut known = self.0.lock();
        let nanos = match &*known {
            Some(before) if !(peak && took >= before.nanos) => {
                let left = before.left(now);
                before.nanos * left + took * (1.0 - left)
            }
            _ => took,
        };
        *known = Some(Estimate { nanos, at: now });
    }

    /// The nanoseconds to be expected at `now`; as they were last when nobody says what time it is. None when nothing
    /// was measured yet.
    pub(super) fn nanos(&self, now: Option<Instant>) -> Option<f64> {
        let known = *self.0.lock();
        known.map(|known| known.nanos * now.map_or(1.0, |now| known.left(now)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let (time, clock) = (ResponseTime::default(), ManualClock::new());
        assert_eq!(time.nanos(Some(clock.now())), None);
        time.answered(10 * MS, clock.now());
        time.answered(100 * MS, clock.now());
        assert_eq!(time.nanos(None), Some(100e6));
        let after = |seconds: u32| {
            for _ in 0..seconds * 100 {
                clock.advance(10 * MS);
                time.answered(10 * MS, clock.now());
            }
            time.nanos(Some(clock.now())).unwrap() / 1e6
        };
        // 10 + 90/e, and so on.
        assert!((after(10) - 43.1).abs() < 0.1 && (after(10) - 22.2).abs() < 0.1);
    }

    #[test]
    fn what_is_not_asked_any_more_is_tried_again() {
        let (time, clock) = (ResponseTime::default(), ManualClock::new());
        time.answered(100 * MS, clock.now());
        clock.advance(Duration::from_millis(23_026));
        assert!((time.nanos(Some(clock.now())).unwrap() - 10e6).abs() < 1e3);
        assert_eq!(time.nanos(None), Some(100e6), "asking moves nothing");
    }

    #[test]
    fn failures_weigh_by_the_time_in_which_they_come() {
        let (time, clock) = (ResponseTime::default(), ManualClock::new());
        time.answered(10 * MS, clock.now());
        clock.advance(MS);
        time.failed(Duration::from_secs(30), clock.now());
        let one = time.nanos(None).unwrap() / 1e6;
        assert!((12.9..13.1).contains(&one), "{one} ms: one failure in a thousand is borne");
        for _ in 0..100 {
            clock.advance(MS);
            time.failed(Duration::from_secs(30), clock.now());
        }
        let many = time.nanos(None).unwrap() / 1e6;
        assert!(many > 300.0, "{many} ms: a tenth of a second of nothing else is not");
    }

    proptest! {
        /// It is never above the slowest nor, while answers come, below the fastest; time that goes back changes
        /// nothing.
        #[test]
        fn stays_between_the_fastest_and_the_slowest(
            steps in prop::collection::vec((0_u64..100_000, 1_u64..10_000, any::<bool>()), 1..50),
        ) {
            let (time, clock) = (ResponseTime::default(), ManualClock::new());
            let start = clock.now();
            for (step, took, failed) in &steps {
                clock.advance(Duration::from_millis(*step));
                let took = Duration::from_millis(*took);
                if *failed { time.failed(took, clock.now()) } else { time.answered(took, clock.now()) }
            }
            let took = || steps.iter().map(|(_, took, _)| *took as f64 * 1e6);
            let (least, most) = (took().fold(f64::MAX, f64::min), took().fold(0.0, f64::max));
            let nanos = time.nanos(Some(start)).unwrap();
            prop_assert!((least - 1.0..=most + 1.0).contains(&nanos), "{} of {} to {}", nanos, least, most);
        }
    }
}
