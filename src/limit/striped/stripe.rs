//! What one lock guards: a table of entries, and the book of their quotas.
//!
//! Everything here runs with the stripe locked. What walks over all entries walks over some slots at a time, so that
//! the lock can be let go in between. Entries may move meanwhile; then a walk misses some, which the next one finds.

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Key;
use crate::limit::limiter::Charge;
use crate::limit::striped::entry::BucketEntry;
use crate::limit::striped::quotas::Quotas;
use crate::limit::striped::table::BucketTable;

/// The entries and quotas behind one lock.
#[derive(Debug)]
pub(super) struct Stripe {
    table: BucketTable,
    quotas: Quotas,
    swept: Nanos,
    /// The quota of anonymous callers.
    default: Quota,
}

impl Stripe {
    /// One without entries, whose anonymous callers have the quota `default`.
    pub(super) fn new(default: Quota) -> Self {
        Stripe { table: BucketTable::default(), quotas: Quotas::default(), swept: 0, default }
    }

    /// The quota that counts for `key`: the one that is `given` for a client, the default one for anybody else.
    #[inline]
    pub(super) fn quota_of(&self, key: Key, given: Quota) -> Quota {
        if key.is_client() { given } else { self.default }
    }

    /// Puts anonymous callers under `quota`, those who have a bucket and those who have none.
    pub(super) fn set_default(&mut self, quota: Quota, now: Nanos) {
        let Stripe { table, quotas, default, .. } = self;
        *default = quota;
        for entry in table.slice_mut((0, usize::MAX)).filter(|entry| !entry.key().is_client()) {
            adapt(entry, quotas, quota, now);
        }
    }

    /// Takes from the bucket that pays `charge`, under `quota`; `None` when there is none.
    #[inline(always)]
    pub(super) fn take(&mut self, charge: &Charge, quota: Quota, now: Nanos) -> Option<Decision> {
        let entry = self.table.find_mut(charge.key)?;
        if self.quotas.get(entry.quota()) != quota {
            adapt(entry, &mut self.quotas, quota, now);
        }
        let mut bucket = entry.bucket();
        let allowed = bucket.spend(Tokens::whole(charge.cost.get()), quota, now);
        if allowed {
            entry.set_bucket(bucket);
        }
        Some(Decision::new(allowed, Standing::new(bucket, quota, now).for_cost(charge.cost.get())))
    }

    /// Writes the bucket that would pay `charge`, if there is one, as it was under the charge's quota.
    pub(super) fn put(&mut self, charge: &Charge, bucket: Bucket, now: Nanos) {
        if let Some(entry) = self.table.find_mut(charge.key) {
            adapt(entry, &mut self.quotas, charge.quota, now);
            entry.set_bucket(bucket);
        }
    }

    /// The bucket of `key` as it is under `quota`, left as it is; `None` when there is none.
    pub(super) fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Option<Bucket> {
        let entry = self.table.find(key)?;
        let seen = self.quotas.get(entry.quota());
        Some(if seen == quota { entry.bucket() } else { entry.bucket().edit(seen, quota, now) })
    }

    /// Puts the bucket of `key` under `quota`; whether there is one.
    pub(super) fn edit(&mut self, key: Key, quota: Quota, now: Nanos) -> bool {
        let found = self.table.find_mut(key);
        found.map(|entry| adapt(entry, &mut self.quotas, quota, now)).is_some()
    }

    /// Takes tokens from the bucket of `key` whether they are there or not, under the quota it last saw; whether there
    /// is one.
    pub(super) fn debit(&mut self, key: Key, tokens: u32, now: Nanos) -> bool {
        let Some(entry) = self.table.find_mut(key) else { return false };
        entry.set_bucket(entry.bucket().debited(tokens, self.quotas.get(entry.quota()), now));
        true
    }

    /// Marks all buckets changed.
    pub(super) fn mark(&mut self, slots: (usize, usize)) {
        self.table.slice_mut(slots).for_each(BucketEntry::mark_changed);
    }

    /// Fills the bucket of `key`, if there is one. It stays until the sweep, so that the change is exported.
    pub(super) fn refill(&mut self, key: Key, quota: Quota, now: Nanos) {
        if let Some(entry) = self.table.find_mut(key) {
            adapt(entry, &mut self.quotas, quota, now);
            entry.set_bucket(Bucket::full(quota, entry.bucket().at().max(now)));
        }
    }

    /// A full bucket for a key that has none.
    ///
    /// It is full since the last sweep at the earliest. Threads read the clock before they get the lock, so one may
    /// come here with an instant before the sweep that dropped this key's bucket; from then on it would earn that time
    /// twice.
    pub(super) fn full(&self, quota: Quota, now: Nanos) -> Bucket {
        Bucket::full(quota, now.max(self.swept))
    }

    /// Adds the bucket of a key that has none. What is returned is dropped with the lock let go.
    pub(super) fn insert(&mut self, key: Key, bucket: Bucket, quota: Quota) -> impl Sized + use<> {
        let entry = BucketEntry::new(key, bucket, self.quotas.hold(quota));
        self.table.insert(entry)
    }

    /// Removes the bucket of `key`; whether there was one.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        let removed = self.table.remove(key);
        removed.map(|entry| self.quotas.release(entry.quota())).is_some()
    }

    /// How many slots there are to walk over.
    pub(super) fn slots(&self) -> usize {
        self.table.slots()
    }

    /// Drops the full buckets in some slots, and tells `dropped` whose they were.
    pub(super) fn sweep(&mut self, slots: (usize, usize), now: Nanos, mut dropped: impl FnMut(Key)) {
        let Stripe { table, quotas, swept, .. } = self;
        *swept = now.max(*swept);
        let keep = |entry: &BucketEntry| {
            let full = entry.bucket().is_full(quotas.get(entry.quota()), now);
            if full {
                dropped(entry.key());
                quotas.release(entry.quota());
            }
            !full
        };
        table.retain(slots, keep);
    }

    /// Gives memory back when there is much too much. What is returned is dropped with the lock let go.
    pub(super) fn shrink(&mut self) -> impl Sized + use<> {
        (self.quotas.shrink(), self.table.shrink())
    }

    /// Gives `saved` the buckets in some slots that were changed since they were last given.
    pub(super) fn export(&mut self, slots: (usize, usize), mut saved: impl FnMut(Key, Bucket, Quota)) {
        for entry in self.table.slice_mut(slots) {
            if entry.take_changed() {
                saved(entry.key(), entry.bucket(), self.quotas.get(entry.quota()));
            }
        }
    }
}

/// Puts a bucket under a quota that may not be the one it last saw.
#[cold]
fn adapt(entry: &mut BucketEntry, quotas: &mut Quotas, quota: Quota, now: Nanos) {
    let seen = quotas.get(entry.quota());
    if seen != quota {
        entry.set_bucket(entry.bucket().edit(seen, quota, now));
        // Held before the other is released, so that the book does not move the quota it is about to need.
        let id = quotas.hold(quota);
        quotas.release(entry.quota());
        entry.set_quota(id);
    }
}
