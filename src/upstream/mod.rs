//! Pools of backends, their health, the selectors that choose among them, and what is counted of them.

mod address;
mod backend;
mod closing;
pub mod health;
mod outlier;
mod overview;
mod pool;
mod pools;
mod queue;
mod reason;
mod requester;
mod response_time;
mod retry;
pub mod selector;
mod settings;
mod sharded;
mod sticky;
mod traffic;
mod transport;
mod warmth;

pub use address::{ConnectAddress, LONGEST_UNIX_PATH, UnixPath};
pub use backend::{Backend, BackendId, Lease, Waiter};
pub use closing::IdleClosing;
pub use outlier::{Ejection, OutlierRules};
pub use overview::{AdminState, BackendOverview, BackendState, LastCheck, MAX_WEIGHT, PoolOverview, SetBackendError};
pub use pool::Pool;
pub use pools::Pools;
pub use queue::QueueRules;
pub use reason::{after_rest, is_backends_fault, reason, silent_midway, spoken};
#[cfg(test)]
pub(crate) use requester::Anybody;
pub use requester::Requester;
pub use retry::{RetryBudget, RetryOn};
pub use selector::{Balance, HashKey, Needs};
pub use settings::{BackendAddress, BackendSettings, Check, HashBy, HealthSettings, PoolSettings, Timeouts};
pub use sharded::Sharded;
pub use sticky::{StickyKey, StickyToken};
pub use traffic::{DURATIONS, DurationExemplar, Traffic, TrafficTotals};
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub use transport::streamed;
pub use transport::{
    BackendStream, ClientEnds, Link, Manner, Protocol, ProxyProtocol, Reached, Sips, Site, StreamSeat, TlsWire,
    Transport, Wanted, Wire,
};
