use std::num::NonZeroU32;

use pingora_load_balancing::selection::Consistent;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::upstream::{AdminState, Anybody, BackendAddress, BackendSettings, Balance, HealthSettings, Needs};

pub(super) fn pool(check: Check, addresses: &[&str]) -> Pool {
    let backends = addresses
        .iter()
        .map(|address| {
            let address = address.parse().map(BackendAddress::Socket).unwrap_or_else(|_| {
                let (host, port) = address.split_once(':').unwrap();
                BackendAddress::Name { host: host.to_owned(), port: port.parse().unwrap() }
            });
            BackendSettings { address, weight: NonZeroU32::MIN }
        })
        .collect();
    Pool::new(PoolSettings {
        name: "app".into(),
        backends,
        health: HealthSettings { check, ..HealthSettings::default() },
        ..PoolSettings::default()
    })
}

/// A request could not connect to `backend`, and it began to after all others had come to nothing.
pub(super) fn refused(pool: &Pool, backend: &Arc<Backend>, now: Instant) {
    pool.connect_failed(&Lease::new(backend), now, "connection refused");
}

fn addresses(pool: &Pool) -> Vec<String> {
    pool.backends().iter().map(|backend| backend.address().to_string()).collect()
}

#[test]
fn no_request_goes_to_a_backend_before_its_first_check() {
    let pool = pool(Check::Tcp, &["127.0.0.1:1", "127.0.0.1:2"]);
    assert!(pool.lease(&[], &Anybody).is_none());
    pool.checked(&pool.backends()[1], CheckOutcome::Passed);
    assert_eq!(pool.lease(&[], &Anybody).unwrap().backend().address().tcp().unwrap().port(), 2);
}

#[test]
fn a_check_that_could_not_be_done_changes_nothing() {
    let pool = pool(Check::Tcp, &["127.0.0.1:1"]);
    let backend = Arc::clone(&pool.backends()[0]);
    pool.checked(&backend, CheckOutcome::NotDone("no descriptors".into()));
    assert_eq!(backend.status(), HealthStatus::Unknown);
    pool.checked(&backend, CheckOutcome::Passed);
    (0..10).for_each(|_| pool.checked(&backend, CheckOutcome::NotDone("no descriptors".into())));
    assert_eq!(backend.status(), HealthStatus::Up);
}

#[test]
fn without_checks_backends_are_up_at_once_rest_and_come_back() {
    let clock = ManualClock::new();
    let pool = pool(Check::None, &["127.0.0.1:1", "127.0.0.1:2"]);
    let (backend, other) = (Arc::clone(&pool.backends()[0]), pool.backends()[1].id());
    for _ in 0..CONNECT_FAILURES {
        assert!(pool.lease(&[other], &Anybody).is_some());
        refused(&pool, &backend, clock.now());
    }
    assert!(pool.lease(&[other], &Anybody).is_none());
    clock.advance(REST / 2);
    pool.end_rests(clock.now());
    assert!(pool.lease(&[other], &Anybody).is_none());
    clock.advance(REST / 2);
    pool.end_rests(clock.now());
    assert!(pool.lease(&[other], &Anybody).is_some());
}

