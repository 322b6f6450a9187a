//! The backends of a pool by address, kept over rebuilds of its selector and handed on to the pool that succeeds it.
//!
//! The problem: for a while a pool and its successor exist side by side. They share the backends that both have, and
//! each may come to know new ones or let go of old ones, as names resolve to other addresses.
//!
//! The rule: both hold on to the same shelf of backends. A backend is forgotten and retired when the last one that
//! holds it lets go. Ids are given once for the whole shelf, so no two of its backends ever share one.
//!
//! One address can be on the shelf several times: a backend that is spoken to in another manner, or by another name, is
//! another one. What is known of the one, down to its health, says nothing of the other. Each holder has one of them.
//!
//! Refused: a copy of the backends for the successor, as then either would retire what the other still uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::upstream::queue::WaitingRoom;
use crate::upstream::{Backend, BackendId, ConnectAddress, Lease, Manner, Site};

/// What one pool holds on to. Dropped, it lets go of all of it.
#[derive(Debug, Default)]
pub struct Registry {
    shelf: Arc<Mutex<BackendShelf>>,
    holder: u64,
    manner: Arc<Manner>,
}

#[derive(Debug, Default)]
struct BackendShelf {
    backends: BTreeMap<ConnectAddress, Vec<ShelvedBackend>>,
    next_id: u32,
    next_place: u64,
    last_holder: u64,
    queue: Arc<WaitingRoom<Lease>>,
}

#[derive(Debug)]
struct ShelvedBackend {
    backend: Arc<Backend>,
    /// Who holds it, and its place in the order in which that one came to know its backends.
    holders: Vec<(u64, u64)>,
}

impl ShelvedBackend {
    fn place(&self, holder: u64) -> Option<u64> {
        self.holders.iter().find(|(known, _)| *known == holder).map(|(_, place)| *place)
    }

    /// Lets go of it for `holder`. Whether anybody holds it still; if not, it is retired.
    fn let_go(&mut self, holder: u64) -> bool {
        self.holders.retain(|(known, _)| *known != holder);
        if self.holders.is_empty() {
            self.backend.retire();
        }
        !self.holders.is_empty()
    }
}

impl Registry {
    /// One of backends that are spoken to in this `manner`.
    pub fn new(manner: Arc<Manner>) -> Self {
        Registry { shelf: Arc::default(), holder: 0, manner }
    }

    /// Another one over the same shelf, of backends that are spoken to in this `manner`. It holds none of them yet.
    pub fn succeed(&self, manner: Arc<Manner>) -> Self {
        let shelf = Arc::clone(&self.shelf);
        let holder = {
            let mut shelf = shelf.lock();
            shelf.last_holder += 1;
            shelf.last_holder
        };
        Registry { shelf, holder, manner }
    }

    /// Who waits for room at one of them.
    pub(in crate::upstream) fn queue(&self) -> Arc<WaitingRoom<Lease>> {
        Arc::clone(&self.shelf.lock().queue)
    }

    /// The backend at `address`, to which `host` led if it is a name, made when nobody holds one there. This one holds
    /// it from now on, and no other one there.
    pub fn backend(&self, address: &ConnectAddress, host: Option<&str>) -> Arc<Backend> {
        self.put(address, host).0
    }

    /// The same, with its place among those that this one holds.
    fn put(&self, address: &ConnectAddress, host: Option<&str>) -> (Arc<Backend>, u64) {
        let mut shelf = self.shelf.lock();
        let BackendShelf { backends, next_id, next_place, queue, .. } = &mut *shelf;
        let there = backends.entry(address.clone()).or_default();
        let is_meant = |one: &ShelvedBackend| one.backend.site().is_spoken_to(&self.manner, host);
        there.retain_mut(|one| is_meant(one) || one.let_go(self.holder));
        let at = there.iter().position(is_meant).unwrap_or_else(|| {
            let id = BackendId(*next_id);
            *next_id += 1;
            let site = Site::new(address.clone(), Arc::clone(&self.manner), host);
            there.push(ShelvedBackend {
                backend: Arc::new(Backend::new(id, site).waited_for(queue)),
                holders: Vec::new(),
            });
            there.len() - 1
        });
        let place = there[at].place(self.holder).unwrap_or_else(|| {
            *next_place += 1;
            there[at].holders.push((self.holder, *next_place));
            *next_place
        });
        (Arc::clone(&there[at].backend), place)
    }

    /// The backend at `address` that this one holds, made when it holds none there, with its place among those that it
    /// holds.
    pub(super) fn hold(&self, address: &ConnectAddress) -> (Arc<Backend>, u64) {
        self.held(address).unwrap_or_else(|| self.put(address, None))
    }

    fn held(&self, address: &ConnectAddress) -> Option<(Arc<Backend>, u64)> {
        let shelf = self.shelf.lock();
        let mut there = shelf.backends.get(address)?.iter();
        there.find_map(|one| Some((Arc::clone(&one.backend), one.place(self.holder)?)))
    }

    /// Lets go of the backends that `keep` does not name. Those that nobody else holds are forgotten and retired.
    pub fn retain(&self, keep: impl Fn(&ConnectAddress) -> bool) {
        self.shelf.lock().backends.retain(|address, there| {
            if !keep(address) {
                there.retain_mut(|one| one.let_go(self.holder));
            }
            !there.is_empty()
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

    fn at(n: u8) -> ConnectAddress {
        ConnectAddress::Tcp(([10, 0, 0, n], 80).into())
    }

    fn backend(registry: &Registry, n: u8) -> Arc<Backend> {
        registry.backend(&at(n), None)
    }

    fn successor(registry: &Registry) -> Registry {
        registry.succeed(Arc::clone(&registry.manner))
    }

    #[test]
    fn a_backend_is_retired_when_the_last_that_holds_it_lets_go() {
        let old = Registry::default();
        let (both, alone) = (backend(&old, 1), backend(&old, 2));
        let new = successor(&old);
        assert!(Arc::ptr_eq(&both, &backend(&new, 1)));
        let added = backend(&new, 3);
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
        let new = successor(&old);
        for round in 0..3 {
            for registry in [&old, &new] {
                ids.push(backend(registry, 1).id());
                ids.push(backend(registry, 2 + round).id());
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
        (1..=3).for_each(|n| drop(backend(&old, n)));
        let new = successor(&old);
        [3, 4, 1].into_iter().for_each(|n| drop(backend(&new, n)));
        let order = |registry: &Registry, numbers: &[u8]| {
            let mut places: Vec<_> = numbers.iter().map(|n| (registry.hold(&at(*n)).1, *n)).collect();
            places.sort_unstable();
            places.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(order(&old, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(order(&new, &[1, 3, 4]), [3, 4, 1]);
    }
}
