//! The loop that checks a pool's backends and resolves their names, for as long as the server runs.
//!
//! Each backend has a task of its own. All are checked at once when the server starts, so that it knows after one
//! timeout where requests may go; after that each starts at a random point of its interval and keeps a tenth of it as
//! jitter, so that a hundred backends are not checked in one burst and proxies that were started together do not stay
//! in step.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Probe;
use crate::clock::Clock;
use crate::upstream::{Backend, BackendAddress, BackendId, Check, LastCheck, Pool};

/// How often names are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often names are tried again while one has no address at all.
const RESOLVE_AGAIN: Duration = Duration::from_secs(2);
/// The longest a look-up may take before its name counts as not resolving.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often backends are looked at, whether their rest is over, where there are no checks, or their ejection.
const REST_TICK: Duration = Duration::from_millis(250);

/// Watches over `pool` until it is dropped. Calls `ready` once every backend has been checked, which takes one check's
/// timeout at the longest, and five seconds more when names do not resolve.
///
/// For a while two may watch the same backends: that of a pool which is to be replaced, and that of its successor. What
/// the successor's checks say of backends that are known counts once it is in service; what the other's say, until
/// then.
pub async fn watch(pool: Arc<Pool>, clock: Arc<dyn Clock>, ready: impl FnOnce()) {
    resolve(&pool, None).join_all().await;
    let checker = Probe::new(pool.settings()).map(|probe| {
        let (pool, clock) = (Arc::clone(&pool), Arc::clone(&clock));
        Arc::new(Checker { pool, probe, clock })
    });
    let mut checks = Checks { pool: Arc::clone(&pool), checker, tasks: JoinSet::new(), watched: HashMap::new() };
    checks.first_round().await;
    ready();

    let mut rests = interval(REST_TICK);
    rests.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lookups = JoinSet::new();
    let mut next_lookup = Instant::now() + until_resolve(&pool);
    loop {
        tokio::select! {
            () = sleep_until(next_lookup), if has_names(&pool) && lookups.is_empty() => {
                lookups = resolve(&pool, checks.checker.as_ref());
            }
            Some(_) = lookups.join_next() => {
                checks.follow();
                next_lookup = Instant::now() + until_resolve(&pool);
            }
            _ = rests.tick(), if is_looked_after(&pool) => {
                if checks.checker.is_none() {
                    pool.end_rests(clock.now());
                }
                if pool.settings().outlier.is_some() {
                    pool.end_ejections(clock.now());
                }
                pool.fill();
            }
            Some(_) = checks.tasks.join_next() => {}
            else => std::future::pending().await,
        }
    }
}

/// Checks the backends of a pool.
struct Checker {
    pool: Arc<Pool>,
    probe: Probe,
    clock: Arc<dyn Clock>,
}

impl Checker {
    /// Checks `backend` and tells its pool.
    async fn check(&self, backend: &Backend) {
        let (at, start) = (self.clock.wall(), self.clock.now());
        let outcome = self.probe.run(backend).await;
        let took = self.clock.now().saturating_duration_since(start);
        backend.set_last_check(LastCheck { at, took, outcome: outcome.clone() });
        self.pool.checked(backend, outcome);
    }

    /// Checks `backends`, all at the same time.
    async fn check_all(self: &Arc<Self>, backends: Vec<Arc<Backend>>) {
        let mut checks = JoinSet::new();
        for backend in backends {
            let checker = Arc::clone(self);
            checks.spawn(async move { checker.check(&backend).await });
        }
        checks.join_all().await;
    }

