//! A backend's timer for idle connections, told from the ages at which connections were found closed. Pure: the time is
//! handed in.
//!
//! Not every closing is the timer's. Some come right after an answer, since the backend has answered enough over one
//! connection; many at once, whatever their age, since it stops; any of them, since a network has had enough. And
//! timers are coarse: some servers look once a second, so that one of two seconds closes between two and three.
//!
//! So an age counts only
//! - from a tenth of a second on: what is closed sooner was not closed for being idle;
//! - once for each moment, the least of those closed at that moment, and not at all when they are too far apart for one
//!   timer: that is a stop;
//! - with another one close to it.
//!
//! Of the latest eight, the least that has such a neighbour is the timer. What is kept from it is the larger of how far
//! they are apart and a share that falls with their number: the least of n falls short of the true least by one part of
//! n + 1, as far as anybody can know. It costs little to keep much, since what is lost is the use of a connection that
//! is nearly closed, and not the connection.
//!
//! A connection that is open well beyond the timer speaks against it. When four have, one after the other and none was
//! closed in time meanwhile, the younger ages are forgotten.

use std::time::{Duration, Instant};

/// The least that is kept from a moment at which a connection may be closed: longer than the way to most backends and
/// back, and than this process takes to send what it has begun to.
pub(super) const LEAST_MARGIN: Duration = Duration::from_millis(250);
/// The least age that counts.
const LEAST_AGE: Duration = Duration::from_millis(100);
/// How many ages are remembered.
const REMEMBERED: usize = 8;
/// What is closed within this time is closed at once: a process that stops closes all of its connections in less.
const MOMENT: Duration = Duration::from_millis(100);
/// How far apart two ages of one timer may be beside a tenth of the lesser one, to stand for each other.
const NEIGHBOURS: Duration = Duration::from_millis(100);
/// How coarse a timer may be: some servers look once a second.
const COARSENESS: Duration = Duration::from_secs(1);
/// How many connections must outlive the timer for it to be forgotten.
const DOUBTS: u32 = 4;

/// The ages that are remembered.
#[derive(Debug, Default)]
pub(super) struct ClosingAges {
    /// Those before the present moment, the oldest first.
    ages: Vec<Duration>,
    moment: Option<ClosingMoment>,
    /// How many connections have outlived the timer, and when the last of them was seen to.
    doubts: u32,
    doubted_at: Option<Instant>,
}

/// Closings at about the same time.
#[derive(Clone, Copy, Debug)]
struct ClosingMoment {
    began: Instant,
    least: Duration,
    most: Duration,
}

impl ClosingMoment {
    /// Its age, if it has one that counts.
    fn age(&self) -> Option<Duration> {
        let together = self.most - self.least <= self.least / 2 + COARSENESS;
        (together && self.least >= LEAST_AGE).then_some(self.least)
    }
}

/// What is known of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleTimer {
    /// The least age at which a connection is closed.
    pub(super) closes_after: Duration,
    /// The age up to which none is, by all that is known.
    pub(super) safe_age: Duration,
}

impl ClosingAges {
    /// The timer, once it is known.
    pub(super) fn timer(&self) -> Option<IdleTimer> {
        let mut ages: Vec<_> = self.ages.iter().copied().chain(self.moment.and_then(|moment| moment.age())).collect();
        ages.sort_unstable();
        let neighbours = |pair: &&[Duration]| pair[1] - pair[0] <= pair[0] / 10 + NEIGHBOURS;
        let closes_after = ages.windows(2).find(neighbours)?[0];
        // What is further away is of another timer, or of none.
        let alike = closes_after / 2..=closes_after * 2;
        ages.retain(|age| alike.contains(age));
        let (count, least, most) = (ages.len() as u32, ages.first()?, ages.last()?);
        let margin = (*most - *least).max(closes_after / (count + 1)).max(LEAST_MARGIN);
        let safe_age = least.saturating_sub(margin).max(*least / 2);
        Some(IdleTimer { closes_after, safe_age })
    }

    /// Takes note that a connection was closed at `now`, when it was idle for `age`.
    pub(super) fn closed(&mut self, age: Duration, now: Instant) {
        if !self.open(age, now) {
            self.doubts = 0;
        }
        if let Some(moment) = &mut self.moment
            && now.saturating_duration_since(moment.began) < MOMENT
        {
            moment.least = moment.least.min(age);
            moment.most = moment.most.max(age);
            return;
        }
        let before = self.moment.replace(ClosingMoment { began: now, least: age, most: age });
        self.ages.extend(before.and_then(|moment| moment.age()));
        if self.ages.len() == REMEMBERED {
            self.ages.remove(0);
        }
    }

    /// Takes note that a connection was open at `now`, when it was idle for `age`. Of those that were idle at the same
    /// time one counts. Whether it has outlived the timer.
    pub(super) fn open(&mut self, age: Duration, now: Instant) -> bool {
        let Some(timer) = self.timer() else { return false };
        let beyond = timer.closes_after * 3 / 2 + COARSENESS;
        if age < beyond {
            return false;
        }
        if self.doubted_at.is_some_and(|at| now.saturating_duration_since(at) < age) {
            return true;
        }
        self.doubted_at = Some(now);
        self.doubts += 1;
        if self.doubts == DOUBTS {
            self.doubts = 0;
            self.ages.retain(|age| *age >= beyond);
            self.moment = self.moment.filter(|moment| moment.least >= beyond);
        }
        true
    }
}

#[cfg(test)]
mod tests;
