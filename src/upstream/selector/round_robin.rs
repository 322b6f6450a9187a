//! Smooth weighted round robin.
//!
//! Each choice raises every candidate's credit by its weight, takes the one with the most, and lowers that one by the sum
//! of all weights. Weights 5, 1, 1 give a a b a c a a. Over each cycle of as many choices as the sum of the weights, every
//! backend is chosen exactly as often as its weight says; when the set of candidates changes, the cycle that this cuts short
//! may be one choice off. This is nginx's rule (commit 52327e0627f4, 2012). Pingora's
//! instead repeats each backend as often as its weight says, in a burst.
//!
//! One lock around the credits makes it exact under any number of callers. A cycle worked out beforehand would need no
//! lock, but could not keep the weights among those that are left while some backends are down.

use parking_lot::Mutex;

use super::{Backend, Members};

/// Smooth weighted round robin. O(backends) a choice, under a lock.
#[derive(Debug)]
pub struct RoundRobin {
    pub(super) members: Members,
    credits: Mutex<Box<[i64]>>,
}

impl RoundRobin {
    pub(super) fn new(members: Members) -> Self {
        let credits = vec![0; members.backends.len()].into();
        RoundRobin { members, credits: Mutex::new(credits) }
    }

    pub(super) fn pick(&self, eligible: impl Fn(&Backend) -> bool) -> Option<usize> {
        let mut credits = self.credits.lock();
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, weight) in self.members.eligible(&eligible) {
            let weight = i64::from(weight.get());
            total += weight;
            credits[index] += weight;
            if best.is_none_or(|best| credits[index] > credits[best]) {
                best = Some(index);
            }
        }
        let best = best?;
        credits[best] -= total;
        Some(best)
    }
}
