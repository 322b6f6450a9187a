//! Choosing a backend for a request: one type per rule, behind Pingora's [`BackendSelection`].
//!
//! A selector is built from a set of backends and asked for every attempt of every request. It chooses among the
//! backends that are ready and not yet tried by this request, so the weights hold among those that are left. Pingora's
//! own `RoundRobin` and `Random` cannot: they choose first and look at health afterwards, and then go on without weights.
//!
//! A choice costs the same among three backends and, but for a logarithm, among thousands: no rule looks at all of them.
//!
//! Selectors keep no health and no counters. Both live in the [`Backend`]s, which the [`Registry`] hands to the next
//! selector when the set changes, so a rebuild forgets nothing. Weights do belong to a selector: the pools before and
//! after a reload share backends, and each is to keep to its own weights.

mod changes;
mod least_connections;
mod marks;
mod members;
mod random;
mod registry;
mod round_robin;
mod tournament;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::{Backend, BackendId, Balance};
pub(super) use changes::Changes;
use least_connections::LeastConnections;
use members::Members;
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

    /// The same, each with its weight.
    pub fn weighted(&self) -> impl Iterator<Item = (&Arc<Backend>, NonZeroU32)> {
        let members = self.members();
        members.backends.iter().zip(members.weights.iter().copied())
    }

    /// The weight of the backend at `address`, if it has that.
    pub fn weight(&self, address: SocketAddr) -> Option<NonZeroU32> {
        self.weighted().find(|(backend, _)| backend.address() == address).map(|(_, weight)| weight)
    }

    /// How many of its backends are ready.
    pub fn ready(&self) -> usize {
        self.members().changes.ready()
    }

    /// Chooses among the backends that are ready and not in `tried`, and hands the choice to `take` before another
    /// caller's choice can depend on what `take` changes. Allocates nothing for the first attempt of a request.
    pub fn pick<T>(&self, tried: &[BackendId], take: impl FnOnce(&Arc<Backend>) -> T) -> Option<T> {
        self.pick_index(tried, |index| take(&self.members().backends[index]))
    }

    fn pick_index<T>(&self, tried: &[BackendId], take: impl FnOnce(usize) -> T) -> Option<T> {
        match self {
            Selector::RoundRobin(rule) => rule.pick(tried).map(take),
            Selector::Random(rule) => rule.pick(tried, |total| fastrand::u64(..total)).map(take),
            Selector::LeastConnections(rule) => rule.pick(tried, take),
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
        let members = Members::new(backends, config);
        match config.balance {
            Balance::RoundRobin => Selector::RoundRobin(RoundRobin::new(members)),
            Balance::Random => Selector::Random(Random::new(members)),
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

#[cfg(test)]
mod tests;
