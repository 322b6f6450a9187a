//! The store stands still, is killed, comes back empty: no request fails or waits for it, and nobody gets more than the
//! nodes' shares.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Client, Request, Response};
use crate::harness::fleet::{Budget, COSTS, Drain, FlatOut, Fleet, Tally, is_long, metric, standing};
use crate::harness::instance::{Instance, is_ready};
use crate::harness::store::{Engine, StoreServer, cluster, cluster_replica};
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually};

/// `fleet.timeout` of these tests.
const TIMEOUT: Duration = Duration::from_millis(25);
/// What an answer may take beside that: 10 ms where a core is free. In a debug build beside other tests it often is not.
const BESIDE: Duration = Duration::from_millis(250);
/// How long the store is away; longer in the long forms.
fn meanwhile() -> Duration {
    Duration::from_secs(if is_long() { 20 } else { 2 })
}
/// How long it is there before, and afterwards.
fn beside() -> Duration {
    meanwhile() / 2
}
/// How long it takes at least until that is noticed, in seconds.
const NOTICED: f64 = 0.25;

fn get(node: &Instance, key: &str) -> Response {
    let headers = [("x-api-key", key)];
    Client::connect(node.address).call(&Request::new("GET", "/").headers(&headers)).unwrap()
}

/// Asks all nodes flat out while the store is taken away and brought back.
fn through(fleet: &mut Fleet, away: impl Fn(&mut Fleet), back: impl Fn(&mut Fleet)) -> Vec<(Budget, Tally)> {
    let load = Drain::some(&fleet.addresses());
    dawdle(beside());
    away(fleet);
    fleet.wait_until("unreachable");
    assert!(fleet.nodes.iter().all(|node| is_ready(node.admin)), "a node without its store serves");
    dawdle(meanwhile());
    back(fleet);
    fleet.wait_until("joined");
    dawdle(beside());
    load.stop()
}

/// Asserts on the bound, twice the budget and so many capacities above it, and on the waits.
fn assert_bounds((what, engine): (&str, Engine), fleet: &Fleet, drained: &[(Budget, Tally)], above: f64) {
    for (budget, tally) in drained {
        budget.tell(what, engine, fleet.nodes.len(), tally);
    }
    for (budget, tally) in drained {
        assert_eq!((&tally.failed, tally.unavailable), (&Vec::new(), 0), "{engine:?}");
        // All nodes are cut off: k = n.
        let most = 2.0 * budget.of(tally) + above * budget.capacity as f64 / budget.cost as f64;
        assert!(tally.allowed as f64 <= most, "{engine:?} {}: {} of {most}: {tally:?}", budget.name, tally.allowed);
        assert!(tally.slowest <= TIMEOUT + BESIDE, "{engine:?}: {tally:?}");
    }
}

/// Asserts that each node has told once that the store went.
fn assert_told_once(engine: Engine, fleet: &Fleet) {
    for node in &fleet.nodes {
        node.process.err.wait_for(&["fleet", "unreachable"], PATIENCE);
        let lines = node.process.err.lines();
        let told = |word: &str| lines.iter().filter(|line| line.contains("fleet") && line.contains(word)).count();
        assert_eq!(told("unreachable"), 1, "{engine:?}: {lines:#?}");
    }
}

#[test]
fn a_store_that_stands_still_leaves_each_node_its_share() {
    for engine in Engine::all() {
        let mut fleet = Fleet::start(engine, 3, "", COSTS);
        fleet.create_budgets();
        let drained = through(&mut fleet, |fleet| fleet.store.pause(), |fleet| fleet.store.resume());
        assert_bounds(("store stands still", engine), &fleet, &drained, 0.0);
        assert_told_once(engine, &fleet);
        let (middle, tally) = &drained[0];
        // What the store earned meanwhile counts up to the capacity, before it hears what was given without it.
        let capacity = middle.capacity as f64;
        let swallowed = (middle.rate * (meanwhile().as_secs_f64() + NOTICED) - capacity).max(0.0);
        let least = 0.9 * middle.of(tally) - swallowed - 1.0;
        assert!(tally.allowed as f64 >= least, "{engine:?}: at least {least} of {tally:?}");
        // What was given meanwhile is told: there is nothing to burst with.
        let after = FlatOut::run(&fleet.addresses(), 1, middle.name, Duration::from_secs(1));
        assert!(after.allowed as f64 <= middle.rate * after.time.as_secs_f64() + 5.0, "{engine:?}: {after:?}");
    }
}

