//! What is done to the views is done to the leases, too.

use super::SharedLimiter;
use crate::client::Quota;
use crate::limit::bucket::Nanos;
use crate::limit::key::{Key, PolicyId, PolicySlot};
use crate::limit::limiter::{Charge, KeptBucket, Owed, PolicyTerms, Upkeep};
use crate::limit::reach::Reach;

impl Upkeep for SharedLimiter {
    fn parts(&self) -> usize {
        self.view.parts()
    }

    fn sweep(&self, part: usize, now: Nanos, dropped: &mut dyn FnMut(Key)) -> usize {
        self.view.sweep(part, now, dropped)
    }

    fn export(&self, part: usize, saved: &mut dyn FnMut(KeptBucket)) {
        self.view.export(part, saved);
    }

    fn mark_all(&self) {
        self.view.mark_all();
    }

    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool {
        self.view.restore(saved, quota, now)
    }

    fn debit(&self, charge: Charge, now: Nanos) {
        self.view.debit(charge, now);
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        self.view.edit(key, from, to, now);
        self.leases.edit(key, to);
    }

    fn grant(&self, key: Key, quota: Quota, tokens: u32, now: Nanos) {
        self.view.grant(key, quota, tokens, now);
        self.leases.disbelieve(key);
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        self.view.reset(key, quota, now);
        self.leases.disbelieve(key);
    }

    fn set_default_quota(&self, quota: Quota, now: Nanos) {
        self.view.set_default_quota(quota, now);
    }

    fn set_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot> {
        self.view.set_policies(policies, now)
    }

    fn policy(&self, id: PolicyId) -> Option<(PolicySlot, Quota)> {
        self.view.policy(id)
    }

    fn owed(&self) -> Vec<Owed> {
        self.leases.owed()
    }

    fn take_owed(&self, end: bool) -> Vec<Owed> {
        if end || self.leases.reach() != Reach::Joined { self.leases.take_owed(end) } else { Vec::new() }
    }

    fn owe_too(&self, owed: Owed, now: Nanos) {
        self.leases.owe_too(owed, now);
    }
}
