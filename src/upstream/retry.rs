//! When a request that a backend has failed goes on to another one, and how often in all.
//!
//! The problem: a further attempt saves a request from one backend that is ill. From backends that are all ill it saves
//! none, and makes them work for each request several times.
//!
//! The rule: a pool says what is tried again ([`RetryOn`]), and has a budget for it: of ten seconds' requests a share
//! may be attempts beyond the first, and a few a second besides, so that a quiet pool tries again at all (Finagle's
//! `RetryBudget`, with its window). Requests are those that have ended, refusals of our own among them: where backends
//! answer nothing, nothing ends, and the budget is soon spent. Nobody counts for it while nothing is tried again: it
//! looks at what is counted anyway once a second while it is asked. Where it was not asked for longer than its window,
//! the requests since then count as if they had come evenly.
//!
//! Refused: a budget of attempts at one moment (Envoy's), as it would be written to by every request. A kept connection
//! that turns out to be closed, and a stream that a backend has refused to begin with, cost a backend nothing and are
//! not paid for.

use std::collections::VecDeque;
use std::time::Instant;

/// What a request is tried again for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// Its backend could not be reached. Nothing was sent.
    pub connect: bool,
    /// The connection died before a byte of an answer had come.
    pub broken: bool,
    /// Nothing of an answer came in time.
    pub timeout: bool,
    /// The answer was 500, 502, 503 or 504; each by itself.
    pub statuses: [bool; 4],
}

impl RetryOn {
    /// The statuses that can be chosen.
    pub const STATUSES: [u16; 4] = [500, 502, 503, 504];

    /// Nothing.
    pub const NOTHING: Self = RetryOn { connect: false, broken: false, timeout: false, statuses: [false; 4] };

    /// Whether an answer of this status is one.
    pub fn status(&self, status: u16) -> bool {
        status >= 500 && Self::STATUSES.iter().zip(self.statuses).any(|(of, chosen)| chosen && *of == status)
    }
}

impl Default for RetryOn {
    /// What no backend has answered.
    fn default() -> Self {
        RetryOn { connect: true, broken: true, timeout: true, ..Self::NOTHING }
    }
}

/// How many further attempts a pool may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Attempts for each request of the last ten seconds, 0 to 1. Default 0.2.
    pub ratio: f64,
    /// Attempts a second besides. Default 10.
    pub min_per_sec: u32,
}

// No ratio is NaN: `config` lets none in.
impl Eq for RetryBudget {}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { ratio: 0.2, min_per_sec: 10 }
    }
}

/// How long attempts and requests are looked back at, in seconds.
const WINDOW: u64 = 10;

/// What was spent of a budget.
#[derive(Debug, Default)]
pub(super) struct RetrySpending {
    /// The first second of all.
    began: Option<Instant>,
    /// The seconds in which it was asked, the oldest first: those of the window, and the newest one before it.
    seconds: VecDeque<Second>,
}

/// A second in which a budget was asked for attempts.
#[derive(Clone, Copy, Debug)]
struct Second {
    /// Which one.
    number: u64,
    /// The requests that had ended when it began to be asked.
    requests: u64,
    /// The attempts that it allowed.
    attempts: u64,
}

