//! Weighted random: each choice is independent, each backend as likely as its weight says among those that are left.
//!
//! Unlike round robin it shares nothing between callers, and many proxies in front of the same backends do not fall into
//! step.

use super::{Backend, Members};

/// Weighted random. O(backends) a choice, without a lock.
#[derive(Debug)]
pub struct Random {
    pub(super) members: Members,
}

impl Random {
    /// `roll(n)` is a number below `n`, each as likely as the others.
    pub(super) fn pick(&self, eligible: impl Fn(&Backend) -> bool, roll: impl FnOnce(u64) -> u64) -> Option<usize> {
        let total: u64 = self.members.eligible(&eligible).map(|(_, weight)| u64::from(weight.get())).sum();
        if total == 0 {
            return None;
        }
        let mut left = roll(total);
        let mut last = None;
        for (index, weight) in self.members.eligible(&eligible) {
            last = Some(index);
            match left.checked_sub(u64::from(weight.get())) {
                None => break,
                Some(rest) => left = rest,
            }
        }
        // When backends went down between the two passes, the last one that is still there is taken.
        last
    }
}
