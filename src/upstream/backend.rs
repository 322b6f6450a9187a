//! One backend: where it is, how it is, and how many requests it holds.
//!
//! Long because a backend and the leases that it counts change each other, and nobody else changes either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::health::{ConnectFailure, HealthRecord, HealthStatus, Thresholds, Transition};
use super::outlier::Conduct;
use super::queue::WaitingRoom;
use super::response_time::ResponseTime;
use super::selector::Changes;
use super::warmth::Warmth;
use super::{BackendOverview, BackendState, ConnectAddress, LastCheck, Site};

/// Tells the backends of one pool and of all that succeed it apart, also when one goes and another comes at the same
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub(super) u32);

/// One backend of one pool, and of the pool that succeeds it if that has it too. Shared by the selectors, the checks
/// and the leases of requests; every part of it may be used from any thread.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    /// Apart from the rest: written by every request, while the others are only read.
    load: CachePadded<RequestCounts>,
    /// What the selectors read; follows `record` and `draining`.
    ready: AtomicBool,
    /// Whether `record` counts connect failures; follows it.
    failing: AtomicBool,
    /// How many connect failures `record` has counted; follows it.
    connect_failures: AtomicU64,
    retired: AtomicBool,
    /// Whether an operator wants no new requests there. Written under the lock of `record`.
    draining: AtomicBool,
    record: Mutex<HealthRecord>,
    /// Whom it tells of its changes. Written under the lock of `record`.
    listeners: ArcSwap<Vec<SelectorLink>>,
    /// Whether one of them wants to know of its load, too.
    loads: AtomicBool,
    /// Since when requests may go there, for pools in which that counts.
    warmth: Mutex<Warmth>,
    /// How soon it answers, for pools in which that counts.
    response_time: ResponseTime,
    failures: AtomicU64,
    /// Requests that another one, or another connection, had failed before.
    retries: AtomicU64,
    /// How it has answered of late, for pools in which that counts.
    conduct: Conduct,
    went_up: AtomicU64,
    went_down: AtomicU64,
    last_check: Mutex<Option<LastCheck>>,
    site: Arc<Site>,
    /// Who waits for room at backends of its pool.
    queue: Arc<WaitingRoom<Lease>>,
}

/// One selector that has the backend.
#[derive(Clone, Debug)]
struct SelectorLink {
    changes: Arc<Changes>,
    /// Where the backend is among those of the selector.
    place: usize,
    /// Whether it wants to know of the load, too.
    loads: bool,
}

/// What every request writes, side by side: one cache line to fetch.
#[derive(Debug, Default)]
struct RequestCounts {
    in_flight: AtomicUsize,
    requests: AtomicU64,
}

impl Backend {
    /// A backend whose health is not known yet, so that no request goes there before its first check.
    pub fn new(id: BackendId, site: Site) -> Self {
        Backend {
            id,
            load: CachePadded::default(),
            ready: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            connect_failures: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            record: Mutex::new(HealthRecord::default()),
            listeners: ArcSwap::default(),
            loads: AtomicBool::new(false),
            warmth: Mutex::default(),
            response_time: ResponseTime::default(),
            failures: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            conduct: Conduct::default(),
            went_up: AtomicU64::new(0),
            went_down: AtomicU64::new(0),
            last_check: Mutex::new(None),
            site: Arc::new(site),
            queue: Arc::default(),
        }
    }

    /// The same, for whose room the requests in `queue` wait.
    pub(super) fn waited_for(self, queue: &Arc<WaitingRoom<Lease>>) -> Self {
        Backend { queue: Arc::clone(queue), ..self }
    }

    /// Which one it is.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Where it is.
    pub fn address(&self) -> &ConnectAddress {
        self.site.address()
    }

    /// How many requests it holds now.
    pub fn in_flight(&self) -> usize {
        self.load.in_flight.load(Ordering::SeqCst)
    }

    /// How many requests it was given.
    pub fn requests(&self) -> u64 {
        self.load.requests.load(Ordering::Relaxed)
    }

    /// How many requests it failed: no connection, or one that broke or was too slow.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes note that it failed a request; of one that could not connect, its pool does.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of its requests had failed before, elsewhere or over another connection.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Takes note of one of those.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// How it has answered of late.
    pub(super) fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// Takes note of a good answer that came to its end.
    #[inline]
    pub fn did_well(&self) {
        self.conduct.answered();
    }

    /// Whether it is ejected for what it answered, and how often it was.
    pub fn ejections(&self) -> (bool, u64) {
        (self.conduct.is_ejected(), self.conduct.ejections())
    }

