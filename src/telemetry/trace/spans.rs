//! What is told of a request that is written down, and of each of its attempts at backends.

use std::net::IpAddr;
use std::time::SystemTime;

use super::parent::{SpanId, TraceParent};
use crate::upstream::ConnectAddress;

/// A request.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    /// The trace, and its own name in it.
    pub own: TraceParent,
    /// The span of whoever sent it.
    pub parent: Option<SpanId>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// The method.
    pub method: String,
    /// Whether it came over TLS, where that is known.
    pub secure: Option<bool>,
    /// The host that was asked for.
    pub host: String,
    /// The path, without the query.
    pub path: String,
    /// The status of the answer, 0 when none was sent.
    pub status: u16,
    /// The caller's address.
    pub address: IpAddr,
    /// The client's name.
    pub client: Option<String>,
    /// The pool.
    pub upstream: Option<String>,
    /// What the limiter said.
    pub limit: Option<&'static str>,
    /// Its id.
    pub request_id: String,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// Its attempts, in their order.
    pub attempts: Vec<AttemptSpan>,
}

/// An attempt at a backend.
#[derive(Clone, Debug)]
pub struct AttemptSpan {
    /// Its name in the trace.
    pub id: SpanId,
    /// When it began.
    pub start: SystemTime,
    /// When it failed; otherwise it ended with its request.
    pub end: Option<SystemTime>,
    /// The backend.
    pub backend: ConnectAddress,
    /// The status of its answer, 0 when there was none.
    pub status: u16,
    /// Why it failed, in words.
    pub error: Option<String>,
}

impl RequestSpan {
    /// How many spans that makes.
    pub fn count(&self) -> u64 {
        1 + self.attempts.len() as u64
    }
}
