//! Requests that wait for room at the backends of a pool.

use std::hash::Hash;

use super::Pool;
use crate::upstream::{Backend, BackendId, Waiter};

impl Pool {
    /// Whether there is a backend that is ready and not in `tried`, but none of them takes another request.
    pub fn is_busy(&self, tried: &[BackendId]) -> bool {
        self.settings.max_in_flight.is_some()
            && self.selector.now().backends().iter().any(|one| one.is_ready() && !tried.contains(&one.id()))
    }

    /// Has a request of `client`, for which there is no room, wait; none when it may not, and is told that all are
    /// busy.
    pub fn wait(&self, client: impl Hash) -> Option<Waiter> {
        let waiter = self.queue.enter(client, self.settings.queue.size);
        match &waiter {
            // Room that came meanwhile.
            Some(_) => self.fill(),
            None => self.queue.turned_away(),
        }
        waiter
    }

    /// Counts a request that has waited in vain.
    pub fn waited_in_vain(&self) {
        self.queue.turned_away();
    }

    /// Gives the room that there is to those who wait.
    pub(in crate::upstream) fn fill(&self) {
        if self.queue.is_waited_in() {
            self.selector.now().backends().iter().for_each(Backend::fill);
        }
    }

    /// Lets nobody wait any more; how many did.
    pub(in crate::upstream) fn close_queue(&self) -> usize {
        self.queue.close()
    }

    /// How many requests wait, how many ever did, and how many were told that all backends are busy.
    pub fn queue(&self) -> (usize, u64, u64) {
        let (queued, busy) = self.queue.counts();
        (self.queue.len(), queued, busy)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::upstream::pool::News;
    use crate::upstream::pool::tests::pool;
    use crate::upstream::{Anybody, Balance, Check, Lease, PoolSettings, QueueRules};

    fn bounded(size: usize) -> Pool {
        let settings = pool(Check::None, &["127.0.0.1:1"]).settings().clone();
        let queue = QueueRules { size, ..QueueRules::default() };
        Pool::new(PoolSettings { max_in_flight: Some(1), queue, ..settings })
    }

    /// The backend that it was given, if it was; none also when it waits.
    fn given(waiter: &mut Waiter) -> Poll<Option<Lease>> {
        pin!(waiter.turn()).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn clients_take_turns_and_nobody_overtakes() {
        let pool = bounded(100);
        let mut held = pool.lease(&[], &Anybody);
        assert!(held.is_some() && pool.lease(&[], &Anybody).is_none() && pool.is_busy(&[]));
        let who = ["a", "a", "a", "b", "a", "b", "c"];
        let mut waiters: Vec<_> = who.iter().map(|client| Some(pool.wait(client).unwrap())).collect();
        let mut order = Vec::new();
        while order.len() < who.len() {
            drop(held.take());
            assert!(pool.lease(&[], &Anybody).is_none(), "the place is given already");
            for (at, waiter) in waiters.iter_mut().enumerate() {
                if let Some(Poll::Ready(Some(lease))) = waiter.as_mut().map(given) {
                    assert!(held.replace(lease).is_none(), "one place, one turn");
                    order.push(at);
                    *waiter = None;
                }
            }
        }
        assert_eq!(order, [0, 3, 6, 1, 5, 2, 4]);
        drop(held);
        assert!(pool.lease(&[], &Anybody).is_some());
        assert_eq!(pool.queue(), (0, 7, 0));
    }

    #[test]
    fn who_finds_no_room_counts_nowhere() {
        for balance in Balance::ALL {
            let settings = pool(Check::None, &["127.0.0.1:1", "127.0.0.1:2"]).settings().clone();
            let pool = Pool::new(PoolSettings { max_in_flight: Some(2), balance: *balance, ..settings });
            let held: Vec<_> = (0..4).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
            assert!((0..10).all(|_| pool.lease(&[], &Anybody).is_none()), "{balance:?}");
            let counts: Vec<_> = pool.backends().iter().map(|one| (one.in_flight(), one.requests())).collect();
            assert_eq!(counts, [(2, 2); 2], "{balance:?}");
            drop(held);
            assert!(pool.lease(&[], &Anybody).is_some(), "{balance:?}");
        }
    }

    #[test]
    fn a_full_queue_is_shared() {
        let pool = bounded(4);
        let held = pool.lease(&[], &Anybody);
        let mut flood: Vec<_> = (0..4).map(|_| pool.wait("flood").unwrap()).collect();
        assert!(pool.wait("flood").is_none());
        let (mut first, mut second) = (pool.wait("other").unwrap(), pool.wait("other").unwrap());
        assert!(pool.wait("other").is_none(), "two and two");
        assert!(matches!(given(&mut flood[3]), Poll::Ready(None)) && matches!(given(&mut flood[2]), Poll::Ready(None)));
        assert!(given(&mut flood[0]).is_pending() && given(&mut first).is_pending() && given(&mut second).is_pending());
        assert_eq!(pool.queue(), (4, 6, 2));
        pool.close_queue();
        assert!(matches!(given(&mut first), Poll::Ready(None)));
        assert!(pool.wait("late").is_none());
        drop((flood, first, second, held));
        assert_eq!(pool.queue().0, 0);
    }

    #[test]
    fn a_backend_that_was_removed_takes_none_of_those_that_wait() {
        let settings = pool(Check::None, &["127.0.0.1:1", "127.0.0.1:2"]).settings().clone();
        let queue = QueueRules { size: 4, ..QueueRules::default() };
        let old = Arc::new(Pool::new(PoolSettings { max_in_flight: Some(1), queue, ..settings.clone() }));
        let mut held = [old.lease(&[], &Anybody), old.lease(&[], &Anybody)];
        let mut waiter = old.wait("a").unwrap();
        let backends = settings.backends[1..].to_vec();
        let new = Arc::new(old.successor(PoolSettings { backends, ..old.settings().clone() }));
        new.take_over(&old, &mut News::default());
        let stays = new.backends()[0].id();
        held.sort_by_key(|lease| lease.as_ref().map(|lease| lease.backend().id() == stays));
        held[0] = None;
        assert!(given(&mut waiter).is_pending(), "the place of the one that is gone");
        held[1] = None;
        let lease = given(&mut waiter).map(|lease| lease.map(|lease| lease.backend().id()));
        assert_eq!(lease, Poll::Ready(Some(stays)));
    }

    #[test]
    fn who_goes_hands_on_what_it_was_given() {
        let pool = bounded(4);
        let held = pool.lease(&[], &Anybody);
        let (first, gone, mut last) = (pool.wait("a").unwrap(), pool.wait("b").unwrap(), pool.wait("c").unwrap());
        drop(gone);
        drop(held);
        // It has the place, and does not know it yet.
        drop(first);
        assert!(matches!(given(&mut last), Poll::Ready(Some(_))));
        let clock = ManualClock::new();
        pool.end_rests(clock.now());
        assert_eq!((pool.queue().0, pool.backends()[0].in_flight()), (0, 0));
    }
}
