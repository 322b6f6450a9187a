//! Other stores than one server in plain text: a Cluster of which a slot moves, and one over TLS.

use std::time::Duration;

use crate::harness::authority::Authority;
use crate::harness::fleet::{COSTS, Drain, Fleet, assert_exact, is_long, window};
use crate::harness::store::{Engine, StoreServer, cluster};
use crate::harness::tls::NOW;
use crate::harness::{PATIENCE, dawdle, eventually};

/// The keys of all buckets on a server.
fn buckets(server: &StoreServer) -> Vec<String> {
    let said = server.command("KEYS tollgate:*:b:*");
    said.lines().filter(|line| line.starts_with("tollgate:")).map(str::to_owned).collect()
}

#[test]
fn slots_of_a_cluster_move_and_the_budget_stays() {
    for engine in Engine::all() {
        let (mut servers, ids) = cluster(engine);
        let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", servers[1].port, servers[2].port);
        let fleet = Fleet::at(servers.remove(0), url, 3, "timeout: 1s", COSTS);
        let primaries = [&fleet.store, &servers[0], &servers[1]];
        fleet.create_budgets();
        let load = Drain::some(&fleet.addresses());
        let all = || primaries.map(buckets);
        // Those of the callers, and of the policy.
        let there = if is_long() { 5 } else { 1 };
        assert!(eventually(PATIENCE, || all().concat().len() == there), "{engine:?}: {:?}", all());
        dawdle(window(Duration::from_secs(4)) / 2);
        for (from, keys) in all().iter().enumerate() {
            let to = (from + 1) % 3;
            for key in keys {
                let said = primaries[from].command(&format!("CLUSTER KEYSLOT {key}"));
                let slot = said.trim_start_matches(':').trim();
                primaries[to].command(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[from]));
                primaries[from].command(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[to]));
                let moved = primaries[from].command(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", primaries[to].port));
                assert!(moved.starts_with("+OK"), "{engine:?}: {moved}");
                for server in [primaries[to], primaries[from]] {
                    let said = server.command(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[to]));
                    assert!(said.starts_with("+OK"), "{engine:?}: {said}");
                }
            }
        }
        dawdle(window(Duration::from_secs(4)) / 2);
        assert_exact(("slots of a Cluster move", engine, 3), &load.stop(), (|_| 0.0, |_| 0.0));
    }
}

#[test]
fn a_store_over_tls_with_a_password_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("an authority");
    let ca = authority.write(dir.path(), "ca").display().to_string();
    let (cert, key) = authority.sign(&["127.0.0.1"], NOW).write(dir.path(), "node");
    let (cert, key, word) = (cert.display().to_string(), key.display().to_string(), dir.path().join("password"));
    std::fs::write(&word, "right\n").unwrap();
    let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let args = ["--save", "", "--requirepass", "right", "--port", "0", "--tls-port", "{port}"];
    let store = StoreServer::start_with(Engine::Redis, &[&args[..], &files].concat());
    let url = store.url().replace("redis", "rediss");
    let keys = format!("timeout: 1s, password_file: {}, tls: {{ca: {ca}, cert: {cert}, key: {key}}}", word.display());
    let fleet = Fleet::at(store, url, 3, &keys, COSTS);
    fleet.create_budgets();
    let load = Drain::some(&fleet.addresses());
    dawdle(window(Duration::from_secs(3)));
    assert_exact(("over TLS", Engine::Redis, 3), &load.stop(), (|_| 0.0, |_| 0.0));
}
