//! The loop that checks a pool's backends and resolves their names, for as long as the server runs.
//!
//! Each backend has a task of its own. All are checked at once when the server starts, so that it knows after one timeout
//! where requests may go; after that each starts at a random point of its interval and keeps a tenth of it as jitter, so
//! that a hundred backends are not checked in one burst and proxies that were started together do not stay in step.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Probe;
use crate::clock::Clock;
use crate::upstream::{Backend, BackendAddress, BackendId, Pool};

/// How often names are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often names are tried again while one has no address at all.
const RESOLVE_AGAIN: Duration = Duration::from_secs(2);
/// The longest a look-up may take before its name counts as not resolving.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often backends without checks are looked at, whether their rest is over.
const REST_TICK: Duration = Duration::from_millis(250);

/// Watches over `pool` until it is dropped. Calls `ready` once every backend has been checked, which takes one check's
/// timeout at the longest, and five seconds more when names do not resolve.
pub async fn watch(pool: Arc<Pool>, clock: Arc<dyn Clock>, ready: impl FnOnce()) {
    resolve(&pool).await;
    let probe = Probe::new(pool.settings()).map(Arc::new);
    let unchecked = probe.is_none();
    let mut checks = Checks { pool: Arc::clone(&pool), probe, tasks: JoinSet::new(), watched: HashSet::new() };
    checks.first_round().await;
    ready();

    let mut rests = interval(REST_TICK);
    rests.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sleep(until_resolve(&pool)), if has_names(&pool) => {
                resolve(&pool).await;
                checks.follow();
            }
            _ = rests.tick(), if unchecked => pool.end_rests(clock.now()),
            Some(_) = checks.tasks.join_next() => {}
            else => std::future::pending().await,
        }
    }
}

/// The running checks of a pool.
struct Checks {
    pool: Arc<Pool>,
    /// `None` when the pool is not checked.
    probe: Option<Arc<Probe>>,
    tasks: JoinSet<()>,
    watched: HashSet<BackendId>,
}

impl Checks {
    /// Checks every backend once, all at the same time, and then starts their loops.
    async fn first_round(&mut self) {
        let mut round = JoinSet::new();
        for (probe, backend) in
            self.probe.iter().flat_map(|probe| self.pool.backends().into_iter().map(move |b| (probe, b)))
        {
            let (pool, probe) = (Arc::clone(&self.pool), Arc::clone(probe));
            round.spawn(async move { pool.checked(&backend, probe.run(&backend).await) });
        }
        round.join_all().await;
        for backend in self.pool.backends() {
            self.spawn(backend, true);
        }
    }

    /// Starts the loops of backends that came, and forgets those that went; their loops end by themselves.
    fn follow(&mut self) {
        let backends = self.pool.backends();
        self.watched.retain(|id| backends.iter().any(|backend| backend.id() == *id));
        for backend in backends {
            self.spawn(backend, false);
        }
    }

    fn spawn(&mut self, backend: Arc<Backend>, checked: bool) {
        let Some(probe) = &self.probe else { return };
        if !self.watched.insert(backend.id()) {
            return;
        }
        let (pool, probe) = (Arc::clone(&self.pool), Arc::clone(probe));
        self.tasks.spawn(async move { check_forever(&pool, &probe, &backend, checked).await });
    }
}

async fn check_forever(pool: &Pool, probe: &Probe, backend: &Backend, checked: bool) {
    let every = pool.settings().health.interval;
    if !checked {
        pool.checked(backend, probe.run(backend).await);
    }
    sleep(every.mul_f64(fastrand::f64())).await;
    while !backend.is_retired() {
        pool.checked(backend, probe.run(backend).await);
        sleep(every.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

fn has_names(pool: &Pool) -> bool {
    pool.settings().backends.iter().any(|backend| matches!(backend.address, BackendAddress::Name { .. }))
}

fn until_resolve(pool: &Pool) -> Duration {
    if pool.awaits_address() { RESOLVE_AGAIN } else { RESOLVE_EVERY }
}

/// Looks up every name of the pool, all at the same time.
async fn resolve(pool: &Arc<Pool>) {
    let mut lookups = JoinSet::new();
    for (index, backend) in pool.settings().backends.iter().enumerate() {
        if let BackendAddress::Name { host, port } = &backend.address {
            let (pool, host, port) = (Arc::clone(pool), host.clone(), *port);
            lookups.spawn(async move { pool.resolved(index, lookup(&host, port).await) });
        }
    }
    lookups.join_all().await;
}

/// The system's resolver, on a thread of its own.
async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found: io::Result<Vec<_>> = match timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await {
        Ok(found) => found.map(Iterator::collect),
        Err(_) => return Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
    };
    match found {
        Ok(addresses) if addresses.is_empty() => Err("it has no address".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(error.to_string()),
    }
}
