//! Every answer that tollgate makes itself, as the contract's table has it.

use std::io::Write;
use std::time::Duration;

use crate::harness::backend::{Backend, count_all, three_scripted};
use crate::harness::client::{Body, Client, Request, Response, chunks};
use crate::harness::script::GARBAGE;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_is_our_json, assert_ours, dawdle, now};

const SHORT: Duration = Duration::from_millis(300);

/// One pool, short timeouts, and a body of at most 1 KiB.
fn strict(backends: &[Backend]) -> Tollgate {
    Setup::app(backends, &format!("read_timeout: 300ms, retries: 2, {NO_CHECK}"))
        .line("limits: {max_body: 1KiB, header_timeout: 300ms}")
        .start()
}

/// The next request on the same connection works, or the answer said that there will be none.
#[track_caller]
fn assert_goes_on(client: &mut Client, response: &Response) {
    if response.closes() {
        client.wait_closed(PATIENCE).unwrap();
    } else {
        assert_eq!(client.get("/next").unwrap().status, 200);
    }
}

#[test]
fn no_route_is_404_and_the_connection_goes_on() {
    let backends = [Backend::scripted("a")];
    let routes = "routes: [{host: api.example.com, path: /v1, upstream: app}, {path: /next, upstream: app}]";
    let server = Setup::app(&backends, "").line(routes).start();
    let mut client = server.client();
    for request in [
        Request::new("GET", "/v1"),
        Request::new("GET", "/v2").host("api.example.com"),
        Request::new("GET", "/v10").host("api.example.com"),
        Request::new("POST", "/").body(Body::Length(b"hello")),
        Request::new("POST", "/").body(Body::Chunked(b"hello", 2)),
    ] {
        let response = client.call(&request).unwrap();
        assert_ours(&response, 404, "No route matches");
        assert!(!response.closes() || request.method == "POST", "{response:?}");
        if response.closes() {
            client.wait_closed(PATIENCE).unwrap();
            client = server.client();
        }
        assert_eq!(client.get("/next").unwrap().status, 200);
    }
    assert_eq!(client.call(&Request::new("GET", "/v1/x").host("API.example.com:80")).unwrap().status, 200);
}

#[test]
fn garbage_from_a_backend_is_502() {
    let backends = three_scripted();
    let server = strict(&backends);
    let mut client = server.client();
    for (index, garbage) in GARBAGE.iter().enumerate() {
        let path = format!("/raw-{index}");
        let response = client.get(&format!("{path}?raw={index}")).unwrap_or_else(|e| panic!("{garbage:?}: {e}"));
        assert_ours(&response, 502, "Bad gateway");
        assert_eq!(count_all(&backends, &format!("GET {path}")), 1, "{garbage:?} was asked for again");
        assert_goes_on(&mut client, &response);
        client = server.client();
    }
}

#[test]
fn a_backend_that_is_too_slow_is_504_and_never_asked_again() {
    let backends = three_scripted();
    let server = strict(&backends);
    for (n, fault) in ["hang", "half_head"].into_iter().enumerate() {
        for (method, body) in [("GET", Body::None), ("POST", Body::Length(b"hello"))] {
            let mut client = server.client();
            let start = now();
            let target = format!("/slow-{n}?fault={fault}");
            let response = client.call(&Request::new(method, &target).body(body)).unwrap();
            assert_ours(&response, 504, "Gateway timeout");
            let took = now() - start;
            assert!(took >= SHORT && took < 10 * SHORT, "{method} {fault} took {took:?}");
            // Where nothing has come of its answer, and it may be sent twice, the others are asked as well.
            let asked = if (method, fault) == ("GET", "hang") { 3 } else { 1 };
            assert_eq!(count_all(&backends, &format!("{method} /slow-{n}")), asked);
            assert_goes_on(&mut client, &response);
        }
    }
}

#[test]
fn a_backend_that_stalls_within_its_answer_ends_the_connection() {
    let backends = three_scripted();
    let server = strict(&backends);
    let start = now();
    assert!(server.client().get("/?fault=head_only").is_err(), "passed off as whole");
    assert!(now() - start < 10 * SHORT);
}

#[test]
fn a_backend_that_is_slow_but_not_too_slow_is_waited_for() {
    let backends = three_scripted();
    let server = strict(&backends);
    assert_eq!(server.client().get("/?delay_ms=150").unwrap().status, 200);
}

#[test]
fn a_client_that_is_slow_with_its_header_gets_408() {
    let backends = three_scripted();
    let server = strict(&backends);
    for start in ["GET / HTTP/1.1\r\nHost: a\r\nX-Half: ", "GE"] {
        let mut client = server.client();
        client.send(start.as_bytes()).unwrap();
        let start = now();
        let response = client.read("GET").unwrap();
        assert_ours(&response, 408, "Request timeout");
        let took = now() - start;
        assert!(took < 10 * SHORT, "took {took:?}");
        client.wait_closed(PATIENCE).unwrap();
    }
    assert_eq!(count_all(&backends, "GET /"), 0);
}

