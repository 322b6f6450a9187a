//! The turns of one process alone.
//!
//! A caller stands here only while it has one, so there are no more entries than requests in flight, and nothing has to
//! be swept. During an upgrade what the old process finishes is not counted by the new one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::limit::key::Key;

/// In how many parts they are kept, each under a lock of its own.
const PARTS: usize = 64;

/// The requests in flight of each caller.
#[derive(Debug)]
pub struct OwnTurns(Box<[CachePadded<Mutex<TurnCounts>>]>);

/// The requests in flight of some callers, each of whom has at least one.
type TurnCounts = HashMap<Key, u32, RandomState>;

impl Default for OwnTurns {
    fn default() -> Self {
        OwnTurns((0..PARTS).map(|_| CachePadded::default()).collect())
    }
}

impl OwnTurns {
    /// Counts one more request of whoever has `key`, unless as many as `most` run; whether it was counted.
    #[inline]
    pub(super) fn take(&self, key: Key, most: NonZeroU32) -> bool {
        let mut part = self.part(key).lock();
        let count = part.entry(key).or_insert(0);
        let goes = *count < most.get();
        *count += u32::from(goes);
        goes
    }

    /// Counts one less.
    #[inline]
    pub(super) fn end(&self, key: Key) {
        let mut part = self.part(key).lock();
        if let Entry::Occupied(mut count) = part.entry(key) {
            match count.get_mut() {
                1 => drop(count.remove()),
                more => *more -= 1,
            }
        }
    }

    /// How many there are now.
    pub(super) fn taken(&self, key: Key) -> u32 {
        self.part(key).lock().get(&key).copied().unwrap_or(0)
    }

    fn part(&self, key: Key) -> &Mutex<TurnCounts> {
        &self.0[(key.hash() >> 48) as usize % PARTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_whom_nothing_runs() {
        let (turns, most, key) = (OwnTurns::default(), NonZeroU32::new(2).unwrap(), Key::client(1));
        assert!(turns.take(key, most) && turns.take(key, most) && !turns.take(key, most));
        (0..2).for_each(|_| turns.end(key));
        assert_eq!((turns.taken(key), turns.0.iter().map(|part| part.lock().len()).sum::<usize>()), (0, 0));
    }
}
