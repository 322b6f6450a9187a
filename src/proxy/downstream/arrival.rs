//! When something comes from a client, and when nothing is to come any more.

use std::time::{Instant, SystemTime};

use pingora_core::server::ShutdownWatch;

/// When something came.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Arrival {
    /// For measuring.
    pub(in crate::proxy) at: Instant,
    /// For people.
    pub(in crate::proxy) wall: SystemTime,
}

/// Whether the server stops.
pub(in crate::proxy) fn is_stopping(shutdown: &ShutdownWatch) -> bool {
    // The first is a mere load; borrowing writes to what all connections share.
    shutdown.has_changed().unwrap_or(true) && *shutdown.borrow()
}

/// Waits until the server stops.
pub(in crate::proxy) async fn stopped(shutdown: &mut ShutdownWatch) {
    // When the sender is gone the server is, too.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}
