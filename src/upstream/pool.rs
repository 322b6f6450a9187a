//! One pool: its backends, the selector over them, and what becomes known of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use log::{info, warn};
use parking_lot::Mutex;
use pingora_load_balancing::selection::BackendSelection;
use pingora_load_balancing::{Backend as Target, Extensions};

use super::health::{CONNECT_FAILURES, Outcome, REST, Status, Thresholds, Transition};
use super::selector::{Registry, Selector, SelectorConfig};
use super::{Backend, BackendAddress, BackendId, Check, Lease, PoolSettings};

/// The log target of changes of state, which the event log writes one by one, also when they repeat.
const TARGET: &str = "tollgate::health";

/// A pool of backends. Shared by the requests, the checks and the resolver; leasing takes no lock of the pool.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    registry: Arc<Registry>,
    selector: ArcSwap<Selector>,
    /// For each configured backend the addresses that are known for it.
    known: Mutex<Vec<Known>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// Those that it resolves to now and that are being checked before they take part.
    coming: Vec<SocketAddr>,
    /// Whether the last try to resolve the name failed, so that a failure is said once.
    failing: bool,
}

impl Pool {
    /// A pool in which host names have no addresses yet and no backend has been checked.
    pub fn new(settings: PoolSettings) -> Self {
        let known: Vec<_> = settings
            .backends
            .iter()
            .map(|backend| match backend.address {
                BackendAddress::Socket(address) => Known { addresses: vec![address], ..Known::default() },
                BackendAddress::Name { .. } => Known::default(),
            })
            .collect();
        let registry = Arc::new(Registry::default());
        let selector = build(&settings, &registry, &known);
        Pool { settings, registry, selector: ArcSwap::from_pointee(selector), known: Mutex::new(known) }
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

    /// Chooses a ready backend that is not in `tried` for a request, and counts the request there while the lease lives.
    pub fn lease(&self, tried: &[BackendId]) -> Option<Lease> {
        self.selector.load().pick(tried, Lease::new)
    }

    /// Whole seconds until another try is worth it when no backend is left: by then each has been checked again, or has
    /// rested. At least 1.
    pub fn retry_after(&self) -> u64 {
        let health = &self.settings.health;
        let wait = if health.check == Check::None { REST } else { health.interval };
        u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }

    /// Takes note that a request could not connect to `backend` at `now`.
    pub fn connect_failed(&self, backend: &Backend, now: Instant, reason: &str) {
        if let Some(transition) = backend.connect_failed(now) {
            self.announce(backend, transition, &format!("{reason}, for {CONNECT_FAILURES} requests in a row"));
        }
    }

    /// Takes note of a check of `backend`.
    pub(super) fn checked(&self, backend: &Backend, outcome: Outcome) {
        if let Outcome::NotDone(reason) = &outcome {
            warn!("upstream {}: backend {} could not be checked: {reason}", self.name(), backend.address());
            return;
        }
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
        self.announce(backend, transition, &reason);
    }

    /// Brings back the backends that no check brings back and that have rested long enough at `now`.
    pub(super) fn end_rests(&self, now: Instant) {
        for backend in self.selector.load().backends() {
            if let Some(transition) = backend.end_rest(now) {
                self.announce(backend, transition, &format!("tried again after {} s", REST.as_secs()));
            }
        }
    }

    /// Makes the backends that are new among `addresses`, to which the name of the configured backend number `index`
    /// resolves now. They take part from [`resolved`](Pool::resolved) on; until then they can be checked.
    pub(super) fn expect(&self, index: usize, addresses: &[SocketAddr]) -> Vec<Arc<Backend>> {
        let mut known = self.known.lock();
        // Nor are those new that another entry has: they are in service already, with that one's weight.
        let is_new = |address: &&SocketAddr| known.iter().all(|known| !known.addresses.contains(address));
        let coming: Vec<_> = addresses.iter().filter(is_new).copied().collect();
        known[index].coming.clone_from(&coming);
        let weight = self.settings.backends[index].weight;
        coming.iter().map(|address| self.registry.backend(*address, weight)).collect()
    }

    /// Takes note of what the name of the configured backend number `index` resolves to. A name that stops resolving
    /// keeps its last addresses.
    pub(super) fn resolved(&self, index: usize, outcome: Result<Vec<SocketAddr>, String>) {
        let name = &self.settings.backends[index].address;
        let mut known = self.known.lock();
        let entry = &mut known[index];
        entry.coming.clear();
        let was_failing = std::mem::replace(&mut entry.failing, outcome.is_err());
        match outcome {
            Err(reason) if !was_failing => {
                let kept = match entry.addresses.len() {
                    0 => "it has no address yet".to_owned(),
                    count => format!("keeping its last {count}"),
                };
                warn!("upstream {}: backend {name} does not resolve: {reason}; {kept}", self.name());
            }
            Err(_) => {}
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                if addresses != entry.addresses {
                    let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                    info!("upstream {}: backend {name} resolves to {}", self.name(), list.join(", "));
                    entry.addresses = addresses;
                    self.selector.store(Arc::new(build(&self.settings, &self.registry, &known)));
                } else if was_failing {
                    info!("upstream {}: backend {name} resolves again", self.name());
                }
            }
        }
    }

    /// Whether the last try to resolve a name failed.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.known.lock().iter().any(|known| known.failing)
    }

    /// Whether a name has never resolved.
    pub(super) fn awaits_address(&self) -> bool {
        self.known.lock().iter().any(|known| known.addresses.is_empty())
    }

    fn announce(&self, backend: &Backend, Transition { from, to }: Transition, reason: &str) {
        let selector = self.selector.load();
        let all = selector.backends();
        let left = all.iter().filter(|backend| backend.is_ready()).count();
        let line = format!(
            "upstream {}: backend {} {from} -> {to}: {reason}; {left} of {} left",
            self.name(),
            backend.address(),
            all.len(),
        );
        match to {
            Status::Down => warn!(target: TARGET, "{line}"),
            Status::Up | Status::Unknown => info!(target: TARGET, "{line}"),
        }
    }
}

/// The selector over all known addresses. Of an address that two names share, the first one's weight counts.
fn build(settings: &PoolSettings, registry: &Arc<Registry>, known: &[Known]) -> Selector {
    let mut taken = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for (backend, known) in settings.backends.iter().zip(known) {
        for &address in known.addresses.iter().filter(|address| taken.insert(**address)) {
            // Registered here, so that the selector keeps them in the order of the file.
            registry.backend(address, backend.weight);
            targets.insert(Target {
                addr: address.into(),
                weight: backend.weight.get() as usize,
                ext: Extensions::new(),
            });
        }
    }
    let coming = |address: &SocketAddr| known.iter().any(|known| known.coming.contains(address));
    registry.retain(|address| taken.contains(address) || coming(address));
    let config = SelectorConfig { balance: settings.balance, registry: Arc::clone(registry) };
    let selector = Selector::build_with_config(&targets, &config);
    if settings.health.check == Check::None {
        // Nothing will ever check them: they are up until requests fail to connect.
        for backend in selector.backends().iter().filter(|backend| backend.status() == Status::Unknown) {
            backend.checked(true, Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN });
        }
    }
    selector
}

#[cfg(test)]
mod tests;
