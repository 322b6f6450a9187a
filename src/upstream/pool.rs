//! One pool: its backends, the selector over them, and what becomes known of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwap;
use log::{Level, warn};
use parking_lot::Mutex;

use super::health::{CONNECT_FAILURES, ConnectFailure, Outcome, REST, Status, Thresholds, Transition};
use super::selector::{Registry, Selector};
use super::{Backend, BackendId, Check, Lease, PoolSettings, Traffic};
pub(super) use lineage::Lineage;
use members::Members;
pub(super) use news::News;
use succession::{Pending, Stage};

mod control;
mod lineage;
mod members;
mod news;
mod orders;
mod succession;

/// The log target of changes of state, which the event log writes one by one, also when they repeat.
const TARGET: &str = "tollgate::health";

/// A pool of backends. Shared by the requests, the checks and the resolver; leasing takes no lock of the pool.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    registry: Arc<Registry>,
    selector: ArcSwap<Selector>,
    /// Who belongs to it. The selector is built from it, under its lock.
    members: Mutex<Members>,
    lineage: Arc<Lineage>,
    pending: Mutex<Pending>,
}

impl Pool {
    /// A pool in which host names have no addresses yet and no backend has been checked.
    pub fn new(settings: PoolSettings) -> Self {
        let registry = Arc::new(Registry::default());
        let lineage = Arc::new(Lineage::default());
        let members = Members::new(&settings, Stage::Serving);
        let selector = ArcSwap::from_pointee(members.selector(&settings, &registry, &lineage.orders()));
        Pool { settings, registry, selector, members: Mutex::new(members), lineage, pending: Mutex::default() }
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
        self.selector.load().backends().to_vec()
    }

    /// Chooses a ready backend that is not in `tried` for a request, and counts the request there while the lease
    /// lives.
    pub fn lease(&self, tried: &[BackendId]) -> Option<Lease> {
        self.selector.load().pick(tried, Lease::new)
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

    /// How often requests went on to another backend, or to the same one over another connection; also those of the pools
    /// that it succeeded.
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
        let selector = self.selector.load();
        selector.backends().iter().any(|other| other.id() != backend.id() && other.is_ready())
    }

    /// Takes note of a check of `backend`.
    pub(super) fn checked(&self, backend: &Backend, outcome: Outcome) {
        if let Outcome::NotDone(reason) = &outcome {
            warn!("upstream {}: backend {} could not be checked: {reason}", self.name(), backend.address());
            return;
        }
        let mut news = News::default();
        // Held to the end, so that a check is either counted before another pool takes over or not at all.
        let members = self.members.lock();
        match members.stage {
            Stage::Prepared if backend.status() != Status::Unknown => {
                self.pending.lock().insert(backend.id(), (backend.transitions(), outcome));
            }
            Stage::Prepared | Stage::Serving => self.count_check(backend, outcome, &mut news),
            Stage::Replaced => {}
        }
    }

    /// Counts what a check of `backend` said. What that changes is `news`.
    fn count_check(&self, backend: &Backend, outcome: Outcome, news: &mut News) {
        let health = &self.settings.health;
        let thresholds = Thresholds { healthy: health.healthy_threshold, unhealthy: health.unhealthy_threshold };
        let Some(transition) = backend.checked(outcome == Outcome::Passed, thresholds) else { return };
        let needed = match (transition.from, transition.to) {
            (Status::Unknown, _) => 1,
            (_, Status::Up) => thresholds.healthy.get(),
            _ => thresholds.unhealthy.get(),
        };
        let row = if needed > 1 { format!(", {needed} times in a row") } else { String::new() };
        let reason = match outcome {
            Outcome::Passed => format!("check passed{row}"),
            Outcome::Failed(reason) | Outcome::NotDone(reason) => format!("check failed{row}: {reason}"),
        };
        self.announce(backend, transition, &reason, news);
    }

    /// Brings back the backends that no check brings back and that have rested long enough at `now`.
    pub(super) fn end_rests(&self, now: Instant) {
        let mut news = News::default();
        let members = self.members.lock();
        if members.stage != Stage::Serving {
            return;
        }
        for backend in self.selector.load().backends() {
            if let Some(transition) = backend.end_rest(now) {
                self.announce(backend, transition, &format!("tried again after {} s", REST.as_secs()), &mut news);
            }
        }
    }

    /// Makes the backends that are new among `addresses`, to which the name of the configured backend number `index`
    /// resolves now. They take part from [`resolved`](Pool::resolved) on; until then they can be checked.
    pub(super) fn expect(&self, index: usize, addresses: &[SocketAddr]) -> Vec<Arc<Backend>> {
        let mut members = self.members.lock();
        if members.stage == Stage::Replaced {
            return Vec::new();
        }
        // Nor are those new that another entry has: they are in service already, with that one's weight.
        let owners = members.owners(&self.settings);
        let is_new = |address: &&SocketAddr| !owners.contains_key(*address);
        let coming: Vec<_> = addresses.iter().filter(is_new).copied().collect();
        drop(owners);
        members.entries[index].coming.clone_from(&coming);
        let orders = self.lineage.orders();
        coming.iter().map(|address| orders.enlist(&self.registry, *address)).collect()
    }

    /// Takes note of what the name of the configured backend number `index` resolves to. A name that stops resolving
    /// keeps its last addresses.
    pub(super) fn resolved(&self, index: usize, outcome: Result<Vec<SocketAddr>, String>) {
        let name = &self.settings.backends[index].address;
        let mut news = News::default();
        let mut say = |level, what: String| {
            news.add(module_path!(), level, format!("upstream {}: backend {name} {what}", self.name()));
        };
        let mut members = self.members.lock();
        if members.stage == Stage::Replaced {
            return;
        }
        let entry = &mut members.entries[index];
        entry.coming.clear();
        let was_failing = std::mem::replace(&mut entry.failing, outcome.is_err());
        match outcome {
            Err(reason) if !was_failing => {
                let kept = match entry.addresses.len() {
                    0 => "it has no address yet".to_owned(),
                    count => format!("keeping its last {count}"),
                };
                say(Level::Warn, format!("does not resolve: {reason}; {kept}"));
            }
            Err(_) => {}
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                if addresses != entry.addresses {
                    let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                    say(Level::Info, format!("resolves to {}", list.join(", ")));
                    entry.addresses = addresses;
                    let selector = members.selector(&self.settings, &self.registry, &self.lineage.orders());
                    self.selector.store(Arc::new(selector));
                } else if was_failing {
                    say(Level::Info, "resolves again".to_owned());
                }
            }
        }
    }

    /// Whether the last try to resolve a name failed.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.members.lock().entries.iter().any(|entry| entry.failing)
    }

    /// Whether a name has never resolved.
    pub(super) fn awaits_address(&self) -> bool {
        self.members.lock().entries.iter().any(|entry| entry.addresses.is_empty())
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
        news.add(TARGET, if to == Status::Down { Level::Warn } else { Level::Info }, line);
    }

    /// How many backends are left for requests, in words.
    fn left(&self) -> String {
        let selector = self.selector.load();
        format!("{} of {} left", selector.ready(), selector.backends().len())
    }
}

#[cfg(test)]
mod tests;
