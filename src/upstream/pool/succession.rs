//! How one pool takes the place of another of the same name, when a reload has changed its settings.
//!
//! The problem: the new pool must be checked before it gets requests, and until then the old one must serve as if
//! nothing were to come. But both share the backends that stay, with their health, drains and counters.
//!
//! The rule: a pool is prepared, serves, and is replaced, in this order. While it is prepared, its checks tell only of
//! backends of which nothing is known yet; what they say of the others is kept until it serves. Once it is replaced,
//! its checks and its names tell nothing any more, and requests that it still has end as they would have.
//!
//! Refused: changing a pool in place, as a request would see other timeouts and retries halfway; a fresh set of
//! backends, as it would start with nothing known and send requests where connections have just failed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use log::Level;

use super::roster::{PoolStage, Roster};
use super::{Lineage, News, Pool, TARGET};
use crate::upstream::{Backend, PoolSettings};

impl Pool {
    /// A pool with other settings that is to take the place of this one. It has the backends that stay, their names'
    /// addresses, and this one's counters. Until it does take its place, this one serves unchanged.
    /// Backends that are to be spoken to in another manner do not stay: what is known of them says nothing of that.
    pub(in crate::upstream) fn successor(&self, mut settings: PoolSettings) -> Self {
        let mut roster = Roster::new(&settings, PoolStage::Prepared);
        if settings.manner == self.settings.manner {
            settings.manner = Arc::clone(&self.settings.manner);
        }
        let registry = Arc::new(self.registry.succeed(Arc::clone(&settings.manner)));
        // Under the lock, so that no name of this one lets go of an address that the other is about to hold.
        let ours = self.roster.lock();
        let known: HashMap<_, _> =
            self.settings.backends.iter().map(|known| &known.address).zip(&ours.entries).collect();
        for (backend, entry) in settings.backends.iter().zip(&mut roster.entries) {
            if let Some(known) = known.get(&backend.address) {
                entry.addresses.clone_from(&known.addresses);
                entry.failing = known.failing;
            }
        }
        Pool::of(settings, roster, registry, Arc::clone(&self.lineage))
    }

    /// What it shares with its successors.
    pub(in crate::upstream) fn lineage(&self) -> Arc<Lineage> {
        Arc::clone(&self.lineage)
    }

    /// The same for all pools that share their backends and counters with it: each is the successor of another one.
    pub(in crate::upstream) fn kin(&self) -> *const Lineage {
        Arc::as_ptr(&self.lineage)
    }

    /// Goes into service in the place of `old`, whose [`successor`](Pool::successor) it is. Backends that it does not
    /// have are retired. What is to be said of it is `news`.
    pub(in crate::upstream) fn take_over(self: &Arc<Self>, old: &Pool, news: &mut News) {
        let (mut before, mut roster) = (old.roster.lock(), self.roster.lock());
        before.stage = PoolStage::Replaced;
        roster.stage = PoolStage::Serving;
        let mut orders = self.lineage.orders();
        orders.carry_over(&old.settings, &self.settings, &roster.owners(&self.settings));
        self.selector.set(&roster.targets(&self.settings, &self.registry, &orders));
        drop(orders);
        self.lineage.set_current(Arc::downgrade(self));
        old.registry.retain(|_| false);
        let (old, new) = (old.backends(), self.backends());
        let mut pending = std::mem::take(&mut *self.pending.lock());
        for backend in &new {
            let Some((transitions, outcome)) = pending.remove(&backend.id()) else { continue };
            // Whatever has changed it meanwhile is newer.
            if backend.transitions() == transitions {
                self.count_check(backend, outcome, news);
            }
        }
        self.pardon(news);
        self.queue.set_most(self.settings.max_in_flight);
        self.fill();
        tell(membership(self.name(), &old, &new), news);
    }

    /// Goes out of service with none in its place. All its backends are retired, which is `news`.
    pub(in crate::upstream) fn leave(&self, news: &mut News) {
        let mut roster = self.roster.lock();
        roster.stage = PoolStage::Replaced;
        self.lineage.set_current(Weak::new());
        self.close_queue();
        self.registry.retain(|_| false);
        tell(membership(self.name(), &self.backends(), &[]), news);
    }

    /// Which backends it has, as one that succeeds no other, is `news`.
    pub(in crate::upstream) fn enter(&self, news: &mut News) {
        tell(membership(self.name(), &[], &self.backends()), news);
    }
}

/// Which backends of the pool `name` went and which came, a line each.
fn membership(name: &str, old: &[Arc<Backend>], new: &[Arc<Backend>]) -> Vec<String> {
    let addresses =
        |backends: &[Arc<Backend>]| backends.iter().map(|backend| backend.address().clone()).collect::<HashSet<_>>();
    let (before, now) = (addresses(old), addresses(new));
    let went = old.iter().filter(|backend| !now.contains(backend.address())).map(|backend| {
        let (address, in_flight) = (backend.address(), backend.in_flight());
        format!("upstream {name}: backend {address} removed; requests in flight: {in_flight}")
    });
    let came = new.iter().filter(|backend| !before.contains(backend.address()));
    let came = came.map(|backend| format!("upstream {name}: backend {} added", backend.address()));
    went.chain(came).collect()
}

fn tell(lines: Vec<String>, news: &mut News) {
    lines.into_iter().for_each(|line| news.add(TARGET, Level::Info, line));
}

#[cfg(test)]
mod tests;
