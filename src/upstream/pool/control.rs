//! What operators see of a pool and change in it while it runs.
//!
//! Draining is apart from health: checks go on, and end a drain as little as a drain ends them. A backend gets requests
//! when it is up and not draining. Changes hold until the next start, since the file says what a pool is; what is to
//! stay belongs there.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use log::info;

use super::{Members, Pool, TARGET};
use crate::upstream::{AdminState, BackendOverview, MAX_WEIGHT, PoolOverview, SetBackendError};

impl Pool {
    /// Drains the backend at `address` or ends its drain, gives it another weight, or both; what is `None` stays as it
    /// is. Holds from the next choice of a backend until the next start, also when the address comes from a name that
    /// is resolved again. Says what has changed in the event log.
    ///
    /// # Errors
    /// When the pool has no backend there or the weight is above [`MAX_WEIGHT`]. Nothing has changed then.
    pub fn set_backend(
        &self,
        address: SocketAddr,
        state: Option<AdminState>,
        weight: Option<NonZeroU32>,
    ) -> Result<BackendOverview, SetBackendError> {
        if let Some(weight) = weight.filter(|weight| weight.get() > MAX_WEIGHT) {
            return Err(SetBackendError::Weight(weight.get()));
        }
        let mut members = self.members.lock();
        let backends = self.backends();
        let backend = backends.iter().find(|backend| backend.address() == address);
        let backend =
            backend.ok_or_else(|| SetBackendError::NoSuchBackend { pool: self.name().to_owned(), address })?;
        let (old_state, old_weight) = (backend.state(), backend.weight());
        let order = members.orders.entry(address).or_default();
        order.drain = state.map_or(order.drain, |state| state == AdminState::Drain);
        order.weight = weight.or(order.weight);
        let draining = order.drain;
        if backend.set_draining(draining) {
            let (name, new, left) = (self.name(), backend.state(), self.left());
            info!(target: TARGET, "upstream {name}: backend {address} {old_state} -> {new}: set by hand; {left}");
        }
        if let Some(weight) = weight.filter(|weight| weight.get() != old_weight) {
            // Another selector, as this one's credits are in proportion to the old weights.
            self.selector.store(Arc::new(members.selector(&self.settings, &self.registry)));
            let name = self.name();
            info!(target: TARGET, "upstream {name}: backend {address} weight {old_weight} -> {weight}: set by hand");
        }
        let configured = self.configured(&members, address);
        Ok(backend.overview(configured))
    }

    /// What operators see of it.
    pub fn overview(&self) -> PoolOverview {
        let members = self.members.lock();
        let backends = self.backends();
        let named = self.settings.backends.iter().zip(&members.entries);
        let unresolved = named.filter(|(_, entry)| entry.addresses.is_empty());
        PoolOverview {
            name: self.name().to_owned(),
            balance: self.settings.balance,
            unresolved: unresolved.map(|(backend, _)| backend.address.to_string()).collect(),
            backends: backends
                .iter()
                .map(|backend| backend.overview(self.configured(&members, backend.address())))
                .collect(),
            requests: self.traffic.requests(),
            retries: self.retries(),
        }
    }

    /// What the configuration calls the backend at `address`: of several names the first, whose weight counts.
    fn configured(&self, members: &Members, address: SocketAddr) -> String {
        let mut named = self.settings.backends.iter().zip(&members.entries);
        let found = named.find(|(_, entry)| entry.addresses.contains(&address));
        found.map_or_else(|| address.to_string(), |(backend, _)| backend.address.to_string())
    }
}

#[cfg(test)]
mod tests;
