//! Choosing a backend for a request: one type per rule, behind Pingora's [`BackendSelection`].
//!
//! A selector is built from a set of backends and asked for every attempt of every request. It chooses among the
//! backends that are ready and not yet tried by this request, so the weights hold among those that are left. Pingora's
//! own `RoundRobin` and `Random` cannot: they choose first and look at health afterwards, and then go on without weights.
//!
//! Selectors keep no health and no counters. Both live in the [`Backend`]s, which the [`Registry`] hands to the next
//! selector when the set changes, so a rebuild forgets nothing. Weights do belong to a selector: the pools before and
//! after a reload share backends, and each is to keep to its own weights.

mod least_connections;
mod random;
mod registry;
mod round_robin;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::{Backend, BackendId, Balance};
use least_connections::LeastConnections;
use random::Random;
pub use registry::Registry;
use round_robin::RoundRobin;

/// What a selector is built with, besides the set of backends.
#[derive(Clone, Debug, Default)]
pub struct SelectorConfig {
    /// The rule.
    pub balance: Balance,
    /// Where counters and health live.
    pub registry: Arc<Registry>,
}

/// The rule that configuration chose, over the backends of a pool.
#[derive(Debug)]
pub enum Selector {
    /// Smooth weighted round robin.
    RoundRobin(RoundRobin),
    /// Weighted random.
    Random(Random),
    /// Fewest requests in flight per weight.
    LeastConnections(LeastConnections),
}

impl Selector {
    /// The backends it chooses among, ready or not.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.members().backends
    }

    /// The weight of the backend at `address`, if it has that.
    pub fn weight(&self, address: SocketAddr) -> Option<NonZeroU32> {
        let members = self.members();
        let index = members.backends.iter().position(|backend| backend.address() == address)?;
        Some(members.weights[index])
    }

    /// Chooses among the backends that are ready and not in `tried`, and hands the choice to `take` before another
    /// caller's choice can depend on what `take` changes. Allocates nothing.
    pub fn pick<T>(&self, tried: &[BackendId], take: impl FnOnce(&Arc<Backend>) -> T) -> Option<T> {
        self.pick_index(tried, |index| take(&self.members().backends[index]))
    }

    fn pick_index<T>(&self, tried: &[BackendId], take: impl FnOnce(usize) -> T) -> Option<T> {
        let eligible = |backend: &Backend| backend.is_ready() && !tried.contains(&backend.id());
        match self {
            Selector::RoundRobin(rule) => rule.pick(eligible).map(take),
            Selector::Random(rule) => rule.pick(eligible, |total| fastrand::u64(..total)).map(take),
            Selector::LeastConnections(rule) => rule.pick(eligible, take),
        }
    }

    fn members(&self) -> &Members {
        match self {
            Selector::RoundRobin(rule) => &rule.members,
            Selector::Random(rule) => &rule.members,
            Selector::LeastConnections(rule) => &rule.members,
        }
    }
}

impl BackendSelection for Selector {
    type Iter = Candidates;
    type Config = SelectorConfig;

    fn build_with_config(backends: &BTreeSet<Target>, config: &SelectorConfig) -> Self {
        let members = Members::new(backends, &config.registry);
        match config.balance {
            Balance::RoundRobin => Selector::RoundRobin(RoundRobin::new(members)),
            Balance::Random => Selector::Random(Random { members }),
            Balance::LeastConnections => Selector::LeastConnections(LeastConnections::new(members)),
        }
    }

    fn build(backends: &BTreeSet<Target>) -> Self {
        Self::build_with_config(backends, &SelectorConfig::default())
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> Candidates {
        Candidates { selector: Arc::clone(self), offered: Vec::new() }
    }
}

/// The backends in the order in which the rule would have them tried.
#[derive(Debug)]
pub struct Candidates {
    selector: Arc<Selector>,
    offered: Vec<BackendId>,
}

impl BackendIter for Candidates {
    fn next(&mut self) -> Option<&Target> {
        let index = self.selector.pick_index(&self.offered, |index| index)?;
        let members = self.selector.members();
        self.offered.push(members.backends[index].id());
        Some(&members.targets[index])
    }
}

/// The backends of a selector, as Pingora knows them and as we do, in the order in which the pool came to know them.
#[derive(Debug)]
struct Members {
    targets: Box<[Target]>,
    backends: Box<[Arc<Backend>]>,
    weights: Box<[NonZeroU32]>,
}

impl Members {
    fn new(targets: &BTreeSet<Target>, registry: &Registry) -> Self {
        let mut members: Vec<_> = targets
            .iter()
            .filter_map(|target| {
                let weight = NonZeroU32::new(u32::try_from(target.weight).ok()?)?;
                let (backend, place) = registry.hold(*target.addr.as_inet()?);
                Some((place, backend, weight, target.clone()))
            })
            .collect();
        members.sort_by_key(|(place, ..)| *place);
        let targets = members.iter().map(|(.., target)| target.clone()).collect();
        let weights = members.iter().map(|(.., weight, _)| *weight).collect();
        let backends = members.into_iter().map(|(_, backend, ..)| backend).collect();
        Members { targets, backends, weights }
    }

    /// The places of the eligible ones, and their weights.
    fn eligible<'a>(
        &'a self,
        eligible: &'a impl Fn(&Backend) -> bool,
    ) -> impl Iterator<Item = (usize, NonZeroU32)> + 'a {
        let weighted = self.backends.iter().zip(&self.weights).enumerate();
        weighted.filter(|(_, (backend, _))| eligible(backend)).map(|(index, (_, weight))| (index, *weight))
    }
}

#[cfg(test)]
mod tests;
