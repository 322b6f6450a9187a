use std::sync::atomic::{AtomicUsize, Ordering};

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use std::time::{Duration, Instant};

use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent};

use super::members::Members;
use super::random::Random;
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::upstream::health::Thresholds;
use crate::upstream::{Backend, BackendId, Lease};

pub(super) fn rule(name: &str) -> Balance {
    Balance::named(name).unwrap()
}

/// Backends of these weights at 127.0.0.1 and ports 1, 2, 3, ...
fn targets(weights: &[u32]) -> BTreeSet<Target> {
    let target = |(port, weight): (u16, &u32)| Target::new_with_weight(&format!("127.0.0.1:{port}"), *weight as usize);
    (1..).zip(weights).map(|one| target(one).unwrap()).collect()
}

/// A selector over backends of these weights, all up.
pub(super) fn selector(name: &str, weights: &[u32]) -> Arc<Selector> {
    selector_by(rule(name), weights)
}

fn selector_by(balance: Balance, weights: &[u32]) -> Arc<Selector> {
    let config = SelectorConfig { balance, ..SelectorConfig::default() };
    let selector = Selector::build_with_config(&targets(weights), &config);
    selector.now().backends().iter().for_each(|backend| set_up(backend, true));
    Arc::new(selector)
}

/// The same backends without a rule.
pub(super) fn members(weights: &[u32]) -> Members {
    let members = Members::new(&targets(weights), &Registry::default(), false, Duration::ZERO);
    members.backends.iter().for_each(|backend| set_up(backend, true));
    members
}

pub(super) fn set_up(backend: &Backend, up: bool) {
    backend.checked(up, Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN });
}

/// The next choice, as a pool makes it.
pub(super) fn lease(selector: &Arc<Selector>, tried: &[BackendId]) -> Option<Lease> {
    let mut candidates = selector.iter(b"");
    candidates.leave_out(tried);
    candidates.next()?;
    candidates.into_lease()
}

/// The same at `now`.
pub(super) fn lease_at(selector: &Arc<Selector>, now: Instant) -> Option<Lease> {
    let mut candidates = selector.iter(b"");
    candidates.at(now);
    candidates.next()?;
    candidates.into_lease()
}

/// Its port.
fn pick(selector: &Arc<Selector>, tried: &[BackendId]) -> Option<u16> {
    lease(selector, tried).map(|lease| lease.backend().address().tcp().unwrap().port())
}

fn picks(selector: &Arc<Selector>, count: usize) -> Vec<u16> {
    (0..count).map(|_| pick(selector, &[]).unwrap()).collect()
}

/// The ports that are offered to a request with this key, as Pingora would walk through them.
fn offered(selector: &Arc<Selector>, key: &[u8]) -> Vec<u16> {
    let mut candidates = selector.iter(key);
    std::iter::from_fn(|| candidates.next().map(|target| target.addr.as_inet().unwrap().port())).collect()
}

#[test]
fn round_robin_is_smooth() {
    assert_eq!(picks(&selector("round_robin", &[5, 1, 1]), 14), [1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1]);
}

#[test]
fn round_robin_keeps_the_order_of_the_file() {
    let config = SelectorConfig::default();
    let order = ["127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2"];
    for address in order {
        config.registry.backend(&address.parse().unwrap(), None);
    }
    let targets = order.iter().map(|address| Target::new(address).unwrap()).collect();
    let selector = Arc::new(Selector::build_with_config(&targets, &config));
    selector.now().backends().iter().for_each(|backend| set_up(backend, true));
    assert_eq!(picks(&selector, 3), [3, 1, 2]);
}

