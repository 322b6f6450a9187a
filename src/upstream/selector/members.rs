//! The backends that one selector chooses among, and what a rule over them is.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_load_balancing::Backend as Target;

use super::changes::Changes;
use super::registry::Registry;
use super::warm_up::WarmUp;
use crate::upstream::{Backend, BackendId, ConnectAddress, Lease};

/// A rule that chooses.
pub(super) trait Rule: fmt::Debug + Send + Sync {
    /// Chooses for the request of `asked` among those of `members` that are ready and that it has not tried.
    ///
    /// `members` are those that it was made over. What it [takes](Members::take) counts from then on, so one that goes
    /// by counts does so before another caller's choice can depend on them.
    fn choose(&self, members: &Members, asked: LeaseRequest<'_>) -> Option<Chosen>;
}

/// What a choice is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseRequest<'a> {
    /// What is to be chosen by; empty unless the rule needs it.
    pub(super) key: &'a [u8],
    /// Those that the request has tried.
    pub(super) tried: &'a [BackendId],
    /// The time; none unless the rule needs it.
    pub(super) now: Option<Instant>,
}

/// What was chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) place: usize,
    /// None where that one holds as many requests as it may.
    pub(super) lease: Option<Lease>,
}

/// The backends of a selector, as Pingora knows them and as we do, in the order in which the pool came to know them.
/// They tell it of their changes until it is dropped.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) targets: Box<[Target]>,
    pub(super) backends: Box<[Arc<Backend>]>,
    pub(super) weights: Box<[NonZeroU32]>,
    pub(super) changes: Arc<Changes>,
    /// Whether all weights are the same.
    alike: bool,
    /// How their weights grow, where they do.
    pub(super) warm_up: Option<WarmUp>,
    /// Where each is, by id.
    places: Box<[(BackendId, usize)]>,
    /// How many requests each may hold, where that is bounded.
    most: Option<usize>,
}

impl Members {
    /// Those at `targets`, which `registry` holds; whether they are to tell of their `loads`, and over which time one
    /// that comes back is to start slowly.
    pub(super) fn new(targets: &BTreeSet<Target>, registry: &Registry, loads: bool, slow_start: Duration) -> Self {
        let mut members: Vec<_> = targets
            .iter()
            .filter_map(|target| {
                let weight = NonZeroU32::new(u32::try_from(target.weight).ok()?)?;
                let (backend, place) = registry.hold(&ConnectAddress::of_pingora(&target.addr)?);
                Some((place, backend, weight, target.clone()))
            })
            .collect();
        members.sort_by_key(|(place, ..)| *place);
        let changes = Arc::new(Changes::new(members.len()));
        members.iter().enumerate().for_each(|(place, (_, backend, ..))| backend.tell(&changes, place, loads));
        let targets = members.iter().map(|(.., target)| target.clone()).collect();
        let weights: Box<[_]> = members.iter().map(|(.., weight, _)| *weight).collect();
        let backends: Box<[_]> = members.into_iter().map(|(_, backend, ..)| backend).collect();
        let mut places: Vec<_> = backends.iter().enumerate().map(|(place, backend)| (backend.id(), place)).collect();
        places.sort_unstable();
        let alike = weights.iter().all(|weight: &NonZeroU32| *weight == weights[0]);
        let warm_up = (!slow_start.is_zero()).then(|| WarmUp::new(backends.len(), slow_start));
        Members { targets, backends, weights, changes, alike, warm_up, places: places.into(), most: None }
    }

    /// The same, each of which holds so many requests at most.
    pub(super) fn within(mut self, most: Option<usize>) -> Self {
        self.most = most;
        self
    }

    /// The weight that the one at `place` has beside the others at this moment.
    pub(super) fn weight(&self, place: usize) -> u64 {
        let weight = u64::from(self.weights[place].get());
        // In hundredths, of all alike.
        self.warm_up.as_ref().map_or(weight, |warm_up| weight * u64::from(warm_up.percent(place)))
    }

    /// Whether all of them have the same weight.
    pub(super) fn are_alike(&self) -> bool {
        self.warm_up.is_none() && self.alike
    }

    /// Where the backend with this id is, if it is here.
    pub(super) fn place(&self, id: BackendId) -> Option<usize> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.places[found].1)
    }

    /// Gives the request to the one at `place`, if there is room. What finds none never counts there, so it turns
    /// nobody else away.
    pub(super) fn take(&self, place: usize) -> Chosen {
        let backend = &self.backends[place];
        let lease = match self.most {
            None => Some(Lease::new(backend)),
            Some(most) => Lease::within(backend, most),
        };
        Chosen { place, lease }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.backends.iter().for_each(|backend| backend.tell_no_more(&self.changes));
    }
}
