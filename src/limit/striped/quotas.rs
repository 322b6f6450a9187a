//! The quotas that the buckets of one stripe last saw, each kept once.
//!
//! A bucket must know the quota under which it has earned since its last write: the caller may come with a new one, and
//! the sweep comes with none. Twelve bytes in every bucket would be a fifth more; but there are far fewer quotas than
//! buckets, as a rule, so a bucket keeps a number of four bytes. If every bucket has a quota of its own after all, each
//! costs about 30 bytes more.
//!
//! Holders are counted, and a quota that nobody holds makes room for another. Lookups by number, which every request
//! makes, are one index; lookups by value are made only for a new bucket or after an edit.

use std::num::NonZeroU32;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::client::{Quota, Rate};

/// The number of a quota in its stripe's book.
pub(super) type QuotaId = u32;

/// One quota and how many hold it; 16 bytes.
#[derive(Debug)]
struct Held {
    rate: Rate,
    capacity: NonZeroU32,
    holders: u32,
}

impl Held {
    fn quota(&self) -> Quota {
        Quota::of(self.capacity, self.rate)
    }
}

/// The book of the quotas in use.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    held: Vec<Held>,
    by_value: HashTable<QuotaId>,
    vacant: Vec<QuotaId>,
    hasher: RandomState,
}

impl Quotas {
    /// The quota with a number that somebody holds.
    #[inline]
    pub(super) fn get(&self, id: QuotaId) -> Quota {
        self.held[id as usize].quota()
    }

    /// One more holds `quota`: its number.
    pub(super) fn hold(&mut self, quota: Quota) -> QuotaId {
        let hash = self.hasher.hash_one(quota);
        let (hasher, held) = (&self.hasher, &mut self.held);
        if let Some(&id) = self.by_value.find(hash, |&id| held[id as usize].quota() == quota) {
            held[id as usize].holders += 1;
            return id;
        }
        let entry = Held { rate: quota.rate(), capacity: quota.capacity(), holders: 1 };
        let id = match self.vacant.pop() {
            Some(id) => {
                held[id as usize] = entry;
                id
            }
            None => {
                held.push(entry);
                QuotaId::try_from(held.len() - 1).expect("a stripe holds fewer than 2³² buckets")
            }
        };
        self.by_value.insert_unique(hash, id, |&id| hasher.hash_one(held[id as usize].quota()));
        id
    }

    /// One less holds the quota with this number.
    pub(super) fn release(&mut self, id: QuotaId) {
        let held = &mut self.held[id as usize];
        held.holders -= 1;
        if held.holders == 0 {
            if let Ok(found) = self.by_value.find_entry(self.hasher.hash_one(held.quota()), |&other| other == id) {
                found.remove();
            }
            self.vacant.push(id);
        }
    }

    /// Starts anew when nobody holds any. Returns the old book, so that its memory can be given back with no lock held.
    pub(super) fn shrink(&mut self) -> Option<Quotas> {
        self.by_value.is_empty().then(|| std::mem::take(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_kept_once_and_makes_room() {
        let quota = |capacity| Quota::new(capacity, 1.0).unwrap();
        let mut quotas = Quotas::default();
        let first = quotas.hold(quota(1));
        let second = quotas.hold(quota(2));
        assert_eq!(quotas.hold(quota(1)), first);
        assert_ne!(first, second);
        quotas.release(first);
        assert_eq!(quotas.get(first), quota(1));
        quotas.release(first);
        assert_eq!(quotas.hold(quota(3)), first, "the vacant place is used again");
        assert_eq!((quotas.get(first), quotas.get(second)), (quota(3), quota(2)));
        assert_ne!(quotas.hold(quota(1)), first);
        assert_eq!(quotas.held.len(), 3);
        quotas.shrink();
        assert_eq!(quotas.held.len(), 3, "somebody holds one");
        for id in 0..3 {
            quotas.release(id);
        }
        quotas.shrink();
        assert_eq!(quotas.held.capacity(), 0);
    }
}