#[test]
fn a_store_that_is_killed_and_comes_back_empty_forgives_a_bucket_at_most() {
    for engine in Engine::all() {
        let mut fleet = Fleet::start(engine, 3, "", COSTS);
        fleet.create_budgets();
        let drained = through(&mut fleet, |fleet| fleet.store.kill(), |fleet| fleet.store.restart());
        // A bucket that the store does not know is full.
        assert_bounds(("store comes back empty", engine), &fleet, &drained, 1.0);
        assert_told_once(engine, &fleet);
        fleet.wait_for_client("middle", |client| client["capacity"] == 100);
        // Once the registry is filled again.
        let body = r#"{"client_id":"b","capacity":7,"rate_per_sec":1}"#;
        assert!(eventually(PATIENCE, || fleet.nodes[0].admin("POST", "/clients", body).status == 201), "{engine:?}");
        fleet.wait_for_client("b", |client| client["capacity"] == 7);
    }
}

#[test]
fn a_promoted_replica_is_followed() {
    for engine in if is_long() { Engine::all() } else { Engine::all()[..1].to_vec() } {
        let primary = StoreServer::start(engine);
        let of = primary.port.to_string();
        let replica = StoreServer::start_with(engine, &["--save", "", "--replicaof", "127.0.0.1", &of]);
        assert!(eventually(PATIENCE, || replica.command("INFO replication").contains("master_link_status:up")));
        let sentinel = StoreServer::sentinel(engine, primary.port);
        let port = replica.port.to_string();
        assert!(eventually(PATIENCE, || sentinel.command("SENTINEL REPLICAS main").contains(&port)));
        let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
        let mut fleet = Fleet::at(primary, url, 3, "", COSTS);
        fleet.create_budgets();
        let drained = through(&mut fleet, |fleet| fleet.store.kill(), |_| ());
        assert!(replica.command("ROLE").contains("master"));
        for node in &fleet.nodes {
            let primary = || standing(node)["store"]["primary"].clone();
            assert!(
                eventually(PATIENCE, || primary() == json!(format!("127.0.0.1:{}", replica.port))),
                "{}",
                primary()
            );
        }
        // What was acknowledged and not replicated: a lease in flight of each node, half a bucket together.
        assert_bounds(("replica promoted", engine), &fleet, &drained, 0.5);
        assert_told_once(engine, &fleet);
        fleet.create("b", 7, 1.0);
    }
}

#[test]
fn a_cluster_that_loses_a_primary_goes_on_with_its_replica() {
    for engine in if is_long() { Engine::all() } else { Engine::all()[..1].to_vec() } {
        let (mut servers, ids) = cluster(engine);
        let url = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect::<Vec<_>>().join(",");
        // Any of them is as good: what is asked of it is only whether it runs.
        let beside_them = StoreServer::start(engine);
        let fleet = Fleet::at(beside_them, format!("redis+cluster://{url}"), 3, "", COSTS);
        fleet.create_budgets();
        let load = Drain::some(&fleet.addresses());
        // The one that has a bucket that is drained.
        let is_busy = |server: &StoreServer| server.command("KEYS tollgate:*:b:*").contains("tollgate:");
        assert!(eventually(PATIENCE, || servers.iter().any(is_busy)), "{engine:?}");
        let lost = servers.iter().position(is_busy).unwrap();
        let replica = cluster_replica(engine, &servers, &ids[lost]);
        dawdle(beside());
        servers[lost].kill();
        assert!(eventually(PATIENCE, || replica.command("ROLE").contains("master")), "{engine:?}");
        fleet.wait_until("joined");
        let trips = |node: &Instance| metric(node, "tollgate_fleet_leases_total{kind=\"asked\"}");
        let before: Vec<_> = fleet.nodes.iter().map(trips).collect();
        dawdle(beside());
        for (node, before) in fleet.nodes.iter().zip(before) {
            // One that loses it again meanwhile asks when it is back.
            assert!(eventually(PATIENCE, || trips(node) > before), "{engine:?}: a node asks nobody any more");
        }
        // What was acknowledged and not replicated: a lease in flight of each node, half a bucket together.
        let drained = load.stop();
        assert_bounds(("primary of a Cluster lost", engine), &fleet, &drained, 0.5);
        fleet.create("b", 7, 1.0);
    }
}

