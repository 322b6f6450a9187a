//! What a background service does with the map: drop what is full, save what has changed, read back what was saved.
//!
//! One part is one stripe. A call lets its lock go after every 512 slots; `docs/benchmarks.md` says how long that
//! takes. So it may run as often or as rarely as anybody likes.
//!
//! A bucket that moves while its stripe is walked over (a new caller made the table grow) may be missed by that walk.
//! The next one finds it, still to be dropped or saved. With nobody taking, a walk misses none.

use crate::client::Quota;
use crate::limit::bucket::Nanos;
use crate::limit::key::{Key, PolicyId, PolicySlot};
use crate::limit::limiter::{Charge, KeptBucket, PolicyTerms, Upkeep};
use crate::limit::striped::Striped;
use crate::limit::striped::stripe::Stripe;

/// The slots that are walked over with the lock held.
const STEP: usize = 512;

impl Striped {
    /// Calls `step` for all slots of a stripe, some at a time, and lets the lock go in between.
    fn walk(&self, stripe: usize, mut step: impl FnMut(&mut Stripe, (usize, usize))) {
        let mut from = 0;
        loop {
            let mut stripe = self.stripes[stripe].lock();
            if from >= stripe.slots() {
                break;
            }
            step(&mut stripe, (from, from + STEP));
            from += STEP;
        }
    }
}

impl Upkeep for Striped {
    fn parts(&self) -> usize {
        self.stripes.len()
    }

    fn sweep(&self, part: usize, now: Nanos, dropped: &mut dyn FnMut(Key)) -> usize {
        let mut count = 0;
        self.walk(part, |stripe, slots| {
            stripe.sweep(slots, now, |policies, key| {
                // Counted first, so that the count is right even if `dropped` panics.
                self.forget(policies, key);
                count += 1;
                dropped(key);
            });
        });
        let unused = self.stripes[part].lock().shrink();
        drop(unused);
        count
    }

    fn export(&self, part: usize, saved: &mut dyn FnMut(KeptBucket)) {
        self.walk(part, |stripe, slots| {
            stripe.export(slots, |key, bucket, quota| saved(KeptBucket { key, bucket, quota }));
        });
    }

    fn mark_all(&self) {
        for part in 0..self.parts() {
            self.walk(part, Stripe::mark);
        }
    }

    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool {
        let written = saved.bucket.resumed(now);
        let stripe = self.stripe(saved.key);
        let mut stripe = stripe.lock();
        let terms = stripe.terms_of(saved.key, quota);
        let bucket = written.edit(saved.quota, terms.quota, now);
        let replaced = stripe.remove(saved.key);
        if bucket.is_full(terms.quota, now) {
            if replaced {
                self.uncount(&stripe, saved.key);
            }
            return true;
        }
        let room = replaced || self.admit(&stripe, saved.key);
        let outgrown = room.then(|| stripe.insert(saved.key, bucket, terms));
        drop(stripe);
        drop(outgrown);
        room
    }

    fn debit(&self, Charge { key, quota, cost }: Charge, now: Nanos) {
        let stripe = self.stripe(key);
        let mut stripe = stripe.lock();
        if !stripe.debit(key, cost.get(), now) && self.admit(&stripe, key) {
            let terms = stripe.terms_of(key, quota);
            let bucket = stripe.full(terms.quota, now).debited(cost.get(), terms.quota, now);
            let outgrown = stripe.insert(key, bucket, terms);
            drop(stripe);
            drop(outgrown);
        }
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        let stripe = self.stripe(key);
        let mut stripe = stripe.lock();
        let terms = stripe.terms_of(key, to);
        let absent = !stripe.edit(key, terms, now);
        // What is not there was full. If that is less than full from now on, it must be kept.
        if absent && from.capacity() < terms.quota.capacity() && self.admit(&stripe, key) {
            let bucket = stripe.full(from, now);
            let outgrown = stripe.insert(key, bucket, terms);
            drop(stripe);
            drop(outgrown);
        }
    }

    fn grant(&self, key: Key, quota: Quota, tokens: u32, now: Nanos) {
        let stripe = self.stripe(key);
        let mut stripe = stripe.lock();
        let terms = stripe.terms_of(key, quota);
        if !stripe.grant(key, terms, tokens, now) && self.admit(&stripe, key) {
            let bucket = stripe.full(terms.quota, now).granted(tokens, terms.quota, now);
            let outgrown = stripe.insert(key, bucket, terms);
            drop(stripe);
            drop(outgrown);
        }
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        let stripe = self.stripe(key);
        let mut stripe = stripe.lock();
        let terms = stripe.terms_of(key, quota);
        stripe.refill(key, terms, now);
    }

    /// Locks one stripe at a time.
    fn set_default_quota(&self, quota: Quota, now: Nanos) {
        self.change_default(quota, now);
    }

    /// Locks one stripe at a time.
    fn set_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot> {
        self.change_policies(policies, now)
    }

    fn policy(&self, id: PolicyId) -> Option<(PolicySlot, Quota)> {
        self.places.lock().get(id)
    }
}
