//! When a backend counts as up and when as down: the rule alone, without sockets and without a clock.
//!
//! Until its first check a backend is unknown and gets no requests. The first check decides at once; after that the
//! thresholds count checks in a row, as HAProxy's `rise` and `fall` do. Three requests in a row that could not connect
//! take a backend down without waiting for a check; then only checks bring it back, or, where there are none, a rest of
//! ten seconds (nginx's `fail_timeout`).
//!
//! Failures to connect that were under way at the same time say one thing, however many they are: a thousand requests
//! that meet a full accept queue are not a thousand in a row. So a failure counts only when its connection was begun
//! after the last one that counted was known. And they never take out what nobody else could stand in for: the last
//! backend that a pool has may be slow to accept, but without it every request fails.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Connect failures in a row that take a backend down.
pub const CONNECT_FAILURES: u32 = 3;
/// How long a backend that no check brings back stays down.
pub const REST: Duration = Duration::from_secs(10);

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Requests may go there.
    Up,
    /// No request goes there.
    Down,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HealthStatus::Unknown => "unknown",
            HealthStatus::Up => "up",
            HealthStatus::Down => "down",
        })
    }
}

/// What came of a check; reasons are in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The backend is well.
    Passed,
    /// The backend is not well.
    Failed(String),
    /// This machine could not check it, which says nothing about the backend.
    NotDone(String),
}

/// A change of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: HealthStatus,
    /// What it is now.
    pub to: HealthStatus,
}

/// How many checks in a row change a backend's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed ones, to go up.
    pub healthy: NonZeroU32,
    /// Failed ones, to go down.
    pub unhealthy: NonZeroU32,
}

/// What a request that could not connect came to for its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Its status is what it was.
    Counted,
    /// It would be down now, but its pool cannot do without it. Said once for each row.
    Needed,
    /// It is down now.
    Down(Transition),
}

/// The health of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct HealthRecord {
    status: HealthStatus,
    /// Checks in a row that spoke against `status`.
    against: u32,
    connect_failures: u32,
    /// How many connect failures were counted in all.
    counted: u64,
    down_since: Option<Instant>,
}

impl HealthRecord {
    /// What is known.
    pub fn status(&self) -> HealthStatus {
        self.status
    }

    /// Whether the last request could not connect.
    pub fn is_failing(&self) -> bool {
        self.connect_failures > 0
    }

    /// How many connect failures were counted so far. Whoever is to connect notes it before.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// Counts a check. One that passes ends a row of connect failures.
    pub fn checked(&mut self, passed: bool, thresholds: Thresholds) -> Option<Transition> {
        let (to, needed) = match passed {
            true => (HealthStatus::Up, thresholds.healthy),
            false => (HealthStatus::Down, thresholds.unhealthy),
        };
        if passed {
            self.connected();
        }
        if self.status == to {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.status != HealthStatus::Unknown && self.against < needed.get() {
            return None;
        }
        Some(self.enter(to, None))
    }

    /// Counts a request that could not connect, as is known at `now`, if its connection was begun after all others that
    /// [counted](Self::counted): there were `before` of them then. `needed` says whether the pool cannot do without it.
    pub fn connect_failed(&mut self, now: Instant, before: u64, needed: impl FnOnce() -> bool) -> ConnectFailure {
        if before < self.counted {
            return ConnectFailure::Counted;
        }
        self.counted += 1;
        self.connect_failures = self.connect_failures.saturating_add(1);
        if self.status != HealthStatus::Up || self.connect_failures < CONNECT_FAILURES {
            return ConnectFailure::Counted;
        }
        if !needed() {
            return ConnectFailure::Down(self.enter(HealthStatus::Down, Some(now)));
        }
        if self.connect_failures == CONNECT_FAILURES { ConnectFailure::Needed } else { ConnectFailure::Counted }
    }

    /// Ends a row of connect failures.
    pub fn connected(&mut self) {
        self.connect_failures = 0;
    }

    /// Brings a backend back that has rested long enough at `now`. One that a check took down, before a reload ended
    /// the checks, begins its rest now.
    pub fn end_rest(&mut self, now: Instant) -> Option<Transition> {
        if self.status != HealthStatus::Down {
            return None;
        }
        let since = *self.down_since.get_or_insert(now);
        if now.saturating_duration_since(since) < REST {
            return None;
        }
        Some(self.enter(HealthStatus::Up, None))
    }

    fn enter(&mut self, to: HealthStatus, down_since: Option<Instant>) -> Transition {
        let transition = Transition { from: self.status, to };
        *self = HealthRecord { status: to, against: 0, connect_failures: 0, counted: self.counted, down_since };
        transition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn thresholds(healthy: u32, unhealthy: u32) -> Thresholds {
        Thresholds { healthy: healthy.try_into().unwrap(), unhealthy: unhealthy.try_into().unwrap() }
    }

    fn statuses(record: &mut HealthRecord, checks: &[bool], thresholds: Thresholds) -> Vec<HealthStatus> {
        checks
            .iter()
            .map(|&passed| {
                record.checked(passed, thresholds);
                record.status()
            })
            .collect()
    }

    #[test]
    fn the_first_check_decides_at_once() {
        let mut record = HealthRecord::default();
        let transition = record.checked(false, thresholds(3, 3));
        assert_eq!(transition, Some(Transition { from: HealthStatus::Unknown, to: HealthStatus::Down }));
        let mut record = HealthRecord::default();
        assert_eq!(record.checked(true, thresholds(3, 3)).unwrap().to, HealthStatus::Up);
    }

    #[test]
    fn thresholds_count_checks_in_a_row() {
        use HealthStatus::{Down, Up};
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(2, 3));
        let checks = [false, false, true, false, false, false, true, false, true, true];
        let expected = [Up, Up, Up, Up, Up, Down, Down, Down, Down, Up];
        assert_eq!(statuses(&mut record, &checks, thresholds(2, 3)), expected);
    }

    #[test]
    fn a_result_that_changes_nothing_is_no_transition() {
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(1, 2));
        assert!((0..100).all(|_| record.checked(true, thresholds(1, 2)).is_none()));
    }