/// What a node explains of the caller with this key.
fn explained(node: &Instance, key: &str) -> Value {
    let question = json!({"address": "127.0.0.1", "headers": {"x-api-key": key}}).to_string();
    node.admin("POST", "/explain", &question).json()
}

/// What a node tells the caller with this key of itself.
fn own_standing(node: &Instance, key: &str) -> Response {
    let headers = [("x-api-key", key)];
    Client::connect(node.address).call(&Request::new("GET", "/.well-known/ratelimit").headers(&headers)).unwrap()
}

/// Asserts that what a node explains of a caller's request is what that request gets.
#[track_caller]
fn assert_explained(node: &Instance, key: &str) -> (Value, Response) {
    let (told, answer) = (explained(node, key), get(node, key));
    let refused = (answer.status != 200).then_some(answer.status);
    assert_eq!(told["answer"]["status"], json!(refused), "{told} {answer:?}");
    for (name, value) in told["answer"]["headers"].as_object().unwrap() {
        assert_eq!(answer.header(name), value.as_str(), "{name}: {told} {answer:?}");
    }
    (told, answer)
}

#[test]
fn callers_are_refused_or_let_in_where_the_configuration_says_so() {
    let more = "rate_limit: {self_service: true, reset_header: off}";
    let refuses = Fleet::start(Engine::all()[0], 1, "when_unreachable: refuse", more);
    let allows = Fleet::start(Engine::all()[0], 1, "when_unreachable: allow", more);
    for fleet in [&refuses, &allows] {
        fleet.create("a", 1, 0.001);
        let vip = r#"{"client_id":"vip","capacity":1,"rate_per_sec":1,"mode":"unlimited","max_concurrent":3}"#;
        assert_eq!(fleet.nodes[0].admin("POST", "/clients", vip).status, 201);
        assert_eq!([get(&fleet.nodes[0], "a").status, get(&fleet.nodes[0], "a").status], [200, 429]);
        fleet.store.pause();
        fleet.wait_until("unreachable");
    }
    for key in ["a", "vip"] {
        let (told, refused) = assert_explained(&refuses.nodes[0], key);
        assert_ours(&refused, 503, "Limits unavailable");
        assert_eq!(
            (refused.header("retry-after"), &told["answer"]["headers"]),
            (Some("1"), &json!({"retry-after": "1"}))
        );
        assert_eq!((&told["decision"], &told["limited_by"]), (&json!("unavailable"), &Value::Null), "{told}");
        assert_eq!(told["answer"]["message"], "Limits unavailable");
    }
    assert_ours(&own_standing(&refuses.nodes[0], "a"), 503, "Limits unavailable");
    let refused = refuses.nodes[0].admin("GET", "/decisions?client_id=a&limit=1", "").json()["items"][0].clone();
    let [decision, status, by] = ["decision", "status", "limited_by"].map(|field| refused[field].clone());
    assert_eq!(json!([decision, status, by]), json!(["unavailable", 503, null]));
    for _ in 0..3 {
        let (told, _) = assert_explained(&allows.nodes[0], "a");
        assert_eq!((&told["decision"], &told["limited_by"]), (&json!("allowed"), &Value::Null), "{told}");
        assert_eq!(get(&allows.nodes[0], "vip").status, 200);
    }
    let own = own_standing(&allows.nodes[0], "a").json()["policies"][0].clone();
    assert!(own["retry_after"] == 0 && own["tokens"].as_f64().unwrap() < 1.0, "{own}");
    assert!(is_ready(refuses.nodes[0].admin) && is_ready(allows.nodes[0].admin));
    for fleet in [&refuses, &allows] {
        fleet.store.resume();
        fleet.wait_until("joined");
        assert!(eventually(PATIENCE, || get(&fleet.nodes[0], "a").status == 429));
        assert_eq!(explained(&fleet.nodes[0], "a")["decision"], "limited");
    }
}

