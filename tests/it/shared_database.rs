//! Two processes over one database, as during an upgrade.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::instance::{Instance, ask};
use crate::harness::{eventually, now};

/// How soon each sees what the other did.
const SOON: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(4);

fn two() -> (tempfile::TempDir, Backend, Instance, Instance) {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::scripted("a");
    let database = dir.path().join("tollgate.db");
    let first = Instance::over(&database, backend.address, "");
    let second = Instance::over(&database, backend.address, "");
    (dir, backend, first, second)
}

#[test]
fn each_sees_what_the_other_changes() {
    let (_dir, _backend, first, second) = two();
    first.create("alice", 3, 0.001);
    assert!(eventually(SOON + SLACK, || second.call("alice") == 200 && second.tokens("alice") < 3.0));
    assert_eq!(second.admin("PATCH", "/clients/alice", r#"{"mode":"blocked"}"#).status, 200);
    assert!(eventually(SOON + SLACK, || first.call("alice") == 403));
    assert_eq!(first.admin("DELETE", "/clients/alice", "").status, 204);
    assert_eq!(second.admin("GET", "/clients/alice", "").status, 404, "reads see it at once");
    assert!(eventually(SOON + SLACK, || second.call("alice") == 200), "an unknown key goes by its address");
    let status = second.admin("GET", "/status", "").json();
    assert_eq!(status["clients"], 0, "{status}");
}

#[test]
fn no_write_of_either_is_lost_or_refused() {
    const EACH: usize = 150;
    let (_dir, _backend, first, second) = two();
    std::thread::scope(|scope| {
        for (name, admin) in [("a", first.admin), ("b", second.admin), ("c", first.admin), ("d", second.admin)] {
            scope.spawn(move || {
                let mut client = Client::connect(admin);
                for number in 0..EACH {
                    let body = format!(r#"{{"client_id":"{name}{number}","capacity":5,"rate_per_sec":1}}"#);
                    let answer = ask(&mut client, "POST", "/clients", &body).unwrap();
                    assert_eq!(answer.status, 201, "{answer:?}");
                }
            });
        }
    });
    let end = now() + SOON + SLACK;
    for server in [&first, &second] {
        assert_eq!(server.admin("GET", "/clients?limit=1", "").json()["total"], 4 * EACH);
        let left = end.saturating_duration_since(now()).max(SOON);
        let clients = || server.admin("GET", "/status", "").json()["clients"].as_u64();
        assert!(eventually(left, || clients() == Some(4 * EACH as u64)), "{:?}", clients());
    }
}

#[test]
fn of_two_edits_with_the_same_version_one_wins() {
    let (_dir, _backend, first, second) = two();
    first.create("alice", 1, 1.0);
    let wins: usize = std::thread::scope(|scope| {
        let edits: Vec<_> = [&first, &second]
            .into_iter()
            .cycle()
            .take(8)
            .enumerate()
            .map(|(number, server)| {
                scope.spawn(move || {
                    let mut client = Client::connect(server.admin);
                    let body = format!(r#"{{"capacity":{}}}"#, number + 100);
                    let request = crate::harness::client::Request::new("PATCH", "/clients/alice")
                        .host("localhost")
                        .headers(&[("If-Match", "\"1\"")])
                        .body(crate::harness::client::Body::Length(body.as_bytes()));
                    client.call(&request).unwrap().status
                })
            })
            .collect();
        let statuses: Vec<_> = edits.into_iter().map(|edit| edit.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 412)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    });
    assert_eq!(wins, 1);
    assert_eq!(first.admin("GET", "/clients/alice", "").json()["version"], 2);
}
