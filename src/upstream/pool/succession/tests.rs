use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::upstream::health::{CheckOutcome, HealthStatus, REST};
use crate::upstream::pool::tests::{pool as pool_of, refused};
use crate::upstream::{AdminState, Anybody, BackendState, Balance, Check, Pools, SetBackendError};

const DRAIN: Option<AdminState> = Some(AdminState::Drain);

/// Backends by what the file calls them, with their weights.
fn settings(check: Check, backends: &[(&str, u32)]) -> PoolSettings {
    let addresses: Vec<_> = backends.iter().map(|(address, _)| *address).collect();
    let mut settings = pool_of(check, &addresses).settings().clone();
    for (backend, (_, weight)) in settings.backends.iter_mut().zip(backends) {
        backend.weight = NonZeroU32::new(*weight).unwrap();
    }
    settings
}

fn at(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn backend(pool: &Pool, n: u8) -> Arc<Backend> {
    pool.backends().into_iter().find(|backend| backend.address().tcp() == Some(at(n))).unwrap()
}

/// The one pool there is.
fn only(pools: &Pools) -> Arc<Pool> {
    Arc::clone(&pools.all()[0])
}

fn prepare(pools: &Pools, settings: PoolSettings) -> Arc<Pool> {
    pools.prepare(vec![settings]).remove(0)
}

/// A reload whose first checks have not been.
fn reload(pools: &Pools, settings: PoolSettings) -> Arc<Pool> {
    pools.replace(pools.prepare(vec![settings]));
    only(pools)
}

fn weight(pool: &Pool, n: u8) -> u32 {
    pool.overview().backends.iter().find(|backend| backend.address == at(n).into()).unwrap().weight
}

fn order(pool: &Pool, n: u8, state: Option<AdminState>, weight: Option<u32>) {
    pool.set_backend(at(n), state, weight.and_then(NonZeroU32::new)).unwrap();
}

/// How many of so many choices go to the first backend.
fn share(pool: &Pool, of: usize) -> usize {
    (0..of).filter(|_| pool.lease(&[], &Anybody).unwrap().backend().address().tcp() == Some(at(1))).count()
}

fn failed() -> CheckOutcome {
    CheckOutcome::Failed("connection refused".into())
}

#[test]
fn what_is_known_of_a_backend_that_stays_goes_on() {
    let pools = Pools::new(vec![settings(Check::Tcp, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])]);
    let old = only(&pools);
    old.checked(&backend(&old, 1), failed());
    old.checked(&backend(&old, 2), CheckOutcome::Passed);
    let lease = old.lease(&[], &Anybody).unwrap();
    old.traffic().record(200, Duration::ZERO);
    old.retried();
    let new = reload(&pools, settings(Check::Tcp, &[("10.0.0.3:80", 1), ("10.0.0.2:80", 1), ("10.0.0.1:80", 1)]));
    assert!(!Arc::ptr_eq(&old, &new));
    let order: Vec<_> = new.backends().iter().map(|backend| backend.address().tcp().unwrap()).collect();
    assert_eq!(order, [at(3), at(2), at(1)], "as the file has them");
    assert_eq!((backend(&new, 1).status(), backend(&new, 3).status()), (HealthStatus::Down, HealthStatus::Unknown));
    assert_eq!(backend(&new, 2).in_flight(), 1);
    assert_eq!(new.lease(&[], &Anybody).unwrap().backend().address().tcp(), Some(at(2)), "it needs no new check");
    drop(lease);
    assert_eq!((backend(&new, 2).in_flight(), backend(&new, 2).requests()), (0, 2));
    // A request that is still with the old pool counts for both.
    old.traffic().record(200, Duration::ZERO);
    old.retried();
    assert_eq!((new.overview().requests, new.overview().retries), (2, 2));
}

#[test]
fn a_backend_that_goes_ends_its_requests_and_comes_back_as_unknown() {
    let both = settings(Check::Tcp, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]);
    let pools = Pools::new(vec![both.clone()]);
    let old = only(&pools);
    old.backends().iter().for_each(|backend| old.checked(backend, CheckOutcome::Passed));
    order(&old, 1, DRAIN, Some(9));
    order(&old, 1, Some(AdminState::Up), None);
    let gone = backend(&old, 1);
    let lease = old.lease(&[backend(&old, 2).id()], &Anybody).unwrap();
    let new = reload(&pools, settings(Check::Tcp, &[("10.0.0.2:80", 1)]));
    assert!(gone.is_retired() && !backend(&new, 2).is_retired());
    assert_eq!(gone.in_flight(), 1);
    assert_eq!(new.lease(&[], &Anybody).unwrap().backend().address().tcp(), Some(at(2)));
    let back = reload(&pools, both);
    let returned = backend(&back, 1);
    assert_eq!((returned.status(), returned.requests(), weight(&back, 1)), (HealthStatus::Unknown, 0, 1));
    assert!(returned.id() != gone.id() && gone.is_retired() && !returned.is_retired());
    drop(lease);
    assert_eq!(gone.in_flight(), 0);
}

