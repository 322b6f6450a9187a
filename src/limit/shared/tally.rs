//! How often the store is asked, and for what.

use std::sync::atomic::AtomicU64;

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct LeaseTally {
    /// Questions for requests that waited.
    pub asked: AtomicU64,
    /// Questions that were answered with tokens for later.
    pub ahead: AtomicU64,
    /// Leases that were given back.
    pub returned: AtomicU64,
    /// Questions without an answer.
    pub late: AtomicU64,
    /// Requests that waited.
    pub waits: AtomicU64,
}
