//! What one lock guards: a table of entries, and the book of their quotas.
//!
//! Everything here runs with the stripe locked. What walks over all entries walks over some slots at a time, so that
//! the lock can be let go in between. Entries may move meanwhile; then a walk misses some, which the next one finds.

use std::sync::Arc;

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, Scope};
use crate::limit::limiter::Charge;
use crate::limit::striped::entry::BucketEntry;
use crate::limit::striped::policies::PolicyHeld;
use crate::limit::striped::table::BucketTable;
use crate::limit::striped::terms::{BucketTerms, TermsBook};

/// The entries and terms behind one lock.
#[derive(Debug)]
pub(super) struct Stripe {
    table: BucketTable,
    book: TermsBook,
    swept: Nanos,
    /// The quota of anonymous callers.
    default: Quota,
    /// The policies, by their places.
    policies: Arc<[PolicyHeld]>,
}

impl Stripe {
    /// One without entries and policies, whose anonymous callers have the quota `default`.
    pub(super) fn new(default: Quota) -> Self {
        let (table, book) = (BucketTable::default(), TermsBook::default());
        Stripe { table, book, swept: 0, default, policies: Arc::default() }
    }

    /// The terms that count for `key`: with the quota that is `given` for who has one of his own.
    #[inline]
    pub(super) fn terms_of(&self, key: Key, given: Quota) -> BucketTerms {
        let quota = match key.scope() {
            Scope::Client | Scope::OwnInPolicy(_) => given,
            Scope::Address => self.default,
            Scope::Policy(slot) => self.policies.get(slot.index()).map_or(given, |policy| policy.quota),
        };
        BucketTerms { quota, scope: key.scope() }
    }

    /// The policy that `scope` is of, if it is of one.
    pub(super) fn policy(&self, scope: Scope) -> Option<&PolicyHeld> {
        self.policies.get(scope.slot()?.index())
    }

    /// Puts anonymous callers under `quota`, those who have a bucket and those who have none.
    pub(super) fn set_default(&mut self, quota: Quota, now: Nanos) {
        self.default = quota;
        let Stripe { table, book, .. } = self;
        for entry in table.slice_mut((0, usize::MAX)) {
            if book.get(entry.terms()).scope == Scope::Address {
                adapt(entry, book, BucketTerms { quota, scope: Scope::Address }, now);
            }
        }
    }

    /// Has these policies from now on. Where any `differ` from what was there, all buckets are looked at: those of one
    /// that goes are filled, the others are put under its quota.
    pub(super) fn set_policies(&mut self, policies: &Arc<[PolicyHeld]>, differ: bool, now: Nanos) {
        self.policies = Arc::clone(policies);
        let Stripe { table, book, .. } = self;
        for entry in table.slice_mut((0, usize::MAX)).filter(|_| differ) {
            let BucketTerms { quota, scope } = book.get(entry.terms());
            let Some(policy) = scope.slot().and_then(|slot| policies.get(slot.index())) else { continue };
            if policy.is_gone {
                entry.set_bucket(Bucket::full(quota, now));
            } else if !scope.has_own_quota() {
                adapt(entry, book, BucketTerms { quota: policy.quota, scope }, now);
            }
        }
    }

    /// Takes from the bucket that pays `charge`, under `terms`; `None` when there is none.
    #[inline(always)]
    pub(super) fn take(&mut self, charge: &Charge, terms: BucketTerms, now: Nanos) -> Option<Decision> {
        let entry = self.table.find_mut(charge.key)?;
        if self.book.get(entry.terms()) != terms {
            adapt(entry, &mut self.book, terms, now);
        }
        let mut bucket = entry.bucket();
        let allowed = bucket.spend(Tokens::whole(charge.cost.get()), terms.quota, now);
        if allowed {
            entry.set_bucket(bucket);
        }
        Some(Decision::new(allowed, Standing::new(bucket, terms.quota, now).for_cost(charge.cost.get())))
    }

    /// The bucket of `key`, put under `terms`, and the slot it lies in until another is added or removed.
    #[inline]
    pub(super) fn locate(&mut self, key: Key, terms: BucketTerms, now: Nanos) -> Option<(usize, Bucket)> {
        let slot = self.table.slot(key)?;
        let entry = self.table.at_mut(slot);
        if self.book.get(entry.terms()) != terms {
            adapt(entry, &mut self.book, terms, now);
        }
        Some((slot, entry.bucket()))
    }

    /// Writes the bucket in the slot where it was [located](Stripe::locate).
    #[inline]
    pub(super) fn write(&mut self, slot: usize, bucket: Bucket) {
        self.table.at_mut(slot).set_bucket(bucket);
    }

