//! The terms that the buckets of one stripe last saw, each kept once: a quota, and a scope.
//!
//! A bucket must know the quota under which it has earned since its last write: the caller may come with a new one, and
//! the sweep comes with none, and has to know the policy. Sixteen bytes in every bucket would be a quarter more; but
//! there are far fewer terms than buckets, as a rule, so a bucket keeps a number of four bytes. If every bucket has a
//! quota of its own after all, each costs about 40 bytes more.
//!
//! Holders are counted, and terms that nobody holds make room for another. Lookups by number, which every request
//! makes, are one index; lookups by value are made only for a new bucket or after an edit.

use std::num::NonZeroU32;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::client::{Quota, Rate};
use crate::limit::key::Scope;

/// The number of terms in their stripe's book.
pub(super) type TermsId = u32;

/// What counts for a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BucketTerms {
    pub(super) quota: Quota,
    pub(super) scope: Scope,
}

/// One quota with a scope, and how many hold it; 24 bytes.
#[derive(Debug)]
struct Held {
    rate: Rate,
    capacity: NonZeroU32,
    scope: Scope,
    holders: u32,
}

impl Held {
    #[inline]
    fn terms(&self) -> BucketTerms {
        BucketTerms { quota: Quota::of(self.capacity, self.rate), scope: self.scope }
    }
}

/// The book of the terms in use.
#[derive(Debug, Default)]
pub(super) struct TermsBook {
    held: Vec<Held>,
    by_value: HashTable<TermsId>,
    vacant: Vec<TermsId>,
    hasher: RandomState,
}

impl TermsBook {
    /// The terms with a number that somebody holds.
    #[inline]
    pub(super) fn get(&self, id: TermsId) -> BucketTerms {
        self.held[id as usize].terms()
    }

    /// One more holds `terms`: their number.
    pub(super) fn hold(&mut self, terms: BucketTerms) -> TermsId {
        let hash = self.hasher.hash_one(terms);
        let (hasher, held) = (&self.hasher, &mut self.held);
        if let Some(&id) = self.by_value.find(hash, |&id| held[id as usize].terms() == terms) {
            held[id as usize].holders += 1;
            return id;
        }
        let BucketTerms { quota, scope } = terms;
        let entry = Held { rate: quota.rate(), capacity: quota.capacity(), scope, holders: 1 };
        let id = match self.vacant.pop() {
            Some(id) => {
                held[id as usize] = entry;
                id
            }
            None => {
                held.push(entry);
                TermsId::try_from(held.len() - 1).expect("a stripe holds fewer than 2³² buckets")
            }
        };
        self.by_value.insert_unique(hash, id, |&id| hasher.hash_one(held[id as usize].terms()));
        id
    }

    /// One less holds the terms with this number.
    pub(super) fn release(&mut self, id: TermsId) {
        let held = &mut self.held[id as usize];
        held.holders -= 1;
        if held.holders == 0 {
            if let Ok(found) = self.by_value.find_entry(self.hasher.hash_one(held.terms()), |&other| other == id) {
                found.remove();
            }
            self.vacant.push(id);
        }
    }

    /// Starts anew when nobody holds any. Returns the old book, so that its memory can be given back with no lock held.
    pub(super) fn shrink(&mut self) -> Option<TermsBook> {
        self.by_value.is_empty().then(|| std::mem::take(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::key::PolicySlot;

    #[test]
    fn terms_are_kept_once_and_make_room() {
        let of = |capacity, scope| BucketTerms { quota: Quota::new(capacity, 1.0).unwrap(), scope };
        let terms = |capacity| of(capacity, Scope::Client);
        let mut book = TermsBook::default();
        let first = book.hold(terms(1));
        let second = book.hold(terms(2));
        assert_eq!(book.hold(terms(1)), first);
        assert_ne!(first, second);
        book.release(first);
        assert_eq!(book.get(first), terms(1));
        book.release(first);
        assert_eq!(book.hold(terms(3)), first, "the vacant place is used again");
        assert_eq!((book.get(first), book.get(second)), (terms(3), terms(2)));
        assert_ne!(book.hold(terms(1)), first);
        assert_eq!(book.held.len(), 3);
        let in_policy = book.hold(of(1, Scope::Policy(PolicySlot(4))));
        assert_eq!((in_policy, book.get(in_policy).scope.slot()), (3, Some(PolicySlot(4))));
        book.shrink();
        assert_eq!(book.held.len(), 4, "somebody holds one");
        for id in 0..4 {
            book.release(id);
        }
        book.shrink();
        assert_eq!(book.held.capacity(), 0);
    }
}
