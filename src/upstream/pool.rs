//! One pool: its backends, the selector over them, and what becomes known of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use log::{Level, warn};
use parking_lot::{Mutex, MutexGuard};
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::health::{CONNECT_FAILURES, CheckOutcome, ConnectFailure, HealthStatus, REST, Transition};
use super::queue::WaitingRoom;
use super::retry::RetrySpending;
use super::selector::{Registry, Selector, SelectorConfig};
use super::sticky::TokenMaker;
use super::{Backend, BackendId, Check, Lease, PoolSettings, Requester, StickyKey, StickyToken, Traffic};
pub(super) use news::News;
use orders::Orders;
use roster::{PoolStage, Roster};

mod checks;
mod control;
mod names;
mod news;
mod orders;
mod outliers;
mod queueing;
mod roster;
mod succession;

/// The log target of changes of state, which the event log writes one by one, also when they repeat.
const TARGET: &str = "tollgate::health";

/// What the checks of a prepared pool said last of backends whose status was known, and how often that had changed.
type Pending = BTreeMap<BackendId, ((u64, u64), CheckOutcome)>;

/// A pool of backends. Shared by the requests, the checks and the resolver; leasing takes no lock of the pool.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    registry: Arc<Registry>,
    selector: Arc<Selector>,
    /// Who belongs to it. What the selector chooses among is set from it, under its lock.
    roster: Mutex<Roster>,
    queue: Arc<WaitingRoom<Lease>>,
    lineage: Arc<Lineage>,
    pending: Mutex<Pending>,
}

/// One for all pools that came one after the other under one name. Requests that are in flight on an earlier one still
/// count here.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Lineage {
    pub(in crate::upstream) traffic: Traffic,
    /// Further attempts; seldom written.
    retries: AtomicU64,
    /// What was spent of the budget for them.
    spending: Mutex<RetrySpending>,
    /// Those that the budget had no place for; seldom written.
    denied: AtomicU64,
    /// Whether ejected backends get requests, and how often that came about.
    panic: AtomicBool,
    panics: AtomicU64,
    orders: Mutex<Orders>,
    /// What the tokens of backends are made with.
    sticky: StickyKey,
    /// Held while failures to connect may take a backend out, so that two of them never take out the last two.
    taking_out: Mutex<()>,
    /// The one that serves since the last succession.
    current: Mutex<Weak<Pool>>,
}

impl Pool {
    /// A pool in which host names have no addresses yet and no backend has been checked.
    pub fn new(settings: PoolSettings) -> Self {
        Pool::keyed(settings, &StickyKey::default())
    }

    /// The same, whose clients stay with their backends by tokens that are made with `key`.
    pub fn keyed(settings: PoolSettings, key: &StickyKey) -> Self {
        let roster = Roster::new(&settings, PoolStage::Serving);
        let registry = Arc::new(Registry::new(Arc::clone(&settings.manner)));
        let lineage = Lineage { sticky: key.clone(), ..Lineage::default() };
        Pool::of(settings, roster, registry, Arc::new(lineage))
    }

    fn of(settings: PoolSettings, roster: Roster, registry: Arc<Registry>, lineage: Arc<Lineage>) -> Self {
        let maker = || TokenMaker::new(&lineage.sticky, &settings.name);
        let config = SelectorConfig {
            balance: settings.balance,
            registry: Arc::clone(&registry),
            slow_start: settings.slow_start,
            most: settings.max_in_flight,
            sticky: settings.sticky.is_some().then(maker),
        };
        let targets = roster.targets(&settings, &registry, &lineage.orders());
        let selector = Arc::new(Selector::build_with_config(&targets, &config));
        let queue = registry.queue();
        if roster.stage == PoolStage::Serving {
            queue.set_most(settings.max_in_flight);
        }
        let (roster, pending) = (Mutex::new(roster), Mutex::default());
        Pool { settings, registry, selector, roster, queue, lineage, pending }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it was built from.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// The backends that it has now, ready or not.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.selector.now().backends().to_vec()
    }

    /// Chooses a ready backend that is not in `tried` for the request `by`, and counts the request there while the
    /// lease lives. What the request is asked is what the pool goes by.
    pub fn lease(&self, tried: &[BackendId], by: &impl Requester) -> Option<Lease> {
        let (settings, needs) = (&self.settings, self.settings.balance.needs());
        let key = needs.caller.then(|| by.key());
        let mut candidates = self.selector.iter(key.as_ref().map_or(&[], AsRef::as_ref));
        candidates.leave_out(tried);
        if needs.time || !settings.slow_start.is_zero() {
            candidates.at(by.now());
        }
        if let Some(token) = settings.sticky.as_ref().and_then(|_| by.stuck()) {
            candidates.stay_with(token);
        }
        if settings.max_in_flight.is_some() && self.queue.is_waited_in() {
            return None;
        }
        candidates.next()?;
        while settings.max_in_flight.is_some() && !candidates.has_room() {
            candidates.next()?;
        }
        candidates.into_lease()
    }

