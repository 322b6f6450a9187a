//! Where an answer ends, and in which words the client is told: the right value for each kind, by both ways, over
//! HTTP/1.1 and HTTP/2.

use std::fmt::Write;
use std::time::Duration;

use super::WAYS;
use super::generated::secure;
use crate::harness::client::{CLIENT_TIMEOUT, Client, Response};
use crate::harness::http2::{Http2, request};
use crate::harness::played::{Played, Taken};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, dawdle, now};

/// What a client is told: the status, the length, the transfer coding, the body.
type Told<'a> = (u16, Option<&'a str>, Option<&'a str>, &'a str);

/// A server in front of a backend that the test plays, over HTTP/1.1.
fn plain(backend: &Played) -> Tollgate {
    let setup = Setup::default().pool("app", &[backend.address], &format!("retries: 0, {NO_CHECK}"));
    setup.line("pingora: {threads: 1, upstream_keepalive_pool_size: 0}").start()
}

fn ask(client: &mut Client, method: &str, way: &str) {
    client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: {way}\r\n\r\n").as_bytes()).unwrap();
}

/// Asks over HTTP/1.1 by both ways, and has the backend answer as `play` does.
fn both_ways(
    server: &Tollgate,
    backend: &Played,
    method: &str,
    play: impl Fn(&mut Taken),
) -> [std::io::Result<Response>; 2] {
    WAYS.map(|way| {
        let mut client = server.client();
        ask(&mut client, method, way);
        let (mut taken, _) = backend.take_request();
        play(&mut taken);
        drop(taken);
        client.read(method)
    })
}

/// The same over HTTP/2.
fn both_ways_over_http2(
    client: &mut Http2,
    backend: &Played,
    method: &str,
    answer: &[u8],
) -> [Result<Response, h2::Error>; 2] {
    [false, true].map(|by_pingora| {
        let mut head = request(method, "/");
        if by_pingora {
            head.headers_mut().insert("te", "trailers".parse().unwrap());
        }
        let (response, _) = client.open(head, true).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(answer);
        drop(taken);
        client.runtime.block_on(crate::harness::http2::read(response))
    })
}

