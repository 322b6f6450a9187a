//! The pools of a server, which a reload swaps as one.
//!
//! The problem: a reload changes several pools, and everybody who goes through them (metrics, the admin API, health) is
//! to see either all of the old ones or all of the new ones, without waiting.
//!
//! The rule: the list is immutable and swapped whole. New pools are made beforehand, next to the ones that serve, and
//! can still be thrown away; what takes their place cannot fail.
//!
//! Refused: a lock around the list, as a reload would wait for whoever reads, and the other way round.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::pool::{Lineage, News};
use super::{Pool, PoolSettings, StickyKey};

/// The pools of a server, swapped whole by a reload.
#[derive(Debug)]
pub struct Pools {
    all: ArcSwap<Vec<Arc<Pool>>>,
    sticky: StickyKey,
    gone: Mutex<RemovedPools>,
}

/// What removed pools have counted, so that the sum over all pools never goes back. Its lock is held when the list is
/// swapped.
#[derive(Debug, Default)]
struct RemovedPools {
    /// The requests of those that have ended all of theirs.
    requests: u64,
    /// Those that may have some yet.
    leaving: Vec<Arc<Lineage>>,
}

impl Pools {
    /// The pools of these settings, in this order, in service at once. Their names are to be unique.
    pub fn new(settings: Vec<PoolSettings>) -> Self {
        Pools::keyed(settings, StickyKey::default())
    }

    /// The same, whose clients stay with their backends by tokens that are made with `key`.
    pub fn keyed(settings: Vec<PoolSettings>, key: StickyKey) -> Self {
        let pools = settings.into_iter().map(|settings| Arc::new(Pool::keyed(settings, &key))).collect();
        Pools { all: ArcSwap::from_pointee(pools), sticky: key, gone: Mutex::default() }
    }

    /// The pools at this moment, in the order of the configuration.
    pub fn all(&self) -> Arc<Vec<Arc<Pool>>> {
        self.all.load_full()
    }

    /// The pool of this name at this moment.
    pub fn named(&self, name: &str) -> Option<Arc<Pool>> {
        self.all.load().iter().find(|pool| pool.name() == name).cloned()
    }

    /// Those of `pools` that are not among them at this moment.
    pub fn fresh(&self, pools: &[Arc<Pool>]) -> Vec<Arc<Pool>> {
        let all = self.all.load();
        let present: HashSet<_> = all.iter().map(Arc::as_ptr).collect();
        pools.iter().filter(|pool| !present.contains(&Arc::as_ptr(pool))).cloned().collect()
    }

    /// Whether `pool` is one of them at this moment.
    #[cfg(test)]
    pub(super) fn contains(&self, pool: &Arc<Pool>) -> bool {
        self.all.load().iter().any(|present| Arc::ptr_eq(present, pool))
    }

    /// The requests that have ended since the start, those of removed pools too.
    pub fn requests(&self) -> u64 {
        let mut gone = self.gone.lock();
        gone.settle();
        let leaving: u64 = gone.leaving.iter().map(|lineage| lineage.traffic.requests()).sum();
        let present: u64 = self.all.load().iter().map(|pool| pool.traffic().requests()).sum();
        gone.requests + leaving + present
    }

    /// Lets no request wait for a backend any more, as the server stops; how many did.
    pub fn close_queues(&self) -> usize {
        self.all.load().iter().map(|pool| pool.close_queue()).sum()
    }

    /// What the pools would be with these settings, whose names are to be unique.
    ///
    /// A pool whose settings are equal is the same one. One of the same name with other settings is a new pool that is
    /// to succeed the old one: it has that one's counters, the backends that stay with all that is known of them, and
    /// the addresses that names resolved to. The rest is new. Nothing has changed yet, and nothing will if they are
    /// dropped.
    ///
    /// [`watch`](super::health::watch) the pools that are new before they take the place of others, so that their
    /// backends are checked and their names resolved.
    pub fn prepare(&self, settings: Vec<PoolSettings>) -> Vec<Arc<Pool>> {
        let all = self.all.load();
        let present: BTreeMap<&str, &Arc<Pool>> = all.iter().map(|pool| (pool.name(), pool)).collect();
        let prepared = settings.into_iter().map(|settings| match present.get(settings.name.as_str()) {
            Some(pool) if *pool.settings() == settings => Arc::clone(pool),
            Some(pool) => Arc::new(pool.successor(settings)),
            None => Arc::new(Pool::keyed(settings, &self.sticky)),
        });
        prepared.collect()
    }

    /// Puts `pools`, which are those of the latest [`prepare`](Pools::prepare), in the place of the present ones, and
    /// says in the event log which backends came and went. Backends that no pool of that name has any more are retired;
    /// the requests that they hold end as they would have. What operators ordered for the backends that stay holds,
    /// except for a weight where the file's has changed.
    ///
    /// To be called before routes lead to the new pools: only from here on they send requests to backends that nothing
    /// checks.
    ///
    /// Returns the pools that were there and are not any more. Their watches are to end; they tell nothing from here
    /// on.
    pub fn replace(&self, pools: Vec<Arc<Pool>>) -> Vec<Arc<Pool>> {
        let mut news = News::default();
        let mut gone = self.gone.lock();
        let before = self.all.load_full();
        let by_kin = |pools: &[Arc<Pool>]| -> HashMap<_, _> {
            pools.iter().map(|pool| (pool.kin(), Arc::clone(pool))).collect()
        };
        let (old, new) = (by_kin(&before), by_kin(&pools));
        for pool in &pools {
            match old.get(&pool.kin()) {
                Some(old) if Arc::ptr_eq(old, pool) => {}
                Some(old) => pool.take_over(old, &mut news),
                None => pool.enter(&mut news),
            }
        }
        for old in before.iter().filter(|old| !new.contains_key(&old.kin())) {
            old.leave(&mut news);
            gone.leaving.push(old.lineage());
        }
        gone.settle();
        self.all.store(Arc::new(pools));
        let stays = |old: &Arc<Pool>| new.get(&old.kin()).is_some_and(|new| Arc::ptr_eq(new, old));
        before.iter().filter(|old| !stays(old)).cloned().collect()
    }
}

impl RemovedPools {
    /// Adds up those to which nothing can be added any more, and forgets them.
    fn settle(&mut self) {
        let requests = &mut self.requests;
        self.leaving.retain_mut(|lineage| {
            // Every pool of it has a share in it. Once this is the only one, nobody can get such a pool again.
            let Some(ended) = Arc::get_mut(lineage) else { return true };
            *requests += ended.traffic.requests();
            false
        });
    }
}

#[cfg(test)]
mod tests;