#[test]
fn each_pool_keeps_to_its_own_weights() {
    for &balance in Balance::ALL {
        let with = |weights: [u32; 2]| {
            let backends = [("10.0.0.1:80", weights[0]), ("10.0.0.2:80", weights[1])];
            PoolSettings { balance, ..settings(Check::None, &backends) }
        };
        let held = |pool: &Pool| {
            let leases: Vec<_> = (0..400).map(|_| pool.lease(&[], &Anybody).unwrap()).collect();
            leases.iter().filter(|lease| lease.backend().address().tcp() == Some(at(1))).count()
        };
        let pools = Pools::new(vec![with([3, 1])]);
        let (old, new) = (only(&pools), prepare(&pools, with([1, 3])));
        // At random: 300 and 100 expected, deviation 9.
        let close = |count: usize, expected: usize| match balance.name() {
            "random" => count.abs_diff(expected) < 60,
            // Nothing is known of how soon they answer; and no more than one too many by the bound.
            "least_time" | "hash" => count.abs_diff(expected) < 60,
            _ => count == expected,
        };
        assert!(close(held(&old), 300), "{balance:?}: nothing has changed yet");
        pools.replace(vec![Arc::clone(&new)]);
        assert!(close(held(&new), 100) && close(held(&old), 300), "{balance:?}");
        assert_eq!((weight(&old, 1), weight(&new, 1)), (3, 1), "{balance:?}");
    }
}

#[test]
fn orders_hold_unless_the_file_has_another_weight() {
    let file = |weight| settings(Check::None, &[("10.0.0.1:80", weight), ("10.0.0.2:80", 1)]);
    let with_retries = |weight, retries| PoolSettings { retries, ..file(weight) };
    let pools = Pools::new(vec![file(1)]);
    order(&only(&pools), 1, DRAIN, Some(5));
    let new = reload(&pools, with_retries(1, 7));
    assert_eq!((backend(&new, 1).state(), weight(&new, 1)), (BackendState::Drain, 5));
    assert_eq!(share(&new, 20), 0);
    // The file's new weight counts, and the old order does not come back with the old weight.
    let new = reload(&pools, file(2));
    assert_eq!((backend(&new, 1).state(), weight(&new, 1)), (BackendState::Drain, 2), "the drain is another order");
    let new = reload(&pools, file(1));
    assert_eq!(weight(&new, 1), 1);
    order(&new, 1, Some(AdminState::Up), Some(4));
    assert_eq!(share(&reload(&pools, with_retries(1, 8)), 20), 16);
}

#[test]
fn an_order_during_a_reload_is_not_lost() {
    let file = |retries| PoolSettings { retries, ..settings(Check::None, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]) };
    let pools = Pools::new(vec![file(1)]);
    let (old, new) = (only(&pools), prepare(&pools, file(2)));
    order(&old, 1, None, Some(3));
    order(&old, 2, DRAIN, None);
    pools.replace(vec![Arc::clone(&new)]);
    assert_eq!((weight(&new, 1), backend(&new, 2).state()), (3, BackendState::Drain));
    // Whoever still has the old pool orders for the new one, also over several reloads.
    let newest = reload(&pools, file(3));
    order(&old, 2, Some(AdminState::Up), Some(9));
    assert_eq!((weight(&newest, 2), backend(&newest, 2).state()), (9, BackendState::Up));
    pools.replace(Vec::new());
    let error = old.set_backend(at(1), DRAIN, None).unwrap_err();
    assert_eq!(error, SetBackendError::NoSuchBackend { pool: "app".into(), address: at(1).into() });
}

