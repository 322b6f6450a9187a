//! How many requests of one caller run at once.
//!
//! A [`Turn`] is had by each request that counts, and given back when it is dropped: with whatever holds it, however
//! that ends. A caller stands here only while it has one, so there are no more entries than requests in flight, and
//! nothing has to be swept.
//!
//! A bound that is lowered takes no turn away; from then on new ones are refused until there are few enough. The count
//! is of this process: during an upgrade what the old one finishes is not counted by the new one.
//!
//! Refused: a count within the bucket. Buckets are dropped when they are full, and handed over and saved, where a
//! request in flight is neither; and a caller who pays no bucket may have a bound of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::Arc;

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::limit::key::Key;

/// In how many parts they are kept, each under a lock of its own.
const PARTS: usize = 64;

/// The requests in flight of each caller.
#[derive(Debug)]
pub struct CallerTurns(Box<[CachePadded<Mutex<TurnCounts>>]>);

/// The requests in flight of some callers, each of whom has at least one.
type TurnCounts = HashMap<Key, u32, RandomState>;

impl Default for CallerTurns {
    fn default() -> Self {
        CallerTurns((0..PARTS).map(|_| CachePadded::default()).collect())
    }
}

impl CallerTurns {
    /// A turn for a request of whoever has `key`, unless as many as `most` have one.
    pub fn take(self: &Arc<Self>, key: Key, most: NonZeroU32) -> Option<Turn> {
        let mut part = self.part(key).lock();
        let count = part.entry(key).or_insert(0);
        if *count >= most.get() {
            return None;
        }
        *count += 1;
        Some(Turn { of: Arc::clone(self), key })
    }

    /// How many there are now.
    pub fn taken(&self, key: Key) -> u32 {
        self.part(key).lock().get(&key).copied().unwrap_or(0)
    }

    fn part(&self, key: Key) -> &Mutex<TurnCounts> {
        &self.0[(key.hash() >> 48) as usize % PARTS]
    }
}

/// A request that counts among those of its caller until this is dropped.
#[derive(Debug)]
pub struct Turn {
    of: Arc<CallerTurns>,
    key: Key,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut part = self.of.part(self.key).lock();
        if let Entry::Occupied(mut count) = part.entry(self.key) {
            match count.get_mut() {
                1 => drop(count.remove()),
                more => *more -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_have_a_turn_and_what_is_given_back_is_anothers() {
        let (turns, most) = (Arc::new(CallerTurns::default()), NonZeroU32::new(2).unwrap());
        let (a, b) = (Key::client(1), Key::client(2));
        let (first, second) = (turns.take(a, most).unwrap(), turns.take(a, most).unwrap());
        assert!(turns.take(a, most).is_none() && turns.take(b, most).is_some());
        drop(first);
        assert_eq!(turns.taken(a), 1);
        assert!(turns.take(a, NonZeroU32::MIN).is_none(), "the bound was lowered");
        let third = turns.take(a, most);
        drop((second, third));
        assert_eq!((turns.taken(a), turns.0.iter().map(|part| part.lock().len()).sum::<usize>()), (0, 0));
    }

    #[test]
    fn threads_never_have_more_than_may() {
        let (turns, most) = (Arc::new(CallerTurns::default()), NonZeroU32::new(3).unwrap());
        let running = std::sync::atomic::AtomicU32::new(0);
        let highest = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(_turn) = turns.take(Key::client(1), most) {
                            let now = running.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                            highest.fetch_max(now, std::sync::atomic::Ordering::SeqCst);
                            std::thread::yield_now();
                            running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let highest = highest.into_inner();
        assert!((1..=3).contains(&highest) && turns.taken(Key::client(1)) == 0, "{highest}");
    }
}
