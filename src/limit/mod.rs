//! Limits: who may go on now, and when the others may come back.
//!
//! | module | holds |
//! |---|---|
//! | [`asking`] | requests that wait for an answer about their buckets |
//! | [`bucket`] | one token bucket: pure, exact, handed `now` |
//! | [`decision`] | the answer to a request as data, and what it says in whole seconds |
//! | [`key`] | whose bucket it is: the same 128 bits on every node and after a restart |
//! | [`limiter`] | the seam: what a limiter is asked, by the proxy, by who keeps buckets, and by the metrics |
//! | [`reach`] | whether a fleet's store decides, and what is done while it is away |
//! | [`replay`] | what a limit would have done to requests that were recorded |
//! | [`shared`] | the limiter of one node among many: leases beside a [`striped`] |
//! | [`turns`] | how many requests of one caller run at once, in this process or over all nodes |
//! | [`striped`] | the limiter of one process: a bounded map of buckets under many locks |
//!
//! Time is a `u64` of nanoseconds since an epoch that the caller chooses once ([`bucket::Nanos`]). With the Unix epoch,
//! taken from the wall clock at the start and moved by the monotonic clock from then on, buckets keep their meaning
//! across a restart, and 64 bits last until the year 2554.

pub mod asking;
pub mod bucket;
#[cfg(test)]
mod contract;
pub mod decision;
#[cfg(test)]
pub(crate) mod exact;
pub mod key;
pub mod limiter;
pub mod reach;
pub mod replay;
#[cfg(test)]
pub(crate) mod samples;
mod settings;
pub mod shared;
pub mod striped;
pub mod turns;

pub use asking::{PendingAnswers, StoreAnswers};
pub use bucket::{Bucket, Nanos, Tokens};
pub use decision::{Decision, Standing};
pub use key::{Key, KeyMaker, Payer, PolicyId, PolicySlot, Scope};
pub use limiter::{
    Charge, Claim, Claims, Decisions, Gauges, KeptBucket, Limiter, Owed, PolicyGauge, PolicyTerms, Upkeep,
    WholeLimiter, are_allowed,
};
pub use reach::Reach;
pub use settings::{RateLimit, ResetHeader, Telling};
pub use shared::SharedLimiter;
pub use striped::{Striped, StripedSettings};
pub use turns::shared::{NoTurn, SharedTurns};
pub use turns::{CallerTurns, Turn};
