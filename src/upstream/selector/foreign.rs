//! Rules that were written for Pingora: any [`BackendSelection`], among the backends that are ready and not yet tried.
//!
//! Such a rule knows nothing of health and of what a request has tried, and says instead whom it would have next, and
//! next; some of them for ever, and some never come to everybody. So its order is followed as long as it may take to
//! come to all, and then the first one counts that is left.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::members::{Chosen, LeaseRequest, Members, Rule};

/// The steps for each backend: as many as Ketama has points of it on its circle.
const STEPS: usize = 160;

/// Pingora's rule `S`.
struct Foreign<S> {
    selection: Arc<S>,
    /// Where each backend is.
    places: HashMap<PingoraAddress, usize>,
}

/// Pingora's rule `S` over `members`.
pub(super) fn built<S>(members: &Members) -> Box<dyn Rule>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let selection = Arc::new(S::build(&members.targets.iter().cloned().collect::<BTreeSet<_>>()));
    let places =
        members.backends.iter().enumerate().map(|(place, backend)| (backend.address().to_pingora(), place)).collect();
    Box::new(Foreign { selection, places })
}

impl<S> Rule for Foreign<S>
where
    S: BackendSelection + Send + Sync,
    S::Iter: BackendIter,
{
    fn choose(&self, members: &Members, LeaseRequest { key, tried, .. }: LeaseRequest<'_>) -> Option<Chosen> {
        let is_left = |place: usize| {
            let backend = &members.backends[place];
            backend.is_ready() && !tried.contains(&backend.id())
        };
        let mut order = self.selection.iter(key);
        let steps = std::iter::from_fn(|| order.next().map(|target| self.places.get(&target.addr).copied()));
        let places = steps.take(STEPS * members.backends.len()).flatten();
        let chosen = places.into_iter().find(|place| is_left(*place));
        chosen.or_else(|| (0..members.backends.len()).find(|place| is_left(*place))).map(|place| members.take(place))
    }
}

impl<S> fmt::Debug for Foreign<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("places", &self.places).finish_non_exhaustive()
    }
}
