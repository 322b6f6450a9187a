//! The latest refusals, to be looked up by request id when a caller asks why.
//!
//! A refusal must stay cheap while somebody floods from every core at once. So each takes a number, and the number says
//! which of the places it has: two threads meet at a place only when [`KEPT`] refusals come while one of them writes.
//! The record is made before the place is locked, and the one that it pushes out is dropped after it is let go. A
//! reader shares the records.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::client::ClientId;

/// How many are kept.
pub const KEPT: usize = 1_000;

/// One request that was not let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// When the request arrived.
    pub at: SystemTime,
    /// Its id, as in `X-Request-Id`.
    pub request_id: String,
    /// The client's name, when the caller is one.
    pub client_id: Option<ClientId>,
    /// The caller's address.
    pub client_ip: IpAddr,
    /// How the caller was recognised: `api_key`, `address` or `anonymous`.
    pub identity: &'static str,
    /// Why: `limited`, `blocked` or `unknown_api_key`.
    pub decision: &'static str,
    /// The bucket that has refused it: the name of a policy, or `default` for the caller's own; none when none has.
    pub limited_by: Option<String>,
    /// The request's method.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The path, without its query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The tokens in the caller's bucket, when it has one.
    pub tokens: Option<f64>,
    /// After how many seconds a retry succeeds, when waiting helps.
    pub retry_after: Option<u64>,
}

/// A refusal with its number, counted from 0.
type Numbered = (u64, Arc<Refused>);

/// The latest [`KEPT`] refusals.
#[derive(Debug)]
pub struct LatestRefusals {
    /// The number of the next one.
    next: AtomicU64,
    /// Each at its number, counted round.
    places: Box<[Mutex<Option<Numbered>>]>,
}

impl Default for LatestRefusals {
    fn default() -> Self {
        let places = std::iter::repeat_with(Mutex::default).take(KEPT).collect();
        LatestRefusals { next: AtomicU64::new(0), places }
    }
}

impl LatestRefusals {
    /// Keeps one, in place of the oldest when there is no room.
    pub fn record(&self, refused: Refused) {
        let refused = Arc::new(refused);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.put((number, refused));
    }

    fn put(&self, numbered: Numbered) {
        let mut place = self.places[(numbered.0 % KEPT as u64) as usize].lock();
        // A thread that was stopped since it took its number may be a whole round late.
        let oldest = if place.as_ref().is_none_or(|(there, _)| *there < numbered.0) {
            place.replace(numbered)
        } else {
            Some(numbered)
        };
        drop(place);
        drop(oldest);
    }

    /// The latest, newest first: of one client or of all callers, at most `limit`.
    pub fn latest(&self, client: Option<&ClientId>, limit: usize) -> Vec<Arc<Refused>> {
        let wanted = |(_, refused): &Numbered| client.is_none_or(|id| refused.client_id.as_ref() == Some(id));
        let mut found: Vec<Numbered> =
            self.places.iter().filter_map(|place| place.lock().clone()).filter(wanted).collect();
        found.sort_unstable_by_key(|(number, _)| Reverse(*number));
        found.truncate(limit);
        found.into_iter().map(|(_, refused)| refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: usize, client: Option<&str>) -> Refused {
        Refused {
            at: SystemTime::UNIX_EPOCH,
            request_id: number.to_string(),
            client_id: client.map(|name| ClientId::parse(name).unwrap()),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            identity: "anonymous",
            decision: "limited",
            limited_by: None,
            method: "GET".to_owned(),
            host: String::new(),
            path: "/".to_owned(),
            status: 429,
            tokens: Some(0.5),
            retry_after: Some(1),
        }
    }

    #[test]
    fn the_latest_thousand_are_kept_newest_first() {
        let decisions = LatestRefusals::default();
        for number in 0..KEPT + 5 {
            decisions.record(refused(number, (number % 2 == 0).then_some("even")));
        }
        let all = decisions.latest(None, usize::MAX);
        assert_eq!((all.len(), all[0].request_id.as_str(), all[KEPT - 1].request_id.as_str()), (KEPT, "1004", "5"));
        let even = decisions.latest(Some(&ClientId::parse("even").unwrap()), 2);
        let ids: Vec<_> = even.iter().map(|refused| refused.request_id.as_str()).collect();
        assert_eq!(ids, ["1004", "1002"]);
        assert!(decisions.latest(Some(&ClientId::parse("odd").unwrap()), 2).is_empty());
    }

    #[test]
    fn one_that_comes_a_round_late_takes_no_newer_ones_place() {
        let decisions = LatestRefusals::default();
        decisions.put((KEPT as u64 + 3, Arc::new(refused(2, None))));
        decisions.put((3, Arc::new(refused(1, None))));
        let ids: Vec<_> = decisions.latest(None, 9).iter().map(|refused| refused.request_id.clone()).collect();
        assert_eq!(ids, ["2"]);
    }

    #[test]
    fn every_thread_can_record_at_once() {
        let decisions = LatestRefusals::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let decisions = &decisions;
                scope.spawn(move || (0..KEPT).for_each(|n| decisions.record(refused(thread * KEPT + n, None))));
            }
        });
        let mut ids: Vec<_> = decisions.latest(None, usize::MAX).iter().map(|one| one.request_id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), KEPT, "the last round is whole, and each is there once");
    }
}