    /// Lets what the selectors see follow its conduct, which has changed.
    pub(super) fn follow_conduct(&self) {
        self.follow(&self.record.lock());
    }

    /// The nanoseconds after which it is to be expected to answer, as far as is known; see
    /// [`response_time`](super::response_time).
    pub(super) fn expected_nanos(&self, now: Option<Instant>) -> Option<f64> {
        self.response_time.nanos(now)
    }

    /// The percents of its weight that it has; see [`Warmth::percent`].
    pub(super) fn percent(&self, now: Instant, over: Duration, serving: bool) -> u8 {
        self.warmth.lock().percent(now, over, serving)
    }

    /// Whether requests could have gone there before.
    pub(super) fn is_known(&self) -> bool {
        *self.warmth.lock() != Warmth::Novel
    }

    /// Where connections to it lead.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Whether requests may go there: known to be up, not draining, and not kept out for what it answered.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether an operator wants no new requests there.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How it stands.
    pub fn state(&self) -> BackendState {
        BackendState::of(self.status(), self.is_draining(), self.conduct.is_ejected())
    }

    /// How often it went up, and how often down.
    pub fn transitions(&self) -> (u64, u64) {
        (self.went_up.load(Ordering::Relaxed), self.went_down.load(Ordering::Relaxed))
    }

    pub(super) fn count_transition(&self, to: HealthStatus) {
        let count = match to {
            HealthStatus::Up => &self.went_up,
            HealthStatus::Down => &self.went_down,
            HealthStatus::Unknown => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_last_check(&self, check: LastCheck) {
        *self.last_check.lock() = Some(check);
    }

    /// What operators see of it. `configured` is what the configuration calls it, `weight` what it has in its pool.
    pub(super) fn overview(&self, configured: String, weight: u32) -> BackendOverview {
        let (health, (went_up, went_down)) = (self.status(), self.transitions());
        BackendOverview {
            configured,
            address: self.address().clone(),
            weight,
            state: BackendState::of(health, self.is_draining(), self.conduct.is_ejected()),
            health,
            in_flight: self.in_flight(),
            requests: self.requests(),
            failures: self.failures(),
            retries: self.retries(),
            ejections: self.conduct.ejections(),
            ejected: self.conduct.ejection(),
            went_up,
            went_down,
            last_check: self.last_check.lock().clone(),
            idle_closes_after: self.site.closing().closes_after(),
        }
    }

    /// What is known of its health.
    pub fn status(&self) -> HealthStatus {
        self.record.lock().status()
    }

    /// Whether it has left its pool, because its name no longer resolves to it or a reload removed it.
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

    /// Takes note that a request could not connect, which began to when `before` failures to had been counted. `needed`
    /// says whether its pool cannot do without it, and must not lock.
    pub(super) fn connect_failed(&self, now: Instant, before: u64, needed: impl FnOnce() -> bool) -> ConnectFailure {
        self.change(|record| record.connect_failed(now, before, needed))
    }

    /// Takes note that a request could connect. Costs one load unless connecting had failed before.
    pub fn connected(&self) {
        if self.failing.load(Ordering::Relaxed) {
            self.change(HealthRecord::connected);
        }
    }

    /// Ends the rest of a backend that no check brings back.
    pub(super) fn end_rest(&self, now: Instant) -> Option<Transition> {
        self.change(|record| record.end_rest(now))
    }

    /// Says whether new requests may go there as far as operators are concerned; whether that is a change.
    pub(super) fn set_draining(&self, draining: bool) -> bool {
        let record = self.record.lock();
        let was = self.draining.swap(draining, Ordering::Relaxed);
        self.follow(&record);
        was != draining
    }

    /// Gives what room it has to those who wait for it. One that has left its pool gets no more of them.
    pub(super) fn fill(self: &Arc<Self>) {
        while self.queue.is_waited_in() && self.is_ready() && !self.is_retired() {
            let Some(lease) = Lease::within(self, self.queue.most()) else { return };
            self.queue.give(lease);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HealthRecord) -> T) -> T {
        let mut record = self.record.lock();
        let came_of_it = change(&mut record);
        self.follow(&record);
        self.failing.store(record.is_failing(), Ordering::Relaxed);
        self.connect_failures.store(record.counted(), Ordering::Relaxed);
        came_of_it
    }

    /// Lets `ready` follow its `record`, which is locked, and tells the selectors.
    fn follow(&self, record: &HealthRecord) {
        let ready = record.status() == HealthStatus::Up && !self.is_draining() && !self.conduct.keeps_out();
        if self.ready.swap(ready, Ordering::Relaxed) != ready {
            if !ready {
                self.warmth.lock().leave();
            }
            self.listeners.load().iter().for_each(|listener| listener.changes.turned(listener.place, ready));
        }
    }

    /// Tells `changes`, where it is at `place`, of what changes of it from now on; of requests that it takes and ends
    /// only if it wants to know of its `loads`.
    pub(super) fn tell(&self, changes: &Arc<Changes>, place: usize, loads: bool) {
        let record = self.record.lock();
        let mut listeners = self.listeners.load().to_vec();
        listeners.push(SelectorLink { changes: Arc::clone(changes), place, loads });
        self.set_listeners(listeners);
        if self.is_ready() {
            changes.turned(place, true);
        }
        drop(record);
    }

    /// Tells `changes` nothing any more.
    pub(super) fn tell_no_more(&self, changes: &Arc<Changes>) {
        let record = self.record.lock();
        let mut listeners = self.listeners.load().to_vec();
        listeners.retain(|listener| !Arc::ptr_eq(&listener.changes, changes));
        self.set_listeners(listeners);
        drop(record);
    }

    /// Under the lock of `record`.
    fn set_listeners(&self, listeners: Vec<SelectorLink>) {
        let loads = listeners.iter().any(|listener| listener.loads);
        self.listeners.store(Arc::new(listeners));
        self.loads.store(loads, Ordering::SeqCst);
    }

    /// Tells of a request that it took or ended. A selector that has just come either is told of it or reads the load
    /// after it: the load is written before, and read after, whether anybody wants to know, in one order for all.
    fn load_changed(&self) {
        if self.loads.load(Ordering::SeqCst) {
            let listeners = self.listeners.load();
            let told = listeners.iter().filter(|listener| listener.loads);
            told.for_each(|listener| listener.changes.mark(listener.place));
        }
    }
}

/// The right of one request to a backend. The backend counts it as in flight for as long as it lives, whatever happens
/// to the request.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    /// How many failures to connect had been counted when it was given.
    connect_failures: u64,
    /// When it was given, where that counts.
    since: Option<Instant>,
}

impl Lease {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        backend.load.in_flight.fetch_add(1, Ordering::SeqCst);
        backend.load.requests.fetch_add(1, Ordering::Relaxed);
        backend.load_changed();
        let connect_failures = backend.connect_failures.load(Ordering::Relaxed);
        Lease { backend: Arc::clone(backend), connect_failures, since: None }
    }

