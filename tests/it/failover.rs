//! What is tried again, and what never is.

use std::time::Duration;

use crate::harness::backend::{Backend, count_all, three_scripted};
use crate::harness::client::{Body, Client, Request, Response};
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, assert_is_our_json, assert_ours, checksum, eventually, now};

/// Sends fresh requests, numbered so that each can be counted, until `made` says that one met the case under test.
/// Whether a connection to a backend is a reused one is the proxy's choice; a few tries always find it.
fn until<'a>(
    server: &Tollgate,
    request: impl Fn(&str) -> (&'static str, String, Body<'a>),
    made: impl Fn(&str, &Response) -> bool,
) -> (String, Response) {
    let mut client = server.client();
    for attempt in 0..30 {
        let path = format!("/try-{attempt}");
        let (method, target, body) = request(&path);
        let response = client.call_again(&Request::new(method, &target).body(body)).unwrap();
        let key = format!("{method} {path}");
        if made(&key, &response) {
            return (key, response);
        }
    }
    panic!("30 requests did not meet the case")
}

/// Two backends with no checks, each with an idle connection from the proxy.
fn pair() -> ([Backend; 2], Tollgate) {
    let backends = ["a", "b"].map(Backend::scripted);
    // Each thread has idle connections of its own.
    let server = Setup::app(&backends, NO_CHECK).line("pingora: {threads: 1}").start();
    let mut client = server.client();
    for _ in 0..4 {
        client.get("/prime").unwrap();
    }
    (backends, server)
}

#[test]
fn a_refused_connection_goes_on_to_the_next_backend_with_the_body_intact() {
    let live = Backend::scripted("live");
    let pool = [free_address(), free_address(), live.address];
    let server = Setup::default().pool("app", &pool, &format!("retries: 2, {NO_CHECK}")).start();
    let mut client = server.client();
    for (n, method) in ["POST", "GET", "PATCH", "PUT"].into_iter().enumerate() {
        for size in [0, 100, 100 << 10, 1 << 20] {
            let body = checksum::body(n as u64, size);
            for sent in [Body::Length(&body), Body::Chunked(&body, 10_007)] {
                let response = client.call_again(&Request::new(method, "/moved").body(sent)).unwrap();
                let got = format!("{size} {:x}", checksum::sum(&body));
                assert_eq!((response.status, response.header("x-got")), (200, Some(&*got)), "{method} {size}");
            }
        }
    }
    assert_eq!(live.seen().len(), 32, "each exactly once");
    let lines = server.access_lines(32);
    assert_eq!(lines[0]["attempts"], 3, "{}", lines[0]);
    assert_eq!(lines[0]["backend"], live.address.to_string(), "{}", lines[0]);
}

#[test]
fn no_more_than_retries_further_backends_are_tried() {
    let live = Backend::scripted("live");
    let pool = [free_address(), free_address(), live.address];
    let server = Setup::default().pool("app", &pool, &format!("retries: 1, {NO_CHECK}")).start();
    let response = server.client().get("/").unwrap();
    assert!(matches!(response.status, 502 | 503), "{response:?}");
    assert_is_our_json(&response);
    assert_eq!(server.access_lines(1)[0]["attempts"], 2);

    let server = Setup::default().pool("app", &pool, &format!("retries: 0, {NO_CHECK}")).start();
    assert_is_our_json(&server.client().get("/").unwrap());
    assert_eq!(server.access_lines(1)[0]["attempts"], 1);
}

#[test]
fn with_all_backends_down_503_comes_at_once() {
    let pool = [free_address(), free_address()];
    let server = Setup::default().pool("app", &pool, QUICK_TCP).start();
    let mut client = server.client();
    let mut ids = Vec::new();
    let start = now();
    for n in 0..20 {
        let request = if n % 2 == 0 { Request::new("GET", "/") } else { Request::new("POST", "/") };
        let body = [b'x'; 1000];
        let response = client.call_again(&request.body(Body::Length(&body))).unwrap();
        assert_ours(&response, 503, "No healthy backend");
        let after = response.header("retry-after").and_then(|value| value.parse::<u32>().ok());
        assert!(after.is_some_and(|seconds| seconds >= 1), "{response:?}");
        ids.push(response.header("x-request-id").unwrap().to_owned());
    }
    assert!(now() - start < Duration::from_secs(2), "took {:?}", now() - start);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "request ids repeat");
}