#[test]
fn a_name_has_its_addresses_and_its_orders_at_once() {
    let file = |retries, weight| PoolSettings {
        retries,
        ..settings(Check::None, &[("app.internal:80", weight), ("10.0.0.9:80", 1)])
    };
    let pools = Pools::new(vec![file(1, 1)]);
    let old = only(&pools);
    old.resolved(0, Ok(vec![at(1), at(2), at(3)]));
    order(&old, 3, DRAIN, Some(6));
    order(&old, 2, None, Some(6));
    old.resolved(0, Ok(vec![at(1), at(2)]));
    old.resolved(0, Err("no such name".into()));
    let new = reload(&pools, file(2, 1));
    assert!(!new.awaits_address() && new.is_failing());
    assert!(Arc::ptr_eq(&backend(&old, 1), &backend(&new, 1)) && !backend(&new, 1).is_retired());
    // The name comes back to an address that it had left before the reload.
    new.resolved(0, Ok(vec![at(2), at(3)]));
    assert_eq!((backend(&new, 3).state(), weight(&new, 3), weight(&new, 2)), (BackendState::Drain, 6, 6));
    let new = reload(&pools, file(2, 4));
    assert_eq!((weight(&new, 2), weight(&new, 3)), (4, 4));
    // A name that the file puts in the place of another one starts without addresses.
    let new = reload(&pools, settings(Check::None, &[("other.internal:80", 1)]));
    assert!(new.awaits_address() && new.backends().is_empty());
}

#[test]
fn a_backend_stays_whether_the_file_calls_it_by_name_or_by_address() {
    let pools = Pools::new(vec![settings(Check::None, &[("app.internal:80", 2)])]);
    let old = only(&pools);
    old.resolved(0, Ok(vec![at(1)]));
    order(&old, 1, DRAIN, Some(7));
    let new = reload(&pools, settings(Check::None, &[("10.0.0.1:80", 2)]));
    assert!(Arc::ptr_eq(&backend(&old, 1), &backend(&new, 1)));
    assert_eq!((backend(&new, 1).state(), weight(&new, 1)), (BackendState::Drain, 7));
}

#[test]
fn names_of_both_pools_disturb_neither() {
    let file = |retries| PoolSettings { retries, ..settings(Check::None, &[("app.internal:80", 1)]) };
    let pools = Pools::new(vec![file(1)]);
    let old = only(&pools);
    old.resolved(0, Ok(vec![at(1), at(2)]));
    let (first, second) = (backend(&old, 1), backend(&old, 2));
    let new = prepare(&pools, file(2));
    old.resolved(0, Ok(vec![at(1), at(3)]));
    assert!(!second.is_retired(), "the successor has it");
    new.resolved(0, Ok(vec![at(2), at(3)]));
    assert!(!first.is_retired(), "the old one has it");
    assert!(Arc::ptr_eq(&backend(&old, 3), &backend(&new, 3)));
    pools.replace(vec![Arc::clone(&new)]);
    assert!(first.is_retired() && !second.is_retired());
    // A look-up of the old one that ends late tells nothing.
    old.resolved(0, Ok(vec![at(4)]));
    assert!(old.expect(0, &[at(5)]).is_empty());
    assert!(new.backends().iter().all(|backend| !backend.is_retired()) && new.backends().len() == 2);
}

#[test]
fn checks_of_a_prepared_pool_count_once_it_serves() {
    let file = |unhealthy: u32| {
        let mut settings = settings(Check::Tcp, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)]);
        settings.health.unhealthy_threshold = NonZeroU32::new(unhealthy).unwrap();
        settings
    };
    let pools = Pools::new(vec![file(2)]);
    let old = only(&pools);
    (1..=2).for_each(|n| old.checked(&backend(&old, n), CheckOutcome::Passed));
    let new = prepare(&pools, file(1));
    (1..=2).for_each(|_| new.checked(&backend(&new, 1), failed()));
    new.checked(&backend(&new, 2), failed());
    new.checked(&backend(&new, 3), CheckOutcome::Passed);
    let statuses = || [1, 2, 3].map(|n| backend(&old, n).status());
    assert_eq!(statuses(), [HealthStatus::Up; 3], "of the third nothing was known");
    // Meanwhile requests find out of themselves that the second is down, and a check that it is up.
    let now = ManualClock::new().now();
    (0..3).for_each(|_| refused(&old, &backend(&old, 2), now));
    pools.replace(vec![Arc::clone(&new)]);
    assert_eq!(statuses(), [HealthStatus::Down, HealthStatus::Down, HealthStatus::Up]);
    assert_eq!([1, 2, 3].map(|n| backend(&new, n).transitions()), [(1, 1), (1, 1), (1, 0)], "each counted once");
    // Checks of the old pool that end late count no more.
    old.checked(&backend(&old, 1), CheckOutcome::Passed);
    assert_eq!(backend(&new, 1).status(), HealthStatus::Down);
    new.checked(&backend(&new, 1), CheckOutcome::Passed);
    assert_eq!(backend(&new, 1).status(), HealthStatus::Up);
}