    /// The token by which a client stays with the backend of its `lease`, where it may.
    pub fn token(&self, lease: &Lease) -> Option<StickyToken> {
        self.selector.now().token(lease.backend())
    }

    /// Whether a client with this token can stay with its backend.
    pub fn keeps(&self, token: StickyToken) -> bool {
        self.selector.now().keeps(token)
    }

    /// The requests that this pool, and those that it succeeded, were to serve and that ended. Whoever ends one records
    /// it here.
    pub fn traffic(&self) -> &Traffic {
        &self.lineage.traffic
    }

    /// Takes note that a request goes on to another backend, or to the same one over another connection.
    pub fn retried(&self) {
        self.lineage.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the pool can afford another attempt at `now`. It is paid then.
    pub fn affords_retry(&self, now: Instant) -> bool {
        let Some(budget) = self.settings.retry_budget else { return true };
        let affords = self.lineage.spending.lock().pay(budget, now, || self.lineage.traffic.requests());
        if !affords {
            self.lineage.denied.fetch_add(1, Ordering::Relaxed);
        }
        affords
    }

    /// How many further attempts were not made since the budget was spent; also those of the pools that it succeeded.
    pub fn denied_retries(&self) -> u64 {
        self.lineage.denied.load(Ordering::Relaxed)
    }

    /// How often requests went on to another backend, or to the same one over another connection; also those of the
    /// pools that it succeeded.
    pub fn retries(&self) -> u64 {
        self.lineage.retries.load(Ordering::Relaxed)
    }

    /// Whole seconds until another try is worth it when no backend is left: by then each has been checked again, or has
    /// rested. At least 1.
    pub fn retry_after(&self) -> u64 {
        let health = &self.settings.health;
        let wait = if health.check == Check::None { REST } else { health.interval };
        u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }

    /// Takes note that a request could not connect to the backend of its `lease`, as is known at `now`, which is a
    /// failure of the backend. The last one that is ready stays so, whatever requests meet there.
    pub fn connect_failed(&self, lease: &Lease, now: Instant, reason: &str) {
        let backend = lease.backend();
        backend.failed();
        lease.let_down(now, self.settings.timeouts.read);
        // Not let go of before the locks are: it may be the last to hold that pool.
        let serving = self.lineage.current();
        let serving = serving.as_deref().unwrap_or(self);
        let alone = self.lineage.take_out_alone();
        let outcome = backend.connect_failed(now, lease.connect_failures(), || !serving.can_do_without(backend));
        drop(alone);
        let row = || format!("{reason}, for {CONNECT_FAILURES} requests in a row");
        match outcome {
            ConnectFailure::Counted => {}
            ConnectFailure::Down(transition) => self.announce(backend, transition, &row(), &mut News::default()),
            ConnectFailure::Needed => {
                let (name, address, reason) = (self.name(), backend.address(), row());
                warn!(target: TARGET, "upstream {name}: backend {address} stays up: {reason}; no other one is ready");
            }
        }
    }

    /// Whether it has another backend that is ready.
    fn can_do_without(&self, backend: &Backend) -> bool {
        self.selector.now().backends().iter().any(|other| other.id() != backend.id() && other.is_ready())
    }

    /// Counts a change of health, which is `news`.
    fn announce(&self, backend: &Backend, Transition { from, to }: Transition, reason: &str, news: &mut News) {
        backend.count_transition(to);
        let line = format!(
            "upstream {}: backend {} {from} -> {to}: {reason}; {}",
            self.name(),
            backend.address(),
            self.left()
        );
        news.add(TARGET, if to == HealthStatus::Down { Level::Warn } else { Level::Info }, line);
    }

    /// How many backends are left for requests, in words.
    fn left(&self) -> String {
        let selection = self.selector.now();
        format!("{} of {} left", selection.ready(), selection.backends().len())
    }
}

impl Lineage {
    /// What operators have said. To be locked after a pool's roster.
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock()
    }

    /// The pool in whose favour an earlier one left, unless it has been removed itself.
    fn current(&self) -> Option<Arc<Pool>> {
        self.current.lock().upgrade()
    }

    /// Until it is dropped nobody else takes a backend out for failures to connect. To be locked before everything
    /// else.
    fn take_out_alone(&self) -> MutexGuard<'_, ()> {
        self.taking_out.lock()
    }

    fn set_current(&self, pool: Weak<Pool>) {
        *self.current.lock() = pool;
    }
}

#[cfg(test)]
mod tests;
