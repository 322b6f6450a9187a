//! Building everything, services and their order, signals, drain.
//!
//! Each server stands alone: nothing of it is static, so two of them run in one process without knowing of each other.
//! First everything is built that can fail, over addresses that are bound (module `built`; and `start`, when it is all
//! of its process). Then it runs (module `run`): four builders make what serves of it (`builders`: telemetry, data
//! plane, control plane, life), its services start in order, and it serves until it is asked to stop, or has handed
//! over.

mod admin;
mod asks;
mod buckets;
mod builders;
mod built;
mod conductor;
mod core;
pub mod echo;
mod error;
mod fleet;
mod handover;
mod lifecycle;
mod listening;
mod logs;
mod pingora;
mod reload;
mod run;
mod services;
mod sparingly;
mod start;
mod store;
mod ticker;

pub use asks::{Stop, StopHandle};
pub use built::Server;
pub use error::ServerError;
pub use handover::StartEnvironment;
pub use reload::Source;
