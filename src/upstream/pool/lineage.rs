//! What a pool has in common with the pools that it succeeds and that succeed it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::Pool;
use super::orders::Orders;
use crate::upstream::Traffic;

/// One for all pools that came one after the other under one name. Requests that are in flight on an earlier one still
/// count here.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Lineage {
    pub(in crate::upstream) traffic: Traffic,
    /// Further attempts; seldom written.
    pub(super) retries: AtomicU64,
    orders: Mutex<Orders>,
    /// The one that serves since the last succession.
    current: Mutex<Weak<Pool>>,
}

impl Lineage {
    /// What operators have said. To be locked after a pool's members.
    pub(super) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock()
    }

    /// The pool in whose favour an earlier one left, unless it has been removed itself.
    pub(super) fn current(&self) -> Option<Arc<Pool>> {
        self.current.lock().upgrade()
    }

    pub(super) fn set_current(&self, pool: Weak<Pool>) {
        *self.current.lock() = pool;
    }
}
