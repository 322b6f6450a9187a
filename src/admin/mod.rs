//! The admin API: its server, its handlers, what goes over the wire.
//!
//! | module | holds |
//! |---|---|
//! | `app` | one connection after the other: how many, how slow, how they end |
//! | `router` | which path and method is which handler |
//! | `handlers` | what is answered: clients, refusals and why, pools and backends, the server's state |
//! | `api` | what every handler needs: who gets in, reading what came, errors and answers |
//! | `openapi` | the description of all this |
//!
//! Handlers read the whole request strictly and report everything that is wrong with it at once, since the reader is a
//! person at a shell or a script that was just written. Refused: deserialising straight into structs, which stops at
//! the first mistake, takes the last of two equal keys, and reports in the words of the library.
//!
//! Nothing here runs on the threads that serve requests, and nothing here is waited for by them.

mod api;
mod app;
#[cfg(test)]
mod fixture;
mod handlers;
mod openapi;
mod router;

pub use api::access::{Access, Token};
pub use api::error::{ApiError, FieldError};
pub use api::parts::{
    AdminParts, AskFleet, ChangeMade, Explain, Fill, FleetFigures, GrantTokens, MadeWhere, NotFilled, Question,
    QuotaInPolicy, Readiness, RecordedSeconds, Reload, ReloadRefused, Reloaded, ServerStatus,
};
pub use app::{Admin, HandshakeConfig};
