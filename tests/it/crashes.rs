//! kill -9 in the middle of a storm of changes: what was answered is there, what was not is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::dawdle;
use crate::harness::instance::{Instance, ask};

const ROUNDS: usize = 50;
const WRITERS: usize = 8;

/// What one writer knows of its clients: the capacity that was acknowledged, none for a deleted one; and what the last,
/// unanswered change of each would make of it.
#[derive(Debug, Default)]
struct Known {
    acknowledged: BTreeMap<String, Option<u64>>,
    open: BTreeMap<String, Option<u64>>,
    answers: usize,
}

#[test]
fn nothing_that_was_answered_is_lost_in_fifty_crashes() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "rate_limit: {persist_interval: 50ms}");
    let mut known: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, known) in known.iter_mut().enumerate() {
                let (server, stop) = (&server.admin, &stop);
                scope.spawn(move || storm(*server, writer, round, known, stop));
            }
            dawdle(std::time::Duration::from_millis(fastrand::u64(20..250)));
            server.process.signal("KILL");
            stop.store(true, Ordering::SeqCst);
        });
        server.process.wait_exit(crate::harness::PATIENCE);
        server.start_again();
        let there = capacities(&server);
        for known in &mut known {
            compare(known, &there, round);
        }
    }
    let answers: usize = known.iter().map(|known| known.answers).sum();
    assert!(answers > ROUNDS * WRITERS, "only {answers} changes were answered in all");
}

/// Creates, edits and deletes until the server is gone.
fn storm(admin: std::net::SocketAddr, writer: usize, round: usize, known: &mut Known, stop: &AtomicBool) {
    let Ok(mut client) = Client::try_connect(admin) else { return };
    for step in 0.. {
        let alive: Vec<_> = known.acknowledged.iter().filter(|(_, capacity)| capacity.is_some()).collect();
        let old = (!alive.is_empty()).then(|| alive[fastrand::usize(..alive.len())].0.clone());
        let capacity = fastrand::u64(1..1_000_000);
        let fresh = format!("w{writer}-r{round}-{step}");
        let (method, id, body, outcome) = match (fastrand::u8(..10), old) {
            (0..2, Some(id)) => ("DELETE", id, String::new(), None),
            (2..5, Some(id)) => ("PATCH", id, format!(r#"{{"capacity":{capacity}}}"#), Some(capacity)),
            _ => {
                let body =
                    format!(r#"{{"client_id":"{fresh}","capacity":{capacity},"rate_per_sec":1,"note":"{capacity}"}}"#);
                ("POST", fresh, body, Some(capacity))
            }
        };
        let target = if method == "POST" { "/clients".to_owned() } else { format!("/clients/{id}") };
        known.open.insert(id.clone(), outcome);
        match ask(&mut client, method, &target, &body) {
            Ok(answer) => {
                assert!(answer.status < 300, "{method} {id}: {answer:?}");
                known.open.remove(&id);
                known.acknowledged.insert(id, outcome);
                known.answers += 1;
            }
            Err(_) => return,
        }
        if stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// All clients that there are, with their capacities.
fn capacities(server: &Instance) -> BTreeMap<String, u64> {
    let answer = server.admin("GET", "/clients?format=ndjson", "");
    assert_eq!(answer.status, 200);
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines
        .iter()
        .map(|line| (line["client_id"].as_str().unwrap().to_owned(), line["capacity"].as_u64().unwrap()))
        .collect()
}

/// Compares what is there with what was answered, and takes over what had no answer.
fn compare(known: &mut Known, there: &BTreeMap<String, u64>, round: usize) {
    let open = std::mem::take(&mut known.open);
    let ids: BTreeSet<_> = known.acknowledged.keys().chain(open.keys()).cloned().collect();
    for id in ids {
        let found = there.get(&id).copied();
        let before = known.acknowledged.get(&id).copied().flatten();
        let possible = open.get(&id).map_or_else(|| vec![before], |outcome| vec![before, *outcome]);
        assert!(possible.contains(&found), "round {round}: {id} is {found:?}, not one of {possible:?}");
        known.acknowledged.insert(id, found);
    }
}
