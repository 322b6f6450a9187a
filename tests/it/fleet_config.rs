//! What the configuration says of a fleet, from a shell and at a reload.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::fleet::{Fleet, standing};
use crate::harness::instance::Instance;
use crate::harness::process::run;
use crate::harness::server::command;
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{PATIENCE, eventually};

#[test]
fn a_node_alone_says_so() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    let told = server.admin("GET", "/fleet", "");
    let expected = json!({
        "state": "alone", "since": null, "reason": null, "node": null, "nodes": [],
        "store": {"address": null, "primary": null, "latency_ms": null, "errors": 0, "evicted_keys": null, "maxmemory_policy": null},
    });
    assert_eq!((told.status, told.json()), (200, expected));
    assert_eq!(server.admin("GET", "/fleet?a=1", "").status, 422);
    let metrics = server.admin("GET", "/metrics", "").text();
    for line in ["tollgate_fleet_state 0", "tollgate_fleet_nodes 1", "tollgate_fleet_leases_total{kind=\"asked\"} 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn a_wrong_fleet_is_told_with_its_keys_and_without_its_password() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tollgate.yaml");
    let yaml = "listeners: [{address: 127.0.0.1:1}]\nupstreams: [{name: app, backends: [{address: 127.0.0.1:2}]}]\n\
                database: null\nfleet: {store: 'redis://u:hunter2@a,b', timeout: 0s}\n";
    std::fs::write(&file, yaml).unwrap();
    let finished = run(command().args(["check", "-c"]).arg(&file));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    for said in
        ["fleet.store: ", "names several servers", "fleet.timeout: must be a duration from 1ms to 1s", "(line 4)"]
    {
        assert!(finished.all().contains(said), "{said}: {finished:?}");
    }
    assert!(!finished.all().contains("hunter2"), "{finished:?}");
    std::fs::write(&file, yaml.replace("a,b', timeout: 0s", "a'")).unwrap();
    let finished = run(command().args(["check", "-c"]).arg(&file));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.all().contains("database: must be the path of a file with `fleet`"), "{finished:?}");
    let finished = run(command().args(["-t", "-c"]).arg(&file).env("TOLLGATE_FLEET", "http://u:hunter2@a"));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.all().contains("TOLLGATE_FLEET: must begin with redis://"), "{finished:?}");
    assert!(!finished.all().contains("hunter2"), "{finished:?}");
}

#[test]
fn a_reload_says_that_a_fleet_needs_a_restart() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    let node = &fleet.nodes[0];
    let text = std::fs::read_to_string(node.file()).unwrap();
    std::fs::write(node.file(), text.replace("fleet: {", "fleet: {lease: 1s, prefix: other, ")).unwrap();
    let refused = node.admin("POST", "/config/reload", "");
    let fields = |answer: &Value| -> Vec<String> {
        answer["errors"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((refused.status, fields(&refused.json())), (422, vec!["fleet.prefix".into(), "fleet.lease".into()]));
    std::fs::write(node.file(), text.lines().filter(|line| !line.starts_with("fleet")).collect::<Vec<_>>().join("\n"))
        .unwrap();
    assert_eq!(fields(&node.admin("POST", "/config/reload", "").json()), ["fleet"]);
    std::fs::write(node.file(), text).unwrap();
    assert_eq!(node.admin("POST", "/config/reload", "").status, 200);
}

#[test]
fn a_password_opens_the_store_and_is_never_shown() {
    for engine in Engine::all() {
        let store = StoreServer::start_with(engine, &["--save", "", "--requirepass", "hunter2-hunter2"]);
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "hunter2-hunter2\n").unwrap();
        let fleet = Fleet::over(store, 1, &format!("password_file: {}", file.display()), "");
        let told = standing(&fleet.nodes[0]).to_string();
        assert!(!told.contains("hunter2") && !fleet.nodes[0].process.err.text().contains("hunter2"), "{told}");
        std::fs::write(&file, "another\n").unwrap();
        let wrong = Instance::start(fleet.backend.address, &fleet.lines("wrong"));
        let says = || standing(&wrong)["reason"].as_str().is_some_and(|why| why.to_lowercase().contains("password"));
        assert!(eventually(PATIENCE, says), "{engine:?}: {}", standing(&wrong));
        assert!(!wrong.process.err.text().contains("another"), "{engine:?}");
    }
}

#[test]
fn nodes_of_different_prefixes_do_not_meet() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    let lines = fleet.lines("other").replace("fleet: {", "fleet: {prefix: other, ");
    let other = Instance::start(fleet.backend.address, &lines);
    assert!(eventually(PATIENCE, || standing(&other)["state"] == "joined"));
    fleet.create("a", 5, 1.0);
    assert_eq!(other.admin("GET", "/clients/a", "").status, 404);
    assert_eq!(standing(&other)["nodes"].as_array().unwrap().len(), 1);
}

#[test]
fn the_environment_makes_a_node_join() {
    let store = StoreServer::start(Engine::all()[0]);
    let yaml = "listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\ndatabase: $DIR/t.db\n\
                upstreams: [{name: app, backends: [{address: 127.0.0.1:9}], health_check: {type: none}}]\n";
    let variables = [("TOLLGATE_FLEET", &*store.url())];
    let server = crate::harness::server::Tollgate::start(yaml, &["run", "-c", "$FILE"], &variables, false);
    let told = || server.ask("GET", "/fleet", "").json();
    assert!(eventually(PATIENCE, || told()["state"] == "joined"), "{}", told());
    assert_eq!(told()["store"]["address"], json!(store.url()));
    assert!(told()["node"].as_str().is_some_and(|name| !name.is_empty()), "{}", told());
}

#[test]
fn the_rights_that_the_docs_name_are_enough() {
    let docs = include_str!("../../docs/fleet.md");
    let (_, rights) = docs.split_once("~tollgate:* ").unwrap();
    let (rights, _) = rights.split_once("+role").unwrap();
    let rights: Vec<_> = rights.split_whitespace().collect();
    for engine in Engine::all() {
        let store = StoreServer::start(engine);
        store.command(&format!("ACL SETUSER edge on >pw resetchannels ~tollgate:* {}", rights.join(" ")));
        store.command("ACL SETUSER default off");
        let url = store.url().replace("//", "//edge:pw@");
        let fleet = Fleet::at(store, url, 2, "", "");
        fleet.create("a", 2, 0.001);
        // More than are published in one piece.
        let all = (0..1_100).map(|n| json!({"client_id": format!("c{n}"), "capacity": 1, "rate_per_sec": 1}));
        let applied = fleet.nodes[1].admin("PUT", "/clients", &Value::from(all.collect::<Vec<_>>()).to_string());
        assert_eq!(applied.status, 200, "{applied:?}");
        let there = |node: &Instance| node.admin("GET", "/clients/c1099", "").status == 200;
        assert!(fleet.nodes.iter().all(|node| eventually(PATIENCE, || there(node))), "{engine:?}");
        assert_eq!(fleet.nodes[0].admin("POST", "/clients/a/reset", "").status, 200);
        let lines = fleet.nodes.iter().flat_map(|node| node.process.err.lines());
        assert_eq!(
            lines.filter(|line| line.contains("NOPERM")).collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{engine:?}"
        );
    }
}
