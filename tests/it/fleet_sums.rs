//! What a node shows of clients is the fleet's: what all nodes have counted and recorded, and the tokens in the store.

use serde_json::{Value, json};

use crate::harness::fleet::Fleet;
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, eventually};

const MISSING: &str = "nodes-missing";

fn shown(node: &Instance, target: &str) -> Value {
    node.admin("GET", target, "").json()
}

/// Waits until every node answers so; nothing is missing then.
#[track_caller]
fn all_show(fleet: &Fleet, target: &str, right: impl Fn(&Value) -> bool) {
    for node in &fleet.nodes {
        let there = eventually(PATIENCE, || {
            let answer = node.admin("GET", target, "");
            answer.header(MISSING).is_none() && answer.status == 200 && right(&answer.json())
        });
        assert!(there, "{}\n{}", shown(node, target), node.process.err.text());
    }
}

#[test]
fn every_node_shows_what_all_have_counted_and_recorded() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, "timeout: 1s", "");
        fleet.create("a", 6, 0.001);
        let candidate = json!({"candidate": {"capacity": 1, "rate_per_sec": 0.001}});
        assert_eq!(fleet.nodes[0].admin("PATCH", "/clients/a", &candidate.to_string()).status, 200);
        fleet.wait_for_client("a", |client| client["candidate"]["capacity"] == 1);
        // Five rounds: six requests are let in, nine refused.
        let let_in = (0..5).flat_map(|_| &fleet.nodes).filter(|node| node.call("a") == 200).count();
        assert_eq!(let_in, 6, "{engine:?}");
        let counted = |client: &Value| (client["allowed"] == 6, client["limited"] == 9) == (true, true);
        all_show(&fleet, "/clients/a", |client| counted(client) && client["candidate_limited"].as_u64() > Some(0));
        all_show(&fleet, "/clients", |page| counted(&page["items"][0]));
        let top = json!([{"client_id": "a", "address": null, "requests": 15, "limited": 9, "error": 0}]);
        for by in ["requests", "limited"] {
            all_show(&fleet, &format!("/top?by={by}"), |told| told["items"] == top);
        }
        let seen: Vec<Value> = fleet.nodes.iter().map(|node| shown(node, "/clients/a")).collect();
        for field in ["last_seen", "candidate_limited"] {
            assert!(seen[0][field] != Value::Null && seen.iter().all(|one| one[field] == seen[0][field]), "{seen:?}");
        }
        let path = "/clients/a/recommend";
        all_show(&fleet, path, |told| told["requests"] == 15);
        let told: Vec<Value> = fleet.nodes.iter().map(|node| shown(node, path)).collect();
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        assert_eq!(told[0]["in_force_limited"], 9, "as one node would have judged them: {}", told[0]);
        let quota = json!({"capacity": 4, "rate_per_sec": 0.001}).to_string();
        for node in &fleet.nodes {
            let judged = node.admin("POST", "/clients/a/simulate", &quota).json();
            assert_eq!((&judged["requests"], &judged["would_limit"]), (&json!(15), &json!(11)), "{engine:?}");
        }
    }
}

#[test]
fn every_node_shows_the_same_tokens() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, "timeout: 1s", "");
        fleet.create("a", 100, 0.001);
        assert_eq!((0..7).filter(|_| fleet.nodes[1].call("a") == 200).count(), 7);
        // Two of the nodes never heard of the bucket; what the third leased ahead it gives back.
        for node in &fleet.nodes {
            let there = eventually(PATIENCE, || node.tokens("a").floor() == 93.0);
            assert!(there, "{engine:?}: {}", node.tokens("a"));
        }
        let listed: Vec<f64> = fleet
            .nodes
            .iter()
            .map(|node| shown(node, "/clients")["items"][0]["tokens"].as_f64().unwrap().floor())
            .collect();
        assert_eq!(listed, [93.0; 3], "{engine:?}");
    }
}

#[test]
fn a_node_that_stands_still_is_named_and_keeps_nobody_waiting() {
    let fleet = Fleet::start(Engine::all()[0], 3, "timeout: 1s", "");
    for name in 0..100 {
        fleet.nodes[0].create(&format!("c{name:03}"), 10, 1.0);
    }
    fleet.wait_for_client("c099", |client| client["capacity"] == 10);
    for node in &fleet.nodes {
        assert_eq!(node.call("c007"), 200);
    }
    all_show(&fleet, "/clients", |page| page["items"][7]["allowed"] == 3);
    fleet.nodes[2].process.signal("STOP");
    let answer = fleet.nodes[0].admin("GET", "/clients?limit=99", "");
    assert_eq!((answer.status, answer.header(MISSING)), (200, Some("node-2")));
    assert_eq!((&answer.json()["total"], &answer.json()["items"][7]["allowed"]), (&json!(100), &json!(2)));
    fleet.nodes[2].process.signal("CONT");
    all_show(&fleet, "/clients", |page| page["items"][7]["allowed"] == 3);
}

#[test]
fn without_the_store_a_node_shows_its_own_figures() {
    let mut fleet = Fleet::start(Engine::all()[0], 2, "timeout: 1s", "");
    fleet.create("a", 10, 0.001);
    for node in &fleet.nodes {
        assert_eq!(node.call("a"), 200);
    }
    all_show(&fleet, "/clients/a", |client| client["allowed"] == 2);
    fleet.store.kill();
    fleet.wait_until("unreachable");
    for (node, other) in fleet.nodes.iter().zip(["node-1", "node-0"]) {
        let alone = || {
            let answer = node.admin("GET", "/clients/a", "");
            answer.header(MISSING) == Some(other) && answer.json()["allowed"] == 1
        };
        assert!(eventually(PATIENCE, alone), "{}", shown(node, "/clients/a"));
    }
}
