//! Upgraded connections: once the backend has agreed, bytes pass both ways and nothing is added to them; while it has
//! not, the request is one like any other.

use std::io::Write;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, checksum, now};

fn head(protocol: &str, target: &str) -> Vec<u8> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{key}\r\n\r\n")
        .into_bytes()
}

/// An upgraded connection to the backend's echo, over which `early`, sent together with the header, has come back.
#[track_caller]
fn upgrade(server: &Tollgate, early: &[u8]) -> Client {
    let mut client = server.client();
    client.send(&[&head("websocket", "/chat?switch=echo"), early].concat()).unwrap();
    let response = client.read("GET").unwrap();
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("upgrade"), Some("websocket"), "{response:?}");
    let connection = response.header("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("upgrade"), "{response:?}");
    assert_eq!((response.header("content-length"), response.header("transfer-encoding")), (None, None));
    let echo = client.read_bytes(early.len()).unwrap();
    assert!(echo == early, "{} came back as {}", early.escape_ascii(), echo.escape_ascii());
    client
}

/// Sends `body` and expects it back.
#[track_caller]
fn assert_echoes(client: &mut Client, body: &[u8]) {
    let mut stream = client.stream();
    std::thread::scope(|scope| {
        scope.spawn(move || stream.write_all(body).unwrap());
        let echo = client.read_bytes(body.len()).unwrap();
        assert!(echo == body, "{} bytes came back changed", body.len());
    });
}

#[test]
fn bytes_pass_both_ways_intact_also_those_sent_with_the_header() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    for n in 0..2 {
        // What looks like a request, or like the end of a body, means nothing here.
        let mut client = upgrade(&server, b"early\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\0\xff");
        for (seed, size) in [(1, 1), (2, 17), (3, 4096), (4, 100_000), (5, 3 << 20)] {
            assert_echoes(&mut client, &checksum::body(seed + n, size));
        }
        client.finish();
        assert_eq!(client.rest(PATIENCE).unwrap(), "", "nothing is added at the end");
    }
    assert_eq!(backend[0].count("GET /smuggled"), 0);
    // Each connection has its line, which comes when it ends.
    let lines = server.access_lines(2);
    assert!(lines.iter().all(|line| line["status"] == 101 && line["path"] == "/chat"), "{lines:?}");
}

#[test]
fn an_idle_upgraded_connection_ends_without_a_word() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("read_timeout: 100ms, tunnel_timeout: 1s, {NO_CHECK}")).start();
    let mut client = upgrade(&server, b"hello");
    let start = now();
    let said = client.rest(PATIENCE).unwrap();
    assert_eq!(said, "", "the client would take this for a message");
    assert!(now() - start > Duration::from_millis(500), "cut after {:?}", now() - start);
    assert_eq!(server.client().get("/").unwrap().status, 200);
}

#[test]
fn an_upgraded_connection_outlives_the_limits_of_requests() {
    let backend = [Backend::scripted("a")];
    let limits = "limits: {max_body: 10KiB, header_timeout: 300ms, keepalive_timeout: 300ms}";
    let server = Setup::app(&backend, NO_CHECK).line(limits).start();
    let mut client = upgrade(&server, &checksum::body(1, 3000));
    for seed in 0..20 {
        assert_echoes(&mut client, &checksum::body(seed, 3000));
    }
    assert_echoes(&mut client, &checksum::body(30, 100_000));
    crate::harness::dawdle(Duration::from_millis(700));
    assert_echoes(&mut client, b"still here");
}

#[test]
fn without_a_101_the_body_is_checked_as_strictly_as_ever() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line("limits: {keepalive_timeout: 500ms}").start();
    for body in [
        "5;bad[=x\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "0000000000000000005\r\nhello\r\n0\r\n\r\n",
    ] {
        for upgrade in ["Upgrade: x\r\nConnection: Upgrade\r\n", "Upgrade: websocket\r\n"] {
            let mut client = server.client();
            let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
            let sent = format!("POST / HTTP/1.1\r\nHost: a\r\n{upgrade}Transfer-Encoding: chunked\r\n\r\n{body}{next}");
            client.send(sent.as_bytes()).unwrap();
            let all = client.rest(PATIENCE).unwrap_or_else(|e| panic!("{body:?}: {e}"));
            assert!(all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1 ").count() == 1, "{body:?}: {all}");
        }
    }
    assert_eq!(backend[0].count("GET /smuggled"), 0);
}

#[test]
fn a_request_behind_an_upgrade_that_was_not_made_is_answered_too() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        b"POST /refused HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello";
    for (n, first) in [head("x", "/refused"), head("websocket", "/refused"), post.to_vec()].into_iter().enumerate() {
        let mut client = server.client();
        client.send(&[&first[..], next].concat()).unwrap();
        for _ in 0..2 {
            let response = client.read("GET").unwrap();
            assert!(response.status == 200 && !response.closes(), "{response:?}");
        }
        assert_eq!(client.get("/third").unwrap().status, 200);
        assert_eq!((backend[0].count("GET /next"), backend[0].count("GET /third")), (n + 1, n + 1));
    }
}
