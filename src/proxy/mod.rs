//! The way of one request through Pingora's hooks, and every answer of our own.

mod settings;

pub use settings::Limits;
