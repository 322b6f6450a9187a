use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::upstream::Lease;
use crate::upstream::health::Thresholds;

/// A selector over backends of these weights, all up, at 127.0.0.1 and ports 1, 2, 3, ...
pub(super) fn selector(balance: Balance, weights: &[u32]) -> Arc<Selector> {
    let config = SelectorConfig { balance, registry: Arc::default() };
    let targets = (1..)
        .zip(weights)
        .map(|(port, weight)| Target::new_with_weight(&format!("127.0.0.1:{port}"), *weight as usize).unwrap());
    let selector = Selector::build_with_config(&targets.collect(), &config);
    selector.backends().iter().for_each(|backend| set_up(backend, true));
    Arc::new(selector)
}

pub(super) fn set_up(backend: &Backend, up: bool) {
    backend.checked(up, Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN });
}

/// The port of the next choice.
fn pick(selector: &Selector, tried: &[BackendId]) -> Option<u16> {
    selector.pick(tried, |backend| backend.address().port())
}

fn picks(selector: &Selector, count: usize) -> Vec<u16> {
    (0..count).map(|_| pick(selector, &[]).unwrap()).collect()
}

#[test]
fn round_robin_is_smooth() {
    assert_eq!(picks(&selector(Balance::RoundRobin, &[5, 1, 1]), 14), [1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1]);
}

#[test]
fn round_robin_keeps_the_order_of_the_file() {
    let config = SelectorConfig::default();
    let order = ["127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2"];
    for address in order {
        config.registry.backend(address.parse().unwrap());
    }
    let targets = order.iter().map(|address| Target::new(address).unwrap()).collect();
    let selector = Selector::build_with_config(&targets, &config);
    selector.backends().iter().for_each(|backend| set_up(backend, true));
    assert_eq!(picks(&selector, 3), [3, 1, 2]);
}

#[test]
fn round_robin_is_exact_over_each_cycle_under_64_callers() {
    let selector = selector(Balance::RoundRobin, &[5, 3, 1]);
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
    let selector = selector(Balance::RoundRobin, &[5, 3, 1]);
    // The cycle that a change of the set cuts short may leave one choice over.
    let nearly = |chosen: &[u16], expected: [usize; 3]| {
        for (port, expected) in (1..).zip(expected) {
            let count = chosen.iter().filter(|&&chosen| chosen == port).count();
            assert!(count.abs_diff(expected) <= 1, "{port} was chosen {count} times instead of {expected}");
        }
    };
    picks(&selector, 4);
    set_up(&selector.backends()[0], false);
    nearly(&picks(&selector, 400), [0, 300, 100]);
    set_up(&selector.backends()[0], true);
    nearly(&picks(&selector, 900), [500, 300, 100]);
    let tried = [selector.backends()[1].id()];
    let chosen: Vec<_> = (0..600).map(|_| pick(&selector, &tried).unwrap()).collect();
    nearly(&chosen, [500, 0, 100]);
}

#[test]
fn random_is_weighted_and_uniform() {
    let weights = [1, 2, 3, 4];
    let selector = selector(Balance::Random, &weights);
    let Selector::Random(rule) = selector.as_ref() else { panic!("another rule was built") };
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let rolls = 100_000;
    let mut counts = [0_u32; 4];
    for _ in 0..rolls {
        counts[rule.pick(&[], |total| random.u64(..total)).unwrap()] += 1;
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
    let selector = selector(Balance::Random, &[1, 2, 3]);
    let Selector::Random(rule) = selector.as_ref() else { panic!("another rule was built") };
    set_up(&selector.backends()[0], false);
    let chosen: Vec<_> = (0..5).map(|roll| rule.pick(&[], |_| roll).unwrap()).collect();
    assert_eq!(chosen, [1, 1, 2, 2, 2]);
}

#[test]
fn least_connections_takes_the_emptiest_for_its_weight() {
    let selector = selector(Balance::LeastConnections, &[3, 1]);
    let leases: Vec<_> = (0..40).map(|_| selector.pick(&[], Lease::new).unwrap()).collect();
    let held: Vec<_> = selector.backends().iter().map(|backend| backend.in_flight()).collect();
    assert_eq!(held, [30, 10]);
    drop(leases);
    assert!(selector.backends().iter().all(|backend| backend.in_flight() == 0));
}

#[test]
fn least_connections_rotates_ties() {
    assert_eq!(picks(&selector(Balance::LeastConnections, &[1, 1, 1]), 6), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn least_connections_is_even_when_64_callers_come_at_once() {
    let selector = selector(Balance::LeastConnections, &[1, 1, 1, 1]);
    let leases: Vec<Vec<Lease>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| (0..50).map(|_| selector.pick(&[], Lease::new).unwrap()).collect()))
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(selector.backends().iter().all(|backend| backend.in_flight() == 64 * 50 / 4));
    drop(leases);
}

#[test]
fn every_rule_offers_each_ready_backend_once_and_no_other() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConnections] {
        let selector = selector(balance, &[7, 1, 1, 3]);
        set_up(&selector.backends()[2], false);
        for _ in 0..50 {
            let mut candidates = selector.iter(b"");
            let mut offered: Vec<_> =
                std::iter::from_fn(|| candidates.next().map(|target| target.addr.as_inet().unwrap().port())).collect();
            offered.sort_unstable();
            assert_eq!(offered, [1, 2, 4], "{balance:?}");
        }
        selector.backends().iter().for_each(|backend| set_up(backend, false));
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
        set_up(&config.registry.backend(address), true);
    }
    // Static discovery is ready at once.
    let update = balancer.update();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(update).unwrap();
    let chosen: Vec<_> = (0..3).map(|_| balancer.select(b"", 8).unwrap().addr.as_inet().unwrap().port()).collect();
    assert_eq!(chosen, [1, 2, 3]);
}
