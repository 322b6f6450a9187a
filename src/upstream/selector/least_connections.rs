//! Least connections: the backend with the fewest requests in flight for its weight; ties rotate.
//!
//! The count is of requests, from selection to the last byte, not of connections, which HTTP/1.1 keeps open idle. Choice
//! and count are one step under one lock, so that callers that come at once do not all see the same backend as the
//! emptiest. "Power of two choices" needs no lock but is not exact, and with few backends exactness is cheap.

use parking_lot::Mutex;

use super::{Backend, Members};

/// Fewest requests in flight per weight. O(backends) a choice, under a lock.
#[derive(Debug)]
pub struct LeastConnections {
    pub(super) members: Members,
    /// Where the next choice starts to look, so that ties rotate.
    start: Mutex<usize>,
}

impl LeastConnections {
    pub(super) fn new(members: Members) -> Self {
        LeastConnections { members, start: Mutex::new(0) }
    }

    pub(super) fn pick<T>(&self, eligible: impl Fn(&Backend) -> bool, take: impl FnOnce(usize) -> T) -> Option<T> {
        let mut start = self.start.lock();
        let mut best: Option<(usize, u64, u64)> = None;
        let count = self.members.backends.len();
        for step in 0..count {
            let index = (*start + step) % count;
            let backend = &self.members.backends[index];
            if !eligible(backend) {
                continue;
            }
            let (load, weight) = (backend.in_flight() as u64, u64::from(self.members.weights[index].get()));
            // load / weight < best_load / best_weight, without dividing
            if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
                best = Some((index, load, weight));
            }
        }
        let (index, ..) = best?;
        *start = (index + 1) % count;
        Some(take(index))
    }
}
