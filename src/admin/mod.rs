//! The admin API: its server, its handlers, what goes over the wire.
//!
//! | module | holds |
//! |---|---|
//! | `app` | one connection after the other: how many, how slow, how they end |
//! | `router` | which path and method is which handler |
//! | `access` | who gets in |
//! | `body`, `json`, `query`, `percent` | reading what came, strictly |
//! | `error` | every answer that is no success, and the one place where a cause becomes a status |
//! | `respond` | every answer that is one |
//! | `reads` | blocking reads, off the threads that serve connections, so many at once |
//! | `clients` | everything about clients |
//! | `explain`, `decisions` | why a caller got what it got |
//! | `upstreams` | pools and backends |
//! | `status` | the server's state, its metrics, whether it is ready |
//! | `openapi` | the description of all this |
//!
//! Handlers read the whole request strictly and report everything that is wrong with it at once, since the reader is a
//! person at a shell or a script that was just written. Refused: deserialising straight into structs, which stops at
//! the first mistake, takes the last of two equal keys, and reports in the words of the library.
//!
//! Nothing here runs on the threads that serve requests, and nothing here is waited for by them.

mod access;
mod app;
mod base64url;
mod body;
mod clients;
mod condition;
mod decisions;
mod error;
mod explain;
#[cfg(test)]
mod fixture;
mod json;
mod openapi;
mod parts;
mod percent;
mod query;
mod reads;
mod reload;
mod respond;
mod router;
mod stall;
mod status;
mod upstreams;

pub use access::{Access, Token};
pub use app::Admin;
pub use error::{ApiError, FieldError};
pub use parts::{AdminParts, Explain, Fill, NotFilled, Question, Readiness, Reload, ReloadRefused, Reloaded, Status};
