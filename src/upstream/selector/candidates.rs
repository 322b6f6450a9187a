//! What a pool, or Pingora's own load balancer, asks: the rule over the backends of the moment.
//!
//! The problem: a choice is to be made through Pingora's [`BackendSelection`], whose iterator owns what it needs, and
//! is to cost a request neither a share in the selector, whose counter all cores would write, nor an allocation.
//!
//! The rule: the selector stays where it is, and what changes with its backends is swapped inside it. The iterator owns
//! the guard of that swap, which is a mark in a place of its own thread's, and lives on the stack. It holds what it
//! offered last as leased, so whoever wants that one takes the lease from it.
//!
//! Refused: choosing past the trait, since what nothing runs is only believed to be right.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::members::{Chosen, LeaseRequest, Members, Rule};
use super::registry::Registry;
use super::rules::Balance;
use crate::upstream::{Backend, BackendId, ConnectAddress, Lease};

/// What a selector is built with, besides the set of backends.
#[derive(Clone, Debug, Default)]
pub struct SelectorConfig {
    /// The rule.
    pub balance: Balance,
    /// Where counters and health live.
    pub registry: Arc<Registry>,
}

/// The rule that configuration chose, over the backends of a pool, which may change.
#[derive(Debug)]
pub struct Selector {
    config: SelectorConfig,
    selection: ArcSwap<Selection>,
}

/// The rule over one set of backends.
#[derive(Debug)]
pub(in crate::upstream) struct Selection {
    members: Members,
    rule: Box<dyn Rule>,
}

impl Selector {
    /// Chooses among these from now on.
    pub(in crate::upstream) fn set(&self, targets: &BTreeSet<Target>) {
        self.selection.store(Arc::new(Selection::new(targets, &self.config)));
    }

    /// What it chooses among at this moment.
    pub(in crate::upstream) fn now(&self) -> Guard<Arc<Selection>> {
        self.selection.load()
    }
}

impl Selection {
    fn new(targets: &BTreeSet<Target>, config: &SelectorConfig) -> Self {
        let members = Members::new(targets, &config.registry, config.balance.needs().loads);
        let rule = config.balance.over(&members);
        Selection { members, rule }
    }

    /// The backends, ready or not.
    pub(in crate::upstream) fn backends(&self) -> &[Arc<Backend>] {
        &self.members.backends
    }

    /// The same, each with its weight.
    pub(in crate::upstream) fn weighted(&self) -> impl Iterator<Item = (&Arc<Backend>, NonZeroU32)> {
        self.members.backends.iter().zip(self.members.weights.iter().copied())
    }

    /// The backend at `address` with its weight, if it has that.
    pub(in crate::upstream) fn at(&self, address: &ConnectAddress) -> Option<(&Arc<Backend>, NonZeroU32)> {
        self.weighted().find(|(backend, _)| backend.address() == address)
    }

    /// How many of them are ready.
    pub(in crate::upstream) fn ready(&self) -> usize {
        self.members.changes.ready()
    }
}

impl BackendSelection for Selector {
    type Iter = Candidates;
    type Config = SelectorConfig;

    fn build_with_config(backends: &BTreeSet<Target>, config: &SelectorConfig) -> Self {
        let selection = ArcSwap::from_pointee(Selection::new(backends, config));
        Selector { config: config.clone(), selection }
    }

    fn build(backends: &BTreeSet<Target>) -> Self {
        Self::build_with_config(backends, &SelectorConfig::default())
    }

    #[inline]
    fn iter(self: &Arc<Self>, key: &[u8]) -> Candidates {
        let given = if key.is_empty() { None } else { Some(Box::new(Given { key: key.to_vec(), tried: Vec::new() })) };
        Candidates { selection: self.selection.load(), given, offered: None }
    }
}

/// The backends in the order in which the rule would have them tried. The one that was offered last is leased.
#[derive(Debug)]
pub struct Candidates {
    selection: Guard<Arc<Selection>>,
    /// None for the first attempt of a request, unless the rule goes by a key.
    given: Option<Box<Given>>,
    offered: Option<Chosen>,
}

/// What a choice goes by.
#[derive(Debug, Default)]
struct Given {
    key: Vec<u8>,
    /// Those that are not to be offered.
    tried: Vec<BackendId>,
}

impl Candidates {
    /// Leaves out those in `tried`.
    #[inline]
    pub fn leave_out(&mut self, tried: &[BackendId]) {
        if !tried.is_empty() {
            self.given.get_or_insert_default().tried.extend_from_slice(tried);
        }
    }

    /// The lease of the one that was offered last.
    #[inline]
    pub fn into_lease(self) -> Option<Lease> {
        self.offered.map(|choice| choice.lease)
    }
}

impl BackendIter for Candidates {
    #[inline]
    fn next(&mut self) -> Option<&Target> {
        if let Some(before) = self.offered.take() {
            self.given.get_or_insert_default().tried.push(before.lease.backend().id());
        }
        let Selection { members, rule } = &**self.selection;
        let asked = self.given.as_ref().map_or(LeaseRequest { key: &[], tried: &[] }, |given| LeaseRequest {
            key: &given.key,
            tried: &given.tried,
        });
        self.offered = rule.choose(members, asked);
        self.offered.as_ref().map(|choice| &members.targets[choice.place])
    }
}
