//! One budget over a fleet: what three nodes give a client together is what one bucket gives.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, Request, Response};
use crate::harness::fleet::{Budget, COSTS, Drain, EVERYWHERE, FlatOut, Fleet, assert_exact, is_long, metric, window};
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually};

/// Longer than a request takes on a busy machine, as one that waits longer is judged by its node's share.
const PATIENT: &str = "timeout: 1s";

fn get(node: &Instance, key: &str) -> Response {
    let headers = [("x-api-key", key)];
    Client::connect(node.address).call(&Request::new("GET", "/").headers(&headers)).unwrap()
}

/// How many of so many requests on each of the nodes, in turn, are let in.
fn allowed(fleet: &Fleet, key: &str, rounds: usize) -> usize {
    let rounds = (0..rounds).flat_map(|_| &fleet.nodes);
    rounds.filter(|node| get(node, key).status == 200).count()
}

#[test]
fn all_nodes_together_give_what_one_bucket_gives() {
    for engine in Engine::all() {
        for nodes in if is_long() { vec![3, 10] } else { vec![3] } {
            let fleet = Fleet::start(engine, nodes, PATIENT, COSTS);
            fleet.create_budgets();
            let load = Drain::all(&fleet.addresses());
            dawdle(window(Duration::from_secs(5)));
            assert_exact(("all nodes answer", engine, nodes), &load.stop(), (|_| 0.0, |_| 0.0));
        }
    }
}

#[test]
fn the_store_is_asked_much_less_than_once_a_request() {
    let fleet = Fleet::start(Engine::all()[0], 2, PATIENT, "");
    let budget = Budget { name: "busy", capacity: 1_000_000, rate: 100_000.0, cost: 1 };
    fleet.create(budget.name, budget.capacity, budget.rate);
    let trips = || fleet.nodes.iter().map(|node| metric(node, "tollgate_fleet_store_seconds_count")).sum::<f64>();
    let before = trips();
    let tally = FlatOut::run(&fleet.addresses(), 2, budget.name, window(Duration::from_secs(3)));
    let trips = trips() - before;
    budget.tell("nobody asks for all of it", Engine::all()[0], 2, &tally);
    // No test spends as much as comes back: all that is asked for is given.
    assert_eq!((tally.limited, &tally.failed), (0, &Vec::new()));
    // Besides leases: a ping every 100 ms, and who is there every second.
    assert!(trips * 10.0 < tally.allowed as f64, "{trips} round trips for {} requests", tally.allowed);
}

#[test]
fn who_is_drained_on_one_node_is_refused_on_another_and_told_the_truth() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 2, PATIENT, "");
        fleet.create("a", 4, 0.5);
        let [first, second] = &fleet.nodes[..] else { unreachable!() };
        assert!(eventually(PATIENCE, || get(first, "a").status == 429), "{engine:?}");
        let refused = get(second, "a");
        assert_ours(&refused, 429, "Rate limit exceeded");
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&after), "{refused:?}");
        // A caller that does as it is told.
        dawdle(Duration::from_secs(after));
        assert_eq!(get(second, "a").status, 200, "{engine:?}");
        assert_eq!(get(first, "a").status, 429, "{engine:?}");
    }
}

#[test]
fn the_first_request_on_a_node_meets_the_fleets_bucket() {
    let mut fleet =
        Fleet::start(Engine::all()[0], 1, PATIENT, "rate_limit: {default: {capacity: 5, rate_per_sec: 0.001}}");
    fleet.create("a", 5, 0.001);
    let nobody = |node: &Instance| Client::connect(node.address).get("/").unwrap();
    let taken: Vec<_> = (0..2).map(|_| (get(&fleet.nodes[0], "a").status, nobody(&fleet.nodes[0]).status)).collect();
    assert_eq!(taken, [(200, 200), (200, 200)]);
    fleet.join();
    fleet.wait_until("joined");
    let fresh = &fleet.nodes[1];
    let remaining = |answer: &Response| answer.header("x-ratelimit-remaining").unwrap().parse::<u64>().unwrap();
    let answers = [get(fresh, "a"), nobody(fresh)];
    for answer in &answers {
        assert!(answer.status == 429 || remaining(answer) <= 2, "{answer:?}");
    }
    let more = (0..5).filter(|_| get(fresh, "a").status == 200).count();
    let first = (0..5).filter(|_| get(&fleet.nodes[0], "a").status == 200).count();
    assert_eq!(2 + usize::from(answers[0].status == 200) + more + first, 5, "all, and no more");
}

#[test]
fn policies_hold_over_the_fleet() {
    let more =
        "rate_limit: {policies: [{name: all, match: {paths: [/]}, key: all, capacity: 10, rate_per_sec: 0.001}]}";
    let fleet = Fleet::start(Engine::all()[0], 3, PATIENT, more);
    fleet.create("a", 1000, 100.0);
    fleet.create("b", 1000, 100.0);
    assert_eq!(allowed(&fleet, "a", 2) + allowed(&fleet, "b", 4), 10);
    assert!(fleet.nodes.iter().all(|node| get(node, "b").status == 429));
}

#[test]
fn resets_and_grants_reach_every_node() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, PATIENT, "");
        fleet.create("a", 6, 0.001);
        assert_eq!(allowed(&fleet, "a", 5), 6, "{engine:?}");
        let reset = fleet.nodes[1].admin("POST", "/clients/a/reset", "");
        assert_eq!((reset.status, &reset.json()["tokens"]), (200, &json!(6)), "{engine:?}");
        for node in &fleet.nodes {
            assert!(eventually(EVERYWHERE, || get(node, "a").status == 200), "{engine:?}");
        }
        assert_eq!(allowed(&fleet, "a", 4), 3, "{engine:?}");
        let granted = fleet.nodes[2].admin("POST", "/clients/a/grant", r#"{"tokens":9}"#);
        assert_eq!(granted.status, 200, "{granted:?}");
        for node in &fleet.nodes {
            assert!(eventually(EVERYWHERE, || get(node, "a").status == 200), "{engine:?}");
        }
        assert_eq!(allowed(&fleet, "a", 5), 6, "{engine:?}");
    }
}

#[test]
fn an_edit_counts_on_every_node() {
    let fleet = Fleet::start(Engine::all()[0], 3, PATIENT, "");
    fleet.create("a", 3, 0.001);
    assert_eq!(allowed(&fleet, "a", 2), 3);
    assert_eq!(fleet.nodes[2].admin("PATCH", "/clients/a", r#"{"mode":"blocked"}"#).status, 200);
    for node in &fleet.nodes {
        assert!(eventually(EVERYWHERE, || get(node, "a").status == 403));
    }
    assert_eq!(fleet.nodes[1].admin("DELETE", "/clients/a", "").status, 204);
    for node in &fleet.nodes {
        assert!(eventually(EVERYWHERE, || node.admin("GET", "/clients/a", "").status == 404));
    }
}
