use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::upstream::health::CheckOutcome;
use crate::upstream::{
    AdminState, Anybody, Backend, BackendAddress, BackendId, BackendSettings, Balance, Check, HealthSettings, Lease,
    Timeouts,
};

fn at(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn settings(name: &str, check: Check, backends: &[(BackendAddress, u32)]) -> PoolSettings {
    let backends = backends.iter().map(|(address, weight)| BackendSettings {
        address: address.clone(),
        weight: NonZeroU32::new(*weight).unwrap(),
    });
    PoolSettings {
        name: name.into(),
        balance: Balance::named("least_connections").unwrap(),
        backends: backends.collect(),
        health: HealthSettings { check, ..HealthSettings::default() },
        retries: 2,
        timeouts: Timeouts::default(),
        ..PoolSettings::default()
    }
}

/// A pool of backends of weight 1 that nobody checks.
fn plain(name: &str, backends: impl IntoIterator<Item = u8>) -> PoolSettings {
    let backends: Vec<_> = backends.into_iter().map(|n| (BackendAddress::Socket(at(n)), 1)).collect();
    settings(name, Check::None, &backends)
}

fn names(pools: &[Arc<Pool>]) -> Vec<&str> {
    pools.iter().map(|pool| pool.name()).collect()
}

#[test]
fn a_pool_whose_settings_are_equal_stays_the_same() {
    let pools = Pools::new(vec![plain("a", [1]), plain("b", [1]), plain("c", [1])]);
    let before = pools.all();
    let prepared = pools.prepare(vec![plain("d", [1]), plain("c", [1]), plain("b", [2])]);
    assert!(prepared.iter().map(|pool| pools.contains(pool)).eq([false, true, false]));
    assert_eq!(names(&pools.all()), ["a", "b", "c"], "nothing has changed yet");
    let replaced = pools.replace(prepared);
    assert_eq!(names(&replaced), ["a", "b"]);
    assert_eq!(names(&pools.all()), ["d", "c", "b"]);
    assert!(Arc::ptr_eq(&before[2], &pools.named("c").unwrap()));
    assert!(pools.named("a").is_none());
    assert_eq!(names(&before), ["a", "b", "c"], "who looked before sees what was");
}

#[test]
fn pools_share_no_backends_across_names() {
    let pools = Pools::new(vec![plain("a", [1]), plain("b", [1])]);
    let [a, b] = ["a", "b"].map(|name| pools.named(name).unwrap().backends().remove(0));
    pools.replace(pools.prepare(vec![plain("b", [1])]));
    assert!(a.is_retired() && !b.is_retired());
}

#[test]
fn a_removed_pool_ends_its_requests_and_they_still_count() {
    let pools = Pools::new(vec![plain("a", [1]), plain("b", [1])]);
    let record = |pool: &Pool| pool.traffic().record(200, Duration::ZERO);
    let (a, b) = (pools.named("a").unwrap(), pools.named("b").unwrap());
    [&a, &b].into_iter().for_each(|pool| record(pool));
    let lease = a.lease(&[], &Anybody).unwrap();
    drop(pools.replace(pools.prepare(vec![plain("b", [2])])));
    assert_eq!(pools.requests(), 2);
    [&a, &b].into_iter().for_each(|pool| record(pool));
    assert_eq!((pools.requests(), lease.backend().in_flight()), (4, 1));
    drop((a, b));
    assert_eq!(pools.gone.lock().leaving.len(), 1);
    assert_eq!(pools.requests(), 4);
    assert_eq!(pools.gone.lock().leaving.len(), 0, "it is forgotten, what it counted is not");
    pools.replace(pools.prepare(vec![plain("a", [1])]));
    assert_eq!((pools.requests(), pools.named("a").unwrap().traffic().requests()), (4, 0));
}

#[test]
fn a_replaced_pool_is_freed_when_its_last_request_ends() {
    let pools = Pools::new(vec![plain("a", [1])]);
    let held = pools.named("a").unwrap();
    let replaced: Vec<_> = (2..50)
        .flat_map(|n| pools.replace(pools.prepare(vec![plain("a", [1, n])])))
        .map(|pool| Arc::downgrade(&pool))
        .collect();
    let alive = || replaced.iter().filter(|pool| pool.strong_count() > 0).count();
    assert_eq!((replaced.len(), alive()), (48, 1), "one that is held keeps no later one");
    drop(held);
    assert_eq!(alive(), 0);
}

#[test]
fn no_request_is_without_a_backend_while_pools_are_replaced() {
    let pools = Pools::new(vec![plain("a", [1])]);
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let pool = pools.named("a").unwrap();
                    let lease = pool.lease(&[], &Anybody).expect("there is always one that is ready");
                    pool.traffic().record(200, Duration::ZERO);
                    drop(lease);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (mut seen, mut round) = (0, 0_u8);
        // Until requests have met replacements, however slow this machine is.
        while round < 200 || served.load(Ordering::Relaxed) < 1000 {
            round = if round == 250 { 200 } else { round + 1 };
            // Wholly others each time.
            pools.replace(pools.prepare(vec![plain("a", [round, round + 1])]));
            let now = pools.requests();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(pools.requests(), served.into_inner());
    assert!(pools.all()[0].backends().iter().all(|backend| backend.in_flight() == 0));
}

/// What happens to the pools.
#[derive(Clone, Debug)]
enum Step {
    /// A reload that comes to the end, or one that is given up.
    Reload(Vec<PoolSettings>, bool),
    /// Something that a pool meets; which pool, and which of its backends, by number.
    Lease(usize),
    End(usize),
    Check(usize, usize, bool),
    Resolve(usize, Vec<u8>),
    Order(usize, usize, bool, u32),
}

fn any_settings() -> impl Strategy<Value = Vec<PoolSettings>> {
    let address = prop_oneof![
        (1_u8..6).prop_map(|n| BackendAddress::Socket(at(n))),
        (0_u16..2).prop_map(|n| BackendAddress::Name { host: format!("name-{n}"), port: 80 }),
    ];
    let backends = prop::collection::vec((address, 1_u32..4), 1..5);
    let check = prop_oneof![Just(Check::None), Just(Check::Tcp)];
    let pool = |name: &'static str| (check.clone(), backends.clone()).prop_map(move |(c, b)| settings(name, c, &b));
    (prop::option::weighted(0.9, pool("a")), prop::option::weighted(0.7, pool("b")))
        .prop_map(|(a, b)| a.into_iter().chain(b).collect())
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any_settings(), prop::bool::weighted(0.7)).prop_map(|(settings, done)| Step::Reload(settings, done)),
        3 => any::<usize>().prop_map(Step::Lease),
        2 => any::<usize>().prop_map(Step::End),
        2 => (any::<usize>(), any::<usize>(), any::<bool>()).prop_map(|(p, b, passed)| Step::Check(p, b, passed)),
        2 => (any::<usize>(), prop::collection::vec(1_u8..8, 0..3)).prop_map(|(p, found)| Step::Resolve(p, found)),
        1 => (any::<usize>(), any::<usize>(), any::<bool>(), 1_u32..9).prop_map(|(p, b, up, w)| Step::Order(p, b, up, w)),
    ]
}

