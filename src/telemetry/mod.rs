//! The access log and the event log.

mod settings;

pub use settings::{AccessLogFormat, AccessLogSettings, AccessLogTarget};