#[test]
fn failures_to_connect_never_take_out_the_last_backend_that_is_ready() {
    let now = ManualClock::new().now();
    let pool = pool(Check::Tcp, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
    let backends = pool.backends();
    let fails = |n: usize| (0..2 * CONNECT_FAILURES).for_each(|_| refused(&pool, &backends[n], now));
    let ready = || backends.iter().map(|backend| backend.is_ready()).collect::<Vec<_>>();
    backends[..3].iter().for_each(|backend| pool.checked(backend, CheckOutcome::Passed));
    fails(0);
    assert_eq!(ready(), [false, true, true, false]);
    // Neither one that drains nor one of which nothing is known stands in for it.
    pool.set_backend(backends[2].address(), Some(crate::upstream::AdminState::Drain), None).unwrap();
    fails(1);
    assert_eq!(ready(), [false, true, false, false]);
    // One that drains may be down: it gets no requests anyway.
    fails(2);
    assert_eq!(backends[2].status(), HealthStatus::Down);
    // A check is believed all the same, and once another one is back nothing keeps it in.
    pool.checked(&backends[0], CheckOutcome::Passed);
    refused(&pool, &backends[1], now);
    assert_eq!(ready(), [true, false, false, false]);
    (0..2).for_each(|_| pool.checked(&backends[0], CheckOutcome::Failed("503".into())));
    assert_eq!(ready(), [false; 4]);
}

#[test]
fn of_backends_that_fail_at_the_same_moment_one_stays() {
    let now = ManualClock::new().now();
    for _ in 0..200 {
        let pool = pool(Check::None, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let backends = pool.backends();
        let start = std::sync::Barrier::new(backends.len());
        std::thread::scope(|scope| {
            for backend in &backends {
                let (pool, start) = (&pool, &start);
                scope.spawn(move || {
                    (1..CONNECT_FAILURES).for_each(|_| refused(pool, backend, now));
                    start.wait();
                    refused(pool, backend, now);
                });
            }
        });
        assert_eq!(backends.iter().filter(|backend| backend.is_ready()).count(), 1);
    }
}

/// A request that counts what it is asked: the time, its key, its token.
#[derive(Default)]
struct Asked<'k> {
    key: &'k str,
    counts: [AtomicU64; 3],
}

impl Asked<'_> {
    fn count(&self) -> [u64; 3] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Requester for Asked<'_> {
    fn now(&self) -> Instant {
        self.counts[0].fetch_add(1, Ordering::Relaxed);
        ManualClock::new().now()
    }

    fn key(&self) -> impl AsRef<[u8]> {
        self.counts[1].fetch_add(1, Ordering::Relaxed);
        self.key
    }

    fn stuck(&self) -> Option<StickyToken> {
        self.counts[2].fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[test]
fn only_a_rule_that_needs_it_is_told_who_sends_a_request() {
    let of = |balance| {
        let pool = pool(Check::None, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        Pool::new(PoolSettings { balance, ..pool.settings().clone() })
    };
    for rule in Balance::ALL {
        let asked = Asked { key: "a", ..Asked::default() };
        assert!(of(*rule).lease(&[], &asked).is_some());
        let needs = rule.needs();
        assert_eq!(asked.count(), [u64::from(needs.time), u64::from(needs.caller), 0], "{rule:?}");
    }
    let asked = Asked::default();
    let settings = of(Balance::default()).settings().clone();
    let sticky = Pool::new(PoolSettings { sticky: Some("c".into()), slow_start: REST, ..settings });
    assert!(sticky.lease(&[], &asked).is_some());
    assert_eq!(asked.count(), [1, 0, 1]);
    let pool = of(Balance::of_pingora::<Consistent>("consistent", "Ketama", Needs::CALLER));
    let (backends, mut firsts) = (pool.backends(), Vec::new());
    for caller in (0..100).map(|number| format!("client-{number}")) {
        let lease = |tried: &[BackendId]| {
            pool.lease(tried, &Asked { key: &caller, ..Asked::default() }).map(|lease| lease.backend().id())
        };
        let first = lease(&[]).unwrap();
        assert_eq!(lease(&[]), Some(first), "{caller}");
        let second = lease(&[first]).unwrap();
        let third = lease(&[first, second]).unwrap();
        assert_eq!(lease(&[first, second, third]), None, "{caller}");
        let backend = backends.iter().find(|backend| backend.id() == first).unwrap();
        pool.set_backend(backend.address(), Some(AdminState::Drain), None).unwrap();
        assert_eq!(lease(&[]), Some(second), "{caller}");
        pool.set_backend(backend.address(), Some(AdminState::Up), None).unwrap();
        firsts.push(first);
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 3, "not all have the same one");
}

#[test]
fn requests_that_fail_to_connect_together_take_nobody_out() {
    let now = ManualClock::new().now();
    let pool = pool(Check::None, &["10.0.0.1:80", "10.0.0.2:80"]);
    let leases: Vec<_> = (0..9_000).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
    leases.iter().for_each(|lease| pool.connect_failed(lease, now, "connecting timed out"));
    assert!(pool.backends().iter().all(|backend| backend.is_ready() && backend.failures() == 4_500));
    (1..CONNECT_FAILURES).for_each(|_| refused(&pool, &pool.backends()[0], now));
    assert!(!pool.backends()[0].is_ready(), "one after the other is a row");
}

#[test]
fn a_request_of_an_earlier_pool_does_not_take_out_the_last_one_of_the_present() {
    let now = ManualClock::new().now();
    let settings = |addresses| pool(Check::None, addresses).settings().clone();
    let pools = crate::upstream::Pools::new(vec![settings(&["10.0.0.1:80", "10.0.0.2:80"])]);
    let old = Arc::clone(&pools.all()[0]);
    let stays = Arc::clone(&old.backends()[0]);
    pools.replace(pools.prepare(vec![settings(&["10.0.0.1:80"])]));
    (0..9).for_each(|_| refused(&old, &stays, now));
    assert!(stays.is_ready() && pools.all()[0].lease(&[], &Anybody).is_some());
}

#[test]
fn a_success_between_failures_starts_the_count_anew() {
    let now = ManualClock::new().now();
    let pool = pool(Check::None, &["127.0.0.1:1", "127.0.0.1:2"]);
    let backend = Arc::clone(&pool.backends()[0]);
    for _ in 0..10 {
        (1..CONNECT_FAILURES).for_each(|_| refused(&pool, &backend, now));
        backend.connected();
    }
    assert!(backend.is_ready());
}

#[test]
fn a_lease_counts_for_as_long_as_it_lives() {
    let pool = pool(Check::None, &["127.0.0.1:1"]);
    let leases: Vec<_> = (0..5).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
    assert_eq!(pool.backends()[0].in_flight(), 5);
    drop(leases);
    assert_eq!(pool.backends()[0].in_flight(), 0);
}

#[test]
fn a_name_with_several_addresses_is_several_backends() {
    let pool = pool(Check::None, &["app.internal:80", "10.0.0.9:80"]);
    assert!(pool.awaits_address());
    pool.resolved(0, Ok(vec!["10.0.0.2:80".parse().unwrap(), "10.0.0.1:80".parse().unwrap()]));
    assert_eq!(addresses(&pool), ["10.0.0.9:80", "10.0.0.1:80", "10.0.0.2:80"]);
    assert!(!pool.awaits_address());
}

#[test]
fn backends_that_stay_keep_their_counts_and_those_that_go_are_retired() {
    let pool = pool(Check::None, &["app.internal:80"]);
    let address = |text: &str| text.parse().unwrap();
    pool.resolved(0, Ok(vec![address("10.0.0.1:80"), address("10.0.0.2:80")]));
    let before = pool.backends();
    let lease = pool.lease(&[before[1].id()], &Anybody).unwrap();
    pool.resolved(0, Ok(vec![address("10.0.0.1:80"), address("10.0.0.3:80")]));
    assert_eq!(addresses(&pool), ["10.0.0.1:80", "10.0.0.3:80"]);
    assert_eq!(pool.backends()[0].in_flight(), 1, "it stayed, and so did its request");
    assert!(before[1].is_retired() && !before[0].is_retired());
    drop(lease);
    assert_eq!(pool.backends()[0].in_flight(), 0);
}

#[test]
fn a_name_that_stops_resolving_keeps_its_last_addresses() {
    let pool = pool(Check::None, &["app.internal:80"]);
    pool.resolved(0, Ok(vec!["10.0.0.1:80".parse().unwrap()]));
    pool.resolved(0, Err("no such name".into()));
    pool.resolved(0, Err("no such name".into()));
    assert_eq!(addresses(&pool), ["10.0.0.1:80"]);
    assert!(!pool.awaits_address());
}

#[test]
fn a_new_address_is_checked_before_it_takes_part() {
    let pool = pool(Check::Tcp, &["app.internal:80", "other.internal:80"]);
    let (old, new) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    pool.resolved(0, Ok(vec![old]));
    pool.checked(&pool.backends()[0], CheckOutcome::Passed);
    let coming = pool.expect(0, &[new]);
    assert_eq!(coming.len(), 1);
    assert_eq!(
        pool.lease(&[], &Anybody).unwrap().backend().address().tcp(),
        Some(old),
        "the old one serves until then"
    );
    pool.resolved(1, Ok(vec!["10.0.0.9:80".parse().unwrap()]));
    pool.checked(&coming[0], CheckOutcome::Passed);
    pool.resolved(0, Ok(vec![new]));
    assert_eq!(
        pool.lease(&[], &Anybody).unwrap().backend().address().tcp(),
        Some(new),
        "and the new one from the first moment"
    );
}

#[test]
fn a_name_that_comes_to_an_address_in_use_disturbs_nobody() {
    let mut settings = pool(Check::Tcp, &["a.internal:80", "b.internal:80"]).settings().clone();
    settings.backends[1].weight = NonZeroU32::new(5).unwrap();
    let pool = Pool::new(settings);
    let address = "10.0.0.1:80".parse().unwrap();
    pool.resolved(0, Ok(vec![address]));
    let backend = Arc::clone(&pool.backends()[0]);
    pool.checked(&backend, CheckOutcome::Passed);
    assert!(pool.expect(1, &[address]).is_empty());
    pool.resolved(1, Ok(vec![address]));
    assert!(pool.lease(&[], &Anybody).is_some() && !backend.is_retired());
}

#[test]
fn an_address_that_two_names_share_is_one_backend() {
    let pool = pool(Check::None, &["a.internal:80", "b.internal:80"]);
    pool.resolved(0, Ok(vec!["10.0.0.1:80".parse().unwrap()]));
    pool.resolved(1, Ok(vec!["10.0.0.1:80".parse().unwrap()]));
    assert_eq!(addresses(&pool), ["10.0.0.1:80"]);
}
