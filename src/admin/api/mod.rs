//! What every handler needs: what it is given, how it reads what came, strictly, and how it answers. Knows no handler.
//!
//! | file | holds |
//! |---|---|
//! | `parts` | what the API is made of |
//! | `state` | what a handler is given, and what comes before it |
//! | `access` | who gets in |
//! | `accept`, `body`, `json`, `fields`, `query`, `percent` | reading what came |
//! | `error` | every answer that is no success, and the one place where a cause becomes a status |
//! | `respond` | every answer that is one |
//! | `ranking` | clients in the order of what they have done |
//! | `reads` | blocking reads, off the threads that serve connections, so many at once |
//! | `ui` | the files of the page |
//! | `stopping` | when the API closes |

pub(super) mod accept;
pub(super) mod access;
pub(super) mod body;
pub(super) mod error;
mod fields;
pub(super) mod json;
pub(super) mod parts;
pub(super) mod percent;
pub(super) mod query;
pub(super) mod ranking;
pub(super) mod reads;
pub(super) mod respond;
mod state;
mod stopping;
mod ui;

pub(super) use access::OverTls;
pub(super) use error::{ApiError, FieldError};
pub(super) use fields::BodyFields;
pub(super) use parts::{AdminParts, MadeWhere, QuotaInPolicy};
pub(super) use state::{Api, guard, wrong_method};
pub(super) use stopping::Stopping;