#[test]
fn what_a_prepared_pool_heard_before_a_change_is_void() {
    let file = |unhealthy: u32| {
        let mut settings = settings(Check::Tcp, &[("10.0.0.1:80", 1)]);
        settings.health.unhealthy_threshold = NonZeroU32::new(unhealthy).unwrap();
        settings
    };
    for (first, heard) in [(failed(), CheckOutcome::Passed), (CheckOutcome::Passed, failed())] {
        let pools = Pools::new(vec![file(2)]);
        let old = only(&pools);
        let known = backend(&old, 1);
        old.checked(&known, first);
        let new = prepare(&pools, file(1));
        new.checked(&known, heard);
        // There and back.
        let fails = || (0..2).for_each(|_| old.checked(&known, failed()));
        let was_up = known.status() == HealthStatus::Up;
        if was_up {
            fails();
        }
        old.checked(&known, CheckOutcome::Passed);
        if !was_up {
            fails();
        }
        let before = (known.status(), known.transitions());
        assert_eq!(known.status() == HealthStatus::Up, was_up);
        pools.replace(vec![new]);
        assert_eq!((known.status(), known.transitions()), before);
    }
}

#[test]
fn checks_can_be_switched_off_and_on() {
    let (clock, address) = (ManualClock::new(), "10.0.0.1:80");
    let pools = Pools::new(vec![settings(Check::Tcp, &[(address, 1), ("10.0.0.2:80", 1)])]);
    let old = only(&pools);
    let (down, unknown) = (backend(&old, 1), backend(&old, 2));
    old.checked(&down, failed());
    let new = prepare(&pools, settings(Check::None, &[(address, 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)]));
    new.end_rests(clock.now());
    assert_eq!(unknown.status(), HealthStatus::Unknown, "the old pool serves, and has not checked it");
    pools.replace(vec![Arc::clone(&new)]);
    assert_eq!((unknown.status(), backend(&new, 3).status()), (HealthStatus::Up, HealthStatus::Up));
    assert_eq!(down.status(), HealthStatus::Down, "it is not up because nobody looks any more");
    new.end_rests(clock.now());
    clock.advance(REST);
    new.end_rests(clock.now());
    assert_eq!(down.status(), HealthStatus::Up, "but it is tried again");

    let checked = reload(&pools, settings(Check::Tcp, &[(address, 1), ("10.0.0.2:80", 1)]));
    assert_eq!(down.status(), HealthStatus::Up, "until a check says otherwise");
    (0..3).for_each(|_| refused(&checked, &down, clock.now()));
    clock.advance(REST);
    new.end_rests(clock.now());
    assert_eq!(down.status(), HealthStatus::Down, "now only a check brings it back");
    checked.checked(&down, CheckOutcome::Passed);
    assert_eq!(down.status(), HealthStatus::Up);
}

#[test]
fn a_prepared_pool_that_is_thrown_away_leaves_no_trace() {
    let pools = Pools::new(vec![settings(Check::None, &[("10.0.0.1:80", 2), ("10.0.0.2:80", 1)])]);
    let old = only(&pools);
    order(&old, 2, DRAIN, None);
    let before = old.overview();
    let new = prepare(&pools, settings(Check::Tcp, &[("10.0.0.1:80", 1), ("10.0.0.3:80", 1)]));
    let added = backend(&new, 3);
    new.checked(&backend(&new, 1), failed());
    new.checked(&backend(&new, 1), failed());
    assert!(!added.is_retired());
    drop(new);
    assert_eq!(old.overview(), before);
    assert!(added.is_retired() && old.backends().iter().all(|backend| !backend.is_retired()));
    let again = prepare(&pools, settings(Check::Tcp, &[("10.0.0.3:80", 1)]));
    assert_ne!(backend(&again, 3).id(), added.id());
}

#[test]
fn the_event_log_says_which_came_and_which_went() {
    let old = pool_of(Check::None, &["10.0.0.1:80", "10.0.0.2:80"]);
    let new = pool_of(Check::None, &["10.0.0.2:80", "10.0.0.3:80"]);
    let _leases = [(); 6].map(|()| old.lease(&[], &Anybody).unwrap());
    assert_eq!(
        membership("app", &old.backends(), &new.backends()),
        ["upstream app: backend 10.0.0.1:80 removed; requests in flight: 3", "upstream app: backend 10.0.0.3:80 added"]
    );
    assert!(membership("app", &new.backends(), &new.backends()).is_empty());
}
