//! What operators see of a pool and change in it while it runs.
//!
//! Draining is apart from health: checks go on, and end a drain as little as a drain ends them. A backend gets requests
//! when it is up and not draining. Changes hold until the next start, since the file says what a pool is; what is to
//! stay belongs there. A reload leaves them as they are.

use std::num::NonZeroU32;

use log::Level;

use super::roster::PoolStage;
use super::{News, Pool, TARGET};
use crate::upstream::{
    AdminState, Backend, BackendOverview, ConnectAddress, MAX_WEIGHT, PoolOverview, SetBackendError,
};

impl Pool {
    /// Drains the backend at `address` or ends its drain, gives it another weight, or both; what is `None` stays as it
    /// is. Holds from the next choice of a backend until the next start, also when the address comes from a name that
    /// is resolved again. Says what has changed in the event log.
    ///
    /// # Errors
    /// When the pool has no backend there or the weight is above [`MAX_WEIGHT`]. Nothing has changed then. A pool that
    /// another one has succeeded hands the order on to that one; one that was removed has no backends any more.
    pub fn set_backend(
        &self,
        address: impl Into<ConnectAddress>,
        state: Option<AdminState>,
        weight: Option<NonZeroU32>,
    ) -> Result<BackendOverview, SetBackendError> {
        let address = &address.into();
        if let Some(weight) = weight.filter(|weight| weight.get() > MAX_WEIGHT) {
            return Err(SetBackendError::Weight(weight.get()));
        }
        let unknown = || SetBackendError::NoSuchBackend { pool: self.name().to_owned(), address: address.clone() };
        let mut news = News::default();
        let mut say =
            |what: String| news.add(TARGET, Level::Info, format!("upstream {}: backend {address} {what}", self.name()));
        let roster = self.roster.lock();
        if roster.stage == PoolStage::Replaced {
            drop(roster);
            return self.lineage.current().ok_or_else(unknown)?.set_backend(address, state, weight);
        }
        let selection = self.selector.now();
        let (backend, old_weight) = selection.at(address).ok_or_else(unknown)?;
        let owner = *roster.owners(&self.settings).get(address).ok_or_else(unknown)?;
        let old_state = backend.state();
        let mut orders = self.lineage.orders();
        let draining = orders.order(address, &owner.address, state, weight);
        if backend.set_draining(draining) {
            say(format!("{old_state} -> {}: set by hand; {}", backend.state(), self.left()));
        }
        if let Some(weight) = weight.filter(|weight| *weight != old_weight) {
            // Another selector, as this one's credits are in proportion to the old weights.
            self.selector.set(&roster.targets(&self.settings, &self.registry, &orders));
            say(format!("weight {old_weight} -> {weight}: set by hand"));
        }
        let weight = weight.unwrap_or(old_weight).get();
        Ok(backend.overview(owner.address.to_string(), weight))
    }

    /// What operators see of it.
    pub fn overview(&self) -> PoolOverview {
        let roster = self.roster.lock();
        let selection = self.selector.now();
        let named = self.settings.backends.iter().zip(&roster.entries);
        let unresolved = named.filter(|(_, entry)| entry.addresses.is_empty());
        let owners = roster.owners(&self.settings);
        let overview = |backend: &Backend, weight: NonZeroU32| {
            let address = backend.address();
            let configured = owners.get(address).map(|owner| owner.address.to_string());
            backend.overview(configured.unwrap_or_else(|| address.to_string()), weight.get())
        };
        PoolOverview {
            name: self.name().to_owned(),
            balance: self.settings.balance.name(),
            protocol: self.settings.manner.protocol,
            tls: self.settings.manner.tls.is_some(),
            unresolved: unresolved.map(|(backend, _)| backend.address.to_string()).collect(),
            backends: selection.weighted().map(|(backend, weight)| overview(backend, weight)).collect(),
            requests: self.traffic().requests(),
            retries: self.retries(),
            panic: self.is_in_panic(),
        }
    }
}

#[cfg(test)]
mod tests;
