//! The latest refusals, to be looked up by request id when a caller asks why.
//!
//! A refusal must stay cheap while somebody floods: the record is made before the lock is taken, and the one that it
//! pushes out is dropped after it is let go. A reader shares the records, so that it too holds the lock for no longer
//! than a walk over them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
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

/// The latest [`KEPT`] refusals.
#[derive(Debug, Default)]
pub struct Decisions {
    ring: Mutex<VecDeque<Arc<Refused>>>,
}

impl Decisions {
    /// Keeps one, in place of the oldest when there is no room.
    pub fn record(&self, refused: Refused) {
        let refused = Arc::new(refused);
        let mut ring = self.ring.lock();
        let oldest = if ring.len() >= KEPT { ring.pop_front() } else { None };
        ring.push_back(refused);
        drop(ring);
        drop(oldest);
    }

    /// The latest, newest first: of one client or of all callers, at most `limit`.
    pub fn latest(&self, client: Option<&ClientId>, limit: usize) -> Vec<Arc<Refused>> {
        let ring = self.ring.lock();
        let wanted = |refused: &&Arc<Refused>| client.is_none_or(|id| refused.client_id.as_ref() == Some(id));
        ring.iter().rev().filter(wanted).take(limit).cloned().collect()
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
        let decisions = Decisions::default();
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
}