/// Checks by all four ways that a client is told so. In HTTP/2 there is no transfer coding.
#[track_caller]
fn assert_told(cases: &[(&str, &str, Told<'_>)]) {
    let backend = Played::new();
    let (server, (secure, _dir)) = (plain(&backend), secure(&backend));
    let mut http2 = Http2::connect(secure.address);
    let mut wrong = String::new();
    for (method, answer, expected) in cases {
        let over_http1 = both_ways(&server, &backend, method, |taken| taken.send(answer.as_bytes()));
        for (response, way) in over_http1.into_iter().zip(WAYS) {
            let response = response.map_err(|error| error.to_string());
            let told = response.as_ref().map(|response| {
                let text = response.text();
                assert!(response.head.first.starts_with("HTTP/1.1 "), "{:?} for {answer:?}", response.head.first);
                (response.status, response.header("content-length"), response.header("transfer-encoding"), text)
            });
            if told.as_ref().map(|(status, length, coding, text)| (*status, *length, *coding, &**text)) != Ok(*expected)
            {
                let answer = &answer[..answer.len().min(300)];
                let _ = writeln!(wrong, "{method} {answer:?} {way}: {told:?}, not {expected:?}");
            }
        }
        let over_http2 = both_ways_over_http2(&mut http2, &backend, method, answer.as_bytes());
        for (response, way) in over_http2.into_iter().zip(WAYS) {
            let told =
                response.as_ref().map(|response| (response.status, response.header("content-length"), response.text()));
            let (status, length, _, text) = *expected;
            if !told.as_ref().is_ok_and(|(s, l, t)| (*s, *l, &**t) == (status, length, text)) {
                let answer = &answer[..answer.len().min(300)];
                let _ = writeln!(wrong, "HTTP/2 {method} {answer:?} {way}: {told:?}, not {expected:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

const BAD_GATEWAY: Told<'static> = (502, Some("36"), None, r#"{"code":502,"message":"Bad gateway"}"#);
const CHUNKED: Option<&str> = Some("chunked");

#[test]
fn a_backend_of_http_1_0_is_told_in_http_1_1() {
    assert_told(&[
        ("GET", "HTTP/1.0 200 OK\r\n\r\nhello", (200, None, CHUNKED, "hello")),
        ("GET", "HTTP/1.0 200 OK\r\n\r\n", (200, None, CHUNKED, "")),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, Some("5"), None, "hello")),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
            (200, Some("5"), None, "hello"),
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            (200, None, CHUNKED, "hello"),
        ),
        ("HEAD", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (200, Some("5"), None, "")),
        ("HEAD", "HTTP/1.0 200 OK\r\n\r\n", (200, None, None, "")),
        ("GET", "HTTP/1.0 304 Not\r\n\r\n", (304, None, None, "")),
    ]);
}

#[test]
fn what_has_no_body_is_told_no_framing() {
    assert_told(&[
        ("GET", "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", (204, None, None, "")),
        ("GET", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", (204, None, None, "")),
        ("GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (204, None, None, "")),
        ("HEAD", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", (204, None, None, "")),
        ("GET", "HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", (304, None, None, "")),
        ("GET", "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", (304, Some("5"), None, "")),
        (
            "GET",
            "HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            (304, Some("5"), None, ""),
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", (200, None, None, "")),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, Some("5"), None, "")),
        (
            "HEAD",
            "HTTP/1.1 404 No\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            (404, Some("5"), None, ""),
        ),
    ]);
}

#[test]
fn a_length_that_is_repeated_is_one_and_two_are_none() {
    let five = (200, Some("5"), None, "hello");
    assert_told(&[
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\ncontent-length: 5\r\n\r\nhello", five),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", five),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5,5 ,\t5\r\nContent-Length: 5\r\n\r\nhello", five),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", (200, Some("5"), None, "")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", BAD_GATEWAY),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", BAD_GATEWAY),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\nhello", BAD_GATEWAY),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello", BAD_GATEWAY),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", BAD_GATEWAY),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", (502, Some("36"), None, "")),
    ]);
}

#[test]
fn a_transfer_coding_that_is_not_chunked_once_is_no_answer() {
    let coded = |coding: &str| format!("HTTP/1.1 200 OK\r\n{coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let answers: Vec<_> = [
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        "X: a\r\n b\r\nContent-Length: 5",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length:\r\n\t5",
    ]
    .map(coded)
    .to_vec();
    let cases: Vec<_> = answers.iter().map(|answer| ("GET", &**answer, BAD_GATEWAY)).collect();
    assert_told(&cases);
}

#[test]
fn one_bound_holds_for_the_header_of_an_answer() {
    let head = |size: usize| {
        let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
        let mut head = start.to_owned();
        while head.len() + 1000 < size {
            let _ = write!(head, "X-Many: {}\r\n", "y".repeat(900));
        }
        let rest = size - head.len() - "X: \r\n\r\n".len();
        let _ = write!(head, "X: {}\r\n\r\n", "y".repeat(rest));
        head
    };
    let (fits, larger, large, huge) = (head(64 << 10), head((64 << 10) + 1), head(300_000), head(1_000_000));
    assert_eq!(fits.len(), 64 << 10);
    let (none, gone) = ((200, Some("0"), None, ""), (502, Some("36"), None, ""));
    let early =
        |head: &str| format!("{}{}", head.replace("200 OK", "103 Early").replace("Content-Length: 0\r\n", ""), fits);
    let (late, too_early) = (early(&head(60_000)), early(&head(70_000)));
    assert_told(&[
        ("GET", &*fits, none),
        ("HEAD", &*fits, none),
        ("GET", &*late, none),
        ("GET", &*larger, BAD_GATEWAY),
        ("HEAD", &*larger, gone),
        ("GET", &*large, BAD_GATEWAY),
        ("HEAD", &*large, gone),
        ("GET", &*huge, BAD_GATEWAY),
        ("GET", &*too_early, BAD_GATEWAY),
        ("GET", &*format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(70_000)), BAD_GATEWAY),
        ("GET", &*format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(257)), BAD_GATEWAY),
    ]);
}

#[test]
fn bad_chunks_are_a_502_while_nothing_was_sent_and_a_cut_afterwards() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let wrong = ["x\r\n", "-1\r\n", "5;\r\nhello\r\n", "5\r\nhelloX", "3\r\nabc\r\nx\r\n", "0\r\nX\r\n", "g"];
    let answers: Vec<_> = wrong.iter().map(|wrong| format!("{chunked}{wrong}")).collect();
    assert_told(&answers.iter().map(|answer| ("GET", &**answer, BAD_GATEWAY)).collect::<Vec<_>>());
    let backend = Played::new();
    let server = plain(&backend);
    for way in WAYS {
        let mut client = server.client();
        ask(&mut client, "GET", way);
        let (mut taken, _) = backend.take_request();
        taken.send(format!("{chunked}5\r\nhello\r\n").as_bytes());
        assert!(client.has_answer(PATIENCE));
        taken.send(b"x\r\n");
        let rest = client.rest(PATIENCE).unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.ends_with("\r\n\r\n5\r\nhello\r\n"), "{way}: {rest:?}");
    }
}

