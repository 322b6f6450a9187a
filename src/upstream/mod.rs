//! Pools of backends, their health, and the selectors that choose among them.

mod backend;
pub mod health;
mod pool;
mod reason;
pub mod selector;
mod settings;

pub use backend::{Backend, BackendId, Lease};
pub use pool::Pool;
pub use reason::{is_backends_fault, reason};
pub use settings::{BackendAddress, BackendSettings, Balance, Check, HealthSettings, PoolSettings, Timeouts};