#[test]
fn round_robin_is_exact_over_each_cycle_under_64_callers() {
    let selector = selector("round_robin", &[5, 3, 1]);
    let counts: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..900 {
                    let port = pick(&selector, &[]).unwrap();
                    counts[usize::from(port) - 1].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let counts: Vec<_> = counts.into_iter().map(AtomicUsize::into_inner).collect();
    assert_eq!(counts, [64 * 500, 64 * 300, 64 * 100]);
}

#[test]
fn round_robin_keeps_the_weights_among_those_left() {
    let selector = selector("round_robin", &[5, 3, 1]);
    // The cycle that a change of the set cuts short may leave one choice over.
    let nearly = |chosen: &[u16], expected: [usize; 3]| {
        for (port, expected) in (1..).zip(expected) {
            let count = chosen.iter().filter(|&&chosen| chosen == port).count();
            assert!(count.abs_diff(expected) <= 1, "{port} was chosen {count} times instead of {expected}");
        }
    };
    picks(&selector, 4);
    set_up(&selector.now().backends()[0], false);
    nearly(&picks(&selector, 400), [0, 300, 100]);
    set_up(&selector.now().backends()[0], true);
    nearly(&picks(&selector, 900), [500, 300, 100]);
    let tried = [selector.now().backends()[1].id()];
    let chosen: Vec<_> = (0..600).map(|_| pick(&selector, &tried).unwrap()).collect();
    nearly(&chosen, [500, 0, 100]);
}

#[test]
fn random_is_weighted_and_uniform() {
    let weights = [1, 2, 3, 4];
    let members = members(&weights);
    let rule = Random::new(&members);
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let rolls = 100_000;
    let mut counts = [0_u32; 4];
    for _ in 0..rolls {
        counts[rule.pick(&members, &[], |total| random.u64(..total)).unwrap()] += 1;
    }
    let chi_square: f64 = counts
        .iter()
        .zip(weights)
        .map(|(&count, weight)| {
            let expected = f64::from(rolls) * f64::from(weight) / 10.0;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // 3 degrees of freedom: above 16.27 one time in a thousand.
    assert!(chi_square < 16.27, "chi-square {chi_square}, counts {counts:?}");
}

#[test]
fn random_gives_each_backend_exactly_its_part_of_the_range() {
    let members = members(&[1, 2, 3]);
    let rule = Random::new(&members);
    set_up(&members.backends[0], false);
    let chosen: Vec<_> = (0..5).map(|roll| rule.pick(&members, &[], |_| roll).unwrap()).collect();
    assert_eq!(chosen, [1, 1, 2, 2, 2]);
}

#[test]
fn least_connections_takes_the_emptiest_for_its_weight() {
    let selector = selector("least_connections", &[3, 1]);
    let leases: Vec<_> = (0..40).map(|_| lease(&selector, &[]).unwrap()).collect();
    let held: Vec<_> = selector.now().backends().iter().map(|backend| backend.in_flight()).collect();
    assert_eq!(held, [30, 10]);
    drop(leases);
    assert!(selector.now().backends().iter().all(|backend| backend.in_flight() == 0));
}

#[test]
fn least_connections_rotates_ties() {
    assert_eq!(picks(&selector("least_connections", &[1, 1, 1]), 6), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn least_connections_is_even_when_64_callers_come_at_once() {
    let selector = selector("least_connections", &[1, 1, 1, 1]);
    let leases: Vec<Vec<Lease>> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..64).map(|_| scope.spawn(|| (0..50).map(|_| lease(&selector, &[]).unwrap()).collect())).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(selector.now().backends().iter().all(|backend| backend.in_flight() == 64 * 50 / 4));
    drop(leases);
}

#[test]
fn every_rule_offers_each_ready_backend_once_and_no_other() {
    for balance in Balance::ALL.iter().copied().chain([CONSISTENT]) {
        let selector = selector_by(balance, &[7, 1, 1, 3]);
        set_up(&selector.now().backends()[2], false);
        for _ in 0..50 {
            let mut offered = offered(&selector, b"");
            offered.sort_unstable();
            assert_eq!(offered, [1, 2, 4], "{balance:?}");
        }
        let backends = selector.now().backends().to_vec();
        assert!(backends.iter().all(|backend| backend.in_flight() == 0), "an offer that is not taken holds nothing");
        let tried: Vec<_> = [0, 3].map(|place: usize| backends[place].id()).into();
        assert_eq!(pick(&selector, &tried), Some(2), "{balance:?}");
        backends.iter().for_each(|backend| set_up(backend, false));
        assert_eq!(pick(&selector, &[]), None, "{balance:?}");
    }
}

#[test]
fn a_selector_serves_pingoras_own_load_balancer() {
    use pingora_load_balancing::{Backends, LoadBalancer, discovery};
    let targets = (1..=3).map(|port| Target::new(&format!("127.0.0.1:{port}")).unwrap()).collect();
    let backends = Backends::new(discovery::Static::new(targets));
    let config = SelectorConfig::default();
    let balancer = LoadBalancer::<Selector>::from_backends_with_config(backends, Some(config.clone()));
    for port in 1..=3 {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        set_up(&config.registry.backend(&address, None), true);
    }
    // Static discovery is ready at once.
    let update = balancer.update();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(update).unwrap();
    let chosen: Vec<_> = (0..3).map(|_| balancer.select(b"", 8).unwrap().addr.as_inet().unwrap().port()).collect();
    assert_eq!(chosen, [1, 2, 3]);
}

/// A line for the table as it would be for a rule that was written for Pingora.
const CONSISTENT: Balance = Balance::of_pingora::<Consistent>("consistent", "Ketama", Needs::CALLER);

#[test]
fn a_rule_that_was_written_for_pingora_sees_the_key_and_only_those_that_are_left() {
    let weights = [1, 1, 2, 1];
    let selector = selector_by(CONSISTENT, &weights);
    let pingoras = Arc::new(Consistent::build(&targets(&weights)));
    let backends = selector.now().backends().to_vec();
    let mut chosen = BTreeSet::new();
    for key in (0..200).map(|number| format!("client-{number}")) {
        let first = pingoras.iter(key.as_bytes()).next().unwrap().addr.as_inet().unwrap().port();
        let order = offered(&selector, key.as_bytes());
        assert_eq!((order[0], order.len()), (first, 4), "{key}: {order:?}");
        set_up(&backends[usize::from(first) - 1], false);
        assert_eq!(offered(&selector, key.as_bytes()), order[1..], "{key}: the others are as they were");
        set_up(&backends[usize::from(first) - 1], true);
        chosen.insert(first);
    }
    assert_eq!(chosen.len(), 4, "all keys go to {chosen:?}");
}

#[test]
fn without_backends_there_is_no_choice() {
    for balance in Balance::ALL.iter().copied().chain([CONSISTENT]) {
        assert_eq!(pick(&selector_by(balance, &[]), &[]), None, "{balance:?}");
    }
}

#[test]
fn names_are_unique_and_lead_to_their_rules() {
    for rule in Balance::ALL {
        assert_eq!(Balance::named(rule.name()), Some(*rule));
        assert_eq!(Balance::ALL.iter().filter(|other| *other == rule).count(), 1, "{rule:?}");
    }
    assert_eq!(Balance::named("fastest"), None);
}

const MINUTE: Duration = Duration::from_secs(60);

/// How many of so many requests, one at a time, go to port 1.
fn to_first(selector: &Arc<Selector>, requests: usize, now: Instant) -> usize {
    let ports = (0..requests).map(|_| lease_at(selector, now).unwrap().backend().address().tcp().unwrap().port());
    ports.filter(|port| *port == 1).count()
}

#[test]
fn who_comes_back_starts_with_a_tenth_of_its_weight() {
    for name in ["round_robin", "random", "least_connections", "hash"] {
        let clock = ManualClock::new();
        let config = SelectorConfig { balance: rule(name), slow_start: MINUTE, ..SelectorConfig::default() };
        let selector = Arc::new(Selector::build_with_config(&targets(&[1, 1, 1]), &config));
        let first = Arc::clone(&selector.now().backends()[0]);
        selector.now().backends().iter().for_each(|backend| set_up(backend, true));
        // Seven standard deviations, where it is left to chance.
        let near = |found: usize, share: f64| (found as f64 / 6_000.0 - share).abs() < 0.04;
        assert!(near(to_first(&selector, 6_000, clock.now()), 1.0 / 3.0), "{name}: at the start all are as they are");
        set_up(&first, false);
        assert_eq!(to_first(&selector, 100, clock.now()), 0);
        set_up(&first, true);
        for percent in [10.0, 40.0, 70.0, 100.0, 100.0] {
            let (found, share) = (to_first(&selector, 6_000, clock.now()), percent / (200.0 + percent));
            assert!(near(found, share), "{name}: {found} of 6,000 at {percent} %");
            clock.advance(MINUTE / 3);
        }
    }
}

#[test]
fn where_all_are_new_none_waits_for_another_and_one_alone_gets_everything() {
    for balance in Balance::ALL {
        let clock = ManualClock::new();
        let config = SelectorConfig { balance: *balance, slow_start: MINUTE, ..SelectorConfig::default() };
        let selector = Arc::new(Selector::build_with_config(&targets(&[1, 2]), &config));
        let all = |up| selector.now().backends().iter().for_each(|backend| set_up(backend, up));
        all(true);
        assert!(to_first(&selector, 1, clock.now()) < 2);
        all(false);
        assert!(lease_at(&selector, clock.now()).is_none());
        all(true);
        let leases: Vec<_> = (0..300).map(|_| lease_at(&selector, clock.now()).unwrap()).collect();
        let first = selector.now().backends()[0].in_flight();
        assert!((60..=140).contains(&first), "{balance:?}: {first} of 300");
        drop(leases);
        set_up(&selector.now().backends()[1], false);
        assert_eq!(to_first(&selector, 10, clock.now()), 10, "{balance:?}");
    }
}

#[test]
fn least_connections_gives_who_comes_back_a_tenth_of_what_the_others_hold() {
    let clock = ManualClock::new();
    let config = SelectorConfig { balance: rule("least_connections"), slow_start: MINUTE, ..SelectorConfig::default() };
    let selector = Arc::new(Selector::build_with_config(&targets(&[1, 1, 1]), &config));
    selector.now().backends().iter().for_each(|backend| set_up(backend, true));
    let mut leases = vec![lease_at(&selector, clock.now()).unwrap()];
    set_up(&selector.now().backends()[0], false);
    leases.extend((0..200).map(|_| lease_at(&selector, clock.now()).unwrap()));
    leases.remove(0);
    set_up(&selector.now().backends()[0], true);
    leases.extend((0..20).map(|_| lease_at(&selector, clock.now()).unwrap()));
    let held = selector.now().backends()[0].in_flight();
    assert!((8..=11).contains(&held), "{held} beside a hundred each");
}

#[test]
fn a_token_goes_before_the_rule_unless_its_backend_cannot_have_the_request() {
    use crate::upstream::{Anybody, Check, HealthSettings, Pool, PoolSettings, Requester, StickyToken};
    struct Stuck(Option<StickyToken>);
    impl Requester for Stuck {
        fn now(&self) -> Instant {
            Anybody.now()
        }
        fn key(&self) -> impl AsRef<[u8]> {
            b""
        }
        fn stuck(&self) -> Option<StickyToken> {
            self.0
        }
    }
    let backends = (1..=3).map(|port| crate::upstream::BackendSettings {
        address: crate::upstream::BackendAddress::Socket(([127, 0, 0, 1], port).into()),
        weight: NonZeroU32::MIN,
    });
    for balance in Balance::ALL {
        let health = HealthSettings { check: Check::None, ..HealthSettings::default() };
        let (name, sticky) = ("app".to_owned(), Some("c".into()));
        let backends = backends.clone().collect();
        let settings = PoolSettings { name, balance: *balance, sticky, backends, health, ..PoolSettings::default() };
        let pool = Pool::new(settings);
        let first = pool.lease(&[], &Anybody).unwrap();
        let token = pool.token(&first).unwrap();
        let again = |tried: &[BackendId]| pool.lease(tried, &Stuck(Some(token))).unwrap().backend().id();
        let id = first.backend().id();
        assert!(pool.keeps(token) && (0..20).all(|_| again(&[]) == id), "{balance:?}");
        assert_ne!(again(&[id]), id, "{balance:?}: it has failed the request");
        first.backend().set_draining(true);
        assert!(!pool.keeps(token) && (0..20).all(|_| again(&[]) != id), "{balance:?}: it is drained");
        first.backend().set_draining(false);
        let unknown = StickyToken::parse(&[b'x'; 22]).unwrap();
        assert!(pool.lease(&[], &Stuck(Some(unknown))).is_some() && !pool.keeps(unknown), "{balance:?}");
        assert_eq!(again(&[]), id, "{balance:?}");
    }
}
