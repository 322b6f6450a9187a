use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::upstream::health::{CheckOutcome, HealthStatus};
use crate::upstream::pool::tests::pool as pool_of;
use crate::upstream::{Anybody, BackendState, Balance, Check, LastCheck, Lease};

const DRAIN: Option<AdminState> = Some(AdminState::Drain);
const UP: Option<AdminState> = Some(AdminState::Up);

/// A pool of backends at 10.0.0.1:80, 10.0.0.2:80, ..., of these weights, all up.
fn pool(rule: &str, weights: &[u32]) -> Pool {
    let addresses: Vec<_> = (1..=weights.len()).map(|n| at(n).to_string()).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut settings = pool_of(Check::None, &addresses).settings().clone();
    settings.balance = Balance::named(rule).unwrap();
    for (backend, weight) in settings.backends.iter_mut().zip(weights) {
        backend.weight = NonZeroU32::new(*weight).unwrap();
    }
    Pool::new(settings)
}

fn at(n: usize) -> SocketAddr {
    ([10, 0, 0, n as u8], 80).into()
}

fn weight(weight: u32) -> Option<NonZeroU32> {
    Some(NonZeroU32::new(weight).unwrap())
}

/// How many of so many leases each backend gets while all of them are held.
fn shares(pool: &Pool, leases: usize, backends: usize) -> Vec<usize> {
    let held: Vec<Lease> = (0..leases).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
    (1..=backends).map(|n| held.iter().filter(|lease| lease.backend().address().tcp() == Some(at(n))).count()).collect()
}

#[test]
fn a_draining_backend_gets_no_request_and_keeps_those_it_has() {
    for balance in Balance::ALL.iter().map(|rule| rule.name()) {
        let pool = pool(balance, &[1, 1, 1]);
        let held: Vec<_> = (0..30).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
        let seen = pool.set_backend(at(2), DRAIN, None).unwrap();
        assert_eq!((seen.state, seen.health), (BackendState::Drain, HealthStatus::Up));
        assert!(seen.in_flight > 0, "{balance:?}: it keeps what it has");
        assert_eq!(shares(&pool, 100, 3)[1], 0, "{balance:?}");
        drop(held);
        assert_eq!(pool.overview().backends[1].in_flight, 0);
        assert_eq!(pool.set_backend(at(2), UP, None).unwrap().state, BackendState::Up);
        assert!(shares(&pool, 100, 3)[1] > 0, "{balance:?}: it takes requests again");
    }
}

#[test]
fn a_retry_does_not_go_to_a_draining_backend() {
    for balance in Balance::ALL.iter().map(|rule| rule.name()) {
        let pool = pool(balance, &[1, 1, 1]);
        pool.set_backend(at(2), DRAIN, None).unwrap();
        let first = pool.lease(&[], &Anybody).unwrap().backend().id();
        let second = pool.lease(&[first], &Anybody).unwrap().backend().id();
        assert!(pool.lease(&[first, second], &Anybody).is_none(), "{balance:?}: only the draining one is left");
    }
}

#[test]
fn when_all_drain_there_is_none() {
    for balance in Balance::ALL.iter().map(|rule| rule.name()) {
        let pool = pool(balance, &[1, 2]);
        for n in [1, 2] {
            pool.set_backend(at(n), DRAIN, None).unwrap();
        }
        assert!(pool.lease(&[], &Anybody).is_none(), "{balance:?}");
    }
}

#[test]
fn another_weight_counts_from_the_next_choice() {
    for balance in ["round_robin", "least_connections"] {
        // The old weights are far apart, so whatever is left of them would show.
        let pool = pool(balance, &[65_535, 1]);
        assert!(shares(&pool, 100, 2)[0] >= 99, "{balance:?}");
        assert_eq!(pool.set_backend(at(1), None, weight(3)).unwrap().weight, 3);
        assert_eq!(shares(&pool, 100, 2), [75, 25], "{balance:?}");
        pool.set_backend(at(2), None, weight(7)).unwrap();
        assert_eq!(shares(&pool, 100, 2), [30, 70], "{balance:?}");
    }
    let pool = pool("random", &[65_535, 1]);
    pool.set_backend(at(1), None, weight(1)).unwrap();
    let share = shares(&pool, 1000, 2)[1];
    // 500 expected, deviation 16.
    assert!((400..=600).contains(&share), "{share} of 1000");
}

#[test]
fn requests_in_flight_survive_another_weight() {
    let pool = pool("least_connections", &[1, 1]);
    let held: Vec<_> = (0..10).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
    pool.set_backend(at(1), None, weight(4)).unwrap();
    let counts = |pool: &Pool| pool.overview().backends.iter().map(|b| (b.in_flight, b.requests)).collect::<Vec<_>>();
    assert_eq!(counts(&pool), [(5, 5), (5, 5)]);
    assert_eq!(shares(&pool, 15, 2), [15, 0], "four to one, those before counted");
    drop(held);
    assert_eq!(counts(&pool), [(0, 20), (0, 5)]);
}

