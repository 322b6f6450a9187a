//! Interim answers (1xx): passed on to those who know them, and to nobody else.

use std::time::Duration;

use crate::harness::assert_ours;
use crate::harness::backend::Backend;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};

const LIMIT: Duration = Duration::from_secs(10);

/// Sends `request` and returns all that comes back until the connection ends.
fn raw(server: &Tollgate, request: &str) -> String {
    let mut client = server.client();
    client.send(request.as_bytes()).unwrap();
    client.rest(LIMIT).unwrap_or_else(|e| panic!("{request:?}: {e}"))
}

#[test]
fn http_1_1_gets_interim_answers_and_http_1_0_does_not() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let both = raw(&server, "GET /?interim=103&bytes=4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(both.starts_with("HTTP/1.1 103 ") && both.contains("HTTP/1.1 200 "), "{both}");
    for request in [
        "GET /?interim=103&bytes=4 HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /?interim=103&bytes=4 HTTP/1.0\r\n\r\n",
        "POST /?bytes=4 HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        "POST /?interim=102&bytes=4 HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let all = raw(&server, request);
        assert_eq!(all.matches("HTTP/1.").count(), 1, "{request:?}: {all}");
        assert_eq!(all.split(' ').nth(1), Some("200"), "{request:?}: {all}");
        assert!(!all.contains("X-Interim"), "{request:?}: {all}");
    }
}

#[test]
fn http_1_0_gets_no_chunks() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let all = raw(&server, "GET /?answer=chunked&bytes=8&seed=0 HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(all.ends_with(&format!("\r\n\r\n{}", "\0".repeat(8))), "{all:?}");
    assert!(!all.to_lowercase().contains("transfer-encoding"), "{all:?}");
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    for request in [
        "GET /?switch=echo HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /?switch=echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        // Only HTTP/1.1 can ask for it (RFC 9110 section 7.8).
        "GET /?switch=echo HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut client = server.client();
        client.send(request.as_bytes()).unwrap();
        let response = client.read("GET").unwrap_or_else(|e| panic!("{request:?}: {e}"));
        assert_ours(&response, 502, "Bad gateway");
        assert_eq!(server.client().get("/").unwrap().status, 200);
    }
}
