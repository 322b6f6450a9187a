//! The backends of a pool by address, kept over rebuilds of its selector and handed on to the pool that succeeds it.
//!
//! The problem: for a while a pool and its successor exist side by side. They share the backends that both have, and
//! each may come to know new ones or let go of old ones, as names resolve to other addresses.
//!
//! The rule: both hold on to the same shelf of backends. A backend is forgotten and retired when the last one that
//! holds it lets go. Ids are given once for the whole shelf, so no two of its backends ever share one.
//!
//! Refused: a copy of the backends for the successor, as then either would retire what the other still uses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::upstream::{Backend, BackendId};

/// What one pool holds on to. Dropped, it lets go of all of it.
#[derive(Debug, Default)]
pub struct Registry {
    shelf: Arc<Mutex<BackendShelf>>,
    holder: u64,
}

#[derive(Debug, Default)]
struct BackendShelf {
    backends: BTreeMap<SocketAddr, ShelvedBackend>,
    next_id: u32,
    next_place: u64,
    last_holder: u64,
}

#[derive(Debug)]
struct ShelvedBackend {
    backend: Arc<Backend>,
    /// Who holds it, and its place in the order in which that one came to know its backends.
    holders: Vec<(u64, u64)>,
}

impl Registry {
    /// Another one over the same backends, which holds none of them yet.
    pub fn succeed(&self) -> Self {
        let shelf = Arc::clone(&self.shelf);
        let holder = {
            let mut shelf = shelf.lock();
            shelf.last_holder += 1;
            shelf.last_holder
        };
        Registry { shelf, holder }
    }

    /// The backend at `address`, made when nobody holds one there. This one holds it from now on.
    pub fn backend(&self, address: SocketAddr) -> Arc<Backend> {
        self.hold(address).0
    }

    /// As [`backend`](Registry::backend), with its place among those that this one holds.
    pub(super) fn hold(&self, address: SocketAddr) -> (Arc<Backend>, u64) {
        let mut shelf = self.shelf.lock();
        let BackendShelf { backends, next_id, next_place, .. } = &mut *shelf;
        let shelved = backends.entry(address).or_insert_with(|| {
            let id = BackendId(*next_id);
            *next_id += 1;
            ShelvedBackend { backend: Arc::new(Backend::new(id, address)), holders: Vec::new() }
        });
        let known = shelved.holders.iter().find(|(holder, _)| *holder == self.holder).map(|(_, place)| *place);
        let place = known.unwrap_or_else(|| {
            *next_place += 1;
            shelved.holders.push((self.holder, *next_place));
            *next_place
        });
        (Arc::clone(&shelved.backend), place)
    }

    /// Lets go of the backends that `keep` does not name. Those that nobody else holds are forgotten and retired.
    pub fn retain(&self, keep: impl Fn(&SocketAddr) -> bool) {
        self.shelf.lock().backends.retain(|address, shelved| {
            if !keep(address) {
                shelved.holders.retain(|(holder, _)| *holder != self.holder);
            }
            let held = !shelved.holders.is_empty();
            if !held {
                shelved.backend.retire();
            }
            held
        });
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    #[test]
    fn a_backend_is_retired_when_the_last_that_holds_it_lets_go() {
        let old = Registry::default();
        let (both, alone) = (old.backend(at(1)), old.backend(at(2)));
        let new = old.succeed();
        assert!(Arc::ptr_eq(&both, &new.backend(at(1))));
        let added = new.backend(at(3));
        old.retain(|address| *address == at(2));
        assert!(!both.is_retired() && !alone.is_retired() && !added.is_retired());
        drop(old);
        assert!(!both.is_retired() && alone.is_retired() && !added.is_retired());
        drop(new);
        assert!(both.is_retired() && added.is_retired());
    }

    #[test]
    fn who_comes_back_is_another_and_no_id_is_given_twice() {
        let (old, mut ids) = (Registry::default(), Vec::new());
        let new = old.succeed();
        for round in 0..3 {
            for registry in [&old, &new] {
                ids.push(registry.backend(at(1)).id());
                ids.push(registry.backend(at(2 + round)).id());
            }
            assert_eq!(ids[0], ids[2], "they share it");
            old.retain(|_| false);
            new.retain(|_| false);
        }
        ids.dedup();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() < count, "the two of a round share theirs");
        assert_eq!(ids.len(), 6, "two for each round");
    }

    #[test]
    fn each_keeps_the_order_in_which_it_came_to_know_them() {
        let old = Registry::default();
        (1..=3).for_each(|n| drop(old.backend(at(n))));
        let new = old.succeed();
        [3, 4, 1].into_iter().for_each(|n| drop(new.backend(at(n))));
        let order = |registry: &Registry, numbers: &[u8]| {
            let mut places: Vec<_> = numbers.iter().map(|n| (registry.hold(at(*n)).1, *n)).collect();
            places.sort_unstable();
            places.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(order(&old, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(order(&new, &[1, 3, 4]), [3, 4, 1]);
    }
}