#[test]
fn a_drain_and_a_weight_can_be_set_at_once_and_apart() {
    let pool = pool("round_robin", &[1, 1]);
    let seen = pool.set_backend(at(1), DRAIN, weight(9)).unwrap();
    assert_eq!((seen.state, seen.weight), (BackendState::Drain, 9));
    let seen = pool.set_backend(at(1), None, weight(5)).unwrap();
    assert_eq!((seen.state, seen.weight), (BackendState::Drain, 5), "the drain stays");
    let seen = pool.set_backend(at(1), UP, None).unwrap();
    assert_eq!((seen.state, seen.weight), (BackendState::Up, 5), "the weight stays");
    let before = pool.overview();
    pool.set_backend(at(1), None, None).unwrap();
    assert_eq!(pool.overview(), before);
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let pool = pool("round_robin", &[1, 1]);
    let before = pool.overview();
    let error = pool.set_backend(at(3), DRAIN, None).unwrap_err();
    assert_eq!(error.to_string(), "upstream app has no backend 10.0.0.3:80");
    let error = pool.set_backend(at(1), DRAIN, weight(65_536)).unwrap_err();
    assert_eq!(error.to_string(), "the weight must be a whole number from 1 to 65535, not 65536");
    assert_eq!(pool.overview(), before);
    assert!(pool.set_backend(at(1), None, weight(MAX_WEIGHT)).is_ok());
}

#[test]
fn health_and_drain_do_not_overrule_each_other() {
    let pool = pool_of(Check::Tcp, &["10.0.0.1:80"]);
    let backend = std::sync::Arc::clone(&pool.backends()[0]);
    let failed = || CheckOutcome::Failed("connection refused".into());
    let set = |state| pool.set_backend(at(1), state, None).unwrap().state;
    assert_eq!((set(DRAIN), set(UP)), (BackendState::Drain, BackendState::Unknown));
    set(DRAIN);
    pool.checked(&backend, CheckOutcome::Passed);
    assert!(pool.lease(&[], &Anybody).is_none(), "a check that passes does not end the drain");
    pool.checked(&backend, failed());
    pool.checked(&backend, failed());
    assert_eq!(backend.status(), HealthStatus::Down, "it goes on being checked");
    assert_eq!(set(UP), BackendState::Down);
    assert!(pool.lease(&[], &Anybody).is_none(), "the end of the drain does not bring it up");
    pool.checked(&backend, CheckOutcome::Passed);
    assert!(pool.lease(&[], &Anybody).is_some());
    (0..2).for_each(|_| pool.checked(&backend, failed()));
    assert_eq!(set(DRAIN), BackendState::Drain);
    assert_eq!(backend.transitions(), (2, 2), "by health, not by hand");
}

#[test]
fn what_was_set_survives_a_name_that_is_resolved_again() {
    for check in [Check::None, Check::Tcp] {
        let pool = pool_of(check, &["app.internal:80"]);
        // As the monitor does it: new addresses are checked before they take part.
        let resolve = |numbers: &[usize]| {
            let addresses: Vec<_> = numbers.iter().map(|n| at(*n)).collect();
            pool.expect(0, &addresses).iter().for_each(|backend| pool.checked(backend, CheckOutcome::Passed));
            pool.resolved(0, Ok(addresses));
        };
        let seen = |n: usize| {
            let backends = pool.overview().backends;
            let backend = backends.into_iter().find(|backend| backend.address == at(n).into()).unwrap();
            (backend.state, backend.weight)
        };
        resolve(&[1, 2]);
        pool.set_backend(at(1), DRAIN, weight(7)).unwrap();
        resolve(&[1, 3]);
        assert_eq!((seen(1), seen(3)), ((BackendState::Drain, 7), (BackendState::Up, 1)));
        assert_eq!(pool.lease(&[], &Anybody).unwrap().backend().address().tcp(), Some(at(3)));
        // Also when it was away.
        resolve(&[2, 3]);
        assert_eq!(seen(2), (BackendState::Up, 1));
        resolve(&[1, 2, 3]);
        assert_eq!(seen(1), (BackendState::Drain, 7));
        assert!((0..20).all(|_| pool.lease(&[], &Anybody).unwrap().backend().address().tcp() != Some(at(1))));
    }
}

#[test]
fn the_overview_tells_all_there_is() {
    let pool = pool_of(Check::Tcp, &["10.0.0.1:80", "app.internal:80", "gone.internal:81"]);
    pool.resolved(1, Ok(vec![at(1), at(2)]));
    let backends = pool.backends();
    let check = LastCheck {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        took: Duration::from_millis(3),
        outcome: CheckOutcome::Failed("connection refused".into()),
    };
    backends[0].set_last_check(check.clone());
    pool.checked(&backends[0], check.outcome.clone());
    pool.checked(&backends[1], CheckOutcome::Passed);
    let lease = pool.lease(&[], &Anybody).unwrap();
    pool.connect_failed(&lease, ManualClock::new().now(), "connection refused");
    pool.traffic().record(200, Duration::ZERO);
    pool.retried();
    let seen = pool.overview();
    assert_eq!((seen.name.as_str(), seen.balance, seen.requests, seen.retries), ("app", "round_robin", 1, 1));
    assert_eq!(seen.unresolved, ["gone.internal:81"]);
    let [first, second] = seen.backends.as_slice() else { panic!("{seen:?}") };
    assert_eq!((first.configured.as_str(), second.configured.as_str()), ("10.0.0.1:80", "app.internal:80"));
    assert_eq!((first.address.tcp(), second.address.tcp()), (Some(at(1)), Some(at(2))));
    assert_eq!((first.state.name(), second.state.name()), ("down", "up"));
    assert_eq!((first.last_check.as_ref(), second.last_check.as_ref()), (Some(&check), None));
    assert_eq!((check.passed(), check.error()), (Some(false), Some("connection refused")));
    assert_eq!((second.in_flight, second.requests, second.failures), (1, 1, 1));
    assert_eq!((first.went_up, first.went_down, second.went_up, second.went_down), (0, 1, 1, 0));
}
