//! One bound on requests at once over a fleet: what runs on all nodes together counts.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::client::{Client, Request, Response};
use crate::harness::fleet::{EVERYWHERE, Fleet};
use crate::harness::http2::{self, Http2};
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually, now};

/// Longer than a request takes on a busy machine, as one that waits longer is judged by its node's share.
const PATIENT: &str = "timeout: 1s";
/// For how long the store keeps what a node holds that is heard of no more.
const EXPIRY: Duration = Duration::from_millis(2_200);
/// What ends is told within some milliseconds; a busy machine takes its time.
const SOON: Duration = Duration::from_secs(1);
const KEY: [(&str, &str); 1] = [("x-api-key", "a")];

fn get(node: &Instance) -> Response {
    Client::connect(node.address).call(&Request::new("GET", "/").headers(&KEY)).unwrap()
}

/// Makes a client that may have so many requests at once, and waits until all nodes have it.
#[track_caller]
fn create(fleet: &Fleet, most: u64) {
    let body = format!(r#"{{"client_id":"a","capacity":100000,"rate_per_sec":1000,"max_concurrent":{most}}}"#);
    assert_eq!(fleet.nodes[0].admin("POST", "/clients", &body).status, 201);
    fleet.wait_for_client("a", |client| client["max_concurrent"] == most);
}

/// Has a request held by the backend under a name; nothing where it is refused.
#[track_caller]
fn hold(fleet: &Fleet, node: usize, name: &str) -> Option<Client> {
    let (mut client, before) = (Client::connect(fleet.nodes[node].address), fleet.backend.held(name));
    client.send(&Request::new("GET", &format!("/?hold={name}")).headers(&KEY).encode()).unwrap();
    let mut refused = false;
    let told = || {
        refused = client.has_answer(Duration::from_millis(1));
        refused || fleet.backend.held(name) > before
    };
    assert!(eventually(PATIENCE, told), "neither held nor refused");
    if refused {
        assert_ours(&client.read("GET").unwrap(), 429, "Too many requests at once");
        return None;
    }
    Some(client)
}

/// The same, as soon as there is a turn.
#[track_caller]
fn hold_soon(fleet: &Fleet, node: usize, name: &str, limit: Duration) -> Client {
    let mut held = None;
    let there = eventually(limit, || {
        held = hold(fleet, node, name);
        held.is_some()
    });
    assert!(there, "no turn within {limit:?}");
    held.unwrap()
}

/// Asserts that no node lets another one in.
#[track_caller]
fn assert_full(fleet: &Fleet) {
    for node in &fleet.nodes {
        let refused = get(node);
        assert_ours(&refused, 429, "Too many requests at once");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
}

#[track_caller]
fn finish(fleet: &Fleet, name: &str, clients: impl IntoIterator<Item = Client>) {
    fleet.backend.release(name);
    for mut client in clients {
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
}

#[test]
fn as_many_run_over_all_nodes_as_may_and_one_that_ends_makes_room_anywhere() {
    for engine in Engine::all() {
        for (most, direct) in [(4, true), (30, true), (4, false)] {
            let fleet = Fleet::start(engine, 3, PATIENT, &format!("direct: {direct}"));
            create(&fleet, most);
            // By names of their own, so that they end by themselves.
            let mut held = Vec::new();
            for number in 0..most + 6 {
                let name = format!("n{number}");
                held.extend(hold(&fleet, number as usize % 3, &name).map(|client| (name, client)));
            }
            assert_eq!(held.len() as u64, most, "{engine:?}");
            assert_full(&fleet);
            // The first runs on the first node; its turn is another node's.
            let (name, client) = held.remove(0);
            finish(&fleet, &name, [client]);
            let other = hold_soon(&fleet, 1, "other", SOON);
            assert_full(&fleet);
            finish(&fleet, "other", [other]);
            for (name, client) in held {
                finish(&fleet, &name, [client]);
            }
            // Nothing is left of them: a node alone may have all.
            let all: Vec<_> = (0..most).map(|_| hold_soon(&fleet, 2, "all", SOON)).collect();
            assert_full(&fleet);
            finish(&fleet, "all", all);
        }
    }
}

#[test]
fn one_that_runs_for_long_keeps_its_turn_and_a_node_that_is_killed_loses_its() {
    for engine in Engine::all() {
        let mut fleet = Fleet::start(engine, 3, PATIENT, "");
        create(&fleet, 4);
        let held: Vec<_> = [0, 0, 1, 2].into_iter().map(|node| hold(&fleet, node, "long").unwrap()).collect();
        // Twice as long as any hold counts that is not renewed.
        let end = now() + 2 * EXPIRY + Duration::from_millis(600);
        while now() < end {
            assert_full(&fleet);
            dawdle(Duration::from_millis(50));
        }
        fleet.nodes[0].kill();
        fleet.nodes.remove(0);
        // At most half of its time was gone when it was renewed last.
        let killed = now();
        let more = [(); 2].map(|()| hold_soon(&fleet, 0, "more", EXPIRY + SOON));
        assert!(now() - killed >= EXPIRY / 3, "{engine:?}: what was held was given early");
        assert_full(&fleet);
        finish(&fleet, "more", more);
        finish(&fleet, "long", held.into_iter().skip(2));
    }
}

#[test]
fn over_http_2_each_request_counts_and_one_that_its_client_gives_up_no_more() {
    let mut fleet = Fleet::start(Engine::all()[0], 2, PATIENT, "");
    fleet.nodes[1].take_h2c();
    create(&fleet, 3);
    let (one, address) = (hold(&fleet, 0, "one").unwrap(), fleet.nodes[1].address);
    let mut http2 = Http2::plain(address);
    let with_key = |target: &str| {
        let mut request = http2::get(target);
        request.headers_mut().insert("x-api-key", "a".parse().unwrap());
        request
    };
    // Two on one connection, and no third.
    let mut streams: Vec<_> = (0..2).map(|_| http2.open(with_key("/?hold=two"), true).unwrap()).collect();
    assert!(eventually(PATIENCE, || fleet.backend.held("two") == 2));
    let refused = http2.call(with_key("/"), b"").unwrap();
    assert_ours(&refused, 429, "Too many requests at once");
    assert_full(&fleet);
    // A stream that is reset leaves its turn to the other node.
    let (answer, mut body) = streams.pop().unwrap();
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let other = hold_soon(&fleet, 0, "other", SOON);
    assert_full(&fleet);
    fleet.backend.release("two");
    let (answer, _body) = streams.pop().unwrap();
    assert_eq!(http2.runtime.block_on(http2::read(answer)).unwrap().status, 200);
    let last = hold_soon(&fleet, 0, "last", SOON);
    assert_full(&fleet);
    for (name, client) in [("one", one), ("other", other), ("last", last)] {
        finish(&fleet, name, [client]);
    }
}

#[test]
fn what_an_old_process_still_runs_counts_after_an_upgrade_too() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("upgrade.sock");
    let mut fleet = Fleet::start(Engine::all()[0], 1, PATIENT, "");
    let more = format!("{}\npingora: {{upgrade_sock: {}}}", fleet.lines("upgraded"), socket.display());
    fleet.nodes.push(Instance::start(fleet.backend.address, &more));
    create(&fleet, 3);
    let old = [(); 2].map(|()| hold(&fleet, 1, "old").unwrap());
    let other = hold(&fleet, 0, "other").unwrap();
    let mut before = fleet.nodes[1].succeed(&socket);
    // Longer than a hold counts that is not renewed.
    let end = now() + EXPIRY + Duration::from_millis(500);
    while now() < end {
        assert_full(&fleet);
        dawdle(Duration::from_millis(50));
    }
    finish(&fleet, "old", old);
    assert_eq!(before.wait_exit(PATIENCE).code, Some(0));
    let new = [0, 1].map(|node| hold_soon(&fleet, node, "new", SOON));
    assert_full(&fleet);
    finish(&fleet, "new", new);
    finish(&fleet, "other", [other]);
}

#[test]
fn without_the_store_each_node_runs_its_part_and_with_it_again_they_count_together() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 3, "", "");
        create(&fleet, 6);
        let early = hold_soon(&fleet, 0, "early", SOON);
        fleet.store.pause();
        fleet.wait_until("unreachable");
        // Two each; one runs already.
        let held: Vec<_> =
            [0, 0, 0, 1, 1, 1, 2, 2, 2].into_iter().filter_map(|node| hold(&fleet, node, "away")).collect();
        assert_eq!(held.len(), 5, "{engine:?}");
        fleet.store.resume();
        fleet.wait_until("joined");
        assert_full(&fleet);
        finish(&fleet, "early", [early]);
        let one = hold_soon(&fleet, 2, "one", EVERYWHERE);
        assert_full(&fleet);
        finish(&fleet, "one", [one]);
        finish(&fleet, "away", held);
        let all: Vec<_> = (0..6).map(|_| hold_soon(&fleet, 1, "all", SOON)).collect();
        assert_full(&fleet);
        finish(&fleet, "all", all);
    }
}

#[test]
fn without_the_store_nobody_or_everybody_runs_where_that_is_wanted() {
    for (when, status) in [("refuse", 503), ("allow", 200)] {
        let fleet = Fleet::start(Engine::all()[0], 1, &format!("when_unreachable: {when}"), "");
        create(&fleet, 1);
        let held = hold_soon(&fleet, 0, "held", SOON);
        assert_full(&fleet);
        fleet.store.pause();
        fleet.wait_until("unreachable");
        // What the node tells of its state may be a moment ahead of what it does with requests.
        let mut answer = None;
        let there = || answer.insert(get(&fleet.nodes[0])).status == status;
        assert!(eventually(PATIENCE, there), "{answer:?}");
        let answer = answer.unwrap();
        if status == 503 {
            assert_ours(&answer, 503, "Limits unavailable");
        }
        fleet.store.resume();
        fleet.wait_until("joined");
        assert_full(&fleet);
        finish(&fleet, "held", [held]);
    }
}
