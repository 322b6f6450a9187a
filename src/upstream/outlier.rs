//! When a backend that answers, but badly, is left out for a while: the rule alone, without sockets and without a
//! clock.
//!
//! The problem: a backend that takes connections and passes its checks may fail each request that it gets, and the
//! sooner it fails, the more it gets.
//!
//! The rule: answers of 500 and above and answers that broke off or did not come in time are errors. So many of them in
//! a row within the window eject the backend for a time, which grows with each ejection that follows another: the
//! second takes twice as long as the first, up to [ten times](LONGEST). Each `eject` without an ejection takes one
//! back. Any other answer ends a row, when all of it has come. After its return one error is enough until there was
//! another answer, as the row that led to its ejection has not ended. What could not connect is a matter of its health,
//! and what a backend has not begun with is none.
//!
//! That is Envoy's outlier detection (`consecutive_5xx`, `base_ejection_time`, `max_ejection_percent`) with a window,
//! and HAProxy's `observe layer7` with a way back that needs no check. Refused: a rate of errors, which needs a number
//! of requests that few backends of a small pool ever have; to eject by how slow a backend is, for which there is
//! `least_time`.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// How many times `eject` an ejection takes at the longest.
const LONGEST: u32 = 10;

/// When backends are ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierRules {
    /// After so many errors in a row. Default 5.
    pub errors: NonZeroU32,
    /// Within this time. Default 10 s.
    pub window: Duration,
    /// For how long, the first time. Default 30 s.
    pub eject: Duration,
    /// The share of the pool's backends that may be ejected at once, 0 to 1, rounded down. Default 0.5.
    pub max_ejected: f64,
}

/// Never a NaN, as the configuration is checked.
impl Eq for OutlierRules {}

impl Default for OutlierRules {
    fn default() -> Self {
        OutlierRules {
            errors: NonZeroU32::MIN.saturating_add(4),
            window: Duration::from_secs(10),
            eject: Duration::from_secs(30),
            max_ejected: 0.5,
        }
    }
}

/// An ejection that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Until when.
    pub until: SystemTime,
    /// Why, in words.
    pub reason: String,
}

/// How one backend has behaved of late. Every part of it may be used from any thread.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// Whether the record has anything that an answer changes; follows it.
    erring: AtomicBool,
    ejected: AtomicBool,
    /// Whether it gets requests all the same, as too few others are left.
    spared: AtomicBool,
    ejections: AtomicU64,
    record: Mutex<ConductRecord>,
}

#[derive(Debug, Default)]
struct ConductRecord {
    /// When the latest errors of the row were, no more of them than eject it.
    row: VecDeque<Instant>,
    /// Whether it has come back and not answered well since.
    is_on_trial: bool,
    /// How many ejections weigh on the next one, as of when the last one ended.
    weight: u32,
    returned: Option<Instant>,
    ejected: Option<(Instant, Ejection)>,
}