/// The pools, those that were replaced and may still have requests, and what must be true of all of them.
struct World {
    pools: Pools,
    known: Vec<Arc<Pool>>,
    leases: Vec<Lease>,
    recorded: u64,
    /// Every backend there ever was, with the counters that it had.
    seen: BTreeMap<usize, (Arc<Backend>, [u64; 4], bool)>,
}

impl World {
    fn pool(&self, n: usize) -> Option<Arc<Pool>> {
        (!self.known.is_empty()).then(|| Arc::clone(&self.known[n % self.known.len()]))
    }

    fn backend(&self, pool: usize, n: usize) -> Option<(Arc<Pool>, Arc<Backend>)> {
        let pool = self.pool(pool)?;
        let backends = pool.backends();
        let backend = backends.get(n.checked_rem(backends.len())?)?;
        Some((Arc::clone(&pool), Arc::clone(backend)))
    }

    fn learn(&mut self, pools: &[Arc<Pool>]) {
        for pool in pools {
            if !self.known.iter().any(|known| Arc::ptr_eq(known, pool)) {
                self.known.push(Arc::clone(pool));
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reload(settings, done) => {
                let prepared = self.pools.prepare(settings);
                self.look(&prepared);
                if done {
                    self.learn(&prepared);
                    let before = self.pools.all();
                    let replaced = self.pools.replace(prepared);
                    assert!(
                        before
                            .iter()
                            .all(|pool| self.pools.contains(pool) != replaced.iter().any(|r| Arc::ptr_eq(r, pool)))
                    );
                }
            }
            Step::Lease(n) => {
                let Some(pool) = self.pool(n) else { return };
                self.leases.extend(pool.lease(&[], &Anybody));
                pool.traffic().record(200, Duration::ZERO);
                self.recorded += 1;
            }
            Step::End(n) if !self.leases.is_empty() => drop(self.leases.swap_remove(n % self.leases.len())),
            Step::End(_) => {}
            Step::Check(pool, n, passed) => {
                let Some((pool, backend)) = self.backend(pool, n) else { return };
                pool.checked(&backend, if passed { CheckOutcome::Passed } else { CheckOutcome::Failed("down".into()) });
            }
            Step::Resolve(pool, found) => {
                let Some(pool) = self.pool(pool) else { return };
                let is_name = |b: &BackendSettings| matches!(b.address, BackendAddress::Name { .. });
                let Some(index) = pool.settings().backends.iter().position(is_name) else { return };
                let found: Vec<_> = found.into_iter().map(at).collect();
                pool.expect(index, &found);
                pool.resolved(index, if found.is_empty() { Err("gone".into()) } else { Ok(found) });
            }
            Step::Order(pool, n, up, weight) => {
                let Some((pool, backend)) = self.backend(pool, n) else { return };
                let state = if up { AdminState::Up } else { AdminState::Drain };
                // Refused when its pool has been removed.
                let _ = pool.set_backend(backend.address(), Some(state), NonZeroU32::new(weight));
            }
        }
    }

    /// Whether everything holds, for the pools in service and `prepared` ones.
    fn look(&mut self, prepared: &[Arc<Pool>]) {
        let present = self.pools.all();
        let mut alive = BTreeSet::new();
        for pool in present.iter().chain(prepared) {
            let backends = pool.backends();
            let ids: BTreeSet<BackendId> = backends.iter().map(|backend| backend.id()).collect();
            let addresses: BTreeSet<SocketAddr> =
                backends.iter().map(|backend| backend.address().tcp().unwrap()).collect();
            assert_eq!((ids.len(), addresses.len()), (backends.len(), backends.len()), "one of each");
            for backend in backends {
                assert!(!backend.is_retired(), "{} of {}", backend.address(), pool.name());
                alive.insert(Arc::as_ptr(&backend) as usize);
                let counters = [0; 4];
                self.seen.entry(Arc::as_ptr(&backend) as usize).or_insert((backend, counters, false));
            }
        }
        for (key, (backend, counters, was_retired)) in &mut self.seen {
            let (up, down) = backend.transitions();
            let now = [backend.requests(), backend.failures(), up, down];
            assert!(now.iter().zip(&*counters).all(|(now, before)| now >= before), "{now:?} after {counters:?}");
            assert!(backend.is_retired() || !*was_retired, "who is retired stays so");
            assert!(backend.is_retired() || alive.contains(key), "who is in no pool is retired");
            (*counters, *was_retired) = (now, backend.is_retired());
            let held = self.leases.iter().filter(|lease| std::ptr::eq(lease.backend(), Arc::as_ptr(backend))).count();
            assert_eq!(backend.in_flight(), held);
        }
        assert_eq!(self.pools.requests(), self.recorded);
    }
}

proptest! {
    #[test]
    fn counters_ids_and_leases_are_right_whatever_happens(
        start in any_settings(),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let pools = Pools::new(start);
        let known = pools.all().to_vec();
        let mut world = World { pools, known, leases: Vec::new(), recorded: 0, seen: BTreeMap::new() };
        for step in steps {
            world.take(step);
            world.look(&[]);
        }
    }
}
