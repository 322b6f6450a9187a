//! A machine that runs out of file descriptors: that is nobody's fault but its own, and it passes.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, dawdle, eventually};

/// Enough to start with, and far too few for what comes.
const FILES: u32 = 64;
const CLIENTS: usize = 100;

/// Lets a proxy with these health checks run out of descriptors.
#[track_caller]
fn assert_recovers(check: &str) {
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, check).line("pingora: {threads: 1}").yaml();
    let mut server = Tollgate::with_few_files(&yaml, FILES);
    server.wait_for_event(&["the limit of open files is 64, of which tollgate needs 72 for itself"], PATIENCE);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    }
    server.wait_for_event(&["Too many open files"], PATIENCE);
    // Several checks fall into this time.
    dawdle(Duration::from_millis(1500));
    backend[0].release("k");
    drop(clients);
    let serves = || Client::try_connect(server.address).and_then(|mut c| c.get("/")).is_ok_and(|r| r.status == 200);
    assert!(eventually(PATIENCE, serves), "{check}: {}", server.process.err.text());
    assert!(server.process.is_running());
    let events = server.process.err.text();
    assert!(!events.contains("-> down") && !events.contains("panicked"), "{check}: {events}");
    assert!(server.process.err.lines().len() < 100, "{check}: {events}");
}

#[test]
fn a_proxy_without_descriptors_blames_no_backend_and_serves_again_afterwards() {
    assert_recovers(NO_CHECK);
}

#[test]
fn checks_that_lack_a_descriptor_take_no_backend_out() {
    assert_recovers(QUICK_TCP);
}