    /// One to `backend`, unless that holds so many requests already.
    pub(super) fn within(backend: &Arc<Backend>, most: usize) -> Option<Self> {
        let room = |held: usize| (held < most).then_some(held + 1);
        backend.load.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).ok()?;
        backend.load.requests.fetch_add(1, Ordering::Relaxed);
        backend.load_changed();
        let connect_failures = backend.connect_failures.load(Ordering::Relaxed);
        Some(Lease { backend: Arc::clone(backend), connect_failures, since: None })
    }

    /// The same, given at `now`, from when on the time to its answer is measured.
    pub(super) fn timed(mut self, now: Instant) -> Self {
        self.since = Some(now);
        self
    }

    /// The same place for another attempt of its request, which begins at `now`.
    pub fn again(mut self, now: Instant) -> Self {
        self.backend.load.requests.fetch_add(1, Ordering::Relaxed);
        self.connect_failures = self.backend.connect_failures.load(Ordering::Relaxed);
        self.since = self.since.map(|_| now);
        self
    }

    /// Takes note that the header of a good answer was there at `now`. Costs nothing where no rule goes by it.
    #[inline]
    pub fn answered(&self, now: Instant) {
        if let Some(since) = self.since {
            self.backend.response_time.answered(now.saturating_duration_since(since), now);
        }
    }

    /// Takes note that the backend let the request down, as is known at `now`: that counts as an answer which took that
    /// long, or `at_least` this. Costs nothing where no rule goes by it.
    pub fn let_down(&self, now: Instant, at_least: Duration) {
        if let Some(since) = self.since {
            self.backend.response_time.failed(now.saturating_duration_since(since).max(at_least), now);
        }
    }

    /// How many failures to connect had been counted when it was given.
    pub(super) fn connect_failures(&self) -> u64 {
        self.connect_failures
    }

    /// The backend it is for.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
}

/// A request that waits for room at a backend.
pub type Waiter = super::queue::QueuePlace<Lease>;

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.load.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.backend.load_changed();
        if self.backend.queue.is_waited_in() {
            self.backend.fill();
        }
    }
}
