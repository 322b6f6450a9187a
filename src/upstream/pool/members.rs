//! Who belongs to a pool: the addresses of each configured backend, and what operators have said of single ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use pingora_load_balancing::selection::BackendSelection;
use pingora_load_balancing::{Backend as Target, Extensions};

use crate::upstream::health::{Status, Thresholds};
use crate::upstream::selector::{Registry, Selector, SelectorConfig};
use crate::upstream::{Backend, BackendAddress, Check, PoolSettings};

/// Who belongs to a pool.
#[derive(Debug)]
pub(super) struct Members {
    /// For each configured backend what is known of it, in the same order.
    pub(super) entries: Vec<Entry>,
    /// By address, and not with the backend: an address that its name leaves and comes back to is still to be drained.
    pub(super) orders: BTreeMap<SocketAddr, Order>,
}

/// What is known of one configured backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) addresses: Vec<SocketAddr>,
    /// Those that it resolves to now and that are being checked before they take part.
    pub(super) coming: Vec<SocketAddr>,
    /// Whether the last try to resolve the name failed, so that a failure is said once.
    pub(super) failing: bool,
}

/// What an operator has said of one address, until the next start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    pub(super) drain: bool,
    /// In place of the configured one.
    pub(super) weight: Option<NonZeroU32>,
}

impl Members {
    /// Addresses are known, names have none yet.
    pub(super) fn new(settings: &PoolSettings) -> Self {
        let entries = settings.backends.iter().map(|backend| match backend.address {
            BackendAddress::Socket(address) => Entry { addresses: vec![address], ..Entry::default() },
            BackendAddress::Name { .. } => Entry::default(),
        });
        Members { entries: entries.collect(), orders: BTreeMap::new() }
    }

    /// The backend at `address`, as operators want it, with the configured `weight` unless they want another.
    pub(super) fn enlist(&self, registry: &Registry, address: SocketAddr, weight: NonZeroU32) -> Arc<Backend> {
        let order = self.orders.get(&address).copied().unwrap_or_default();
        let backend = registry.backend(address, order.weight.unwrap_or(weight));
        backend.set_draining(order.drain);
        backend
    }

    /// The selector over all known addresses. Of an address that two names share, the first one's weight counts.
    pub(super) fn selector(&self, settings: &PoolSettings, registry: &Arc<Registry>) -> Selector {
        let mut taken = BTreeSet::new();
        let mut targets = BTreeSet::new();
        for (backend, entry) in settings.backends.iter().zip(&self.entries) {
            for &address in entry.addresses.iter().filter(|address| taken.insert(**address)) {
                // Registered here, so that the selector keeps them in the order of the file.
                let weight = self.enlist(registry, address, backend.weight).weight();
                targets.insert(Target { addr: address.into(), weight: weight as usize, ext: Extensions::new() });
            }
        }
        let coming = |address: &SocketAddr| self.entries.iter().any(|entry| entry.coming.contains(address));
        registry.retain(|address| taken.contains(address) || coming(address));
        let config = SelectorConfig { balance: settings.balance, registry: Arc::clone(registry) };
        let selector = Selector::build_with_config(&targets, &config);
        if settings.health.check == Check::None {
            // Nothing will ever check them: they are up until requests fail to connect.
            for backend in selector.backends().iter().filter(|backend| backend.status() == Status::Unknown) {
                backend.checked(true, Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN });
            }
        }
        selector
    }
}
