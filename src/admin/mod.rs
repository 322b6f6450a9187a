//! The admin API: its server, its handlers, what goes over the wire.

mod access;
mod error;
mod parts;

pub use access::{Access, Token};
pub use error::{ApiError, FieldError};
pub use parts::{AdminParts, Explain, Explanation, Question, Readiness, Status};