#[test]
fn with_all_backends_already_tried_the_answer_is_503_too() {
    let pool = [free_address(), free_address()];
    let server = Setup::default().pool("app", &pool, &format!("retries: 5, {NO_CHECK}")).start();
    let response = server.client().get("/").unwrap();
    assert_ours(&response, 503, "No healthy backend");
    assert_eq!(server.access_lines(1)[0]["attempts"], 2, "each backend once");
}

#[test]
fn a_503_leaves_the_connection_usable() {
    let server = Setup::default().pool("app", &[free_address()], QUICK_TCP).start();
    let mut client = server.client();
    for _ in 0..3 {
        let response = client.get("/").unwrap();
        assert_ours(&response, 503, "No healthy backend");
        assert!(!response.closes(), "{response:?}");
    }
}

#[test]
fn an_idempotent_request_is_tried_once_elsewhere_when_a_reused_connection_dies() {
    let (backends, server) = pair();
    for method in ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let body: &[u8] = if method == "PUT" { &[b'p'; 1000] } else { b"" };
        let sent = if method == "PUT" { Body::Length(body) } else { Body::None };
        let (key, response) = until(
            &server,
            |path| (method, format!("{path}?fault=close_reused&at=a"), sent),
            |key, _| backends[0].count(key) == 1 && backends[1].count(key) == 1,
        );
        assert_eq!((response.status, response.backend()), (200, "b"), "{key}");
        let got = format!("{} {:x}", body.len(), checksum::sum(body));
        assert_eq!(response.header("x-got"), Some(&*got), "{key}");
    }
}

#[test]
fn retries_bound_how_often_an_idempotent_request_is_sent() {
    for (retries, times) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
        let backends = three_scripted();
        let server = Setup::app(&backends, &format!("retries: {retries}, {NO_CHECK}")).start();
        for headers in [&[][..], &[("Connection", "keep-alive, x-nothing")]] {
            let path = format!("/all-{}", headers.len());
            let target = format!("{path}?fault=close");
            let response = server.client().call(&Request::new("GET", &target).headers(headers)).unwrap();
            assert_ours(&response, 502, "Bad gateway");
            let count = count_all(&backends, &format!("GET {path}"));
            assert_eq!(count, times, "{retries} retries: every backend once");
            assert!(backends.iter().all(|backend| backend.count(&format!("GET {path}")) <= 1));
        }
        let lines = server.access_lines(2);
        assert!(lines.iter().all(|line| line["attempts"] == times), "{lines:?}");
        if retries > 0 {
            server.wait_for_event(&["trying again"], PATIENCE);
        } else {
            assert!(!server.process.err.text().contains("trying again"), "{}", server.process.err.text());
        }
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    let (backends, server) = pair();
    let (_, response) = until(
        &server,
        |path| ("POST", format!("{path}?fault=close_reused&at=a"), Body::Length(b"pay")),
        |key, response| {
            assert_eq!(count_all(&backends, key), 1, "{key} with {}", response.status);
            backends[0].count(key) == 1 && response.status != 200
        },
    );
    assert_ours(&response, 502, "Bad gateway");
}

