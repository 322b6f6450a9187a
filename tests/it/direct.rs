//! Plain requests that go past Pingora's request loop: connections to backends and their reuse, answers in pieces, clients
//! that leave, and what a broken answer comes to.

use std::io::Write;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::played::{Played, Taken};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, checksum, eventually};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy with one thread, so that whatever came before a request was noticed before it, in front of one backend.
fn start(keys: &str) -> (Played, Tollgate) {
    start_with(keys, "pingora: {threads: 1}")
}

fn start_with(keys: &str, line: &str) -> (Played, Tollgate) {
    let backend = Played::new();
    let keys = format!("{NO_CHECK}{keys}");
    let server = Setup::default().pool("app", &[backend.address], &keys).line(line).start();
    (backend, server)
}

/// Sends GET and lets `backend` read it.
fn ask(client: &mut Client, backend: &mut Taken) {
    client.send(&Request::new("GET", "/").encode()).unwrap();
    backend.request();
}

/// One exchange after which the proxy keeps the connection to its backend.
fn kept(client: &mut Client, backend: &Played) -> Taken {
    client.send(&Request::new("GET", "/first").encode()).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(OK);
    assert_eq!(client.read("GET").unwrap().text(), "ok");
    taken
}

#[test]
fn a_connection_is_kept_when_it_is_clear_that_the_answer_is_over() {
    let (backend, server) = start("");
    let mut client = server.client();
    let mut taken = kept(&mut client, &backend);
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", "ok"),
        ("HTTP/1.1 204 No\r\n\r\n", ""),
        ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", ""),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "ok"),
        ("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ] {
        ask(&mut client, &mut taken);
        taken.send(answer.as_bytes());
        let response = client.read("GET").unwrap();
        assert_eq!((response.text().as_str(), response.closes()), (body, false), "{answer}");
    }
    assert!(backend.take_within(Duration::ZERO).is_none(), "one connection for all of them");
}

#[test]
fn a_connection_is_closed_when_something_about_the_answer_is_not_clear() {
    let (backend, server) = start("");
    let mut client = server.client();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(answer.as_bytes());
        let response = client.read("GET").unwrap();
        assert_eq!((response.text().as_str(), response.closes()), ("ok", false), "{answer}");
        assert!(taken.is_closed(PATIENCE), "{answer}");
    }
}

#[test]
fn what_a_backend_says_unasked_is_nobodys_answer() {
    let (backend, server) = start("");
    let mut client = server.client();
    let mut taken = kept(&mut client, &backend);
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    assert!(taken.is_closed(PATIENCE), "also when no request comes");
    assert_eq!(kept(&mut client, &backend).request_within(Duration::ZERO), None);
}

#[test]
fn an_idle_connection_is_closed_in_time_and_with_its_backend() {
    let (backend, server) = start(", idle_timeout: 300ms");
    let mut client = server.client();
    assert!(kept(&mut client, &backend).is_closed(PATIENCE), "when its time is over");
    drop(kept(&mut client, &backend));
    // What may not be repeated does not meet the closed one.
    client.send(&Request::new("POST", "/").encode()).unwrap();
    backend.take_request().0.send(OK);
    assert_eq!(client.read("POST").unwrap().text(), "ok");
    assert_eq!(server.access_lines(3)[2]["attempts"], 1);
}

#[test]
fn with_a_pool_of_none_no_connection_is_kept() {
    let (backend, server) = start_with("", "pingora: {threads: 1, upstream_keepalive_pool_size: 0}");
    let mut client = server.client();
    for _ in 0..3 {
        assert!(kept(&mut client, &backend).is_closed(PATIENCE));
    }
}

