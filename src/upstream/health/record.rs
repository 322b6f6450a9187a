//! When a backend counts as up and when as down: the rule alone, without sockets and without a clock.
//!
//! Until its first check a backend is unknown and gets no requests. The first check decides at once; after that the
//! thresholds count checks in a row, as HAProxy's `rise` and `fall` do. Three requests in a row that could not connect
//! take a backend down without waiting for a check; then only checks bring it back, or, where there are none, a rest of ten
//! seconds (nginx's `fail_timeout`).

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Connect failures in a row that take a backend down.
pub const CONNECT_FAILURES: u32 = 3;
/// How long a backend that no check brings back stays down.
pub const REST: Duration = Duration::from_secs(10);

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Requests may go there.
    Up,
    /// No request goes there.
    Down,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Unknown => "unknown",
            Status::Up => "up",
            Status::Down => "down",
        })
    }
}

/// A change of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: Status,
    /// What it is now.
    pub to: Status,
}

/// How many checks in a row change a backend's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed ones, to go up.
    pub healthy: NonZeroU32,
    /// Failed ones, to go down.
    pub unhealthy: NonZeroU32,
}

/// The health of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    status: Status,
    /// Checks in a row that spoke against `status`.
    against: u32,
    connect_failures: u32,
    down_since: Option<Instant>,
}

impl Record {
    /// What is known.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the last request could not connect.
    pub fn is_failing(&self) -> bool {
        self.connect_failures > 0
    }

    /// Counts a check. One that passes ends a row of connect failures.
    pub fn checked(&mut self, passed: bool, thresholds: Thresholds) -> Option<Transition> {
        let (to, needed) = match passed {
            true => (Status::Up, thresholds.healthy),
            false => (Status::Down, thresholds.unhealthy),
        };
        if passed {
            self.connected();
        }
        if self.status == to {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.status != Status::Unknown && self.against < needed.get() {
            return None;
        }
        self.enter(to, None)
    }

    /// Counts a request that could not connect, at `now`.
    pub fn connect_failed(&mut self, now: Instant) -> Option<Transition> {
        self.connect_failures = self.connect_failures.saturating_add(1);
        if self.status != Status::Up || self.connect_failures < CONNECT_FAILURES {
            return None;
        }
        self.enter(Status::Down, Some(now))
    }

    /// Ends a row of connect failures.
    pub fn connected(&mut self) {
        self.connect_failures = 0;
    }

    /// Brings a backend back that has rested long enough at `now`. One that a check took down, before a reload ended the
    /// checks, begins its rest now.
    pub fn end_rest(&mut self, now: Instant) -> Option<Transition> {
        if self.status != Status::Down {
            return None;
        }
        let since = *self.down_since.get_or_insert(now);
        if now.saturating_duration_since(since) < REST {
            return None;
        }
        self.enter(Status::Up, None)
    }

    fn enter(&mut self, to: Status, down_since: Option<Instant>) -> Option<Transition> {
        let transition = Transition { from: self.status, to };
        *self = Record { status: to, against: 0, connect_failures: 0, down_since };
        Some(transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn thresholds(healthy: u32, unhealthy: u32) -> Thresholds {
        Thresholds { healthy: healthy.try_into().unwrap(), unhealthy: unhealthy.try_into().unwrap() }
    }

    fn statuses(record: &mut Record, checks: &[bool], thresholds: Thresholds) -> Vec<Status> {
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
        let mut record = Record::default();
        let transition = record.checked(false, thresholds(3, 3));
        assert_eq!(transition, Some(Transition { from: Status::Unknown, to: Status::Down }));
        let mut record = Record::default();
        assert_eq!(record.checked(true, thresholds(3, 3)).unwrap().to, Status::Up);
    }

    #[test]
    fn thresholds_count_checks_in_a_row() {
        use Status::{Down, Up};
        let mut record = Record::default();
        record.checked(true, thresholds(2, 3));
        let checks = [false, false, true, false, false, false, true, false, true, true];
        let expected = [Up, Up, Up, Up, Up, Down, Down, Down, Down, Up];
        assert_eq!(statuses(&mut record, &checks, thresholds(2, 3)), expected);
    }

    #[test]
    fn a_result_that_changes_nothing_is_no_transition() {
        let mut record = Record::default();
        record.checked(true, thresholds(1, 2));
        assert!((0..100).all(|_| record.checked(true, thresholds(1, 2)).is_none()));
    }

    #[test]
    fn three_connect_failures_in_a_row_take_it_down() {
        let now = ManualClock::new().now();
        let mut record = Record::default();
        record.checked(true, thresholds(1, 2));
        assert_eq!((record.connect_failed(now), record.connect_failed(now)), (None, None));
        record.connected();
        assert_eq!((record.connect_failed(now), record.connect_failed(now)), (None, None));
        assert_eq!(record.connect_failed(now), Some(Transition { from: Status::Up, to: Status::Down }));
        assert_eq!(record.connect_failed(now), None, "it is down already");
        assert_eq!(record.checked(true, thresholds(1, 2)).unwrap().to, Status::Up);
    }

    #[test]
    fn one_that_a_check_took_down_rests_from_when_checks_end() {
        let clock = ManualClock::new();
        let mut record = Record::default();
        assert_eq!(record.end_rest(clock.now()), None, "nothing is known of it");
        record.checked(false, thresholds(1, 1));
        clock.advance(REST);
        assert_eq!(record.end_rest(clock.now()), None, "its rest begins here");
        clock.advance(REST);
        assert_eq!(record.end_rest(clock.now()).unwrap().to, Status::Up);
    }

    #[test]
    fn without_checks_it_comes_back_after_its_rest() {
        let clock = ManualClock::new();
        let mut record = Record::default();
        record.checked(true, thresholds(1, 1));
        for _ in 0..CONNECT_FAILURES {
            record.connect_failed(clock.now());
        }
        clock.advance(REST - Duration::from_nanos(1));
        assert_eq!(record.end_rest(clock.now()), None);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(record.end_rest(clock.now()).unwrap().to, Status::Up);
        assert_eq!(record.end_rest(clock.now()), None);
    }
}
