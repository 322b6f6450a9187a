//! Which backend a request goes to.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::harness::backend::{Backend, three_echoes, three_scripted};
use crate::harness::client::Request;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};

/// The backends that answer `count` GETs on one connection, in order.
fn sequence(server: &Tollgate, count: usize) -> Vec<String> {
    let mut client = server.client();
    (0..count)
        .map(|_| {
            let response = client.get("/").unwrap();
            assert_eq!(response.status, 200, "{response:?}");
            response.backend().to_owned()
        })
        .collect()
}

/// How many of `connections` times `each` GETs of `target` each backend answers.
fn shares(server: &Tollgate, target: &str, connections: usize, each: usize) -> HashMap<String, usize> {
    let shares = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..each {
                    let response = client.call_again(&Request::new("GET", target)).unwrap();
                    assert_eq!(response.status, 200, "{response:?}");
                    *shares.lock().unwrap().entry(response.backend().to_owned()).or_default() += 1;
                }
            });
        }
    });
    shares.into_inner().unwrap()
}

fn of(shares: &HashMap<String, usize>, name: &str) -> usize {
    shares.get(name).copied().unwrap_or_default()
}

#[test]
fn three_backends_get_exactly_a_thousand_of_three_thousand_requests_each() {
    let backends = three_echoes();
    let server = Setup::app(&backends, "").start();
    let shares = shares(&server, "/", 60, 50);
    assert_eq!(["a", "b", "c"].map(|name| of(&shares, name)), [1000, 1000, 1000]);
}

#[test]
fn round_robin_is_smooth_by_weight() {
    let backends = three_echoes();
    let weighted: Vec<_> = backends.iter().map(|backend| backend.address).zip([5, 1, 1]).collect();
    let server = Setup::default().weighted_pool("app", &weighted, "balance: round_robin").start();
    assert_eq!(sequence(&server, 14).concat(), "aabacaaaabacaa");
}

#[test]
fn weights_hold_among_those_left_when_a_backend_is_down() {
    let backends = ["b", "c"].map(Backend::echo);
    let weighted = [(free_address(), 5), (backends[0].address, 2), (backends[1].address, 1)];
    let server = Setup::default().weighted_pool("app", &weighted, QUICK_TCP).start();
    let sequence = sequence(&server, 300);
    assert_eq!(["b", "c"].map(|name| sequence.iter().filter(|n| *n == name).count()), [200, 100]);
}

#[test]
fn weights_hold_among_those_left_when_a_backend_was_tried_in_vain() {
    let backends = ["b", "c"].map(Backend::echo);
    // Without checks the dead one is tried again and again until it is out, and then once more every ten seconds.
    let weighted = [(free_address(), 5), (backends[0].address, 2), (backends[1].address, 1)];
    let server = Setup::default().weighted_pool("app", &weighted, NO_CHECK).start();
    let sequence = sequence(&server, 300);
    let b = sequence.iter().filter(|n| *n == "b").count();
    assert!((197..=203).contains(&b), "b has {b} of 300 instead of 200");
}

#[test]
fn random_shares_by_weight() {
    let backends = three_echoes();
    let weighted: Vec<_> = backends.iter().map(|backend| backend.address).zip([2, 1, 1]).collect();
    let server = Setup::default().weighted_pool("app", &weighted, "balance: random").start();
    let shares = shares(&server, "/", 30, 100);
    // Five standard deviations: once in two million runs by chance.
    for (name, expected, deviation) in [("a", 1500.0, 27.4), ("b", 750.0, 23.7), ("c", 750.0, 23.7)] {
        let share = of(&shares, name) as f64;
        assert!((share - expected).abs() < 5.0 * deviation, "{name} has {share}, expected {expected}");
    }
}

#[test]
fn random_is_not_a_cycle() {
    let backends = three_echoes();
    let server = Setup::app(&backends, "balance: random").start();
    let sequence = sequence(&server, 60);
    let repeats = sequence.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((3..50).contains(&repeats), "{repeats} of 59 neighbours are the same: {}", sequence.concat());
}

#[test]
fn least_connections_gives_a_slow_backend_less() {
    let backends = three_scripted();
    let server = Setup::app(&backends, "balance: least_connections").start();
    let shares = shares(&server, "/?at=a&delay_ms=100", 6, 100);
    let (slow, fast) = (of(&shares, "a"), of(&shares, "b").min(of(&shares, "c")));
    assert!(slow > 0 && slow * 4 < fast, "{shares:?}");
}

#[test]
fn least_connections_rotates_ties() {
    let backends = three_echoes();
    let server = Setup::app(&backends, "balance: least_connections").start();
    let sequence = sequence(&server, 30);
    for name in ["a", "b", "c"] {
        assert!(sequence.iter().filter(|n| *n == name).count() >= 5, "{}", sequence.concat());
    }
}

#[test]
fn least_connections_fills_up_by_weight() {
    let backends = three_scripted();
    let weighted: Vec<_> = backends.iter().map(|backend| backend.address).zip([4, 2, 1]).collect();
    let server = Setup::default().weighted_pool("app", &weighted, "balance: least_connections").start();
    assert_eq!(crate::counters::held_at_once(&server, &backends, "w", 28), [16, 8, 4]);
    for backend in &backends {
        backend.release("w");
    }
}
