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
    /// Held while failures to connect may take a backend out, so that two of them never take out the last two.
    taking_out: Mutex<()>,
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

    /// Until it is dropped nobody else takes a backend out for failures to connect. To be locked before everything else.
    pub(super) fn take_out_alone(&self) -> MutexGuard<'_, ()> {
        self.taking_out.lock()
    }

    pub(super) fn set_current(&self, pool: Weak<Pool>) {
        *self.current.lock() = pool;
    }
}