impl RetrySpending {
    /// Whether `budget` has an attempt left at `now`, which is spent then. `requests` tells how many have ended.
    pub(super) fn pay(&mut self, budget: RetryBudget, now: Instant, requests: impl FnOnce() -> u64) -> bool {
        let began = *self.began.get_or_insert(now);
        let number = now.saturating_duration_since(began).as_secs();
        if self.seconds.back().is_none_or(|last| last.number < number) {
            self.seconds.push_back(Second { number, requests: requests(), attempts: 0 });
        }
        while self.seconds.get(1).is_some_and(|second| second.number + WINDOW <= number) {
            self.seconds.pop_front();
        }
        let (Some(first), Some(last)) = (self.seconds.front().copied(), self.seconds.back_mut()) else { return false };
        let over = number - first.number;
        let share = if over > WINDOW { WINDOW as f64 / over as f64 } else { 1.0 };
        let recent = last.requests.saturating_sub(first.requests) as f64 * share;
        let allowed = budget.ratio * recent + f64::from(budget.min_per_sec) * WINDOW as f64;
        let in_window = |second: &&Second| second.number + WINDOW > number;
        let spent: u64 = self.seconds.iter().filter(in_window).map(|second| second.attempts).sum();
        let allows = ((spent + 1) as f64) <= allowed;
        if let (true, Some(last)) = (allows, self.seconds.back_mut()) {
            last.attempts += 1;
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const TEN_SECONDS: Duration = Duration::from_secs(WINDOW);
    const BUDGET: RetryBudget = RetryBudget { ratio: 0.2, min_per_sec: 10 };

    fn paid(spending: &mut RetrySpending, now: Instant, requests: u64, times: u64) -> u64 {
        (0..times).map(|_| u64::from(spending.pay(BUDGET, now, || requests))).sum()
    }

    #[test]
    fn a_quiet_pool_has_ten_seconds_of_the_minimum_and_a_busy_one_a_fifth_besides() {
        let (mut spending, start) = (RetrySpending::default(), ManualClock::new().now());
        assert_eq!(paid(&mut spending, start, 0, 1_000), 100);
        let later = start + Duration::from_secs(5);
        assert_eq!(paid(&mut spending, later, 1_000, 1_000), 200);
        // What was spent at the start is forgotten, and the requests since then count.
        assert_eq!(paid(&mut spending, start + TEN_SECONDS, 1_000, 1_000), 100);
        assert_eq!(paid(&mut spending, start + 3 * TEN_SECONDS, 1_000, 1_000), 100);
    }

    #[test]
    fn requests_since_long_ago_count_as_if_they_had_come_evenly() {
        let (mut spending, start) = (RetrySpending::default(), ManualClock::new().now());
        assert_eq!(paid(&mut spending, start, 0, 1), 1);
        // 3,600 requests in an hour are ten in ten seconds.
        assert_eq!(paid(&mut spending, start + Duration::from_secs(3_600), 3_600, 1_000), 102);
    }

    #[test]
    fn statuses_are_chosen_each_by_itself() {
        let on = RetryOn { statuses: [true, false, true, false], ..RetryOn::NOTHING };
        let chosen: Vec<_> = (0..=999).filter(|status| on.status(*status)).collect();
        assert_eq!(chosen, [500, 503]);
    }

    proptest! {
        /// Whatever is asked when, no ten seconds see more attempts than the requests before them allow.
        #[test]
        fn no_window_has_more_than_its_share(
            steps in prop::collection::vec((0..4_000_u64, 0..300_u64, 0..200_u64), 1..60),
        ) {
            let (mut spending, start) = (RetrySpending::default(), ManualClock::new().now());
            let (mut millis, mut requests, mut began, mut allowed) = (0, 0, None, Vec::new());
            for (pause, ended, asked) in steps {
                millis += pause;
                requests += ended;
                let now = start + Duration::from_millis(millis);
                for _ in 0..asked {
                    // Its seconds begin when it is asked first.
                    let began = *began.get_or_insert(millis);
                    if spending.pay(BUDGET, now, || requests) {
                        allowed.push((millis - began) / 1_000);
                    }
                }
            }
            prop_assert!(spending.seconds.len() <= WINDOW as usize + 2);
            let seconds: std::collections::BTreeSet<_> = allowed.iter().collect();
            for first in seconds {
                let within = allowed.iter().filter(|second| (*first..first + WINDOW).contains(second)).count();
                prop_assert!(within as f64 <= 0.2 * requests as f64 + 100.0, "{} from {}", within, first);
            }
        }
    }
}
