//! Nodes join, stop, are killed and are upgraded: never more than the budget, and little less.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::Daemon;
use crate::harness::fleet::{Budget, COSTS, Drain, FlatOut, Fleet, Tally, assert_exact, standing, window};
use crate::harness::instance::Instance;
use crate::harness::process::{faketime, tell_skipped};
use crate::harness::server::command;
use crate::harness::store::Engine;
use crate::harness::{PATIENCE, dawdle, eventually, now};

/// Long enough for whoever comes or goes to be asked.
const MEANWHILE: Duration = Duration::from_secs(1);

#[test]
fn every_node_is_seen_with_its_name_and_version() {
    let mut fleet = Fleet::start(Engine::all()[0], 2, "", "");
    fleet.join();
    fleet.wait_for_nodes(3);
    let told = standing(&fleet.nodes[0]);
    let nodes = told["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["node-0", "node-1", "node-2"]);
    assert!(nodes.iter().all(|node| node["version"] == env!("CARGO_PKG_VERSION") && node["leased"].is_u64()), "{told}");
    assert!(nodes.iter().all(|node| node["seen"].as_str().unwrap().ends_with('Z')), "{told}");
    let store = &told["store"];
    assert_eq!((store["address"].as_str(), store["evicted_keys"].as_u64()), (Some(&*fleet.store.url()), Some(0)));
    assert!(store["latency_ms"].as_f64().is_some_and(|latency| latency > 0.0), "{told}");
    fleet.nodes.pop().unwrap().stop();
    fleet.wait_for_nodes(2);
}

#[test]
fn nodes_that_come_and_go_change_nothing_of_the_budget() {
    for engine in Engine::all() {
        let mut fleet = Fleet::start(engine, 2, "timeout: 1s", COSTS);
        fleet.create_budgets();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let place =
            format!("pingora: {{upgrade_sock: {}, pid_file: {}}}", socket.display(), dir.path().join("pid").display());
        let mut upgraded = Instance::start(fleet.backend.address, &format!("{}\n{place}", fleet.lines("upgraded")));
        fleet.wait_for_nodes(3);
        let end = now() + window(Duration::from_secs(5));
        let load = Drain::some(&[&fleet.addresses()[..], &[upgraded.address]].concat());
        let (mut beside, mut killed) = (Vec::new(), 0);
        while now() < end {
            fleet.join();
            let joined = Drain::some(&fleet.addresses()[2..]);
            dawdle(MEANWHILE);
            beside.push(joined.stop());
            fleet.nodes.pop().unwrap().stop();
            upgraded.upgrade(&socket);
            fleet.join();
            let doomed = Drain::some(&fleet.addresses()[2..]);
            dawdle(MEANWHILE);
            fleet.nodes.pop().unwrap().kill();
            killed += 1;
            // Its callers cannot know of it.
            let forgive = |(budget, tally)| (budget, Tally { failed: Vec::new(), ..tally });
            beside.push(doomed.stop().into_iter().map(forgive).collect());
        }
        let mut drained = load.stop();
        for (at, (_, more)) in beside.into_iter().flat_map(|beside| beside.into_iter().enumerate()) {
            drained[at].1.allowed += more.allowed;
            drained[at].1.limited += more.limited;
            drained[at].1.failed.extend(more.failed);
        }
        // A lease is never more than the capacity over twice the nodes; and a request is under way.
        let lost = |budget: &Budget| f64::from(killed) * (budget.capacity as f64 / budget.cost as f64 / 8.0 + 1.0);
        assert_exact(("nodes come and go", engine, 4), &drained, (|_| 0.0, lost));
    }
}

#[test]
fn a_node_that_is_killed_costs_at_most_what_it_held() {
    for engine in Engine::all() {
        let mut fleet = Fleet::start(engine, 3, "timeout: 1s", "");
        fleet.create("a", 100, 50.0);
        let doomed = FlatOut::start(&fleet.addresses()[2..], 1, "a");
        let load = FlatOut::start(&fleet.addresses()[..2], 1, "a");
        dawdle(Duration::from_secs(1));
        let leased = |fleet: &Fleet| {
            let told = standing(&fleet.nodes[0]);
            let nodes = told["nodes"].as_array().unwrap().iter();
            nodes.filter(|node| node["node"] == "node-2").filter_map(|node| node["leased"].as_u64()).max()
        };
        let held = leased(&fleet).unwrap_or_default();
        let mut killed = fleet.nodes.pop().unwrap();
        killed.kill();
        dawdle(MEANWHILE);
        let (mut tally, of_killed) = (load.stop(), doomed.stop());
        tally.allowed += of_killed.allowed;
        let budget = tally.budget(100.0, 50.0);
        assert!(tally.failed.is_empty() && tally.allowed as f64 <= budget, "{engine:?}: {tally:?}");
        // A lease is 100 ms of what the node spends, and twice that while it is renewed.
        let least = (budget - held as f64 - 0.2 * 50.0) * 0.98 - 1.0;
        assert!(tally.allowed as f64 >= least, "{engine:?}: {} of {budget}, {held} held", tally.allowed);
    }
}

#[test]
fn an_upgrade_hands_over_what_the_node_holds() {
    let fleet = Fleet::start(Engine::all()[0], 1, "timeout: 1s", "");
    fleet.create("a", 50, 20.0);
    let daemon = Daemon::start(fleet.backend.address, &fleet.lines("daemon"));
    let told = || serde_json::from_str::<Value>(&daemon.ask("GET", "/fleet", "").unwrap().text()).unwrap();
    assert!(eventually(PATIENCE, || told()["state"] == "joined" && told()["nodes"].as_array().unwrap().len() == 2));
    assert!(eventually(PATIENCE, || daemon.ask("GET", "/clients/a", "").unwrap().status == 200));
    let load = FlatOut::start(&[fleet.nodes[0].address, daemon.address], 1, "a");
    dawdle(Duration::from_secs(1));
    daemon.upgrade();
    dawdle(MEANWHILE);
    load.stop().assert_exact(50.0, 20.0);
    assert!(eventually(PATIENCE, || told()["nodes"].as_array().unwrap().len() == 2), "{}", told());
}

#[test]
fn clocks_that_are_hours_apart_change_nothing() {
    let Some(library) = faketime() else {
        return tell_skipped("faketime");
    };
    let mut fleet = Fleet::start(Engine::all()[0], 3, "timeout: 1s", "");
    fleet.create("a", 50, 40.0);
    for (node, apart) in fleet.nodes.iter_mut().zip(["-5h", "+0h", "+7h"]) {
        node.stop();
        // Not by the program of that name, which a signal would end in its place.
        let mut faked = command();
        faked.env("LD_PRELOAD", &library).env("FAKETIME", apart);
        node.start_again_as(faked);
    }
    fleet.wait_until("joined");
    FlatOut::run(&fleet.addresses(), 1, "a", window(Duration::from_secs(2))).assert_exact(50.0, 40.0);
    let change = |node: usize, body: &str| {
        let changed = fleet.nodes[node].admin("PATCH", "/clients/a", body);
        assert_eq!(changed.status, 200, "{changed:?}");
        changed.json()["updated_at"].as_str().unwrap().to_owned()
    };
    let (early, late) = (change(0, r#"{"capacity":51}"#), change(2, r#"{"rate_per_sec":41}"#));
    assert!(early < moment("4 hours ago") && late > moment("6 hours"), "the clocks are not apart: {early}, {late}");
    fleet.wait_for_client("a", |client| (client["capacity"] == 51) & (client["rate_per_sec"] == 41));
}

/// A moment as `date` reads it, as the API writes it.
fn moment(when: &str) -> String {
    let date = Command::new("date").args(["-u", "+%FT%TZ", "-d", when]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}