#[test]
fn a_share_is_explained_and_told_as_it_is_given() {
    let policy = "{name: writes, key: client, capacity: 4, rate_per_sec: 0.001}";
    let more = format!("rate_limit: {{self_service: true, reset_header: off, policies: [{policy}]}}");
    let fleet = Fleet::start(Engine::all()[0], 2, "", &more);
    fleet.create("a", 7, 0.001);
    fleet.create("one", 1, 0.001);
    let turns = r#"{"client_id":"b","capacity":9,"rate_per_sec":1,"max_concurrent":1}"#;
    assert_eq!(fleet.nodes[0].admin("POST", "/clients", turns).status, 201);
    fleet.wait_for_client("b", |client| client["max_concurrent"] == 1);
    fleet.store.pause();
    fleet.wait_until("unreachable");
    for node in &fleet.nodes {
        // Two of the policy's four, and three of seven; its limits are what they are.
        let own = own_standing(node, "a").json()["policies"].clone();
        let left = json!([own[0]["tokens"], own[1]["tokens"]]);
        assert_eq!(
            (left, json!([own[0]["capacity"], own[1]["capacity"]])),
            (json!([3.0, 2.0]), json!([7, 4])),
            "{own}"
        );
        let decisions = [(); 4].map(|()| assert_explained(node, "a").0);
        let decided = decisions.each_ref().map(|told| (&told["decision"], &told["policies"][0]["enough"]));
        let (yes, no) = ((&json!("allowed"), &json!(true)), (&json!("limited"), &json!(false)));
        assert_eq!(decided, [yes, yes, no, no], "{decisions:?}");
        assert_ne!(own_standing(node, "a").json()["policies"][1]["retry_after"], 0);
    }
    // What is too small to divide is one node's; a turn and a token, each that of its owner.
    for key in ["one", "b"] {
        let told = [&fleet.nodes[0], &fleet.nodes[1]].map(|node| assert_explained(node, key).0["decision"].clone());
        assert!(told.contains(&json!("allowed")) && told.contains(&json!("limited")), "{key}: {told:?}");
    }
}

#[test]
fn an_absence_is_noticed_at_once_and_told_everywhere() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    let node = &fleet.nodes[0];
    let status = |field: &str| node.admin("GET", "/status", "").json()["fleet"][field].clone();
    assert_eq!((status("state"), metric(node, "tollgate_fleet_state")), (json!("joined"), 1.0));
    let joined = status("since");
    fleet.store.pause();
    // 250 ms, and what two busy cores take.
    let noticed = eventually(Duration::from_millis(1000), || status("state") == "unreachable");
    assert!(noticed, "{}", standing(node));
    assert_eq!(metric(node, "tollgate_fleet_state"), 2.0);
    assert!(standing(node)["reason"].is_string() && status("since") != joined, "{}", standing(node));
    fleet.store.resume();
    assert!(eventually(PATIENCE, || status("state") == "joined"));
}

