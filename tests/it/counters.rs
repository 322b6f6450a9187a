//! The requests in flight that `least_connections` counts, seen from outside: after a storm of aborted clients, dying
//! backends and retries, held requests spread evenly again. A single count that was lost or kept shows as a lean.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Body, Client, Request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{QUICK_TCP, Setup};
use crate::harness::{PATIENCE, eventually, now};

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

/// Eight clients at a time do all of it, while another asks in earnest.
fn storm(server: &Tollgate, meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let troublemakers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..3).for_each(|round| mischief(server, round)))).collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = Client::try_connect(server.address).and_then(|mut client| client.get("/?bytes=100000"));
            }
        });
        meanwhile();
        let ended = troublemakers.into_iter().map(|thread| thread.join().is_ok()).collect::<Vec<_>>();
        stop.store(true, Ordering::Relaxed);
        assert!(!ended.contains(&false), "a client found no proxy");
    });
}

/// Waits until the access log has been quiet for half a second: a request's line is the last that is heard of it.
fn settle(server: &Tollgate) {
    let (mut lines, mut since) = (0, now());
    let quiet = eventually(PATIENCE, || {
        let written = server.process.out.lines().len();
        if written != lines {
            (lines, since) = (written, now());
        }
        now() - since > Duration::from_millis(500)
    });
    assert!(quiet, "requests still end");
}

/// Thirty held requests spread evenly, three times in a row. Of few tries: what is counted wrong evens out by itself
/// when the rule has many turns to do so.
#[track_caller]
fn assert_even(server: &Tollgate, backends: &[Backend]) {
    settle(server);
    let mut row = 0;
    let mut tries = Vec::new();
    while row < 3 {
        let key = format!("k{}", tries.len());
        let held = held_at_once(server, backends, &key, 30);
        backends.iter().for_each(|backend| backend.release(&key));
        row = if held == [10, 10, 10] { row + 1 } else { 0 };
        tries.push(held);
        assert!(tries.len() < 6, "held of 30: {tries:?}: {}", server.process.err.text());
        settle(server);
    }
}

/// Waits until every backend answers again.
#[track_caller]
fn assert_all_up(server: &Tollgate, backends: &[Backend]) {
    let answers = || {
        let mut client = server.client();
        let mut names: Vec<_> = (0..9).filter_map(|_| client.get("/").ok().map(|r| r.backend().to_owned())).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    assert!(eventually(PATIENCE, || answers() == backends.len()), "{}", server.process.err.text());
}

#[test]
fn every_count_is_zero_again_after_a_storm() {
    let mut backends = three_scripted();
    let pool = format!("balance: least_connections, retries: 2, read_timeout: 300ms, {QUICK_TCP}");
    let server = Setup::app(&backends, &pool).start();
    storm(&server, || {
        for _ in 0..3 {
            backends[1].kill();
            assert!(eventually(PATIENCE, || server.client().get("/").is_ok_and(|response| response.status == 200)));
            backends[1].restart();
        }
    });
    assert_all_up(&server, &backends);
    assert_even(&server, &backends);
}

/// Counts that are kept would balance out among three backends, as the rule itself evens them. So all of the storm
/// goes to one.
#[test]
fn a_storm_on_one_backend_leaves_nothing_on_its_count() {
    let mut backends = three_scripted();
    let pool = format!("balance: least_connections, retries: 2, read_timeout: 300ms, {QUICK_TCP}");
    let server = Setup::app(&backends, &pool).start();
    for other in &mut backends[1..] {
        other.kill();
        server.wait_for_event(&[&other.address.to_string(), "down"], PATIENCE);
    }
    storm(&server, || ());
    backends[1..].iter_mut().for_each(Backend::restart);
    // By the log and not by asking: any question would be one more turn for the rule.
    server.process.err.wait("both up again", PATIENCE, |lines| {
        backends[1..].iter().all(|backend| {
            let changes = |line: &&String| line.contains("down") && line.contains("up");
            let address = backend.address.to_string();
            lines.iter().filter(changes).filter(|line| line.contains(&address)).count() >= 2
        })
    });
    assert_even(&server, &backends);
}

#[test]
fn failures_to_connect_leave_nothing_on_the_count() {
    let mut backends = three_scripted();
    let checks = "health_check: {type: tcp, interval: 300ms, unhealthy_threshold: 100}";
    let server = Setup::app(&backends, &format!("balance: least_connections, {checks}")).start();
    for _ in 0..5 {
        backends[2].kill();
        // Three of these meet the dead backend before it is out.
        for _ in 0..12 {
            assert_eq!(server.client().get("/").unwrap().status, 200);
        }
        backends[2].restart();
        assert_all_up(&server, &backends);
    }
    assert_even(&server, &backends);
}
