//! Reloads while requests run: none of them fails, and what stays is what it was.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::backend::{Backend, three_echoes, three_scripted};
use crate::harness::client::Request;
use crate::harness::load::Load;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, eventually};

#[track_caller]
fn reload(server: &Tollgate, setup: &Setup) {
    server.rewrite(&setup.yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Every counter that is not a histogram's, by its name and labels.
fn counters(server: &Tollgate) -> BTreeMap<String, u64> {
    let text = server.ask("GET", "/metrics", "").text();
    let counter = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        let is_total = name.split('{').next()?.ends_with("_total");
        Some((name.to_owned(), value.parse().ok().filter(|_| is_total)?))
    };
    text.lines().filter_map(counter).collect()
}

/// The memory that a process holds, in KiB.
fn resident(server: &Tollgate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Pool `app` in the admin API.
fn pool(server: &Tollgate) -> Value {
    let pools = server.ask("GET", "/upstreams", "").json();
    pools["items"].as_array().unwrap().iter().find(|pool| pool["name"] == "app").unwrap().clone()
}

#[test]
fn pools_and_backends_come_and_go_and_nothing_is_lost_or_counted_twice() {
    let backends = three_echoes();
    // One backend is always there; the others come and go, and with them a pool, weights and the rule.
    let setup = |number: usize| {
        let rules = ["round_robin", "random", "least_connections", "least_time", "hash, hash: {by: path}"];
        let (rule, weight) = (rules[number % 5], 1 + number as u32 % 4);
        let mut members = vec![(backends[0].address, weight)];
        members.extend(number.is_multiple_of(2).then_some((backends[1].address, 1)));
        members.extend((number % 5 < 2).then_some((backends[2].address, 2)));
        let setup = Setup::default().weighted_pool("app", &members, &format!("balance: {rule}, {QUICK_TCP}"));
        let other = if number.is_multiple_of(3) { "app" } else { "other" };
        let setup = setup.line(&format!("routes: [{{path: /, upstream: app}}, {{path: /other, upstream: {other}}}]"));
        let setup = setup.line("access_log: {path: $DIR/access.log}");
        if other == "app" { setup } else { setup.pool("other", &[backends[1].address], NO_CHECK) }
    };
    let server = setup(0).start();
    let loads = [(6, true, "/"), (2, false, "/"), (2, true, "/other")];
    let loads = loads.map(|(clients, kept, target)| Load::start(server.address, (clients, kept), target, &[]));
    let stays = format!("tollgate_backend_requests_total{{upstream=\"app\",backend=\"{}\"}}", backends[0].address);
    let mut before = counters(&server);
    let mut after_twenty = 0;
    for number in 1..=60 {
        let answered = loads[0].answered();
        if number % 10 == 0 {
            server.rewrite(&setup(number).yaml());
            server.process.signal("HUP");
            let done = format!("tollgate_config_reloads_total{{result=\"success\"}} {number}");
            assert!(eventually(PATIENCE, || server.ask("GET", "/metrics", "").text().contains(&done)));
        } else {
            reload(&server, &setup(number));
        }
        assert!(eventually(PATIENCE, || loads[0].answered() > answered + 3), "the load stands still");
        let now = counters(&server);
        for (name, count) in &now {
            let is_name = name.contains("requests_total{upstream=\"app\"") && !name.contains("backend_requests");
            if (is_name || *name == stays)
                && let Some(then) = before.get(name)
            {
                assert!(count >= then, "{name}: {then}, then {count}, at reload {number}");
            }
        }
        assert!(now.contains_key(&stays));
        before = now;
        if number == 20 {
            after_twenty = resident(&server);
        }
    }
    let total = loads.map(Load::stop);
    for outcome in &total {
        assert!(outcome.failures.is_empty() && outcome.with(200) == outcome.answered(), "{outcome:?}");
    }
    let answered = total.iter().map(|outcome| outcome.answered()).sum::<u64>();
    let held = resident(&server);
    assert!(held < after_twenty + after_twenty / 2 + 16_384, "{after_twenty} KiB after 20 reloads, {held} after 60");
    // Those of pools that are gone count too; the last answers may be written before they are counted.
    let counted = || server.ask("GET", "/status", "").json()["requests"].as_u64().unwrap();
    assert!(eventually(PATIENCE, || counted() == answered), "{} of {answered} requests are counted", counted());
    let in_flight = || pool(&server)["backends"].as_array().unwrap().iter().all(|one| one["in_flight"] == 0);
    assert!(eventually(PATIENCE, in_flight), "{}", pool(&server));
    // Each request has its line, whatever became of the log's writer meanwhile.
    let lines = || std::fs::read_to_string(server.path("access.log")).unwrap().lines().count() as u64;
    assert!(eventually(PATIENCE, || lines() == answered), "{} lines", lines());
}

#[test]
fn a_pool_that_is_replaced_wholly_always_has_a_backend() {
    let backends = three_echoes();
    let setup = |number: usize| Setup::default().pool("app", &[backends[number % 3].address], QUICK_TCP);
    let server = setup(0).start();
    let loads = [true, false].map(|kept| Load::start(server.address, (4, kept), "/", &[]));
    for number in 1..=30 {
        reload(&server, &setup(number));
        loads[0].wait_for(5);
    }
    for outcome in loads.map(Load::stop) {
        assert!(outcome.failures.is_empty() && outcome.with(200) == outcome.answered(), "{outcome:?}");
    }
}

#[test]
fn a_backend_that_comes_back_is_checked_and_serves() {
    let mut backends = three_scripted();
    let server = Setup::app(&backends[..2], QUICK_TCP).start();
    reload(&server, &Setup::app(&backends[..1], QUICK_TCP));
    assert_eq!(pool(&server)["backends"].as_array().unwrap().len(), 1);
    backends[1].kill();
    reload(&server, &Setup::app(&backends[..2], QUICK_TCP));
    assert_eq!(pool(&server)["backends"][1]["state"], "down", "it is known before it counts");
    assert!((0..6).all(|_| server.client().get("/").unwrap().backend() == "a"));
    backends[1].restart();
    assert!(eventually(PATIENCE, || server.client().get("/").unwrap().backend() == "b"), "it never serves");
}

#[test]
fn requests_in_flight_count_across_reloads() {
    let backends = three_scripted();
    let keys = |retries: usize| format!("balance: least_connections, retries: {retries}, {NO_CHECK}");
    let server = Setup::app(&backends[..2], &keys(0)).start();
    // Both of the first two are held by one backend each; then one more for each that is asked for a reload.
    let mut held: Vec<_> = (0..2).map(|_| server.client()).collect();
    for client in &mut held {
        client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    }
    assert!(eventually(PATIENCE, || backends[0].held("k") == 1 && backends[1].held("k") == 1));
    let connections = || backends[0].control("connections").as_u64().unwrap();
    let before = connections();
    for retries in 1..=5 {
        reload(&server, &Setup::app(&backends, &keys(retries)));
    }
    let pool = pool(&server);
    let counts: Vec<_> = (0..3).map(|index| pool["backends"][index]["in_flight"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 1, 0]);
    let mut client = server.client();
    let seen: String = (0..4).map(|_| client.get("/").unwrap().backend().to_owned()).collect();
    assert_eq!(seen, "cccc", "the new one is the emptiest");
    assert_eq!(connections(), before);
    backends[..2].iter().for_each(|backend: &Backend| backend.release("k"));
    held.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().status, 200));
    assert!(eventually(PATIENCE, || {
        let mut client = server.client();
        let seen: String = (0..3).map(|_| client.get("/").unwrap().backend().to_owned()).collect();
        let mut sorted: Vec<_> = seen.chars().collect();
        sorted.sort_unstable();
        sorted == ['a', 'b', 'c']
    }));
    assert!(connections() <= before + 1, "connections that were kept are used again");
}
