//! Other policies, while requests run.

use std::sync::atomic::Ordering;

use crate::limit::bucket::Nanos;
use crate::limit::key::PolicySlot;
use crate::limit::limiter::PolicyTerms;
use crate::limit::striped::Striped;
use crate::limit::striped::overflow::OverflowBucket;
use crate::limit::striped::policies::slot;

impl Striped {
    /// Does it, and locks one stripe at a time.
    pub(super) fn change_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot> {
        let mut places = self.places.lock();
        let mut differ = false;
        for place in &mut places.0 {
            let goes = !place.held.is_gone && policies.iter().all(|policy| policy.id != place.id);
            place.held.is_gone |= goes;
            differ |= place.held.is_gone && place.held.counts.buckets.load(Ordering::Relaxed) > 0;
        }
        let mut slots = Vec::with_capacity(policies.len());
        let mut fresh = Vec::new();
        for terms in policies {
            let at = places.find(terms.id).unwrap_or_else(|| {
                let at = places.settle(terms);
                fresh.push(at);
                at
            });
            let held = &mut places.0[at].held;
            held.counts.most.store(terms.max_buckets.get(), Ordering::Relaxed);
            differ |= held.quota != terms.quota;
            held.quota = terms.quota;
            slots.push(slot(at));
        }
        let held = places.held();
        // Before a request can name a new place.
        let mut overflow = self.overflow.lock();
        for (at, policy) in held.iter().enumerate() {
            match overflow.policies.get_mut(at) {
                Some(shared) if !fresh.contains(&at) => shared.adapt(policy.quota, now),
                Some(shared) => *shared = OverflowBucket::full(policy.quota, now),
                None => overflow.policies.push(OverflowBucket::full(policy.quota, now)),
            }
        }
        drop(overflow);
        for stripe in &self.stripes {
            stripe.lock().set_policies(&held, differ, now);
        }
        slots
    }
}