#[test]
fn a_dripping_header_is_cut_at_the_same_deadline() {
    let backends = three_scripted();
    let server = strict(&backends);
    let mut client = server.client();
    let mut stream = client.stream();
    let start = now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let drips = "GET / HTTP/1.1\r\nHost: a\r\nX-Drip: ".bytes().chain(std::iter::repeat_n(b'x', 400));
            for byte in drips {
                if stream.write_all(&[byte]).is_err() || now() - start > 20 * SHORT {
                    return;
                }
                dawdle(Duration::from_millis(20));
            }
        });
        let response = client.read("GET");
        let took = now() - start;
        assert!(took < 5 * SHORT, "a dripping client was kept for {took:?}");
        // The answer may be lost to the reset that meets the next drip; the deadline is what counts.
        if let Ok(response) = response {
            assert_ours(&response, 408, "Request timeout");
        }
    });
}

#[test]
fn on_a_new_connection_the_header_deadline_starts_at_once() {
    let backends = [Backend::scripted("a")];
    let server = Setup::app(&backends, NO_CHECK).line("limits: {header_timeout: 1s}").start();
    let start = now();
    let mut client = server.client();
    dawdle(Duration::from_millis(800));
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    assert_ours(&client.read("GET").unwrap(), 408, "Request timeout");
    let took = now() - start;
    assert!(took > Duration::from_millis(900) && took < Duration::from_millis(1600), "took {took:?}");
}

#[test]
fn the_header_deadline_starts_with_the_first_byte_of_each_request() {
    let backends = three_scripted();
    let server = strict(&backends);
    let mut client = server.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").unwrap().status, 200);
        dawdle(2 * SHORT);
    }
    assert_eq!(client.get("/").unwrap().status, 200, "an idle connection is not a slow header");
}

#[test]
fn an_idle_connection_is_closed_after_keepalive_timeout_and_says_nothing() {
    let backends = three_scripted();
    let server = Setup::app(&backends, "").line("limits: {keepalive_timeout: 1s}").start();
    let mut client = server.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    let start = now();
    client.wait_closed(Duration::from_secs(5)).unwrap();
    assert!(now() - start > Duration::from_millis(700), "closed after {:?}", now() - start);
}

#[test]
fn a_body_of_the_limit_passes_and_one_byte_more_is_413() {
    let backends = [Backend::scripted("a")];
    let server = strict(&backends);
    let body = [b'x'; 1025];
    let mut client = server.client();
    assert_eq!(client.call(&Request::new("POST", "/ok").body(Body::Length(&body[1..]))).unwrap().status, 200);
    assert_eq!(client.call(&Request::new("POST", "/ok").body(Body::Chunked(&body[1..], 100))).unwrap().status, 200);
    for sent in [Body::Length(&body), Body::Chunked(&body, 100), Body::Chunked(&body, 1025)] {
        let mut client = server.client();
        let response = client.call(&Request::new("POST", "/big").body(sent)).unwrap();
        assert_ours(&response, 413, "Request body too large: at most 1024 bytes");
        assert_goes_on(&mut client, &response);
        assert_eq!(server.client().get("/").unwrap().status, 200);
    }
    // A backend is never asked to believe a part of a body.
    assert_eq!(
        (backends[0].count("POST /ok"), backends[0].seen().iter().any(|seen| seen.contains("POST /n"))),
        (2, false)
    );
}

#[test]
fn a_413_can_be_read_while_four_megabytes_are_still_being_sent() {
    let backends = [Backend::scripted("a")];
    let server = strict(&backends);
    let body = vec![b'x'; 4 << 20];
    let sized = format!("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let chunked = "POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, body) in [(sized.as_str(), body.clone()), (chunked, chunks(&body, 65_536))] {
        for _ in 0..5 {
            let mut client = server.client();
            let mut stream = client.stream();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Most clients write the whole body before they read; how much of it is taken does not matter.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                });
                let response = client.read("POST").unwrap();
                assert_ours(&response, 413, "Request body too large: at most 1024 bytes");
            });
        }
    }
}

#[test]
fn a_client_that_waits_for_100_continue_learns_413_before_it_sends() {
    let backends = [Backend::scripted("a")];
    let server = strict(&backends);
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n").unwrap();
    assert_ours(&client.read("POST").unwrap(), 413, "Request body too large: at most 1024 bytes");
}

#[test]
fn a_malformed_request_is_400_in_json() {
    let backends = [Backend::scripted("a")];
    let server = strict(&backends);
    let mut client = server.client();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n").unwrap();
    let response = client.read("GET").unwrap();
    assert_eq!(response.status, 400);
    assert_is_our_json(&response);
}
