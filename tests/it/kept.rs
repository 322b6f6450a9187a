//! What outlives a process: buckets, whatever ends it.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::instance::Instance;
use crate::harness::{PATIENCE, eventually, now};

/// So slow that what comes back during a test is not worth speaking of.
const SLOW: f64 = 0.001;
/// Saves often.
const SAVING: &str = "rate_limit: {persist_interval: 100ms, default: {capacity: 5, rate_per_sec: 0.001}}";

#[test]
fn a_restart_gives_nobody_tokens() {
    let backend = Backend::scripted("a");
    // An interval that does not come: the stop saves.
    let mut server = Instance::start(
        backend.address,
        "rate_limit: {persist_interval: 1m, default: {capacity: 5, rate_per_sec: 0.001}}",
    );
    server.create("alice", 20, SLOW);
    assert_eq!(server.allowed("alice", 15), 15);
    assert_eq!(server.allowed("nobody", 3), 3, "an anonymous caller");
    server.stop();
    server.start_again();
    assert!(server.tokens("alice") < 5.5, "{}", server.tokens("alice"));
    assert_eq!((server.allowed("alice", 20), server.allowed("nobody", 20)), (5, 2));
    server.stop();
    server.start_again();
    assert_eq!((server.allowed("alice", 20), server.allowed("nobody", 20)), (0, 0), "not even after the second one");
}

#[test]
fn time_at_rest_counts_as_refill() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, SAVING);
    server.create("alice", 1000, 20.0);
    let start = now();
    let taken = server.allowed("alice", 1000);
    server.stop();
    server.start_again();
    let tokens = server.tokens("alice");
    let most = 1000.0 + 20.0 * (now() - start).as_secs_f64() - taken as f64;
    assert!(tokens > 0.0 && tokens <= most + 0.001, "{tokens} tokens, at most {most} can be there");
    assert!(eventually(PATIENCE, || server.tokens("alice") > tokens), "and it goes on filling");
}

#[test]
fn a_crash_gives_at_most_what_was_taken_since_the_last_save() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, SAVING);
    server.create("alice", 20, SLOW);
    assert_eq!((server.allowed("alice", 20), server.allowed("nobody", 5)), (20, 5));
    // Nothing is taken after this, so when it is saved, nothing is gained.
    wait_until_saved(&server);
    server.kill();
    server.start_again();
    assert_eq!((server.allowed("alice", 5), server.allowed("nobody", 5)), (0, 0));
}

#[test]
fn a_reset_and_a_deletion_outlive_it_too() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, SAVING);
    for name in ["reset", "gone"] {
        server.create(name, 4, SLOW);
        assert_eq!(server.allowed(name, 4), 4);
    }
    wait_until_saved(&server);
    assert_eq!(server.admin("POST", "/clients/reset/reset", "").status, 200);
    assert_eq!(server.admin("DELETE", "/clients/gone", "").status, 204);
    server.stop();
    server.start_again();
    assert_eq!(server.allowed("reset", 10), 4);
    server.create("gone", 4, SLOW);
    assert_eq!(server.allowed("gone", 10), 4, "a new client of the same name");
}

#[test]
fn what_was_answered_of_a_bucket_outlives_a_crash_at_once() {
    let backend = Backend::scripted("a");
    // An interval that does not come: nothing but the answers keeps anything.
    let mut server = Instance::start(backend.address, "rate_limit: {persist_interval: 1m}");
    server.create("reset", 4, SLOW);
    server.create("raised", 4, SLOW);
    assert_eq!(server.allowed("reset", 4), 4);
    server.stop();
    server.start_again();
    assert_eq!(server.admin("POST", "/clients/reset/reset", "").status, 200);
    assert_eq!(server.admin("PATCH", "/clients/raised", r#"{"capacity":1000}"#).status, 200);
    // Answered after it, so on disk after it.
    server.create("last", 1, SLOW);
    server.kill();
    server.start_again();
    assert_eq!(server.allowed("reset", 10), 4, "the bucket was filled");
    assert_eq!(server.allowed("raised", 10), 4, "a larger capacity is no gift of tokens, not even by a crash");
}

/// Two intervals at least; seen by the file's change, as nothing else tells.
fn wait_until_saved(server: &Instance) {
    let before = server.admin("GET", "/metrics", "").text();
    assert!(before.contains("tollgate_persist_errors_total 0"), "{before}");
    let end = now() + Duration::from_millis(500);
    assert!(eventually(PATIENCE, || now() > end && Client::try_connect(server.admin).is_ok()));
}
