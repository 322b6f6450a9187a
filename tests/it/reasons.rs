//! Why an exchange failed, in the access log's words, the same by both ways; and the limits that a route has of its
//! own.

use std::time::Duration;

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, dawdle, now};

/// What makes a request go directly, and what through Pingora.
const WAYS: [&str; 2] = ["keep-alive", "keep-alive, x-nothing"];

/// A proxy with one thread in front of a backend that the test plays.
fn start(keys: &str) -> (Played, Tollgate) {
    let backend = Played::new();
    let keys = format!("retries: 0, {NO_CHECK}{keys}");
    let setup = Setup::default().pool("app", &[backend.address], &keys);
    (backend, setup.line("pingora: {threads: 1}").start())
}

fn request(way: &str) -> Vec<u8> {
    Request::new("GET", "/").headers(&[("Connection", way)]).encode()
}

/// The `error` of the last of so many access lines.
fn error(server: &Tollgate, lines: usize) -> Value {
    server.access_lines(lines).remove(lines - 1)["error"].clone()
}

#[test]
fn what_a_backend_speaks_is_named_where_it_is_no_http() {
    let (backend, server) = start("");
    let http2 = "it answered in HTTP/2 to a plain request in HTTP/1.1";
    let tls = "it answered in TLS to a plain request";
    let other = "it answered something that is not HTTP";
    let mut lines = 0;
    for (answer, words) in [
        (&b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01"[..], http2),
        (b"\x15\x03\x01\0\x02\x02\x46", tls),
        (b"\x16\x03\x03\0\x04\x0e\0\0\0", tls),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", other),
        (b"220 mail.example ESMTP\r\n", other),
    ] {
        for way in WAYS {
            let mut client = server.client();
            client.send(&request(way)).unwrap();
            backend.take_request().0.send(answer);
            assert_ours(&client.read("GET").unwrap(), 502, "Bad gateway");
            lines += 1;
            assert_eq!(error(&server, lines), words, "{way}: {}", answer.escape_ascii());
        }
    }
}

#[test]
fn a_502_on_a_reused_connection_says_so_and_how_long_it_was_idle() {
    let (backend, server) = start("");
    for (n, way) in WAYS.into_iter().enumerate() {
        let mut client = server.client();
        client.send(&request(way)).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read("GET").unwrap().text(), "ok");
        dawdle(Duration::from_millis(1_100));
        client.send(&request(way)).unwrap();
        taken.request();
        drop(taken);
        assert_ours(&client.read("GET").unwrap(), 502, "Bad gateway");
        let words = error(&server, 2 * n + 2);
        let (why, idle) = words.as_str().unwrap().split_once(", on a reused connection that was idle for ").unwrap();
        assert_eq!(why, "connection closed before the answer was complete", "{way}");
        assert!(["1s", "2s", "3s"].contains(&idle), "{way}: {words}");
    }
    let mut client = server.client();
    client.send(&request("close")).unwrap();
    drop(backend.take_request());
    assert_ours(&client.read("GET").unwrap(), 502, "Bad gateway");
    assert_eq!(error(&server, 5), "connection closed before the answer was complete", "it was a new one");
}

#[test]
fn a_stream_that_is_cut_midway_says_how_long_its_backend_was_silent() {
    let (backend, server) = start(", read_timeout: 300ms");
    let midway = "the backend was silent for 300ms midway";
    let mut lines = 0;
    for way in WAYS {
        for (said, words) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", midway),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", midway),
            ("HTTP/1.1 103 Early\r\n\r\n", "no answer in time"),
            ("", "no answer in time"),
        ] {
            let mut client = server.client();
            client.send(&request(way)).unwrap();
            let (mut taken, _) = backend.take_request();
            taken.send(said.as_bytes());
            assert!(taken.is_closed(PATIENCE));
            lines += 1;
            assert_eq!(error(&server, lines), words, "{way} {said:?}");
        }
    }
}

#[test]
fn http2_to_a_plain_listener_is_told_where_it_is_offered() {
    let (_, server) = start("");
    let mut client = server.client();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert_ours(&client.read("GET").unwrap(), 400, "Bad request");
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["method"], &line["path"]), (&"PRI".into(), &"*".into()), "{line}");
    assert!(line["error"].as_str().unwrap().starts_with("HTTP/2 is offered over TLS only"), "{line}");
}

#[test]
fn a_route_has_a_body_limit_and_a_read_timeout_of_its_own() {
    let backend = Backend::scripted("a");
    let routes = |max_body: &str, read_timeout: &str| {
        let own = format!("{{path: /own, upstream: app, max_body: {max_body}, read_timeout: {read_timeout}}}");
        let keys = format!("read_timeout: 300ms, retries: 0, {NO_CHECK}");
        let setup = Setup::default().pool("app", &[backend.address], &keys).line("limits: {max_body: 10}");
        setup.line(&format!("routes: [{{path: /, upstream: app}}, {own}]"))
    };
    let server = routes("1KiB", "20s").start();
    let post = |path: &str, body: Body<'_>, way: &str| {
        let headers = [("Connection", way)];
        server.client().call(&Request::new("POST", path).headers(&headers).body(body)).unwrap()
    };
    let body = [b'x'; 2048];
    let too_large = |path: &str, size: usize, limit: usize| {
        for way in WAYS {
            for sent in [Body::Length(&body[..size + 1]), Body::Chunked(&body[..size + 1], 7)] {
                let said = format!("Request body too large: at most {limit} bytes");
                assert_ours(&post(path, sent, way), 413, &said);
            }
            for sent in [Body::Length(&body[..size]), Body::Chunked(&body[..size], 7)] {
                assert_eq!(post(path, sent, way).status, 200, "{path} {way}");
            }
        }
    };
    too_large("/", 10, 10);
    too_large("/own/x", 1024, 1024);
    for way in WAYS {
        let get =
            |path: &str| server.client().call(&Request::new("GET", path).headers(&[("Connection", way)])).unwrap();
        assert_eq!(get("/own?delay_ms=900").status, 200, "{way}");
        assert_ours(&get("/?delay_ms=900"), 504, "Gateway timeout");
    }
    let reload = |setup: &Setup| {
        server.rewrite(&setup.yaml());
        server.ask("POST", "/config/reload", "")
    };
    let answer = reload(&routes("2000", "200ms"));
    assert_eq!((answer.status, &answer.json()["changed"]), (200, &serde_json::json!(["routes changed"])));
    too_large("/own/x", 2000, 2000);
    let start = now();
    assert_ours(&server.client().get("/own?delay_ms=5000").unwrap(), 504, "Gateway timeout");
    assert!(now() - start < Duration::from_secs(4));
    let answer = reload(&routes("0", "soon"));
    let fields: Vec<_> = answer.json()["errors"].as_array().unwrap().iter().map(|one| one["field"].clone()).collect();
    assert_eq!((answer.status, fields), (422, vec!["routes[1].max_body".into(), "routes[1].read_timeout".into()]));
}