    #[test]
    fn three_connect_failures_in_a_row_take_it_down() {
        let now = ManualClock::new().now();
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(1, 2));
        let mut fails = || record_fails(&mut record, now, false);
        assert_eq!((fails(), fails()), (ConnectFailure::Counted, ConnectFailure::Counted));
        record.connected();
        let mut fails = || record_fails(&mut record, now, false);
        assert_eq!((fails(), fails()), (ConnectFailure::Counted, ConnectFailure::Counted));
        assert_eq!(fails(), ConnectFailure::Down(Transition { from: HealthStatus::Up, to: HealthStatus::Down }));
        assert_eq!(fails(), ConnectFailure::Counted, "it is down already");
        assert_eq!(record.checked(true, thresholds(1, 2)).unwrap().to, HealthStatus::Up);
    }

    /// A connection that is begun after everything so far, and fails.
    fn record_fails(record: &mut HealthRecord, now: Instant, needed: bool) -> ConnectFailure {
        record.connect_failed(now, record.counted(), || needed)
    }

    #[test]
    fn failures_that_were_under_way_together_count_once() {
        let now = ManualClock::new().now();
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(1, 2));
        for round in 0..CONNECT_FAILURES - 1 {
            let before = record.counted();
            for _ in 0..9_000 {
                assert_eq!(record.connect_failed(now, before, || false), ConnectFailure::Counted);
            }
            assert_eq!(record.counted(), u64::from(round) + 1);
        }
        assert!(matches!(record_fails(&mut record, now, false), ConnectFailure::Down(_)));
    }

    #[test]
    fn what_is_needed_stays_until_it_is_needed_no_more() {
        let now = ManualClock::new().now();
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(1, 2));
        let told: Vec<_> = (0..10).map(|_| record_fails(&mut record, now, true)).collect();
        assert_eq!(told.iter().filter(|told| **told == ConnectFailure::Needed).count(), 1, "{told:?}");
        assert_eq!((told[2], record.status()), (ConnectFailure::Needed, HealthStatus::Up));
        assert!(matches!(record_fails(&mut record, now, false), ConnectFailure::Down(_)));
    }

    #[test]
    fn one_that_a_check_took_down_rests_from_when_checks_end() {
        let clock = ManualClock::new();
        let mut record = HealthRecord::default();
        assert_eq!(record.end_rest(clock.now()), None, "nothing is known of it");
        record.checked(false, thresholds(1, 1));
        clock.advance(REST);
        assert_eq!(record.end_rest(clock.now()), None, "its rest begins here");
        clock.advance(REST);
        assert_eq!(record.end_rest(clock.now()).unwrap().to, HealthStatus::Up);
    }

    #[test]
    fn without_checks_it_comes_back_after_its_rest() {
        let clock = ManualClock::new();
        let mut record = HealthRecord::default();
        record.checked(true, thresholds(1, 1));
        for _ in 0..CONNECT_FAILURES {
            record_fails(&mut record, clock.now(), false);
        }
        clock.advance(REST - Duration::from_nanos(1));
        assert_eq!(record.end_rest(clock.now()), None);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(record.end_rest(clock.now()).unwrap().to, HealthStatus::Up);
        assert_eq!(record.end_rest(clock.now()), None);
    }
}
