//! A small hash table of entries: open addressing, linear probing, nothing but entries.
//!
//! The problem: a general hash table keeps its control bytes apart from its entries, so a lookup waits for memory
//! twice, one after the other; and it doubles, so a million buckets may take 2.3 times the memory of their entries.
//!
//! The rule: an entry lies at slot ⌊hash·slots/2²⁴⌋ (its home) or in one of the slots behind it, before the first
//! vacant one; behind the last slot comes the first. The table is never more than 13/16 full, so most entries lie in
//! the cache line that is looked at first. It grows by a quarter, so it is never less than 0.65 full while it grows.
//! Removing closes the gap, so nothing is left behind that would slow down a table that has seen a flood.
//!
//! The hash is in the key, and keyed: whoever could choose hashes could make one long run of entries.
//!
//! A new caller waits while the table grows: some 100 µs for 8,000 entries, as many as a stripe has by default in a
//! full map. The ticker never makes one grow.
//!
//! Refused: `hashbrown::HashTable`, which took 1.27 times the memory for a million buckets and 1.2 times the time,
//! measured with entries of 32 bytes; Robin Hood order, which finds sooner that a key is not there but has to hash
//! every entry it passes; groups of two and four entries compared without a branch, measured no faster.

use crate::limit::key::Key;
use crate::limit::striped::entry::BucketEntry;

/// The slots of the smallest table that is not empty.
const LEAST: usize = 16;

/// A table of entries.
#[derive(Debug, Default)]
pub(super) struct BucketTable {
    slots: Vec<BucketEntry>,
    len: usize,
}

