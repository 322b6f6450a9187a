//! One budget over a fleet: what three nodes give a client together is what one bucket gives.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, Request, Response};
use crate::harness::fleet::{Budget, COSTS, Drain, EVERYWHERE, FlatOut, Fleet, assert_exact, is_long, metric, window};
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually, now};

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
fn a_reset_fills_what_nodes_spent_and_had_not_told() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, PATIENT, "");
        fleet.create("a", 100, 0.001);
        for node in [0, 1, 2] {
            assert_eq!(allowed(&fleet, "a", 10), 30, "{engine:?}");
            let reset = fleet.nodes[node].admin("POST", "/clients/a/reset", "");
            assert_eq!((reset.status, &reset.json()["tokens"]), (200, &json!(100)), "{engine:?}");
        }
        // All that is let in from then on, whichever node holds it ahead.
        let mut all = 0;
        assert!(eventually(PATIENCE, || {
            all += allowed(&fleet, "a", 10);
            all >= 100
        }));
        assert_eq!((all, allowed(&fleet, "a", 5)), (100, 0), "{engine:?}");
    }
}

#[test]
fn a_grant_right_after_a_lowered_capacity_is_there_on_nodes_that_have_not_heard_of_it() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, PATIENT, "");
        fleet.create("a", 300, 0.001);
        let node = &fleet.nodes[0];
        assert_eq!(node.admin("PATCH", "/clients/a", r#"{"capacity":200}"#).status, 200, "{engine:?}");
        assert_eq!(node.admin("POST", "/clients/a/grant", r#"{"tokens":100}"#).status, 200, "{engine:?}");
        let mut all = 0;
        assert!(eventually(PATIENCE, || {
            all += allowed(&fleet, "a", 20);
            all >= 300
        }));
        assert_eq!((all, allowed(&fleet, "a", 3)), (300, 0), "{engine:?}");
    }
}

#[test]
fn what_nodes_hold_is_of_the_quota_and_of_the_grants_of_now() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, PATIENT, "");
        for (id, verb, target, body, more) in [
            ("cut", "PATCH", "", r#"{"capacity":200}"#, 191..=200),
            ("raised", "PATCH", "", r#"{"capacity":400}"#, 291..=291),
            ("granted", "POST", "/grant", r#"{"tokens":100}"#, 391..=391),
        ] {
            fleet.create(id, 300, 0.001);
            // Each node holds some of it ahead from then on.
            assert_eq!(allowed(&fleet, id, 3), 9, "{engine:?}");
            let changed = fleet.nodes[0].admin(verb, &format!("/clients/{id}{target}"), body);
            assert_eq!(changed.status, 200, "{changed:?}");
            let capacity = changed.json()["capacity"].clone();
            for node in &fleet.nodes {
                let seen = || node.admin("GET", &format!("/clients/{id}"), "").json()["capacity"] == capacity;
                assert!(eventually(EVERYWHERE, seen), "{id} {engine:?}");
            }
            // What a node has spent and not told may have kept its room while the capacity shrank.
            let rest = allowed(&fleet, id, 140);
            assert!(more.contains(&rest), "{id} {engine:?}: {rest}");
        }
    }
}

#[test]
fn who_asks_all_the_time_has_a_lowered_rate_at_once() {
    let fleet = Fleet::start(Engine::all()[0], 3, PATIENT, "");
    fleet.create("a", 50, 1000.0);
    // How many are let in meanwhile, and how many a rate of one a second allows for.
    let ask = |time| {
        let (mut let_in, begun) = (0, now());
        while now() - begun < time {
            let_in += allowed(&fleet, "a", 1);
        }
        (let_in, (now() - begun).as_secs_f64().ceil() as usize + 1)
    };
    assert!(ask(Duration::from_millis(500)).0 > 0);
    assert_eq!(fleet.nodes[0].admin("PATCH", "/clients/a", r#"{"rate_per_sec":1}"#).status, 200);
    // Every node has it within a second, and what was there is gone soon.
    ask(EVERYWHERE);
    assert!(eventually(PATIENCE, || allowed(&fleet, "a", 1) == 0));
    let (let_in, earned) = ask(Duration::from_secs(2));
    assert!(let_in <= earned, "{let_in} of {earned}");
    // A reset gives all of it, whatever the rate was before.
    assert_eq!(fleet.nodes[1].admin("POST", "/clients/a/reset", "").status, 200);
    let (let_in, earned) = ask(2 * EVERYWHERE);
    assert!((50..=50 + earned).contains(&let_in), "{let_in} after the reset");
}

#[test]
fn a_reload_changes_what_everybody_has_on_every_node() {
    let rates = |capacity| format!("rate_limit: {{default: {{capacity: {capacity}, rate_per_sec: 0.001}}}}");
    let fleet = Fleet::start(Engine::all()[0], 3, PATIENT, &rates(300));
    let ask = |rounds| {
        let answers = (0..rounds)
            .flat_map(|_| fleet.nodes.iter().map(|node| Client::connect(node.address).get("/").unwrap().status));
        answers.filter(|status| *status == 200).count()
    };
    assert_eq!(ask(3), 9);
    for node in &fleet.nodes {
        let yaml = std::fs::read_to_string(node.file()).unwrap();
        std::fs::write(node.file(), yaml.replace(&rates(300), &rates(200))).unwrap();
        assert_eq!(node.admin("POST", "/config/reload", "").status, 200);
    }
    let rest = ask(110);
    assert!((191..=200).contains(&rest), "{rest}");
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
