//! Input that no client should send. It never panics and never hangs, the answer is a 4xx or 5xx in JSON or the end of
//! the connection, nothing unsafe reaches a backend, and the next request works.

use std::io;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{CLIENT_TIMEOUT, Client, Request, Response};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{assert_is_our_json, now};

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Must be refused, and no backend may see it.
    Refused,
    /// Must not succeed; a backend may have seen its head.
    Fails,
    /// May be served or refused; whichever, what follows it on the connection is not taken for a request of its own.
    Either,
}
use Fate::{Either, Fails, Refused};

/// A second request that only a proxy which lost its place would pass on.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[rustfmt::skip]
fn cases() -> Vec<(String, Vec<u8>, Fate)> {
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
    let post = |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}");
    let texts = [
        ("words", "hello, is anybody there?\r\n\r\n".to_owned(), Refused),
        ("no version", "GET /\r\n\r\n".to_owned(), Refused),
        ("HTTP/0.9 with a host", "GET / HTTP/0.9\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("HTTP/9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("HTTP/1.12", "GET / HTTP/1.12\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("other protocol", "GET / ICY/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Refused),
        ("empty method", " / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("method with a slash", "GE/T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("two targets", "GET / / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refused),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned(), Refused),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("GET *", "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("target without a slash", "GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("absolute form", "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("absolute form of another host", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("unknown method", "FROB / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Either),
        ("bare LF", "GET / HTTP/1.1\nHost: a\n\n".to_owned(), Either),
        ("empty lines first", format!("\r\n\r\n{}", head("Host: a")), Either),
        ("bare CR in a value", head("Host: a\r\nX: a\rb"), Refused),
        ("bare CR between headers", head("Host: a\rX: b"), Refused),
        ("NUL in a value", head("Host: a\r\nX: a\0b"), Refused),
        ("NUL in a name", head("Host: a\r\nX\0: b"), Refused),
        ("space before the colon", head("Host: a\r\nX-A : b"), Refused),
        ("space before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), Refused),
        ("folded header", head("Host: a\r\nX: b\r\n c"), Refused),
        ("header without a colon", head("Host: a\r\nX"), Refused),
        ("header without a name", head("Host: a\r\n: x"), Refused),
        ("no Host", head("X: y"), Refused),
        ("two Hosts", head("Host: a\r\nHost: b"), Refused),
        ("the same Host twice", head("Host: a\r\nHost: a"), Refused),
        ("Host with a space", head("Host: a b"), Refused),
        ("Host with a path", head("Host: a/b"), Refused),
        ("Host with a user", head("Host: u@a"), Either),
        ("Host with a port above 65535", head("Host: a:99999"), Refused),
        ("Host with an address that is none", head("Host: [::::]"), Refused),
        ("Host with half an address", head("Host: [::1"), Refused),
        ("Host with an escape", head("Host: a%zz"), Refused),
        ("a header of 100 KB", head(&format!("Host: a\r\nX: {}", "x".repeat(100_000))), Either),
        ("2 MB of headers", head(&format!("Host: a{}", format!("\r\nX: {}", "x".repeat(10_000)).repeat(200))), Refused),
        ("300 headers", head(&format!("Host: a{}", "\r\nX: y".repeat(300))), Refused),
        ("a target of 100 KB", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)), Either),
        ("content-length and chunked", post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{NEXT}")), Either),
        ("chunked and content-length", post("Transfer-Encoding: chunked\r\nContent-Length: 99", "0\r\n\r\n"), Either),
        ("two content-lengths", post("Content-Length: 5\r\nContent-Length: 6", "hello!"), Refused),
        ("the same content-length twice", post("Content-Length: 5\r\nContent-Length: 5", "hello"), Either),
        ("content-length list", post("Content-Length: 5, 5", "hello"), Either),
        ("content-length list of two values", post("Content-Length: 5, 6", "hello!"), Refused),
        ("negative content-length", post("Content-Length: -5", "hello"), Refused),
        ("signed content-length", post("Content-Length: +5", "hello"), Refused),
        ("hex content-length", post("Content-Length: 0x5", "hello"), Refused),
        ("empty content-length", post("Content-Length:", "hello"), Refused),
        ("content-length with a space", post("Content-Length: 5 5", "hello"), Refused),
        ("content-length above u64", post("Content-Length: 99999999999999999999999", "hello"), Refused),
        ("content-length of u64", post("Content-Length: 18446744073709551615", "hello"), Refused),
        ("fraction of a content-length", post("Content-Length: 5.0", "hello"), Refused),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), Refused),
        ("chunked, chunked", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), Refused),
        ("gzip as a transfer coding", post("Transfer-Encoding: gzip", "hello"), Refused),
        ("chunked, then gzip", post("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), Refused),
        ("a quoted transfer coding", post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), Refused),
        ("an unknown transfer coding", post("Transfer-Encoding: xchunked", "0\r\n\r\n"), Refused),
        ("transfer coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Refused),
        ("chunk size of letters", post("Transfer-Encoding: chunked", "zz\r\nhello\r\n0\r\n\r\n"), Fails),
        ("negative chunk size", post("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"), Fails),
        ("chunk size with 0x", post("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"), Fails),
        ("empty chunk size", post("Transfer-Encoding: chunked", "\r\nhello\r\n0\r\n\r\n"), Fails),
        ("chunk size above u64", post("Transfer-Encoding: chunked", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Fails),
        ("chunk longer than its size", post("Transfer-Encoding: chunked", "3\r\nhello\r\n0\r\n\r\n"), Fails),
        ("chunk that never comes", post("Transfer-Encoding: chunked", "5\r\nhel"), Fails),
        ("body that never comes", post("Content-Length: 5", "hel"), Fails),
        ("chunk size that never ends", post("Transfer-Encoding: chunked", &"0".repeat(100_000)), Fails),
        ("half a request line", "GET /".to_owned(), Refused),
        ("half a header", "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned(), Refused),
        ("100 KB without a line end", "x".repeat(100_000), Refused),
        ("only line ends", "\r\n".repeat(50_000), Refused),
    ];
    let bytes: [(&str, &[u8], Fate); 6] = [
        ("nothing", b"", Refused),
        ("a TLS ClientHello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a", Refused),
        ("all bytes", b"\xff\xfe\xfd\x00\x01\x02\r\n\r\n", Refused),
        ("SOCKS", b"\x05\x01\x00", Refused),
        ("bytes above ASCII in the target", b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", Either),
        ("bytes above ASCII in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe4: b\r\n\r\n", Refused),
    ];
    texts.into_iter().map(|(name, text, fate)| (name.to_owned(), text.into_bytes(), fate))
        .chain(bytes.into_iter().map(|(name, bytes, fate)| (name.to_owned(), bytes.to_vec(), fate)))
        .collect()
}

/// Sends one case; `Err` when there was no answer to read, in time or at all.
fn attempt(client: &mut Client, bytes: &[u8], half_close: bool) -> io::Result<Response> {
    client.set_timeout(Duration::from_secs(10));
    // A proxy may have refused before the end of what it was sent.
    let _ = client.send(bytes);
    if half_close {
        client.finish();
    }
    client.read(if bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" })
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[test]
fn bad_input_is_refused_and_the_next_request_works() {
    let backend = [Backend::scripted("a")];
    let limits = "limits: {header_timeout: 400ms, keepalive_timeout: 1s, max_body: 1MiB}";
    let mut server = Setup::app(&backend, &format!("read_timeout: 700ms, {NO_CHECK}")).line(limits).start();
    let mut wrong = Vec::new();
    let mut cases = cases();
    // What no backend may see comes first: a request whose client has gone can reach its backend late, in the middle of
    // the next cases.
    cases.sort_by_key(|(_, _, fate)| *fate != Refused);
    for (name, bytes, fate) in cases {
        for half_close in [false, true] {
            let before = backend[0].seen().len();
            let start = now();
            let mut client = server.client();
            let result = attempt(&mut client, &bytes, half_close);
            let mut complain =
                |what: &str| wrong.push(format!("{name} (half closed: {half_close}): {what}: {result:?}"));
            match &result {
                Err(e) if is_timeout(e) => complain("hangs"),
                Err(_) => {}
                Ok(response) if response.status < 400 && fate != Either => complain("is served"),
                Ok(response) if response.status >= 400 => {
                    if std::panic::catch_unwind(|| assert_is_our_json(response)).is_err() {
                        complain("is not JSON of ours");
                    }
                    if response.status >= 500 && fate == Refused {
                        complain("is the client's fault, not ours");
                    }
                }
                Ok(_) => {}
            }
            if now() - start > CLIENT_TIMEOUT / 2 {
                complain("takes too long");
            }
            let seen = backend[0].seen();
            if fate == Refused && seen.len() > before {
                complain("reached the backend");
            }
            if seen[before..].iter().any(|seen| seen.ends_with("/smuggled")) && name.starts_with("content-length and") {
                complain("was taken for two requests");
            }
            drop(client);
            if !server.answers() {
                complain("broke the proxy");
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let events = server.process.err.text();
    assert!(!events.contains("panicked"), "{events}");
}

#[test]
fn a_host_that_cannot_be_one_is_400() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    for (host, status) in [
        ("a:99999", 400),
        ("a:65536", 400),
        ("[::::]", 400),
        ("[::1", 400),
        ("a%zz", 400),
        ("a:65535", 200),
        ("[::1]:80", 200),
        ("a_b.example", 200),
    ] {
        let response = server.client().call(&Request::new("GET", "/").host(host)).unwrap();
        assert_eq!(response.status, status, "{host}: {response:?}");
    }
}

#[test]
fn a_refused_request_does_not_change_the_next_one_on_another_connection() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut good = server.client();
    for (name, bytes, _) in
        cases().into_iter().filter(|(_, bytes, fate)| *fate != Fails && bytes.ends_with(b"\r\n\r\n"))
    {
        let mut bad = server.client();
        let _ = bad.send(&bytes);
        let response = good.get("/good?bytes=10").unwrap_or_else(|e| panic!("after {name}: {e}"));
        assert_eq!((response.status, response.body.len()), (200, 10), "after {name}");
    }
}

#[test]
fn random_bytes_never_break_the_proxy() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("limits: {header_timeout: 200ms}").start();
    let mut random = fastrand::Rng::with_seed(2);
    let whole =
        "POST /x?y=z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for turn in 0..400 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let mut client = server.client();
        client.set_timeout(Duration::from_secs(10));
        let _ = client.send(&bytes);
        client.finish();
        let result = client.read("POST");
        let timed_out = result.as_ref().is_err_and(is_timeout);
        assert!(!timed_out, "turn {turn} hangs: {:?}", String::from_utf8_lossy(&bytes));
    }
    assert!(server.answers());
    let events = server.process.err.text();
    assert!(!events.contains("panicked"), "{events}");
}