#[test]
fn a_full_store_counts_as_away_and_says_so() {
    for engine in Engine::all() {
        let fleet = Fleet::start(engine, 2, "when_unreachable: refuse", "");
        fleet.create("a", 5, 0.001);
        fleet.store.command("CONFIG SET maxmemory 1mb");
        fleet.wait_until("unreachable");
        let node = &fleet.nodes[0];
        let reason = standing(node)["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("its memory is full: OOM") && !reason.contains("script"), "{engine:?}: {reason}");
        assert_ours(&get(node, "a"), 503, "Limits unavailable");
        for (method, target, body) in
            [("PATCH", "/clients/a", r#"{"capacity":9}"#), ("POST", "/clients/a/grant", r#"{"tokens":9}"#)]
        {
            let refused = node.admin(method, target, body);
            let message = format!("Fleet store unreachable: {reason}");
            assert_eq!((refused.status, refused.json()["message"].as_str()), (503, Some(&*message)), "{engine:?}");
        }
        assert_eq!(node.admin("PATCH", "/clients/a?local=1", r#"{"capacity":9}"#).status, 200);
        let errors = standing(node)["store"]["errors"].as_u64().unwrap();
        assert!(errors > 0, "{engine:?}");
        // One event as it goes, whoever asks meanwhile.
        (0..50).for_each(|_| drop(get(node, "a")));
        node.process.err.wait_for(&["OOM"], PATIENCE);
        let lines = node.process.err.lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("OOM")).collect();
        assert_eq!(told.len(), 1, "{engine:?}: {told:#?}");
        fleet.store.command("CONFIG SET maxmemory 0");
        fleet.wait_until("joined");
        fleet.wait_for_client("a", |client| client["capacity"] == 9);
        assert!(eventually(PATIENCE, || get(&fleet.nodes[1], "a").status == 200));
    }
}

#[test]
fn a_start_without_the_store_says_what_is_in_the_way() {
    let mut fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.nodes[0].stop();
    fleet.store.command("CONFIG SET requirepass other");
    fleet.nodes[0].start_again();
    let node = &fleet.nodes[0];
    let reason = standing(node)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("NOAUTH") && standing(node)["store"]["errors"].as_u64().unwrap() > 0, "{}", standing(node));
    let first = node.process.err.wait_for(&["fleet"], PATIENCE);
    assert!(first.contains("unreachable") && first.contains(&reason), "{first}");
}

#[test]
fn writes_wait_for_the_store_but_those_for_one_node() {
    let fleet = Fleet::start(Engine::all()[0], 2, "", "");
    fleet.create("a", 5, 1.0);
    fleet.store.pause();
    fleet.wait_until("unreachable");
    let node = &fleet.nodes[0];
    let body = r#"{"client_id":"b","capacity":7,"rate_per_sec":1}"#;
    for (method, target, body) in [
        ("POST", "/clients", body),
        ("PATCH", "/clients/a", r#"{"capacity":9}"#),
        ("POST", "/clients/a/reset", ""),
        ("POST", "/clients/a/grant", r#"{"tokens":9}"#),
    ] {
        let refused = node.admin(method, target, body);
        assert_eq!((refused.status, refused.json()["message"].as_str()), (503, Some("Fleet store unreachable")));
    }
    assert_eq!(node.admin("GET", "/clients/b", "").status, 404);
    assert_eq!(node.admin("POST", "/clients?local=1", body).status, 201);
    assert_eq!(node.admin("PATCH", "/clients/a?local=1", r#"{"capacity":9}"#).json()["capacity"], json!(9));
    assert_eq!(fleet.nodes[1].admin("GET", "/clients/b", "").status, 404);
    fleet.store.resume();
    fleet.wait_until("joined");
    for node in &fleet.nodes {
        let there = || {
            let (a, b) = (node.admin("GET", "/clients/a", ""), node.admin("GET", "/clients/b", ""));
            (a.json()["capacity"].as_u64(), b.status) == (Some(9), 200)
        };
        assert!(eventually(Duration::from_secs(5), there));
    }
}

#[test]
fn a_node_starts_without_the_store_and_catches_up() {
    let mut fleet = Fleet::start(Engine::all()[0], 2, "", "");
    fleet.create("a", 5, 0.001);
    fleet.nodes[1].stop();
    assert_eq!(fleet.nodes[0].admin("PATCH", "/clients/a", r#"{"capacity":6}"#).status, 200);
    fleet.store.pause();
    fleet.nodes[1].start_again();
    let node = &fleet.nodes[1];
    assert_eq!((standing(node)["state"].as_str(), get(node, "a").status), (Some("unreachable"), 200));
    fleet.store.resume();
    fleet.wait_until("joined");
    fleet.wait_for_client("a", |client| client["capacity"] == 6);
}
