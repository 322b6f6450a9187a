//! Who belongs to a pool: the addresses of each configured backend.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;

use pingora_load_balancing::{Backend as Target, Extensions};

use crate::upstream::health::{HealthStatus, Thresholds};
use crate::upstream::selector::Registry;
use crate::upstream::{BackendAddress, BackendSettings, Check, ConnectAddress, PoolSettings};

use super::orders::Orders;

/// How far a pool has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolStage {
    /// It gets no requests yet; another one serves.
    Prepared,
    /// It is in service.
    Serving,
    /// Another one serves in its place, or none.
    Replaced,
}

/// Who belongs to a pool.
#[derive(Debug)]
pub(super) struct Roster {
    /// For each configured backend what is known of it, in the same order.
    pub(super) entries: Vec<RosterEntry>,
    /// Whether the pool is in service.
    pub(super) stage: PoolStage,
}

/// What is known of one configured backend.
#[derive(Clone, Debug, Default)]
pub(super) struct RosterEntry {
    pub(super) addresses: Vec<ConnectAddress>,
    /// Those that it resolves to now and that are being checked before they take part.
    pub(super) coming: Vec<ConnectAddress>,
    /// Whether the last try to resolve the name failed, so that a failure is said once.
    pub(super) failing: bool,
}

impl Roster {
    /// Addresses are known, names have none yet.
    pub(super) fn new(settings: &PoolSettings, stage: PoolStage) -> Self {
        let known = |address: &BackendAddress| match address {
            BackendAddress::Socket(address) => vec![ConnectAddress::Tcp(*address)],
            BackendAddress::Unix(path) => vec![ConnectAddress::Unix(path.clone())],
            BackendAddress::Name { .. } => Vec::new(),
        };
        let entries = settings.backends.iter().map(|backend| known(&backend.address));
        let entries = entries.map(|addresses| RosterEntry { addresses, ..RosterEntry::default() });
        Roster { entries: entries.collect(), stage }
    }

    /// The configured backend, out of those of `settings`, that has each address: of several the first, whose weight
    /// counts. For whoever asks for more than one of them.
    pub(super) fn owners<'a>(&self, settings: &'a PoolSettings) -> HashMap<ConnectAddress, &'a BackendSettings> {
        let mut owners = HashMap::with_capacity(self.entries.len());
        for (backend, entry) in settings.backends.iter().zip(&self.entries) {
            entry.addresses.iter().for_each(|address| _ = owners.entry(address.clone()).or_insert(backend));
        }
        owners
    }

    /// What the selector is to choose among: all known addresses, as the file and `orders` want them. Of an address
    /// that two names share, the first one's weight counts.
    pub(super) fn targets(&self, settings: &PoolSettings, registry: &Registry, orders: &Orders) -> BTreeSet<Target> {
        // Nothing will ever check them: they are up until requests fail to connect.
        let unchecked = settings.health.check == Check::None && self.stage == PoolStage::Serving;
        let mut taken = BTreeSet::new();
        let mut targets = BTreeSet::new();
        for (configured, entry) in settings.backends.iter().zip(&self.entries) {
            for address in entry.addresses.iter().filter(|address| taken.insert(*address)) {
                // Registered here, so that the selector keeps them in the order of the file.
                let backend = orders.enlist(registry, address, configured.address.host());
                if unchecked && backend.status() == HealthStatus::Unknown {
                    backend.checked(true, Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN });
                }
                let weight = orders.weight(address).unwrap_or(configured.weight).get();
                targets.insert(Target { addr: address.to_pingora(), weight: weight as usize, ext: Extensions::new() });
            }
        }
        let coming: BTreeSet<_> = self.entries.iter().flat_map(|entry| &entry.coming).collect();
        registry.retain(|address| taken.contains(address) || coming.contains(address));
        targets
    }
}