    /// The bucket of `key` as it is under `quota`, left as it is; `None` when there is none.
    pub(super) fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Option<Bucket> {
        let entry = self.table.find(key)?;
        let seen = self.book.get(entry.terms()).quota;
        Some(if seen == quota { entry.bucket() } else { entry.bucket().edit(seen, quota, now) })
    }

    /// Puts the bucket of `key` under `terms`; whether there is one.
    pub(super) fn edit(&mut self, key: Key, terms: BucketTerms, now: Nanos) -> bool {
        let found = self.table.find_mut(key);
        found.map(|entry| adapt(entry, &mut self.book, terms, now)).is_some()
    }

    /// Takes tokens from the bucket of `key` whether they are there or not, under the quota it last saw; whether there
    /// is one.
    pub(super) fn debit(&mut self, key: Key, tokens: u32, now: Nanos) -> bool {
        let Some(entry) = self.table.find_mut(key) else { return false };
        entry.set_bucket(entry.bucket().debited(tokens, self.book.get(entry.terms()).quota, now));
        true
    }

    /// Adds tokens to the bucket of `key`, under `terms`; whether there is one.
    pub(super) fn grant(&mut self, key: Key, terms: BucketTerms, tokens: u32, now: Nanos) -> bool {
        let Some(entry) = self.table.find_mut(key) else { return false };
        adapt(entry, &mut self.book, terms, now);
        entry.set_bucket(entry.bucket().granted(tokens, terms.quota, now));
        true
    }

    /// Marks all buckets changed.
    pub(super) fn mark(&mut self, slots: (usize, usize)) {
        self.table.slice_mut(slots).for_each(BucketEntry::mark_changed);
    }

    /// Fills the bucket of `key`, if there is one. It stays until the sweep, so that the change is exported.
    pub(super) fn refill(&mut self, key: Key, terms: BucketTerms, now: Nanos) {
        if let Some(entry) = self.table.find_mut(key) {
            adapt(entry, &mut self.book, terms, now);
            // From now on, not from where its instant is: of one that owes, that is the end of its debt.
            entry.set_bucket(Bucket::full(terms.quota, now));
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
    pub(super) fn insert(&mut self, key: Key, bucket: Bucket, terms: BucketTerms) -> impl Sized + use<> {
        let entry = BucketEntry::new(key, bucket, self.book.hold(terms));
        self.table.insert(entry)
    }

    /// Removes the bucket of `key`; whether there was one.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        let removed = self.table.remove(key);
        removed.map(|entry| self.book.release(entry.terms())).is_some()
    }

    /// How many slots there are to walk over.
    pub(super) fn slots(&self) -> usize {
        self.table.slots()
    }

    /// Drops the full buckets in some slots, and tells `dropped` whose they were.
    pub(super) fn sweep(&mut self, slots: (usize, usize), now: Nanos, mut dropped: impl FnMut(&[PolicyHeld], Key)) {
        let Stripe { table, book, swept, policies, .. } = self;
        *swept = now.max(*swept);
        let keep = |entry: &BucketEntry| {
            let terms = book.get(entry.terms());
            let full = entry.bucket().is_full(terms.quota, now);
            if full {
                dropped(policies, key_of(entry, terms));
                book.release(entry.terms());
            }
            !full
        };
        table.retain(slots, keep);
    }

    /// Gives memory back when there is much too much. What is returned is dropped with the lock let go.
    pub(super) fn shrink(&mut self) -> impl Sized + use<> {
        (self.book.shrink(), self.table.shrink())
    }

    /// Gives `saved` the buckets in some slots that were changed since they were last given.
    pub(super) fn export(&mut self, slots: (usize, usize), mut saved: impl FnMut(Key, Bucket, Quota)) {
        for entry in self.table.slice_mut(slots) {
            if entry.take_changed() {
                let terms = self.book.get(entry.terms());
                saved(key_of(entry, terms), entry.bucket(), terms.quota);
            }
        }
    }
}

/// Whose bucket an entry under these terms is.
fn key_of(entry: &BucketEntry, terms: BucketTerms) -> Key {
    let [lower, upper] = entry.halves();
    Key::new(terms.scope, u128::from(upper) << 64 | u128::from(lower))
}

/// Puts a bucket under terms that may not be those it last saw.
#[cold]
fn adapt(entry: &mut BucketEntry, book: &mut TermsBook, terms: BucketTerms, now: Nanos) {
    let seen = book.get(entry.terms());
    if seen != terms {
        if seen.quota != terms.quota {
            entry.set_bucket(entry.bucket().edit(seen.quota, terms.quota, now));
        }
        // Held before the others are released, so that the book does not move those it is about to need.
        let id = book.hold(terms);
        book.release(entry.terms());
        entry.set_terms(id);
    }
}