#[test]
fn a_request_whose_new_connection_dies_is_sent_again_if_it_may_be() {
    for way in ["keep-alive", "keep-alive, x-nothing"] {
        for (method, again) in [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
            let backends = three_scripted();
            let server = Setup::app(&backends, &format!("retries: 2, {NO_CHECK}")).start();
            let body = checksum::body(3, if method == "GET" { 0 } else { 50_000 });
            let sent = if method == "GET" { Body::None } else { Body::Length(&body) };
            let headers = [("Connection", way)];
            let request = Request::new(method, "/once?fault=close&at=a").headers(&headers).body(sent);
            // Whichever backend has the first turn, one of three requests meets the one that closes.
            let statuses: Vec<_> = (0..3)
                .map(|_| {
                    let response = server.client().call(&request).unwrap();
                    let got = format!("{} {:x}", body.len(), checksum::sum(&body));
                    assert!(response.status != 200 || response.header("x-got") == Some(&*got), "{method} {way}");
                    response.status
                })
                .collect();
            let failed = statuses.iter().filter(|status| **status == 502).count();
            assert_eq!(failed, usize::from(!again), "{method} {way}: {statuses:?}");
            assert_eq!(backends[0].count(&format!("{method} /once")), 1, "{method} {way}");
            let sent = count_all(&backends, &format!("{method} /once"));
            assert_eq!(sent, if again { 4 } else { 3 }, "{method} {way}: sent {sent} times");
        }
    }
}

#[test]
fn the_only_backend_is_asked_once_more_when_its_new_connection_dies() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("retries: 2, {NO_CHECK}")).start();
    for (n, way) in ["keep-alive", "keep-alive, x-nothing"].into_iter().enumerate() {
        let (path, headers) = (format!("/only-{n}"), [("Connection", way)]);
        let target = format!("{path}?fault=close");
        let response = server.client().call(&Request::new("GET", &target).headers(&headers)).unwrap();
        assert_ours(&response, 502, "Bad gateway");
        assert_eq!(backend[0].count(&format!("GET {path}")), 2, "{way}");
    }
    let lines = server.access_lines(2);
    assert!(lines.iter().all(|line| line["attempts"] == 2), "{lines:?}");
}

#[test]
fn an_answer_that_breaks_off_is_not_asked_for_again_nor_passed_off_as_whole() {
    let backends = three_scripted();
    let server = Setup::app(&backends, NO_CHECK).start();
    for (n, fault) in ["half_body", "half_chunked"].into_iter().enumerate() {
        let target = format!("/broken-{n}?fault={fault}");
        let got = server.client().get(&target);
        assert!(got.as_ref().map_or(true, |response| response.status == 502), "passed off as whole: {got:?}");
        assert_eq!(count_all(&backends, &format!("GET /broken-{n}")), 1);
    }
}

#[test]
fn a_backends_own_503_is_passed_on_and_not_retried() {
    let backends = three_scripted();
    let server = Setup::app(&backends, NO_CHECK).start();
    let response = server.client().get("/own?status=503&bytes=10").unwrap();
    assert_eq!((response.status, response.body.len()), (503, 10));
    assert_eq!(count_all(&backends, "GET /own"), 1);
}

#[test]
fn a_backend_that_returns_is_used_again() {
    let mut backends = [Backend::scripted("a")];
    let server = Setup::app(&backends, QUICK_TCP).start();
    let status = || Client::connect(server.address).get("/").unwrap().status;
    assert_eq!(status(), 200);
    backends[0].kill();
    assert!(eventually(PATIENCE, || status() == 503));
    backends[0].restart();
    assert!(eventually(PATIENCE, || status() == 200));
}

#[test]
fn with_a_single_backend_a_get_goes_over_a_new_connection_when_all_kept_ones_are_dead() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    }
    assert!(eventually(PATIENCE, || backend[0].held("k") == 5));
    backend[0].release("k");
    for client in &mut clients {
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
    assert_eq!(backend[0].control("connections"), 5, "five kept connections");
    for (n, client) in clients.iter_mut().enumerate().take(3) {
        let response = client.get(&format!("/again-{n}?fault=close_reused")).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.json()["served"], 0, "the second attempt came over a new connection");
        assert_eq!(backend[0].count(&format!("GET /again-{n}")), 2, "sent once more, and only once");
    }
    let response = clients[3].call(&Request::new("POST", "/pay?fault=close_reused")).unwrap();
    assert_ours(&response, 502, "Bad gateway");
    assert_eq!(backend[0].count("POST /pay"), 1);
}
