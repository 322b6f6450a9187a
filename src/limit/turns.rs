//! How many requests of one caller run at once.
//!
//! A [`Turn`] is had by each request that counts, and given back when it is dropped: with whatever holds it, however
//! that ends. A bound that is lowered takes no turn away; from then on new ones are refused until there are few enough.
//!
//! A process alone counts its own; in a fleet the count is [one over all nodes](shared).
//!
//! Refused: a count within the bucket. Buckets are dropped when they are full, and handed over and saved, where a
//! request in flight is neither; and a caller who pays no bucket may have a bound of its own.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::limit::asking::{PendingAnswers, StoreAnswers};
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

mod entry;
mod own;
pub mod shared;

use own::OwnTurns;
use shared::{NoTurn, SharedTurns};

/// The requests in flight of each caller.
#[derive(Debug)]
pub enum CallerTurns {
    /// In this process.
    Own(OwnTurns),
    /// In all nodes of a fleet.
    Shared(Arc<SharedTurns>),
}

impl Default for CallerTurns {
    fn default() -> Self {
        CallerTurns::Own(OwnTurns::default())
    }
}

impl CallerTurns {
    /// A turn for a request of whoever has `key`, of whose requests `most` may run; what it has `asked` before counts.
    ///
    /// # Errors
    /// Whether as many run, or the fleet's store is to be [asked](CallerTurns::ask).
    #[inline]
    pub fn take(
        self: &Arc<Self>,
        key: Key,
        most: NonZeroU32,
        asked: &mut Option<Box<StoreAnswers>>,
        now: Nanos,
    ) -> Result<Turn, NoTurn> {
        match &**self {
            CallerTurns::Own(own) if own.take(key, most) => {}
            CallerTurns::Own(_) => return Err(NoTurn::Full),
            CallerTurns::Shared(shared) => shared.judge((key, most), asked, now)?,
        }
        Ok(Turn { of: Arc::clone(self), key })
    }

    /// Asks for the turn that a request has `asked` for, where it has; `None` also when nobody can be asked.
    pub fn ask(&self, asked: &mut StoreAnswers) -> Option<PendingAnswers> {
        let (key, most) = asked.wanted.take()?;
        match self {
            CallerTurns::Own(_) => None,
            CallerTurns::Shared(shared) => shared.ask(key, most),
        }
    }

    /// What [`take`](CallerTurns::take) would say to who waits for nobody.
    ///
    /// # Errors
    /// Why there would be no turn.
    pub fn foresee(&self, key: Key, most: NonZeroU32) -> Result<(), NoTurn> {
        let most = match self {
            CallerTurns::Own(_) => most.get(),
            CallerTurns::Shared(shared) => shared.most_here(key, most)?,
        };
        if self.taken(key) < most { Ok(()) } else { Err(NoTurn::Full) }
    }

    /// How many run in this process now.
    pub fn taken(&self, key: Key) -> u32 {
        match self {
            CallerTurns::Own(own) => own.taken(key),
            CallerTurns::Shared(shared) => shared.running(key),
        }
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
        match &*self.of {
            CallerTurns::Own(own) => own.end(self.key),
            CallerTurns::Shared(shared) => shared.end(self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(turns: &Arc<CallerTurns>, key: Key, most: NonZeroU32) -> Option<Turn> {
        turns.take(key, most, &mut None, 0).ok()
    }

    #[test]
    fn as_many_as_may_have_a_turn_and_what_is_given_back_is_anothers() {
        let (turns, most) = (Arc::new(CallerTurns::default()), NonZeroU32::new(2).unwrap());
        let (a, b) = (Key::client(1), Key::client(2));
        let (first, second) = (take(&turns, a, most).unwrap(), take(&turns, a, most).unwrap());
        assert!(take(&turns, a, most).is_none() && take(&turns, b, most).is_some());
        drop(first);
        assert_eq!(turns.taken(a), 1);
        assert!(take(&turns, a, NonZeroU32::MIN).is_none(), "the bound was lowered");
        let third = take(&turns, a, most);
        drop((second, third));
        assert_eq!(turns.taken(a), 0);
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
                        if let Some(_turn) = take(&turns, Key::client(1), most) {
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
