//! What the limiter is built from.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::client::Quota;

/// The token buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Whether anybody is limited. Default yes.
    pub enabled: bool,
    /// The quota of callers that no client matches. Default 100 tokens, 10 a second.
    pub quota: Quota,
    /// The most buckets there are at once; callers beyond it share one. Default a million.
    pub max_buckets: NonZeroUsize,
    /// How often full buckets are dropped; decisions are exact in between. Default 1 s.
    pub refill_interval: Duration,
    /// How often buckets that are not full are saved; a crash loses at most what happened since. Default 1 s.
    pub persist_interval: Duration,
    /// Whether answers carry the rate headers. Default yes.
    pub headers: bool,
    /// How many requests of one caller may run at once. Default `None`: as many as come.
    pub max_concurrent: Option<NonZeroU32>,
    /// Of how many clients the requests of each second are recorded. Default 10,000; 0 is of none.
    pub record: usize,
    /// What they say of time.
    pub telling: Telling,
    /// After how many refusals in a row a connection of HTTP/1.1 is closed. Default `None`: after none.
    pub close_after: Option<NonZeroU32>,
    /// Whether callers may ask how they stand. Default no.
    pub self_service: bool,
}

/// What answers say of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// What `X-RateLimit-Reset` is. Default a time.
    pub reset: ResetHeader,
    /// The longest that a client is told to wait, in seconds, whatever the bucket says. Default `None`: as long as it
    /// has to.
    pub longest: Option<NonZeroU64>,
}

impl Telling {
    /// So many `seconds`, or the most that are told.
    #[inline]
    pub fn at_most(self, seconds: u64) -> u64 {
        self.longest.map_or(seconds, |longest| seconds.min(longest.get()))
    }
}

/// What `X-RateLimit-Reset` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHeader {
    /// A moment, in seconds since the Unix epoch.
    #[default]
    Epoch,
    /// The seconds until then.
    Seconds,
    /// Nothing: the line is left out.
    Off,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            enabled: true,
            quota: Quota::new(100, 10.0).expect("both are within bounds"),
            max_buckets: NonZeroUsize::new(1_000_000).expect("it is not zero"),
            refill_interval: Duration::from_secs(1),
            persist_interval: Duration::from_secs(1),
            headers: true,
            max_concurrent: None,
            record: 10_000,
            telling: Telling::default(),
            close_after: None,
            self_service: false,
        }
    }
}
