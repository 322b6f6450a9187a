//! How many requests backends hold at once, and who waits for them.

use std::time::Duration;

use crate::harness::assert_ours;
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::load::Load;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually, now};

/// Both ways that a request can go.
const WAYS: [&str; 2] = ["direct: true", "direct: false"];

fn start(keys: &str, way: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("{keys}, {NO_CHECK}"))
        .line(way)
        .line("limits: {abort_on_half_close: true}")
        .line("identity: {trusted_proxies: [127.0.0.1/32]}")
        .start();
    (backend, server)
}

/// A client that has sent a request which its backend holds.
fn holding(server: &Tollgate, backend: &Backend, key: &str) -> Client {
    let mut client = server.client();
    client.send(&Request::new("GET", &format!("/held?hold={key}")).encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held(key) == 1));
    client
}

fn metric(server: &Tollgate, name: &str) -> u64 {
    let metrics = server.ask("GET", "/metrics", "").text();
    let name = format!("{name}{{upstream=\"app\"}} ");
    let line = metrics.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn beyond_what_backends_may_hold_the_answer_is_503_at_once() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1", way);
        let mut first = holding(&server, &backend, "k");
        let response = server.client().get("/").unwrap();
        assert_ours(&response, 503, "All backends are busy");
        assert_eq!(response.header("retry-after"), Some("1"), "{way}");
        backend.release("k");
        assert_eq!(first.read("GET").unwrap().status, 200, "{way}");
        assert!(eventually(PATIENCE, || server.client().get("/").unwrap().status == 200), "{way}");
        let lines = server.access_lines(3);
        let line = lines.iter().find(|line| line["status"] == 503).unwrap();
        assert_eq!((&line["status"], &line["error"]), (&503.into(), &"All backends are busy".into()), "{line}");
        assert!(metric(&server, "tollgate_upstream_busy_total") >= 1, "{way}");
    }
}

#[test]
fn who_waits_gets_the_place_of_who_is_done_or_503_in_time() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1s}", way);
        let mut first = holding(&server, &backend, "k");
        let begun = now();
        assert_ours(&server.client().get("/late").unwrap(), 503, "All backends are busy");
        assert!(now() - begun >= Duration::from_millis(900), "{way}");
        let mut second = server.client();
        second.send(&Request::new("GET", "/second").encode()).unwrap();
        assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 1), "{way}");
        backend.release("k");
        assert_eq!((first.read("GET").unwrap().status, second.read("GET").unwrap().status), (200, 200), "{way}");
        assert_eq!((backend.count("GET /late"), backend.count("GET /second")), (0, 1), "{way}");
        assert_eq!(metric(&server, "tollgate_upstream_queue"), 0, "{way}");
    }
}

#[test]
fn who_goes_waits_no_more() {
    let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", WAYS[0]);
    let mut first = holding(&server, &backend, "k");
    let mut second = server.client();
    second.send(&Request::new("GET", "/gone").encode()).unwrap();
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 1));
    drop(second);
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 0));
    backend.release("k");
    assert_eq!(first.read("GET").unwrap().status, 200);
    assert_eq!(server.client().get("/").unwrap().status, 200);
    assert_eq!(backend.count("GET /gone"), 0);
}

#[test]
fn a_flood_of_one_client_turns_no_other_away() {
    let ([backend], server) = start("max_in_flight: 2, queue: {size: 20, timeout: 1m}", WAYS[0]);
    let flood = Load::start(server.address, (60, true), "/flood?delay_ms=20", &[("X-Forwarded-For", "192.0.2.1")]);
    flood.wait_for(50);
    let mut other = server.client();
    let mut took = Vec::new();
    for _ in 0..40 {
        let (begun, headers) = (now(), [("X-Forwarded-For", "192.0.2.2")]);
        let response = other.call_again(&Request::new("GET", "/other?delay_ms=20").headers(&headers)).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        took.push(now() - begun);
    }
    let flooded = flood.stop();
    assert!(flooded.with(200) > 40 && flooded.with(503) > 40, "{flooded:?}");
    assert_eq!(backend.count("GET /other"), 40);
    took.sort_unstable();
    // Alone it takes 20 ms; behind sixty others in one row it would be 600 ms.
    assert!(took[20] < Duration::from_millis(200), "{took:?}");
}
