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
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::members::{Chosen, LeaseRequest, Members, Rule};
use super::registry::Registry;
use super::rules::Balance;
use crate::upstream::sticky::{StickyTokens, TokenMaker};
use crate::upstream::{Backend, BackendId, ConnectAddress, Lease, StickyToken};

/// What a selector is built with, besides the set of backends.
#[derive(Clone, Debug, Default)]
pub struct SelectorConfig {
    /// The rule.
    pub balance: Balance,
    /// Where counters and health live.
    pub registry: Arc<Registry>,
    /// Over which time the weight of one that comes back grows to the whole. Zero is at once.
    pub slow_start: Duration,
    /// How many requests each backend may hold, where that is bounded.
    pub most: Option<usize>,
    /// What makes the tokens by which requests stay with a backend, where they may.
    pub sticky: Option<TokenMaker>,
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
    tokens: Option<StickyTokens>,
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
        let members = Members::new(targets, &config.registry, config.balance.needs().loads, config.slow_start);
        let members = members.within(config.most);
        let rule = config.balance.over(&members);
        let addresses = members.backends.iter().map(|backend| backend.address());
        let tokens = config.sticky.as_ref().map(|maker| StickyTokens::new(maker, addresses));
        Selection { members, rule, tokens }
    }

    /// The token by which requests stay with `backend`, where they may.
    pub(in crate::upstream) fn token(&self, backend: &Backend) -> Option<StickyToken> {
        Some(self.tokens.as_ref()?.of(self.members.place(backend.id())?))
    }

    /// Whether a request with this token can stay with its backend.
    pub(in crate::upstream) fn keeps(&self, token: StickyToken) -> bool {
        self.stuck(token, &[]).is_some()
    }

    /// Where the backend of this token is, if that is ready and not one of the `tried`.
    fn stuck(&self, token: StickyToken, tried: &[BackendId]) -> Option<usize> {
        let place = self.tokens.as_ref()?.place(token)?;
        let backend = &self.members.backends[place];
        (backend.is_ready() && !tried.contains(&backend.id())).then_some(place)
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
        let given = if key.is_empty() { None } else { Some(Box::new(Given { key: key.into(), ..Given::default() })) };
        Candidates { selection: self.selection.load(), given, now: None, offered: None }
    }
}

/// The backends in the order in which the rule would have them tried. The one that was offered last is leased, if
/// it has room.
#[derive(Debug)]
pub struct Candidates {
    selection: Guard<Arc<Selection>>,
    /// None for the first attempt of a request, unless the rule goes by a key.
    given: Option<Box<Given>>,
    /// The time, where it counts.
    now: Option<Instant>,
    offered: Option<Chosen>,
}

/// What a choice goes by.
#[derive(Debug, Default)]
struct Given {
    key: Vec<u8>,
    /// Those that are not to be offered.
    tried: Vec<BackendId>,
    /// The one that is to be offered first.
    stuck: Option<StickyToken>,
}

impl Candidates {
    /// Leaves out those in `tried`.
    #[inline]
    pub fn leave_out(&mut self, tried: &[BackendId]) {
        if !tried.is_empty() {
            self.given.get_or_insert_default().tried.extend_from_slice(tried);
        }
    }

    /// Chooses as of `now`, from when on leases are timed.
    #[inline]
    pub fn at(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// Begins with the backend of this token, if that can be had.
    pub fn stay_with(&mut self, token: StickyToken) {
        self.given.get_or_insert_default().stuck = Some(token);
    }

    /// Whether the one that was offered last has room for the request.
    pub fn has_room(&self) -> bool {
        self.offered.as_ref().is_some_and(|offered| offered.lease.is_some())
    }

    /// The lease of the one that was offered last, if that has room.
    #[inline]
    pub fn into_lease(self) -> Option<Lease> {
        let lease = self.offered?.lease?;
        Some(match self.now {
            Some(now) => lease.timed(now),
            None => lease,
        })
    }
}

impl BackendIter for Candidates {
    #[inline]
    fn next(&mut self) -> Option<&Target> {
        let selection = &**self.selection;
        if let Some(before) = self.offered.take() {
            self.given.get_or_insert_default().tried.push(selection.members.backends[before.place].id());
        }
        let Selection { members, rule, .. } = selection;
        if let (Some(warm_up), Some(now)) = (&members.warm_up, self.now) {
            warm_up.look(&members.backends, &members.changes, now);
        }
        let mut asked = LeaseRequest { key: &[], tried: &[], now: self.now };
        let mut stuck = None;
        if let Some(given) = &mut self.given {
            stuck = given.stuck.take().and_then(|token| selection.stuck(token, &given.tried));
            (asked.key, asked.tried) = (&given.key, &given.tried);
        }
        self.offered = match stuck {
            Some(place) => Some(members.take(place)),
            None => rule.choose(members, asked),
        };
        self.offered.as_ref().map(|choice| &members.targets[choice.place])
    }
}
