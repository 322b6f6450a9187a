//! The requests in flight that `least_connections` counts, seen from outside: after a storm of aborted clients, dying
//! backends and retries, held requests spread evenly again. A single count that was lost or kept shows as a lean.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Body, Client, Request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{QUICK_TCP, Setup};
use crate::harness::{PATIENCE, eventually};

/// Sends `count` requests that the backends hold under `key`, and tells how many each holds when all have arrived. The
/// clients leave afterwards; who wants an answer releases it.
pub(crate) fn held_at_once(server: &Tollgate, backends: &[Backend], key: &str, count: usize) -> Vec<usize> {
    let request = format!("/?hold={key}");
    let held = || backends.iter().map(|backend| backend.held(key) as usize).collect::<Vec<_>>();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut client = server.client();
            client.send(&Request::new("GET", &request).encode()).unwrap();
            client
        })
        .collect();
    let arrived = eventually(PATIENCE, || held().iter().sum::<usize>() == count);
    assert!(arrived, "{:?} of {count} requests arrived", held());
    let held = held();
    drop(clients);
    held
}

/// Everything that can go wrong with a request, once each.
fn mischief(server: &Tollgate, round: usize) {
    let answered = [
        "/?bytes=20000",
        "/?fault=close",
        "/?fault=close_reused&at=a",
        "/?fault=close_reused",
        "/?fault=half_body",
        "/?fault=half_chunked",
        "/?raw=0",
        "/?raw=5&at=b",
        "/?status=503",
        "/?fault=hang&at=c",
    ];
    for target in answered {
        // Whatever the answer is, it is not what this is about.
        let _ = server.client().get(target);
        let _ = server.client().call(&Request::new("POST", target).body(Body::Length(&[7; 3000])));
    }
    // Clients that leave: before the answer, in the middle of it, in the middle of their own body.
    let mut client = server.client();
    let _ = client.send(&Request::new("GET", "/?delay_ms=200").encode());
    drop(client);
    let mut client = server.client();
    let _ = client.send(&Request::new("GET", "/?bytes=20000000").encode());
    drop(client);
    let mut client = server.client();
    let _ = client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nonly this");
    drop(client);
    let mut client = server.client();
    let _ = client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzzz\r\n");
    let _ = client.read("POST");
    // Two requests at a time on one connection, and a client that closes its half early.
    let mut client = server.client();
    let _ = client.stream().write_all(&Request::new("GET", "/").encode().repeat(2));
    client.finish();
    let _ = client.read("GET");
    // Some rounds leave a connection open in the middle of a header.
    if round.is_multiple_of(2) {
        let _ = server.client().send(b"GET / HT");
    }
}

#[test]
fn every_count_is_zero_again_after_a_storm() {
    let mut backends = three_scripted();
    let pool = format!("balance: least_connections, retries: 2, read_timeout: 300ms, {QUICK_TCP}");
    let server = Setup::app(&backends, &pool).start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..3).for_each(|round| mischief(&server, round)));
        }
        let good = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = Client::try_connect(server.address).and_then(|mut client| client.get("/?bytes=100000"));
            }
        });
        for _ in 0..2 {
            backends[1].kill();
            server.wait_for_event(&[&backends[1].address.to_string()], PATIENCE);
            backends[1].restart();
        }
        stop.store(true, Ordering::Relaxed);
        good.join().unwrap();
    });
    // All up again, and the last requests of the storm gone: both take a moment.
    let mut last = Vec::new();
    let mut round = 0;
    let even = eventually(PATIENCE, || {
        round += 1;
        let key = format!("k{round}");
        last = held_at_once(&server, &backends, &key, 30);
        backends.iter().for_each(|backend| backend.release(&key));
        last == [10, 10, 10]
    });
    assert!(even, "held {last:?} of 30: {}", server.process.err.text());
    // And it stays even: no count is only by accident where it should be.
    assert!(eventually(PATIENCE, || {
        round += 1;
        held_at_once(&server, &backends, &format!("k{round}"), 3) == [1, 1, 1]
    }));
}
