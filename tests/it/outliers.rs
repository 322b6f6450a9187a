//! Backends that answer badly are left out for a while.

use std::net::SocketAddr;

use h2::Reason;
use h2::server::Builder;
use serde_json::Value;

use crate::harness::backend::{Backend, count_all, three_scripted};
use crate::harness::client::Request;
use crate::harness::http2_backend::Http2Backend;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, eventually};

/// Both ways that a request can go.
const WAYS: [&str; 2] = ["direct: true", "direct: false"];

fn start(backends: &[Backend], keys: &str, way: &str) -> Tollgate {
    Setup::app(backends, keys).line(way).start()
}

/// How many of so many GETs of `target` had this status.
fn with(server: &Tollgate, target: &str, requests: usize, status: u16) -> usize {
    let mut client = server.client();
    let statuses = (0..requests).map(|_| client.call_again(&Request::new("GET", target)).unwrap().status);
    statuses.filter(|got| *got == status).count()
}

fn told(server: &Tollgate, backend: &Backend) -> Value {
    told_of(server, backend.address)
}

fn told_of(server: &Tollgate, backend: SocketAddr) -> Value {
    let upstreams = server.ask("GET", "/upstreams", "").json();
    let backends = upstreams["items"][0]["backends"].as_array().unwrap();
    backends.iter().find(|told| told["address"] == backend.to_string()).unwrap().clone()
}

#[test]
fn one_of_three_that_answers_500_is_asked_five_times() {
    for way in WAYS {
        let backends = three_scripted();
        let server = start(&backends, &format!("retries: 0, outlier: {{}}, {QUICK_TCP}"), way);
        assert_eq!(with(&server, "/ill?status=500&at=a", 300, 500), 5, "{way}");
        server
            .wait_for_event(&["ejected for 30s: 5 errors in a row, the last: it answered 500; 2 of 3 left"], PATIENCE);
        let told = told(&server, &backends[0]);
        assert_eq!((&told["state"], &told["health"]), (&"ejected".into(), &"up".into()), "{told}");
        assert_eq!(told["ejected"]["reason"], "5 errors in a row, the last: it answered 500", "{told}");
        assert!(told["ejected"]["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{told}");
        assert_eq!((&told["ejections"], &told["requests"]), (&1.into(), &5.into()), "{told}");
        let metrics = server.ask("GET", "/metrics", "").text();
        let address = backends[0].address;
        for name in ["tollgate_backend_ejected", "tollgate_backend_ejections_total"] {
            let line = format!("{name}{{upstream=\"app\",backend=\"{address}\"}} 1");
            assert!(metrics.contains(&line), "{line}: {metrics}");
        }
        assert!(metrics.contains("tollgate_upstream_panic{upstream=\"app\"} 0"), "{metrics}");
    }
}

#[test]
fn answers_that_break_off_count_and_a_good_one_ends_the_row() {
    for way in WAYS {
        let backends = three_scripted();
        let server = start(&backends, &format!("retries: 0, outlier: {{errors: 3}}, {NO_CHECK}"), way);
        for _ in 0..4 {
            with(&server, "/ill?status=503&at=a", 6, 503);
            with(&server, "/well", 3, 200);
        }
        assert_eq!(told(&server, &backends[0])["ejections"], 0, "{way}");
        assert_eq!(with(&server, "/dead?fault=close&at=b", 60, 502), 3, "{way}");
        assert_eq!(told(&server, &backends[1])["state"], "ejected", "{way}");
    }
}

#[test]
fn one_that_breaks_off_midway_is_ejected() {
    for way in WAYS {
        for fault in ["half_body", "half_chunked"] {
            let backends = three_scripted();
            let server = start(&backends, &format!("retries: 0, outlier: {{errors: 3}}, {NO_CHECK}"), way);
            let target = format!("/?fault={fault}&at=b");
            let broken = (0..60).filter(|_| server.client().get(&target).is_err()).count();
            assert_eq!(broken, 3, "{way} {fault}");
            assert_eq!(told(&server, &backends[1])["state"], "ejected", "{way} {fault}");
        }
    }
}

#[test]
fn who_may_not_be_ejected_is_not_told_of_each_time() {
    for way in WAYS {
        let backend = [Backend::scripted("a")];
        let server = start(&backend, &format!("retries: 0, outlier: {{errors: 1}}, {NO_CHECK}"), way);
        assert_eq!(with(&server, "/ill?status=500", 100, 500), 100, "{way}");
        server.wait_for_event(&["is not ejected: 1 errors in a row"], PATIENCE);
        let lines = server.process.err.lines();
        let told = lines.iter().filter(|line| line.contains("is not ejected")).count();
        assert!(told <= 2, "{way}: {told} lines");
    }
}

#[test]
fn what_a_backend_refuses_to_begin_with_is_no_error() {
    let refuses = Http2Backend::new(Builder::new(), |mut call| async move {
        call.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let well = [Http2Backend::ok(), Http2Backend::ok()];
    let addresses = [refuses.address, well[0].address, well[1].address];
    let keys = format!("protocol: h2, outlier: {{errors: 1}}, {NO_CHECK}");
    let server = Setup::default().pool("app", &addresses, &keys).start();
    assert_eq!(with(&server, "/", 30, 200), 30);
    let told = told_of(&server, refuses.address);
    assert!(told["requests"].as_u64().is_some_and(|requests| requests >= 5), "{told}");
    assert_eq!((&told["state"], &told["ejections"], &told["failures"]), (&"up".into(), &0.into(), &0.into()), "{told}");
}

#[test]
fn who_is_back_is_on_trial() {
    let backends = three_scripted();
    let server = start(&backends, &format!("retries: 0, outlier: {{errors: 4, eject: 300ms}}, {NO_CHECK}"), WAYS[0]);
    let back = |times: usize| {
        let events = server.process.err.lines();
        events.iter().filter(|line| line.contains("is back on trial")).count() == times
    };
    assert_eq!(with(&server, "/ill?status=500&at=a", 30, 500), 4);
    assert!(eventually(PATIENCE, || back(1)));
    assert!(eventually(PATIENCE, || with(&server, "/ill?status=500&at=a", 3, 500) == 1), "it gets one, and errs");
    server.wait_for_event(&["ejected for 600ms"], PATIENCE);
    assert!(eventually(PATIENCE, || back(2)));
    assert!(eventually(PATIENCE, || told(&server, &backends[0])["state"] == "up"));
    let before = count_all(&backends[..1], "GET /well");
    assert!(eventually(PATIENCE, || {
        with(&server, "/well", 3, 200);
        count_all(&backends[..1], "GET /well") > before
    }));
}

#[test]
fn below_half_the_ejected_get_requests_again() {
    let mut backends = three_scripted();
    let server = start(&backends, &format!("retries: 0, outlier: {{max_ejected: 1}}, {QUICK_TCP}"), WAYS[0]);
    assert_eq!(with(&server, "/ill?status=500&at=a", 60, 500), 5);
    backends[1].kill();
    server.wait_for_event(&["panic: 1 of 3 backends are well, so ejected ones get requests"], PATIENCE);
    assert_eq!(with(&server, "/", 20, 200), 20, "the dead one gets none");
    assert!(backends[0].count("GET /") >= 9, "it has its share");
    let upstreams = server.ask("GET", "/upstreams", "").json();
    assert_eq!(upstreams["items"][0]["panic"], true, "{upstreams}");
    backends[1].restart();
    server.wait_for_event(&["no panic any more: 2 of 3 backends are well"], PATIENCE);
}
