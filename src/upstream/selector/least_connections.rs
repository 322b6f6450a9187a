//! Least connections: the backend with the fewest requests in flight for its weight; ties rotate.
//!
//! The count is of requests, from selection to the last byte, not of connections, which HTTP/1.1 keeps open idle.
//! Chosen and count are one step under one lock, so that callers that come at once do not all see the same backend as
//! the emptiest. The backends stand in a tournament by their load; each that took a request or ended one since the last
//! choice is placed again, which is two for each request, however many there are.
//!
//! "Power of two choices" needs no lock but is not exact, and with few backends exactness is cheap.

use std::cmp::{Ordering, Reverse};

use parking_lot::Mutex;

use super::members::{Chosen, LeaseRequest, Members, Rule};
use super::tournament::Tournament;
use super::warm_up::{Turns, WarmUp};

/// Fewest requests in flight per weight. A choice takes a lock and costs O(log backends) for itself and for each
/// request that has ended since the one before.
#[derive(Debug)]
pub(super) struct LeastConnections {
    standing: Mutex<LoadOrder>,
}

#[derive(Debug)]
struct LoadOrder {
    by_load: Tournament<Reverse<LoadPerWeight>>,
    /// Where the next choice starts to look, so that ties rotate.
    start: usize,
    turns: Turns,
}

/// Requests in flight per weight.
#[derive(Clone, Copy, Debug)]
struct LoadPerWeight {
    in_flight: u64,
    weight: u64,
}

impl LeastConnections {
    pub(super) fn new(members: &Members) -> Self {
        let by_load = Tournament::new(members.backends.len());
        LeastConnections { standing: Mutex::new(LoadOrder { by_load, start: 0, turns: Turns::default() }) }
    }
}

impl Rule for LeastConnections {
    fn choose(&self, members: &Members, asked: LeaseRequest<'_>) -> Option<Chosen> {
        let mut standing = self.standing.lock();
        let LoadOrder { by_load, start, turns } = &mut *standing;
        members.changes.take(|index| by_load.set(index, rank(members, index)));
        // One that was tried is none for this choice alone.
        let tried = || asked.tried.iter().filter_map(|id| members.place(*id));
        tried().for_each(|index| by_load.set(index, None));
        let best = match &members.warm_up {
            None => by_load.best_from(*start),
            Some(warm_up) => best_of_warm((by_load, *start), (warm_up, turns)),
        };
        tried().for_each(|index| by_load.set(index, rank(members, index)));
        let (_, index) = best?;
        *start = (index + 1) % members.backends.len();
        // The backend marks the change that this makes; the next choice sees it.
        Some(members.take(index))
    }
}

/// The best, but of those that have just come and hold nothing, whose load says nothing, one whose turn it is.
fn best_of_warm(
    (by_load, start): (&mut Tournament<Reverse<LoadPerWeight>>, usize),
    (warm_up, turns): (&WarmUp, &mut Turns),
) -> Option<(Reverse<LoadPerWeight>, usize)> {
    let mut passed_over = Vec::new();
    let found = loop {
        let Some(best) = by_load.best_from(start) else { break passed_over.first().copied() };
        if best.0.0.in_flight > 0 || turns.has(warm_up, best.1) {
            break Some(best);
        }
        passed_over.push(best);
        by_load.set(best.1, None);
    };
    passed_over.iter().for_each(|(rank, index)| by_load.set(*index, Some(*rank)));
    found
}

/// Where a ready backend stands as it is now.
fn rank(members: &Members, index: usize) -> Option<Reverse<LoadPerWeight>> {
    let (backend, weight) = (&members.backends[index], members.weight(index));
    backend.is_ready().then(|| Reverse(LoadPerWeight { in_flight: backend.in_flight() as u64, weight }))
}

impl Ord for LoadPerWeight {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of the fractions, without dividing.
        (self.in_flight * other.weight).cmp(&(other.in_flight * self.weight))
    }
}

impl PartialOrd for LoadPerWeight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for LoadPerWeight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for LoadPerWeight {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::upstream::Lease;
    use crate::upstream::selector::tests::{lease, rule, selector, set_up};
    use crate::upstream::selector::{Selector, SelectorConfig};

    proptest! {
        /// Every choice is that of a look at every backend, while requests end, backends come and go and some were
        /// tried.
        #[test]
        fn chooses_as_a_look_at_everyone_does(
            weights in prop::collection::vec(1_u32..4, 1..10),
            steps in prop::collection::vec((
                prop::option::weighted(0.1, (0_usize..10, any::<bool>())),
                prop::collection::vec(0_usize..10, 0..3),
                prop::option::weighted(0.6, any::<prop::sample::Index>()),
            ), 1..150),
        ) {
            let selector = selector("least_connections", &weights);
            let now = selector.now();
            let backends = now.backends();
            let count = backends.len();
            let (mut leases, mut start): (Vec<Lease>, _) = (Vec::new(), 0);
            for (change, tried, ends) in steps {
                if let Some((index, up)) = change {
                    set_up(&backends[index % count], up);
                }
                if let Some(end) = ends.filter(|_| !leases.is_empty()) {
                    leases.swap_remove(end.index(leases.len()));
                }
                let tried: Vec<_> = tried.into_iter().filter(|index| *index < count).map(|index| backends[index].id()).collect();
                let mut expected: Option<usize> = None;
                let load = |index: usize| backends[index].in_flight() as u64;
                for index in (0..count).map(|step| (start + step) % count) {
                    let eligible = backends[index].is_ready() && !tried.contains(&backends[index].id());
                    let lighter = |best: usize| {
                        load(index) * u64::from(weights[best]) < load(best) * u64::from(weights[index])
                    };
                    if eligible && expected.is_none_or(lighter) {
                        expected = Some(index);
                    }
                }
                let lease = lease(&selector, &tried);
                prop_assert_eq!(lease.as_ref().map(|lease| lease.backend().id()), expected.map(|index| backends[index].id()));
                start = expected.map_or(start, |index| (index + 1) % count);
                leases.extend(lease);
            }
        }
    }

    #[test]
    fn a_request_that_another_selector_began_counts_here_too() {
        use pingora_load_balancing::selection::BackendSelection;
        let config = SelectorConfig { balance: rule("least_connections"), ..SelectorConfig::default() };
        let targets =
            [1, 2].map(|port| pingora_load_balancing::Backend::new(&format!("127.0.0.1:{port}")).unwrap()).into();
        let old = std::sync::Arc::new(Selector::build_with_config(&targets, &config));
        old.now().backends().iter().for_each(|backend| set_up(backend, true));
        let port = |lease: &Lease| lease.backend().address().tcp().unwrap().port();
        let first = lease(&old, &[]).unwrap();
        assert_eq!(port(&first), 1);
        let new = std::sync::Arc::new(Selector::build_with_config(&targets, &config));
        let second = lease(&new, &[]).unwrap();
        assert_eq!(port(&second), 2, "the first one has a request of the old selector");
        drop(old);
        drop(first);
        assert_eq!(port(&lease(&new, &[]).unwrap()), 1, "which has ended");
    }
}
