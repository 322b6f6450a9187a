//! What a limiter holds of its policies.
//!
//! Each policy has a place, which keys name, for as long as it is there. The buckets of all policies lie among the
//! others in the stripes; what sets them apart is counted and bounded by policy, and each policy has an overflow
//! bucket. The quota of a policy is kept in each stripe beside the buckets it is for, and changes as that of anonymous
//! callers does, see [`default_quota`](super::default_quota).
//!
//! A policy that goes leaves its place behind, with buckets that are full until the sweep has dropped them; then
//! another policy may have the place. One that comes back before that gets its own: its keys are those of the buckets
//! that are left there, which would else be counted where they are not. A request that began before may still pay into
//! one that went: its bucket is dropped when it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::client::Quota;
use crate::limit::key::{PolicyId, PolicySlot};
use crate::limit::limiter::PolicyTerms;

/// A policy, as each stripe holds it.
#[derive(Clone, Debug)]
pub(super) struct PolicyHeld {
    /// The quota of all who have none of their own.
    pub(super) quota: Quota,
    /// Whether there is no such policy any more.
    pub(super) is_gone: bool,
    /// What is counted of it.
    pub(super) counts: Arc<PolicyCounts>,
}

impl PolicyHeld {
    /// Counts one bucket less.
    pub(super) fn forget(&self) {
        // Never below nothing: that would count as no room, for good.
        let _ =
            self.counts.buckets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |buckets| buckets.checked_sub(1));
    }
}

/// What is counted of a policy.
#[derive(Debug, Default)]
pub(super) struct PolicyCounts {
    /// The most buckets.
    pub(super) most: AtomicUsize,
    pub(super) buckets: AtomicUsize,
    pub(super) overflowed: AtomicU64,
}

impl PolicyCounts {
    /// Counts one more bucket, if there is room for it.
    pub(super) fn admit(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        // Read before it is written, so that a flood on a full map does not fight over the counter.
        if self.buckets.load(Ordering::Relaxed) >= most {
            return false;
        }
        let room = self.buckets.fetch_add(1, Ordering::Relaxed) < most;
        if !room {
            self.buckets.fetch_sub(1, Ordering::Relaxed);
        }
        room
    }

    /// Whether a new bucket would find room.
    pub(super) fn has_room(&self) -> bool {
        self.buckets.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed)
    }
}

/// A policy, by its place.
#[derive(Debug)]
pub(super) struct PolicyPlace {
    /// Which one it is; the last one, when it is gone.
    pub(super) id: PolicyId,
    pub(super) held: PolicyHeld,
}

/// The places, locked while they change.
#[derive(Debug, Default)]
pub(super) struct Places(pub(super) Vec<PolicyPlace>);

impl Places {
    /// The policies as stripes hold them.
    pub(super) fn held(&self) -> Arc<[PolicyHeld]> {
        self.0.iter().map(|place| place.held.clone()).collect()
    }

    pub(super) fn find(&self, id: PolicyId) -> Option<usize> {
        self.0.iter().position(|place| place.id == id && !place.held.is_gone)
    }

    /// What is held of the policy with this name.
    pub(super) fn get(&self, id: PolicyId) -> Option<(PolicySlot, Quota)> {
        self.find(id).map(|at| (slot(at), self.0[at].held.quota))
    }

    /// What is counted of the policy with this name.
    pub(super) fn counts(&self, id: PolicyId) -> Option<&PolicyCounts> {
        self.find(id).map(|at| &*self.0[at].held.counts)
    }

    /// The buckets of all of them, those that are gone too.
    pub(super) fn buckets(&self) -> usize {
        self.0.iter().map(|place| place.held.counts.buckets.load(Ordering::Relaxed)).sum()
    }

    /// A place for a policy that has none: its own, if it was there before, else one that was left, if there is any.
    pub(super) fn settle(&mut self, terms: &PolicyTerms) -> usize {
        if let Some(at) = self.0.iter().position(|place| place.id == terms.id) {
            self.0[at].held.is_gone = false;
            return at;
        }
        let held = PolicyHeld { quota: terms.quota, is_gone: false, counts: Arc::default() };
        let left = |place: &PolicyPlace| place.held.is_gone && place.held.counts.buckets.load(Ordering::Relaxed) == 0;
        let place = PolicyPlace { id: terms.id, held };
        match self.0.iter().position(left) {
            Some(at) => {
                self.0[at] = place;
                at
            }
            None => {
                self.0.push(place);
                self.0.len() - 1
            }
        }
    }
}

/// The place with this index.
pub(super) fn slot(at: usize) -> PolicySlot {
    PolicySlot(u16::try_from(at).expect("a configuration has at most 10,000 policies"))
}