impl Conduct {
    /// Takes note of a good answer that came to its end. Costs one load unless there was an error before.
    #[inline]
    pub(super) fn answered(&self) {
        if self.erring.load(Ordering::Relaxed) {
            let mut record = self.record.lock();
            if record.ejected.is_none() {
                record.row.clear();
                record.is_on_trial = false;
                self.erring.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Takes note of an error at `now`; whether it is one too many. The row begins anew then, and a trial is over: one
    /// that may not be ejected is tried by whole rows again.
    pub(super) fn erred(&self, rules: &OutlierRules, now: Instant) -> bool {
        let (mut record, errors) = (self.record.lock(), rules.errors.get() as usize);
        if record.ejected.is_some() {
            return false;
        }
        self.erring.store(true, Ordering::Relaxed);
        record.row.push_back(now);
        while record.row.len() > errors {
            record.row.pop_front();
        }
        let since = record.row.front().map(|first| now.saturating_duration_since(*first));
        let is_row = record.row.len() == errors && since.is_some_and(|since| since <= rules.window);
        let too_many = record.is_on_trial || is_row;
        if too_many {
            record.row.clear();
            record.is_on_trial = false;
        }
        too_many
    }

    /// Ejects it at `now`, for a reason that is told how long it takes; how long.
    pub(super) fn eject(&self, rules: &OutlierRules, (now, wall): (Instant, SystemTime), reason: String) -> Duration {
        let mut record = self.record.lock();
        if let Some(returned) = record.returned {
            let quiet = now.saturating_duration_since(returned).as_nanos() / rules.eject.as_nanos().max(1);
            record.weight = record.weight.saturating_sub(quiet.try_into().unwrap_or(u32::MAX));
        }
        record.weight = (record.weight + 1).min(LONGEST);
        let takes = rules.eject * record.weight;
        record.ejected = Some((now + takes, Ejection { until: wall + takes, reason }));
        self.ejected.store(true, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        takes
    }

    /// Lets it come back if its time is over at `now`; whether it did.
    pub(super) fn end(&self, now: Instant) -> bool {
        if !self.is_ejected() {
            return false;
        }
        let mut record = self.record.lock();
        let over = record.ejected.take_if(|(until, _)| *until <= now).is_some();
        if over {
            (record.is_on_trial, record.returned) = (true, Some(now));
            self.erring.store(true, Ordering::Relaxed);
            self.ejected.store(false, Ordering::Relaxed);
        }
        over
    }

    /// Forgets all of it; whether it was ejected.
    pub(super) fn pardon(&self) -> bool {
        *self.record.lock() = ConductRecord::default();
        self.spared.store(false, Ordering::Relaxed);
        self.ejected.swap(false, Ordering::Relaxed)
    }

    /// Says whether it gets requests although it is ejected; whether that is a change.
    pub(super) fn spare(&self, spared: bool) -> bool {
        self.spared.swap(spared, Ordering::Relaxed) != spared
    }

    /// Whether it is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether that keeps requests away.
    pub(super) fn keeps_out(&self) -> bool {
        self.is_ejected() && !self.spared.load(Ordering::Relaxed)
    }

    /// How often it was ejected.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// The ejection that lasts.
    pub(super) fn ejection(&self) -> Option<Ejection> {
        Some(self.record.lock().ejected.as_ref()?.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn rules(errors: u32) -> OutlierRules {
        OutlierRules { errors: errors.try_into().unwrap(), ..OutlierRules::default() }
    }

    /// Errs until it is one too many; after how many.
    fn until_too_many(conduct: &Conduct, rules: &OutlierRules, clock: &ManualClock) -> Option<usize> {
        (1..=20).find(|_| conduct.erred(rules, clock.now()))
    }

    fn eject(conduct: &Conduct, rules: &OutlierRules, clock: &ManualClock) -> u64 {
        conduct.eject(rules, (clock.now(), clock.wall()), "why".to_owned()).as_secs()
    }

    #[test]
    fn only_a_row_counts_and_only_within_the_window() {
        let (clock, conduct, rules) = (ManualClock::new(), Conduct::default(), rules(3));
        for _ in 0..10 {
            assert!(!conduct.erred(&rules, clock.now()) && !conduct.erred(&rules, clock.now()));
            conduct.answered();
        }
        for _ in 0..10 {
            assert!(!conduct.erred(&rules, clock.now()), "three of them take longer than ten seconds");
            clock.advance(Duration::from_millis(5_001));
        }
        conduct.answered();
        assert_eq!(until_too_many(&conduct, &rules, &clock), Some(3));
        assert_eq!(until_too_many(&conduct, &rules, &clock), Some(3), "whoever was not ejected begins anew");
    }

    #[test]
    fn one_that_is_back_is_on_trial_until_it_answers() {
        let (clock, conduct, rules) = (ManualClock::new(), Conduct::default(), rules(3));
        eject(&conduct, &rules, &clock);
        assert!(!conduct.erred(&rules, clock.now()), "what it had before");
        conduct.answered();
        clock.advance(rules.eject);
        assert!(conduct.end(clock.now()) && !conduct.end(clock.now()));
        assert_eq!(until_too_many(&conduct, &rules, &clock), Some(1));
        assert_eq!(until_too_many(&conduct, &rules, &clock), Some(3), "it was not ejected, so its trial is over");
        eject(&conduct, &rules, &clock);
        clock.advance(rules.eject * 2);
        assert!(conduct.end(clock.now()));
        conduct.answered();
        assert_eq!(until_too_many(&conduct, &rules, &clock), Some(3), "it has answered");
    }

    #[test]
    fn ejections_grow_and_are_forgotten() {
        let (clock, conduct, rules) = (ManualClock::new(), Conduct::default(), rules(1));
        for times in (1..=10).chain([10, 10]) {
            assert_eq!(eject(&conduct, &rules, &clock), 30 * times);
            clock.advance(rules.eject * times as u32 - Duration::from_nanos(1));
            assert!(!conduct.end(clock.now()) && conduct.keeps_out());
            clock.advance(Duration::from_nanos(1));
            assert!(conduct.end(clock.now()) && !conduct.keeps_out());
        }
        clock.advance(rules.eject * 3);
        assert_eq!(eject(&conduct, &rules, &clock), 30 * 8, "three quiet times");
        clock.advance(rules.eject * 8);
        assert!(conduct.end(clock.now()));
        clock.advance(rules.eject * 100);
        assert_eq!((eject(&conduct, &rules, &clock), conduct.ejections()), (30, 14));
        assert!(conduct.pardon() && !conduct.pardon() && !conduct.is_ejected());
    }
}
