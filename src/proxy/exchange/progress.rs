//! How far an exchange has come, and what an attempt at one comes to.

use std::time::{Duration, Instant};

use pingora_core::Error;

use crate::proxy::downstream::activity::Busy;

/// How far the answer has come.
#[derive(Default)]
pub(in crate::proxy) struct AnswerProgress {
    /// The status of the final answer, once some of it was sent; 0 before.
    pub(in crate::proxy) status: u16,
    /// Bytes that the client sent behind its request.
    pub(in crate::proxy) bytes_in: u64,
    /// Bytes of its body that the client was sent.
    pub(in crate::proxy) bytes_out: u64,
    /// Whether the present backend has said anything.
    pub(in crate::proxy) heard: bool,
    /// Whether the present backend has got nothing of the request.
    pub(in crate::proxy) unsent: bool,
    /// Whether another backend is asked, since the present one has answered with a status that is tried again.
    pub(in crate::proxy) again: bool,
    /// What a gRPC call came to.
    pub(in crate::proxy) grpc_status: Option<u32>,
    /// The promise to be there until the tunnel has its line.
    pub(in crate::proxy) tunnel: Option<Busy>,
}

/// What becomes of what a request had of a connection.
pub(in crate::proxy) enum AfterExchange {
    /// The connection is kept: the answer began and ended then, and its backend says that it keeps it for so long.
    Keep((Instant, Instant), Option<Duration>),
    /// What follows is another protocol.
    Tunnel,
    /// Nothing.
    Over,
}

/// An attempt came to nothing.
pub(in crate::proxy) struct AttemptFailure {
    pub(in crate::proxy) error: Box<Error>,
    /// Whether there is to be another one.
    pub(in crate::proxy) again: bool,
}

impl From<Box<Error>> for AttemptFailure {
    fn from(error: Box<Error>) -> Self {
        AttemptFailure { error, again: false }
    }
}