#[test]
fn extensions_of_chunks_count_for_their_chunk_alone() {
    let stream: String = (0..3000).map(|n| format!("1;signature={n:064}\r\nx\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{stream}0\r\n\r\n");
    assert_told(&[("GET", &*answer, (200, None, CHUNKED, &*"x".repeat(3000)))]);
    let backend = Played::new();
    let server = plain(&backend);
    let mut client = server.client();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{stream}0\r\n\r\n").as_bytes())
        .unwrap();
    let (mut taken, got) = backend.take_request();
    assert_eq!(got.body, b"x".repeat(3000));
    taken.send(b"HTTP/1.1 204 No\r\n\r\n");
    assert_eq!(client.read("POST").unwrap().status, 204);
}

/// Parts of a body of known length, each of which the client has before the next one is sent.
#[test]
fn an_answer_of_known_length_is_not_held_back() {
    let backend = Played::new();
    let server = plain(&backend);
    for way in WAYS {
        for size in [1, 10, 1000, 5000] {
            let mut client = server.client();
            ask(&mut client, "GET", way);
            let (mut taken, _) = backend.take_request();
            taken.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size * 10).as_bytes());
            let part = vec![b'x'; size];
            let mut came = 0;
            for number in 0..10 {
                taken.send(&part);
                let end = now() + PATIENCE;
                client.set_timeout(PATIENCE);
                while came < (number + 1) * size {
                    assert!(now() < end, "{way}: part {number} of {size} bytes is held back");
                    let bytes = client.read_bytes(1).unwrap_or_else(|e| panic!("{way}: part {number} of {size}: {e}"));
                    // The header has no such letter.
                    came += usize::from(bytes == b"x");
                }
            }
            client.set_timeout(CLIENT_TIMEOUT);
        }
    }
}

/// The same for what a client sends, slowly.
#[test]
fn a_request_of_known_length_is_not_held_back() {
    let backend = Played::new();
    let server = plain(&backend);
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n").unwrap();
    let mut stream = backend.take().stream();
    let mut got = Vec::new();
    for number in 1..=4 {
        client.send(&[b'z'; 10]).unwrap();
        let end = now() + PATIENCE;
        while got.iter().filter(|byte| **byte == b'z').count() < number * 10 {
            assert!(now() < end, "part {number} is held back");
            let mut bytes = [0; 1000];
            let read = std::io::Read::read(&mut stream, &mut bytes).unwrap();
            got.extend_from_slice(&bytes[..read]);
        }
        dawdle(Duration::from_millis(1));
    }
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No\r\n\r\n").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 204);
}
