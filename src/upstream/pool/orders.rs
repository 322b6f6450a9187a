//! What operators have said of single backends, until the next start.
//!
//! By address, and not with the backend: an address that its name leaves and comes back to is still to be drained. A
//! pool shares them with the one that succeeds it, so an order that is given while a reload is under way is not lost.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::upstream::selector::Registry;
use crate::upstream::{AdminState, Backend, BackendAddress, BackendSettings, ConnectAddress, PoolSettings};

/// All orders of a pool and of those that it succeeded.
#[derive(Debug, Default)]
pub(super) struct Orders {
    by_address: BTreeMap<ConnectAddress, Order>,
}

/// What an operator has said of one address.
#[derive(Debug)]
struct Order {
    /// The configured backend that had the address.
    configured: BackendAddress,
    drain: bool,
    /// In place of the configured one.
    weight: Option<NonZeroU32>,
}

impl Orders {
    /// The backend at `address`, to which `host` led if it is a name, held by `registry`, draining or not as operators
    /// want it.
    pub(super) fn enlist(&self, registry: &Registry, address: &ConnectAddress, host: Option<&str>) -> Arc<Backend> {
        let backend = registry.backend(address, host);
        backend.set_draining(self.by_address.get(address).is_some_and(|order| order.drain));
        backend
    }

    /// The weight that an operator wants for `address` in place of the configured one.
    pub(super) fn weight(&self, address: &ConnectAddress) -> Option<NonZeroU32> {
        self.by_address.get(address)?.weight
    }

    /// Takes an order for `address`, which the file's backend `configured` has; `None` leaves what was ordered. Whether
    /// it is to be drained now.
    pub(super) fn order(
        &mut self,
        address: &ConnectAddress,
        configured: &BackendAddress,
        state: Option<AdminState>,
        weight: Option<NonZeroU32>,
    ) -> bool {
        let new = || Order { configured: configured.clone(), drain: false, weight: None };
        let order = self.by_address.entry(address.clone()).or_insert_with(new);
        order.configured.clone_from(configured);
        order.drain = state.map_or(order.drain, |state| state == AdminState::Drain);
        order.weight = weight.or(order.weight);
        order.drain
    }

    /// Keeps what still holds after `old` settings under `settings`, of whose backends `owners` has the addresses.
    ///
    /// A weight that was changed in the file counts more than an older order. What the file has no more loses its
    /// orders: who is put back there later is wanted as the file says.
    pub(super) fn carry_over(
        &mut self,
        old: &PoolSettings,
        settings: &PoolSettings,
        owners: &HashMap<ConnectAddress, &BackendSettings>,
    ) {
        fn named(settings: &PoolSettings) -> HashMap<&BackendAddress, &BackendSettings> {
            settings.backends.iter().map(|backend| (&backend.address, backend)).collect()
        }
        if self.by_address.is_empty() {
            return;
        }
        let (old, new) = (named(old), named(settings));
        self.by_address.retain(|address, order| {
            // A name that has left the address for now may come back to it.
            let now = owners.get(address).or_else(|| new.get(&order.configured));
            let Some(&now) = now else { return false };
            let before = old.get(&order.configured).map(|backend| backend.weight);
            if before != Some(now.weight) {
                order.weight = None;
            }
            order.configured.clone_from(&now.address);
            order.drain || order.weight.is_some()
        });
    }
}
