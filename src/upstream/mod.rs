//! Pools of backends, their health, and the selectors that choose among them.

mod settings;

pub use settings::{BackendAddress, BackendSettings, Balance, Check, HealthSettings, PoolSettings, Timeouts};
