//! Least time: of two backends the one that is to be expected to answer sooner ("peak EWMA" and "power of two choices",
//! as in Finagle and Linkerd).
//!
//! The problem: the number of requests in flight says too little of a backend that is slow. By it a backend ten times
//! slower gets a tenth of the others' requests, and those are all the slow ones.
//!
//! The rule: two ready backends are drawn, each pair as likely as the others, and the one with the lower cost is taken:
//! its [expected time](crate::upstream::response_time) times the requests that it would hold then, divided by its
//! weight. Of two, since the best of all would be the best for everybody who comes before the next answer does, and
//! two choices are enough to tell the loads apart (Mitzenmacher, 2001). One of whom nothing is known is tried by one
//! request; no second one goes there before the first is answered, where there is another.
//!
//! Measured is the time from the choice of the backend until the header of its answer is there: connecting, waiting in
//! the backend's queue, and its work. The body is left out: how long it takes goes by its length and by how fast the
//! client reads. Of a request whose body was still being sent on, the time is the client's and is not counted. A
//! failure (no connection, a broken one, a timeout, an answer of 5xx) counts as one that took the read timeout, or as
//! long as it did if that was longer: whatever fails fast would draw everybody otherwise.
//!
//! Costs two draws, two short locks and no look at the rest; O(backends) once after backends became ready or ceased to
//! be.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::members::{Chosen, LeaseRequest, Members, Rule};

/// What is expected of a backend that holds requests and has answered none yet: longer than anything that was measured.
const UNKNOWN: f64 = 1e18;

/// Of two the one that is to be expected to answer sooner.
#[derive(Debug)]
pub(super) struct LeastTime {
    ready: ArcSwap<ReadyList>,
}

/// The places of the ready backends.
#[derive(Debug)]
struct ReadyList {
    /// That of the changes that are in it.
    version: u64,
    places: Box<[usize]>,
}

impl LeastTime {
    pub(super) fn new(members: &Members) -> Self {
        LeastTime { ready: ArcSwap::from_pointee(ReadyList::new(members)) }
    }
}

impl ReadyList {
    fn new(members: &Members) -> Self {
        // Before the backends are looked at: what changes meanwhile has another version.
        let version = members.changes.version();
        let places = (0..members.backends.len()).filter(|place| members.backends[*place].is_ready()).collect();
        ReadyList { version, places }
    }
}

impl Rule for LeastTime {
    fn choose(&self, members: &Members, asked: LeaseRequest<'_>) -> Option<Chosen> {
        let mut ready = self.ready.load();
        if ready.version != members.changes.version() {
            self.ready.store(Arc::new(ReadyList::new(members)));
            ready = self.ready.load();
        }
        let left: Vec<usize>;
        let places = if asked.tried.is_empty() {
            &ready.places[..]
        } else {
            let is_left = |place: &usize| !asked.tried.contains(&members.backends[*place].id());
            left = ready.places.iter().copied().filter(is_left).collect();
            &left
        };
        let place = match places {
            [] => return None,
            [only] => *only,
            _ => {
                let first = fastrand::usize(..places.len());
                let second = fastrand::usize(..places.len() - 1);
                let second = if second < first { second } else { second + 1 };
                let cost = |drawn: usize| cost(members, places[drawn], asked.now);
                places[if cost(second) < cost(first) { second } else { first }]
            }
        };
        Some(members.take(place))
    }
}

/// What another request would be to the one at `place`.
fn cost(members: &Members, place: usize, now: Option<Instant>) -> f64 {
    let backend = &members.backends[place];
    let in_flight = backend.in_flight();
    let time = backend.expected_nanos(now).unwrap_or(if in_flight == 0 { 0.0 } else { UNKNOWN });
    time * (in_flight as f64 + 1.0) / members.weight(place) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::{Clock, ManualClock};
    use crate::upstream::Lease;
    use crate::upstream::selector::tests::{lease_at, selector};

    const MS: Duration = Duration::from_millis(1);

    fn port(lease: &Lease) -> u16 {
        lease.backend().address().tcp().unwrap().port()
    }

    #[test]
    fn the_one_that_answers_sooner_is_taken_until_it_holds_too_many() {
        let (selector, clock) = (selector("least_time", &[1, 1]), ManualClock::new());
        for _ in 0..2 {
            // The second goes where nothing is known yet.
            let lease = lease_at(&selector, clock.now()).unwrap();
            lease.answered(clock.now() + if port(&lease) == 1 { 10 * MS } else { 100 * MS });
        }
        let held: Vec<_> = (0..11).map(|_| lease_at(&selector, clock.now()).unwrap()).collect();
        let slow = held.iter().filter(|lease| port(lease) == 2).count();
        assert!((1..=2).contains(&slow), "10 requests of 10 ms are as long as one of 100 ms: {slow} went there");
    }

    #[test]
    fn who_fails_fast_is_avoided() {
        let (selector, clock) = (selector("least_time", &[1, 1, 1]), ManualClock::new());
        let mut failed = 0;
        for _ in 0..1_000 {
            let lease = lease_at(&selector, clock.now()).unwrap();
            clock.advance(MS);
            if port(&lease) == 3 {
                failed += 1;
                lease.let_down(clock.now(), Duration::from_secs(30));
            } else {
                lease.answered(clock.now() + 9 * MS);
            }
        }
        assert!(failed < 20, "{failed} of 1,000 went where all fail");
    }

    #[test]
    fn one_of_whom_nothing_is_known_gets_one_request() {
        let (selector, clock) = (selector("least_time", &[1, 1]), ManualClock::new());
        let held: Vec<_> = (0..2).map(|_| lease_at(&selector, clock.now()).unwrap()).collect();
        assert_ne!(port(&held[0]), port(&held[1]));
    }

    #[test]
    fn a_weight_is_what_a_backend_bears_beside_the_others() {
        let (selector, clock) = (selector("least_time", &[3, 1]), ManualClock::new());
        for _ in 0..2 {
            let lease = lease_at(&selector, clock.now()).unwrap();
            lease.answered(clock.now() + 10 * MS);
        }
        let held: Vec<_> = (0..40).map(|_| lease_at(&selector, clock.now()).unwrap()).collect();
        let light = held.iter().filter(|lease| port(lease) == 2).count();
        assert!((9..=11).contains(&light), "{light} of 40");
    }
}
