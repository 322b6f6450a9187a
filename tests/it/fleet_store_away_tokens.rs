//! Tokens that are given on one node while the store is away: there at once, everywhere afterwards, and once.

use crate::harness::fleet::Fleet;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, eventually};

/// Three nodes and a client of nine tokens that has none left, as each of them knows; whose store has gone.
fn drained() -> Fleet {
    let fleet = Fleet::start(Engine::all()[0], 3, "", "");
    fleet.create("a", 9, 0.001);
    assert!(eventually(PATIENCE, || fleet.nodes.iter().map(|node| node.allowed("a", 9)).sum::<usize>() == 0));
    fleet.store.pause();
    fleet.wait_until("unreachable");
    fleet
}

/// Asserts that so many are let in over all nodes, now that the store is there again, and no more.
#[track_caller]
fn assert_left(fleet: &Fleet, tokens: usize) {
    let left = || fleet.nodes[2].tokens("a").floor() as usize;
    assert!(eventually(PATIENCE, || left() == tokens), "{} of {tokens}", left());
    let mut allowed = 0;
    assert!(eventually(PATIENCE, || {
        allowed += fleet.nodes.iter().map(|node| node.allowed("a", 3)).sum::<usize>();
        allowed >= tokens
    }));
    assert_eq!(allowed, tokens);
    // What a node holds goes back after a second.
    assert!(eventually(PATIENCE, || fleet.nodes[0].tokens("a") < 1.0));
    assert_eq!(fleet.nodes.iter().map(|node| node.allowed("a", 3)).sum::<usize>(), 0);
}

#[test]
fn a_grant_of_one_node_is_there_at_once_and_everywhere_once() {
    let mut fleet = drained();
    let node = &fleet.nodes[0];
    assert_eq!(node.admin("POST", "/clients/a/grant", r#"{"tokens":20}"#).status, 503);
    let granted = node.admin("POST", "/clients/a/grant?local=1", r#"{"tokens":20}"#);
    assert_eq!((granted.status, granted.json()["tokens"].as_f64().unwrap().floor()), (200, 20.0), "{granted:?}");
    let unknown = node.admin("POST", "/clients/a/grant?locally=1", r#"{"tokens":20}"#);
    assert_eq!((unknown.status, unknown.json()["errors"][0]["field"].as_str()), (422, Some("locally")));
    // It is this node's for good: also of the process that comes after it.
    fleet.nodes[0].kill();
    fleet.nodes[0].start_again();
    assert_eq!([0, 1, 2].map(|node: usize| fleet.nodes[node].allowed("a", 5)), [5, 0, 0]);
    fleet.store.resume();
    fleet.wait_until("joined");
    assert_left(&fleet, 15);
    fleet.nodes[0].kill();
    fleet.nodes[0].start_again();
    fleet.wait_until("joined");
    assert_left(&fleet, 0);
}

#[test]
fn a_reset_of_one_node_gives_its_share_at_once_and_fills_for_all_afterwards() {
    let fleet = drained();
    let reset = fleet.nodes[1].admin("POST", "/clients/a/reset?local=1", "");
    assert_eq!((reset.status, reset.json()["tokens"].as_f64()), (200, Some(9.0)), "{reset:?}");
    assert_eq!([0, 1, 2].map(|node: usize| fleet.nodes[node].allowed("a", 9)), [0, 3, 0]);
    fleet.store.resume();
    fleet.wait_until("joined");
    assert_left(&fleet, 9);
}