    /// The loop of one backend, whose first check has been.
    async fn check_forever(&self, backend: &Backend) {
        let every = self.pool.settings().health.interval;
        sleep(every.mul_f64(fastrand::f64())).await;
        while !backend.is_retired() {
            self.check(backend).await;
            sleep(every.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }
}

/// The running checks of a pool.
struct Checks {
    pool: Arc<Pool>,
    /// `None` when the pool is not checked.
    checker: Option<Arc<Checker>>,
    tasks: JoinSet<()>,
    watched: HashMap<BackendId, AbortHandle>,
}

impl Checks {
    /// Checks every backend once, all at the same time, and then starts their loops.
    async fn first_round(&mut self) {
        if let Some(checker) = &self.checker {
            checker.check_all(self.pool.backends()).await;
        }
        self.follow();
    }

    /// Starts the loops of backends that came, and ends those of backends that went. A backend that the successor of
    /// the pool still has is not retired, so its loop would not end by itself.
    fn follow(&mut self) {
        let Some(checker) = &self.checker else { return };
        let backends = self.pool.backends();
        let ids: HashSet<_> = backends.iter().map(|backend| backend.id()).collect();
        self.watched.retain(|id, checks| {
            let stays = ids.contains(id);
            if !stays {
                checks.abort();
            }
            stays
        });
        for backend in backends {
            let tasks = &mut self.tasks;
            self.watched.entry(backend.id()).or_insert_with(|| {
                let checker = Arc::clone(checker);
                tasks.spawn(async move { checker.check_forever(&backend).await })
            });
        }
    }
}

/// Whether something of it ends by the clock, or may not have been seen.
fn is_looked_after(pool: &Pool) -> bool {
    let settings = pool.settings();
    settings.health.check == Check::None || settings.outlier.is_some() || settings.max_in_flight.is_some()
}

fn has_names(pool: &Pool) -> bool {
    pool.settings().backends.iter().any(|backend| matches!(backend.address, BackendAddress::Name { .. }))
}

fn until_resolve(pool: &Pool) -> Duration {
    if pool.awaits_address() { RESOLVE_AGAIN } else { RESOLVE_EVERY }
}

/// Looks up every name of the pool, each on a task of its own, so that a slow one holds up no other. New addresses are
/// checked with `checker`, if there is one, before they take the place of old ones.
fn resolve(pool: &Arc<Pool>, checker: Option<&Arc<Checker>>) -> JoinSet<()> {
    let mut lookups = JoinSet::new();
    for (index, backend) in pool.settings().backends.iter().enumerate() {
        let BackendAddress::Name { host, port } = &backend.address else { continue };
        let (pool, checker, host, port) = (Arc::clone(pool), checker.cloned(), host.clone(), *port);
        lookups.spawn(async move {
            let found = lookup(&host, port).await;
            if let (Ok(addresses), Some(checker)) = (&found, checker) {
                checker.check_all(pool.expect(index, addresses)).await;
            }
            pool.resolved(index, found);
        });
    }
    lookups
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::upstream::health::HealthStatus;
    use crate::upstream::{BackendSettings, HealthSettings, PoolSettings, Pools, Timeouts};

    #[tokio::test(start_paused = true)]
    async fn names_are_resolved_again_with_and_without_checks() {
        for check in [Check::None, Check::Tcp] {
            let address = BackendAddress::Name { host: "localhost".into(), port: 1 };
            let pool = Arc::new(Pool::new(PoolSettings {
                name: "app".into(),
                balance: Default::default(),
                backends: vec![BackendSettings { address, weight: std::num::NonZeroU32::MIN }],
                health: HealthSettings { check, ..HealthSettings::default() },
                retries: 0,
                timeouts: Timeouts::default(),
                ..PoolSettings::default()
            }));
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            let watching = watch(Arc::clone(&pool), Arc::new(SystemClock), move || ready.send(()).unwrap());
            let watching = tokio::spawn(watching);
            is_ready.await.unwrap();
            assert!(!pool.awaits_address() && !pool.is_failing());
            // The next look-up is seen by its mending this.
            pool.resolved(0, Err("the test says so".into()));
            sleep(RESOLVE_EVERY / 2).await;
            assert!(pool.is_failing(), "it is not resolved before its time");
            sleep(RESOLVE_EVERY).await;
            assert!(!pool.is_failing(), "it is resolved when its time has come");
            watching.abort();
        }
    }

    #[tokio::test]
    async fn the_latest_check_is_kept_with_what_was_wrong() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Bound to find a port that is free, and closed again.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addresses = [open.local_addr().unwrap(), closed];
        let backends = addresses.map(|address| BackendSettings {
            address: BackendAddress::Socket(address),
            weight: std::num::NonZeroU32::MIN,
        });
        let pool = Arc::new(Pool::new(PoolSettings {
            name: "app".into(),
            balance: Default::default(),
            backends: backends.into(),
            health: HealthSettings { interval: Duration::from_secs(3600), ..HealthSettings::default() },
            retries: 0,
            timeouts: Timeouts::default(),
            ..PoolSettings::default()
        }));
        assert!(pool.overview().backends.iter().all(|backend| backend.last_check.is_none()));
        let clock = Arc::new(ManualClock::new());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let watching = watch(Arc::clone(&pool), Arc::clone(&clock) as _, move || ready.send(()).unwrap());
        let watching = tokio::spawn(watching);
        is_ready.await.unwrap();
        let checks = pool.overview().backends.into_iter().map(|backend| backend.last_check.unwrap());
        let seen: Vec<_> = checks.map(|check| (check.at, check.passed(), check.error().map(str::to_owned))).collect();
        let refused = Some("connection refused".to_owned());
        assert_eq!(seen, [(clock.wall(), Some(true), None), (clock.wall(), Some(false), refused)]);
        watching.abort();
    }

    #[tokio::test]
    async fn a_successor_is_checked_while_the_old_pool_serves() {
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [first, second] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let settings = |addresses: &[SocketAddr]| PoolSettings {
            name: "app".into(),
            balance: Default::default(),
            backends: addresses
                .iter()
                .map(|address| BackendSettings {
                    address: BackendAddress::Socket(*address),
                    weight: std::num::NonZeroU32::MIN,
                })
                .collect(),
            health: HealthSettings { interval: Duration::from_millis(20), ..HealthSettings::default() },
            retries: 0,
            timeouts: Timeouts::default(),
            ..PoolSettings::default()
        };
        let pools = Pools::new(vec![settings(&[first, closed])]);
        let mut watches = Vec::new();
        let mut start = |pool: &Arc<Pool>| {
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            watches.push(tokio::spawn(watch(Arc::clone(pool), Arc::new(SystemClock), move || ready.send(()).unwrap())));
            is_ready
        };
        start(&pools.all()[0]).await.unwrap();
        let prepared = pools.prepare(vec![settings(&[second, first, closed])]);
        start(&prepared[0]).await.unwrap();
        let before = pools.all()[0].overview();
        assert_eq!(before.backends.iter().map(|b| (b.went_up, b.went_down)).collect::<Vec<_>>(), [(1, 0), (0, 1)]);
        // From its first moment it has a backend for every request, and whom it had already it has not counted again.
        pools.replace(prepared);
        let after = pools.all()[0].overview();
        let counts: Vec<_> =
            after.backends.iter().map(|b| (b.address.tcp().unwrap(), b.went_up, b.went_down)).collect();
        assert_eq!(counts, [(second, 1, 0), (first, 1, 0), (closed, 0, 1)]);
        assert!(pools.all()[0].backends().iter().all(|backend| backend.status() != HealthStatus::Unknown));
        watches.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
