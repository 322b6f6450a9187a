//! One backend: where it is, what it weighs, how it is, and how many requests it holds.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::health::{Record, Status, Thresholds, Transition};

/// Tells the backends of one pool apart, also when one goes and another comes at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub(super) u32);

/// One backend of one pool. Shared by the selector, the checks and the leases of requests; every part of it may be used
/// from any thread.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    address: SocketAddr,
    weight: NonZeroU32,
    /// Apart from the rest: written by every request, while the others are only read.
    in_flight: CachePadded<AtomicUsize>,
    /// What the selectors read; follows `record`.
    ready: AtomicBool,
    /// Whether `record` counts connect failures; follows it.
    failing: AtomicBool,
    retired: AtomicBool,
    record: Mutex<Record>,
}

impl Backend {
    /// A backend whose health is not known yet, so that no request goes there before its first check.
    pub fn new(id: BackendId, address: SocketAddr, weight: NonZeroU32) -> Self {
        Backend {
            id,
            address,
            weight,
            in_flight: CachePadded::new(AtomicUsize::new(0)),
            ready: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            record: Mutex::new(Record::default()),
        }
    }

    /// Which one it is.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its share relative to the others.
    pub fn weight(&self) -> u32 {
        self.weight.get()
    }

    /// How many requests it holds now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether requests may go there: known to be up.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// What is known of its health.
    pub fn status(&self) -> Status {
        self.record.lock().status()
    }

    /// Whether it has left its pool, because its name no longer resolves to it.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Takes note of a check's outcome.
    pub(super) fn checked(&self, passed: bool, thresholds: Thresholds) -> Option<Transition> {
        self.change(|record| record.checked(passed, thresholds))
    }

    /// Takes note that a request could not connect.
    pub(super) fn connect_failed(&self, now: Instant) -> Option<Transition> {
        self.change(|record| record.connect_failed(now))
    }

    /// Takes note that a request could connect. Costs one load unless connecting had failed before.
    pub fn connected(&self) {
        if self.failing.load(Ordering::Relaxed) {
            self.change(|record| {
                record.connected();
                None
            });
        }
    }

    /// Ends the rest of a backend that no check brings back.
    pub(super) fn end_rest(&self, now: Instant) -> Option<Transition> {
        self.change(|record| record.end_rest(now))
    }

    fn change(&self, change: impl FnOnce(&mut Record) -> Option<Transition>) -> Option<Transition> {
        let mut record = self.record.lock();
        let transition = change(&mut record);
        self.ready.store(record.status() == Status::Up, Ordering::Relaxed);
        self.failing.store(record.is_failing(), Ordering::Relaxed);
        transition
    }
}

/// The right of one request to a backend. The backend counts it as in flight for as long as it lives, whatever happens
/// to the request.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { backend: Arc::clone(backend) }
    }

    /// The backend it is for.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
