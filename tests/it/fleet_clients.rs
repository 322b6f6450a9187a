//! Clients are the same on every node: whoever writes, whatever else is written at the same time.

use serde_json::{Value, json};

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::fleet::{EVERYWHERE, Fleet};
use crate::harness::instance::Instance;
use crate::harness::store::Engine;

/// What a node says of a client, without what it counts itself.
fn client(node: &Instance, id: &str) -> Value {
    let mut told = node.admin("GET", &format!("/clients/{id}"), "").json();
    for counted in ["tokens", "allowed", "limited", "last_seen"] {
        told.as_object_mut().unwrap().remove(counted);
    }
    told
}

/// Whether all nodes soon say the same of this call, and it is right.
#[track_caller]
fn assert_everywhere(fleet: &Fleet, target: &str, right: impl Fn(u16, &Value) -> bool) {
    for node in &fleet.nodes {
        let answer = || node.admin("GET", target, "");
        let there = eventually(EVERYWHERE, || {
            let answer = answer();
            right(answer.status, &answer.json())
        });
        assert!(there, "{target}: {:?}", answer());
    }
}

#[test]
fn a_clients_life_is_the_same_on_every_node() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, "", "");
        let [a, b, c] = &fleet.nodes[..] else { unreachable!() };
        fleet.create("u", 5, 1.0);
        assert_eq!(client(a, "u"), client(c, "u"));
        // An ETag of one node is one of all.
        let told = b.admin("GET", "/clients/u", "");
        let (tag, body) = (told.header("etag").unwrap().to_owned(), r#"{"capacity":6}"#);
        let headers = [("if-match", &*tag), ("content-type", "application/json")];
        let patch = |node: &Instance| {
            let body = crate::harness::client::Body::Length(body.as_bytes());
            let request = Request::new("PATCH", "/clients/u").host("localhost").headers(&headers).body(body);
            Client::connect(node.admin).call(&request).unwrap().status
        };
        assert_eq!(patch(c), 200, "{engine:?}");
        // Even before the first node has heard of it.
        assert_eq!(patch(a), 412, "{engine:?}");
        fleet.wait_for_client("u", |client| (client["capacity"] == 6) & (client["version"] == 2));
        assert_everywhere(&fleet, "/clients/u/history", |_, told| told["items"].as_array().map(Vec::len) == Some(2));
        assert_eq!(a.admin("POST", "/clients/u/rollback", r#"{"version":1}"#).status, 200);
        fleet.wait_for_client("u", |client| (client["capacity"] == 5) & (client["version"] == 3));
        assert_eq!(b.admin("DELETE", "/clients/u", "").status, 204);
        assert_everywhere(&fleet, "/clients/u", |status, _| status == 404);
    }
}

#[test]
fn a_node_that_was_paused_takes_no_old_tag() {
    let fleet = Fleet::start(Engine::all()[0], 2, "", "");
    let [paused, other] = &fleet.nodes[..] else { unreachable!() };
    fleet.create("u", 50, 0.001);
    let writes = [("reset", ""), ("grant", r#"{"tokens":7}"#)];
    let write = |(call, body): (&str, &str), tag: &str| {
        let (target, headers) =
            (format!("/clients/u/{call}"), [("if-match", tag), ("content-type", "application/json")]);
        let body = crate::harness::client::Body::Length(body.as_bytes());
        let request = Request::new("POST", &target).host("localhost").headers(&headers).body(body);
        Client::connect(paused.admin).call(&request).unwrap().status
    };
    let tag = || paused.admin("GET", "/clients/u", "").header("etag").unwrap().to_owned();
    for round in 0..10 {
        let (old, what) = (tag(), writes[round % 2]);
        let statuses = std::thread::scope(|scope| {
            paused.process.signal("STOP");
            let changed = other.admin("PATCH", "/clients/u", &format!(r#"{{"capacity":{}}}"#, 51 + round)).status;
            // It waits in the socket of the node, which finds it before it can have heard of the change.
            let waiting = scope.spawn(|| write(what, &old));
            paused.process.signal("CONT");
            (changed, waiting.join().unwrap())
        });
        assert_eq!(statuses, (200, 412), "{what:?}");
        assert_eq!(write(what, &tag()), 200, "{what:?}");
        let here_first = (if round % 2 == 0 { "reset?local=1" } else { "grant?local=1" }, what.1);
        assert_eq!((write(here_first, &old), write(here_first, &tag())), (412, 200), "{here_first:?}");
    }
    assert_eq!(tag(), "\"11\"", "neither is a change of the client");
}

#[test]
fn what_must_be_free_is_free_on_every_node() {
    let fleet = Fleet::start(Engine::all()[0], 3, "", "");
    let make = |node: &Instance, id: &str, more: &str| {
        let body = format!(r#"{{"client_id":"{id}","capacity":5,"rate_per_sec":1{more}}}"#);
        node.admin("POST", "/clients", &body).status
    };
    for round in 0..10 {
        let key = format!(r#","api_key":"secret-{round}""#);
        let statuses = std::thread::scope(|scope| {
            let spawn = |(index, node)| {
                let (id, key, make) = (format!("c{round}-{index}"), &key, &make);
                scope.spawn(move || make(node, &id, key))
            };
            let made: Vec<_> = fleet.nodes.iter().enumerate().map(spawn).collect();
            let mut statuses: Vec<_> = made.into_iter().map(|thread| thread.join().unwrap()).collect();
            statuses.sort_unstable();
            statuses
        });
        assert_eq!(statuses, [201, 409, 409], "one has the key");
    }
    assert_everywhere(&fleet, "/clients?limit=100", |_, told| told["total"] == 10);
}

#[test]
fn writes_on_all_nodes_at_once_end_the_same_everywhere() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, "", "");
        fleet.create("shared", 1, 1.0);
        std::thread::scope(|scope| {
            for (index, node) in fleet.nodes.iter().enumerate() {
                scope.spawn(move || {
                    for round in 1..=20 {
                        node.create(&format!("n{index}-{round}"), 5, 1.0);
                        let body = format!(r#"{{"capacity":{}}}"#, 100 * (index + 1) + round);
                        assert_eq!(node.admin("PATCH", "/clients/shared", &body).status, 200, "{engine:?}");
                    }
                });
            }
        });
        fleet.wait_for_client("shared", |client| client["version"] == 61);
        assert_everywhere(&fleet, "/clients?limit=100", |_, told| told["total"] == 61);
        let first = client(&fleet.nodes[0], "shared");
        assert!(fleet.nodes.iter().all(|node| client(node, "shared") == first), "{engine:?}: {first}");
    }
}

#[test]
fn a_bulk_apply_is_in_force_everywhere() {
    let fleet = Fleet::start(Engine::all()[0], 2, "", "");
    fleet.create("gone", 5, 1.0);
    let all: Vec<_> =
        (0..500).map(|n| json!({"client_id": format!("b{n}"), "capacity": 7, "rate_per_sec": 1.0})).collect();
    let applied = fleet.nodes[1].admin("PUT", "/clients?prune=1", &Value::from(all).to_string());
    assert_eq!(applied.status, 200, "{applied:?}");
    assert_everywhere(&fleet, "/clients?limit=1", |_, told| told["total"] == 500);
    assert_everywhere(&fleet, "/clients/gone", |status, _| status == 404);
    assert_everywhere(&fleet, "/clients/b499", |status, told| status == 200 && told["capacity"] == 7);
}

#[test]
fn a_node_without_clients_has_the_fleets_at_once() {
    let mut fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("a", 5, 1.0);
    fleet.create("b", 6, 1.0);
    fleet.nodes[0].admin("DELETE", "/clients/b", "");
    fleet.join();
    fleet.wait_for_client("a", |client| client["capacity"] == 5);
    assert_eq!(fleet.nodes[1].admin("GET", "/clients/b", "").status, 404);
    assert_eq!(fleet.nodes[1].call("a"), 200);
}
