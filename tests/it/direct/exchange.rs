//! What is said over a connection: requests sent ahead, bodies and answers in pieces, clients that leave, and what a
//! broken answer comes to.

use std::io::Write;
use std::time::Duration;

use super::{ask, kept, start};
use crate::harness::client::{Body, Request};
use crate::harness::played::Taken;
use crate::harness::{PATIENCE, checksum, eventually};

#[test]
fn requests_sent_ahead_are_answered_one_after_the_other() {
    let (backend, server) = start("");
    let mut client = server.client();
    // More than is read ahead, of all kinds, in one piece and cut anywhere.
    let request = |n: usize| {
        let target = format!("/{n}");
        let headers = [("X-Padding", "x".repeat(n)), ("Connection", ["keep-alive", "keep-alive, x"][n % 2].to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let body = ["", "hello", "a longer body"][n % 3];
        let body = [Body::None, Body::Length(body.as_bytes()), Body::Chunked(body.as_bytes(), 4)][n / 2 % 3];
        Request::new("POST", &target).headers(&headers).body(body).encode()
    };
    let all: Vec<u8> = (0..150).flat_map(request).collect();
    let (first, second) = all.split_at(all.len() / 3);
    client.send(first).unwrap();
    // Both ways have a connection of their own.
    let mut connections: Vec<Taken> = Vec::new();
    let mut next = |limit: Duration| {
        let mut found = None;
        eventually(limit, || {
            connections.extend(backend.take_within(Duration::ZERO));
            let mut known = connections.iter_mut().enumerate();
            found = known.find_map(|(at, taken)| Some((at, taken.request_within(Duration::ZERO)?)));
            found.is_some()
        });
        found.map(|(at, request)| (request, connections[at].stream()))
    };
    for n in 0..150 {
        let (got, mut stream) = next(PATIENCE).unwrap_or_else(|| panic!("{n} does not come"));
        assert_eq!(got, format!("POST /{n} HTTP/1.1"));
        assert!(next(Duration::ZERO).is_none(), "{n} is not answered yet");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{n}", n.to_string().len()).unwrap();
        if n == 20 {
            client.send(second).unwrap();
        }
    }
    for n in 0..150 {
        assert_eq!(client.read("POST").unwrap().text(), n.to_string());
    }
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let (backend, server) = start("");
    for (n, (said, status)) in [
        ("", None),
        ("HTTP/1.1 103 Early\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Some(200)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.client();
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(said.as_bytes());
        // As much as is to be counted, which may come in pieces.
        let mut came = Vec::new();
        while !came.ends_with(&said.as_bytes()[said.len().saturating_sub(5)..]) {
            came.extend(client.read_bytes(1).unwrap());
        }
        client.reset();
        assert!(taken.is_closed(PATIENCE), "{said:?}");
        let line = server.access_lines(n + 1).remove(n);
        assert_eq!(line["status"], serde_json::json!(status), "{line}");
        assert_eq!(line["error"], "the client closed the connection", "{line}");
        assert_eq!(line["bytes_out"], if status.is_some() { 5 } else { 0 }, "{line}");
    }
    let in_flight = || {
        let metrics = server.ask("GET", "/metrics", "").text();
        metrics.lines().find(|line| line.starts_with("tollgate_backend_in_flight{")).unwrap().to_owned()
    };
    assert!(eventually(PATIENCE, || in_flight().ends_with(" 0")), "{}", in_flight());
    assert!(server.process.err.text().lines().all(|line| !line.contains("WARN")), "no backend is to blame");
}

#[test]
fn a_slow_reader_holds_up_its_backend_and_gets_everything() {
    let (backend, server) = start("");
    let body = checksum::body(7, 32 << 20);
    for framing in [format!("Content-Length: {}", body.len()), "Connection: close".to_owned()] {
        let mut client = server.client();
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                taken.send(&body);
                drop(taken);
            });
            // More than fits into the buffers of all the sockets on the way.
            assert!(client.has_answer(PATIENCE) && !sender.is_finished(), "{framing}");
            let response = client.read("GET").unwrap();
            assert!(response.body == body, "{framing}: {} bytes of {}", response.body.len(), body.len());
        });
    }
}

#[test]
fn a_body_in_pieces_arrives_whole() {
    let (backend, server) = start("");
    let mut client = server.client();
    let body = checksum::body(1, 70_000);
    let mut taken = kept(&mut client, &backend);
    drop(taken);
    for (size, cuts) in
        [(5, &[][..]), (5, &[2]), (65_536, &[]), (65_536, &[1, 10_000, 65_535]), (65_537, &[]), (65_537, &[65_536])]
    {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        client.send(&head).unwrap();
        let mut from = 0;
        for to in cuts.iter().copied().chain([size]) {
            client.send(&body[from..to]).unwrap();
            from = to;
        }
        taken = backend.take();
        assert!(taken.request().body == body[..size], "{size} {cuts:?}");
        taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(client.read("PUT").unwrap().text(), "ok", "{size} {cuts:?}");
    }
}

#[test]
fn an_answer_that_comes_byte_by_byte_arrives_right() {
    let (backend, server) = start("");
    let mut client = server.client();
    let mut taken = kept(&mut client, &backend);
    for answer in [
        "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n01 \r\nk\r\n0\r\nX: y\r\n\r\n",
    ] {
        ask(&mut client, &mut taken);
        for byte in answer.as_bytes() {
            taken.send(&[*byte]);
        }
        let response = client.read("GET").unwrap();
        assert_eq!((response.text().as_str(), response.header("x-a")), ("ok", Some("b")), "{answer}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (backend, server) = start("");
    for (n, (head, rest, why)) in [
        ("Content-Length: 9", "", "connection closed before the answer was complete"),
        ("Transfer-Encoding: chunked", "", "connection closed before the answer was complete"),
        ("Transfer-Encoding: chunked", "0", "connection closed before the answer was complete"),
        ("Transfer-Encoding: chunked", "zz\r\n", "it answered something that is not HTTP"),
        ("Transfer-Encoding: chunked", "2\r\nokay\r\n0\r\n\r\n", "it answered something that is not HTTP"),
    ]
    .into_iter()
    .enumerate()
    {
        let chunked = head.starts_with("Transfer");
        let mut client = server.client();
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        let first = if chunked { "5\r\nhello\r\n" } else { "hello" };
        taken.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{first}").as_bytes());
        assert!(client.has_answer(PATIENCE));
        taken.send(rest.as_bytes());
        drop(taken);
        let all = client.rest(PATIENCE).unwrap();
        let body = all.split_once("\r\n\r\n").unwrap().1;
        assert!(body.starts_with(first) && !body.contains("0\r\n\r\n"), "{rest:?}: {all}");
        let line = server.access_lines(n + 1).remove(n);
        assert_eq!((&line["status"], &line["error"]), (&200.into(), &why.into()), "{line}");
    }
}

#[test]
fn what_pingora_leaves_as_it_is_is_repaired_or_refused() {
    let (backend, server) = start("");
    let mut client = server.client();
    for (answer, status, length) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 200, Some("2")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, Some("2")),
        // RFC 9110 section 8.6.
        ("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", 204, None),
        // RFC 9112 section 5.2.
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 502, Some("36")),
    ] {
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(answer.as_bytes());
        drop(taken);
        let response = client.read("GET").unwrap();
        assert_eq!((response.status, response.header("content-length")), (status, length), "{answer}");
        assert_eq!(response.head.all("content-length").len(), usize::from(length.is_some()), "{answer}");
        assert!(!response.closes(), "{answer}");
    }
}
