//! The backends that one selector chooses among.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use pingora_load_balancing::Backend as Target;

use super::{Backend, BackendId, Balance, Changes, SelectorConfig};

/// The backends of a selector, as Pingora knows them and as we do, in the order in which the pool came to know them.
/// They tell it of their changes until it is dropped.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) targets: Box<[Target]>,
    pub(super) backends: Box<[Arc<Backend>]>,
    pub(super) weights: Box<[NonZeroU32]>,
    pub(super) changes: Arc<Changes>,
    /// Where each is, by id.
    places: Box<[(BackendId, usize)]>,
}

impl Members {
    pub(super) fn new(targets: &BTreeSet<Target>, config: &SelectorConfig) -> Self {
        let mut members: Vec<_> = targets
            .iter()
            .filter_map(|target| {
                let weight = NonZeroU32::new(u32::try_from(target.weight).ok()?)?;
                let (backend, place) = config.registry.hold(*target.addr.as_inet()?);
                Some((place, backend, weight, target.clone()))
            })
            .collect();
        members.sort_by_key(|(place, ..)| *place);
        let changes = Arc::new(Changes::new(members.len()));
        let loads = config.balance == Balance::LeastConnections;
        members.iter().enumerate().for_each(|(place, (_, backend, ..))| backend.tell(&changes, place, loads));
        let targets = members.iter().map(|(.., target)| target.clone()).collect();
        let weights = members.iter().map(|(.., weight, _)| *weight).collect();
        let backends: Box<[_]> = members.into_iter().map(|(_, backend, ..)| backend).collect();
        let mut places: Vec<_> = backends.iter().enumerate().map(|(place, backend)| (backend.id(), place)).collect();
        places.sort_unstable();
        Members { targets, backends, weights, changes, places: places.into() }
    }

    /// Where the backend with this id is, if it is here.
    pub(super) fn place(&self, id: BackendId) -> Option<usize> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.places[found].1)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.backends.iter().for_each(|backend| backend.tell_no_more(&self.changes));
    }
}