#[test]
fn no_more_connections_are_kept_than_the_pool_may_have() {
    let (backend, server) = start_with("", "pingora: {threads: 2, upstream_keepalive_pool_size: 4}");
    let mut clients: Vec<_> = (0..32).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&Request::new("GET", "/").encode()).unwrap());
    let mut taken: Vec<_> = clients.iter().map(|_| backend.take_request().0).collect();
    taken.iter_mut().for_each(|taken| taken.send(OK));
    clients.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().text(), "ok"));
    let mut open =
        || taken.iter_mut().map(|taken| usize::from(!taken.is_closed(Duration::from_millis(1)))).sum::<usize>();
    assert!(eventually(PATIENCE, || open() <= 4), "{} are kept", open());
    assert!(open() > 0);
}

#[test]
fn a_request_that_dies_on_a_kept_connection_is_sent_again_if_it_may_be() {
    let (backend, server) = start("");
    for (n, (method, said, again)) in [
        ("GET", "", true),
        ("DELETE", "", true),
        ("POST", "", false),
        ("PATCH", "", false),
        ("GET", "H", false),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false),
        ("GET", "HTTP/1.1 103 Early\r\n\r\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.client();
        let mut taken = kept(&mut client, &backend);
        client.send(&Request::new(method, "/dies").body(Body::Length(b"body")).encode()).unwrap();
        assert_eq!(taken.request().body, b"body");
        taken.send(said.as_bytes());
        drop(taken);
        let second = if again {
            let (mut taken, got) = backend.take_request();
            assert_eq!((got.head.first, got.body), (format!("{method} /dies HTTP/1.1"), b"body".to_vec()));
            taken.send(OK);
            Some(taken)
        } else {
            None
        };
        let response = client.read(method).unwrap();
        let line = server.access_lines(2 * n + 2).remove(2 * n + 1);
        if again {
            assert_eq!(response.text(), "ok", "{method} {said:?}");
            assert_eq!((&line["attempts"], &line["error"]), (&2.into(), &().into()), "{line}");
        } else {
            assert_ours(&response, 502, "Bad gateway");
            assert_eq!(line["attempts"], 1, "{method} {said:?}: {line}");
            assert_eq!(line["error"], "connection closed before the answer was complete", "{line}");
        }
        assert!(backend.take_within(Duration::ZERO).is_none(), "{method} {said:?}: sent again");
        // What is kept now is not to meet the next case.
        drop(second);
    }
}

#[test]
fn a_connection_that_never_worked_is_no_reason_to_send_again() {
    let (backend, server) = start("");
    let mut client = server.client();
    client.send(&Request::new("GET", "/").encode()).unwrap();
    drop(backend.take_request());
    assert_ours(&client.read("GET").unwrap(), 502, "Bad gateway");
    assert!(backend.take_within(Duration::ZERO).is_none());
    assert_eq!(kept(&mut client, &backend).request_within(Duration::ZERO), None);
}

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
        assert!(said.is_empty() || client.has_answer(PATIENCE));
        drop(client);
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

#[test]
fn connections_to_a_backend_do_not_pile_up() {
    let (backend, server) = start("");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count();
    drop(kept(&mut server.client(), &backend));
    let before = descriptors();
    for n in 0..30 {
        let mut client = server.client();
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        // Each ends in another way: the client leaves, the backend does, both are done.
        if n % 3 > 0 {
            taken.send(if n % 3 == 1 { b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" } else { OK });
            assert!(client.has_answer(PATIENCE));
        }
    }
    assert!(eventually(PATIENCE, || descriptors() <= before), "{} and before {before}", descriptors());
}

#[test]
fn connections_that_stay_with_their_thread_and_those_that_do_not_are_served() {
    for stealing in [false, true] {
        let backend = [Backend::scripted("a")];
        let line = format!("pingora: {{threads: 3, work_stealing: {stealing}}}");
        let mut server = Setup::app(&backend, NO_CHECK).line(&line).start();
        let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
        for round in 0..5 {
            for client in &mut clients {
                assert_eq!(client.get("/").unwrap().status, 200, "stealing: {stealing}, round {round}");
            }
        }
        server.process.signal("TERM");
        assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0), "stealing: {stealing}");
    }
}
