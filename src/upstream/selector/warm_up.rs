//! Slow start: the weights of backends that have come back, over one set of backends.
//!
//! The problem: a backend that comes back has cold caches and empty pools of connections. Its whole share at once, or
//! under `least_connections` every request until it holds as many as the others, is more than it bears.
//!
//! The rule: from [when it came](crate::upstream::warmth) its weight grows in a straight line from a tenth to the
//! whole, a hundredth at a time. Rules see other weights and know no more: whoever keeps an order by weights is told of
//! each step as of any other change. Two cannot work so. `round_robin` keeps backends of one weight together, and
//! `least_connections` has no use for a weight where there is nothing in flight: for them a backend whose turn it is
//! is passed over as often as its weight has it ([`Turns`]).
//!
//! Only the proportions count: where all have come at once, none waits for another.
//!
//! Refused: a chance for each choice, which gives the same shares unevenly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::changes::Changes;
use crate::upstream::Backend;
use crate::upstream::warmth::WHOLE;

/// How many steps a weight takes from a tenth to the whole.
const STEPS: u32 = 90;

/// The percents of their weights that backends have.
#[derive(Debug)]
pub(super) struct WarmUp {
    over: Duration,
    percents: Box<[AtomicU8]>,
    /// The most that one has that is ready.
    most: AtomicU8,
    seen: Mutex<LastLook>,
}

#[derive(Debug, Default)]
struct LastLook {
    /// That of the changes that were looked at.
    version: Option<u64>,
    /// When there is to be another look, whatever has changed.
    next: Option<Instant>,
}

impl WarmUp {
    /// Of so many backends, whose weights grow `over` this time.
    pub(super) fn new(backends: usize, over: Duration) -> Self {
        let percents = (0..backends).map(|_| AtomicU8::new(WHOLE)).collect();
        WarmUp { over, percents, most: AtomicU8::new(WHOLE), seen: Mutex::default() }
    }

    /// Brings the weights up to `now`. Costs a look at all backends when one has become ready or has ceased to be, and
    /// at each step while one grows; nothing while somebody else does it.
    pub(super) fn look(&self, backends: &[Arc<Backend>], changes: &Changes, now: Instant) {
        let Some(mut seen) = self.seen.try_lock() else { return };
        let version = changes.version();
        if seen.version == Some(version) && seen.next.is_none_or(|next| now < next) {
            return;
        }
        let ready = || backends.iter().enumerate().filter(|(_, backend)| backend.is_ready());
        let serving = ready().any(|(_, backend)| backend.is_known());
        let (mut most, mut steps, mut grows) = (1, 0, false);
        for (place, backend) in ready() {
            let percent = backend.percent(now, self.over, serving);
            (most, grows) = (percent.max(most), grows || percent < WHOLE);
            if self.percents[place].swap(percent, Ordering::Relaxed) != percent {
                changes.weighed(place);
                steps += 1;
            }
        }
        self.most.store(most, Ordering::Relaxed);
        *seen = LastLook { version: Some(version + steps), next: grows.then(|| now + self.over / STEPS) };
    }

    /// The percents of its weight that the one at `place` has.
    pub(super) fn percent(&self, place: usize) -> u8 {
        self.percents[place].load(Ordering::Relaxed)
    }
}

/// Whose turn it is, of those that get only a part of theirs.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// For each backend what it has had of a turn, in percent.
    due: Box<[u8]>,
}

impl Turns {
    /// Whether the one at `place`, whose turn it would be by its whole weight, has it by the part that it has now.
    /// Among any ten times of asking it has it once.
    pub(super) fn has(&mut self, warm_up: &WarmUp, place: usize) -> bool {
        let (percent, most) = (warm_up.percent(place), warm_up.most.load(Ordering::Relaxed));
        if percent >= most {
            return true;
        }
        if self.due.is_empty() {
            self.due = vec![0; warm_up.percents.len()].into();
        }
        let due = &mut self.due[place];
        // Both are at most a hundred.
        *due += percent;
        let has = *due >= most;
        if has {
            *due -= most;
        }
        has
    }
}