impl BucketTable {
    /// Where an entry of this hash is first looked for.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xFF_FFFF) * self.slots.len() as u64) >> 24) as usize
    }

    #[inline]
    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    /// The slot of `key`, if it is there. An entry stays in its slot until another is added or removed.
    #[inline]
    pub(super) fn slot(&self, key: Key) -> Option<usize> {
        let home = self.home(key.hash());
        let (front, back) = self.slots.split_at_checked(home)?;
        for (offset, entry) in back.iter().enumerate() {
            if entry.is_of(key) {
                return Some(home + offset);
            }
            if entry.is_vacant() {
                return None;
            }
        }
        for (slot, entry) in front.iter().enumerate() {
            if entry.is_of(key) {
                return Some(slot);
            }
            if entry.is_vacant() {
                return None;
            }
        }
        None
    }

    /// The entry of `key`.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<&BucketEntry> {
        self.slot(key).map(|slot| &self.slots[slot])
    }

    /// The entry of `key`, to be changed.
    #[inline]
    pub(super) fn find_mut(&mut self, key: Key) -> Option<&mut BucketEntry> {
        self.slot(key).map(|slot| &mut self.slots[slot])
    }

    /// The entry in a slot that [has one](BucketTable::slot).
    #[inline]
    pub(super) fn at_mut(&mut self, slot: usize) -> &mut BucketEntry {
        &mut self.slots[slot]
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The entries in some slots, from `from` on and before `to`, to be changed.
    pub(super) fn slice_mut(&mut self, (from, to): (usize, usize)) -> impl Iterator<Item = &mut BucketEntry> {
        let to = to.min(self.slots.len());
        self.slots[from.min(to)..to].iter_mut().filter(|entry| !entry.is_vacant())
    }

    /// Adds an entry whose key is not there. Returns the table it has outgrown, so that its memory can be given back
    /// with no lock held.
    pub(super) fn insert(&mut self, entry: BucketEntry) -> Option<BucketTable> {
        let slots = self.slots.len();
        let outgrown = ((self.len + 1) * 16 > slots * 13).then(|| self.resize((slots + slots / 4).max(LEAST)));
        self.put(entry);
        self.len += 1;
        outgrown
    }

    /// Writes an entry to the first vacant slot from its home on. There is one: the table is never full.
    fn put(&mut self, entry: BucketEntry) {
        let mut slot = self.home(entry.halves()[0]);
        while !self.slots[slot].is_vacant() {
            slot = self.after(slot);
        }
        self.slots[slot] = entry;
    }

    /// Removes the entry of `key`.
    pub(super) fn remove(&mut self, key: Key) -> Option<BucketEntry> {
        let slot = self.slot(key)?;
        let entry = self.slots[slot];
        self.vacate(slot);
        Some(entry)
    }

    /// Keeps of the entries in some slots, from `from` on and before `to`, those that `keep` says.
    pub(super) fn retain(&mut self, (from, to): (usize, usize), mut keep: impl FnMut(&BucketEntry) -> bool) {
        let mut slot = from;
        while slot < to.min(self.slots.len()) {
            let entry = &self.slots[slot];
            if entry.is_vacant() || keep(entry) {
                slot += 1;
            } else {
                // Another entry may lie here then, so the same slot is looked at again.
                self.vacate(slot);
            }
        }
    }

    /// Empties a slot and moves up those behind it that would no longer be found.
    fn vacate(&mut self, slot: usize) {
        let slots = self.slots.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + slots - from };
        let mut gap = slot;
        let mut next = self.after(slot);
        while !self.slots[next].is_vacant() {
            let home = self.home(self.slots[next].halves()[0]);
            if distance(home, next) >= distance(gap, next) {
                self.slots[gap] = self.slots[next];
                gap = next;
            }
            next = self.after(next);
        }
        self.slots[gap] = BucketEntry::VACANT;
        self.len -= 1;
    }

    /// Moves to a smaller table when less than an eighth of this one is used. Returns the old one, so that its memory
    /// can be given back with no lock held.
    pub(super) fn shrink(&mut self) -> Option<BucketTable> {
        match self.len * 8 < self.slots.len() {
            true if self.len == 0 => Some(std::mem::take(self)),
            true => Some(self.resize((self.len * 2).max(LEAST))),
            false => None,
        }
    }

    /// Moves all entries to a table of so many slots; returns the old one.
    fn resize(&mut self, slots: usize) -> BucketTable {
        let larger = BucketTable { slots: vec![BucketEntry::VACANT; slots], len: self.len };
        let old = std::mem::replace(self, larger);
        for entry in old.slots.iter().filter(|entry| !entry.is_vacant()) {
            self.put(*entry);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::bucket::{Bucket, Tokens};
    use crate::limit::samples::client;

    /// A key of a hash so bad that runs are long and cross the end of the table.
    fn bad(number: u64) -> Key {
        Key::client(u128::from(number) << 64 | u128::from((number % 7) * 0x2F_FFFF))
    }

    fn entry(key: Key, value: u64) -> BucketEntry {
        BucketEntry::new(key, Bucket::resume(Tokens::default(), value), 0)
    }

    /// The table against a `HashMap`.
    fn check(steps: &[(u8, u64)], key_of: fn(u64) -> Key) {
        let (mut table, mut model) = (BucketTable::default(), HashMap::new());
        for (turn, &(step, number)) in steps.iter().enumerate() {
            let (key, turn) = (key_of(number), turn as u64);
            match step {
                0..=5 => match table.find_mut(key) {
                    Some(found) => {
                        found.set_bucket(Bucket::resume(Tokens::default(), turn));
                        assert!(model.insert(number, turn).is_some());
                    }
                    None => {
                        table.insert(entry(key, turn));
                        assert!(model.insert(number, turn).is_none());
                    }
                },
                6..=8 => {
                    let removed = table.remove(key).map(|entry| entry.bucket().at());
                    assert_eq!(removed, model.remove(&number));
                }
                _ => {
                    let mut dropped = 0;
                    table.retain((0, usize::MAX), |entry| {
                        let keep = entry.bucket().at() % 3 != number % 3;
                        dropped += usize::from(!keep);
                        keep
                    });
                    let before = model.len();
                    model.retain(|_, value| *value % 3 != number % 3);
                    assert_eq!(dropped, before - model.len());
                    table.shrink();
                }
            }
            assert_eq!(table.len, model.len());
            for (&number, &value) in &model {
                let found = table.find(key_of(number));
                assert_eq!(found.map(|entry| entry.bucket().at()), Some(value));
            }
            assert_eq!(table.slice_mut((0, usize::MAX)).count(), model.len());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(steps in prop::collection::vec((0..11_u8, 0..60_u64), 1..200)) {
            check(&steps, bad);
            check(&steps, client);
        }
    }

    #[test]
    fn an_empty_table_takes_no_memory_again() {
        let mut table = BucketTable::default();
        assert!(table.find(client(9)).is_none());
        for number in 0..10_000 {
            table.insert(entry(client(number), 0));
        }
        assert!(table.slots.len() <= 10_000 * 100 / 64);
        table.retain((0, usize::MAX), |entry| entry.is_of(client(7)));
        table.shrink();
        assert_eq!((table.len, table.slots.len()), (1, LEAST));
        assert!(table.remove(client(7)).is_some());
        table.shrink();
        assert_eq!(table.slots.capacity(), 0);
    }
}
