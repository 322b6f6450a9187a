//! Bounds on client connections, on slow bodies, and on interim answers.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{DATA, END_STREAM, Frames, GOAWAY, HEADERS, error_code};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NAME, NOW, write_pair};
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually, now};

/// Far fewer than clients come.
const FILES: u32 = 256;

fn metric(server: &Tollgate, name: &str) -> u64 {
    let text = server.ask("GET", "/metrics", "").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {text}"))
}

fn status(server: &Tollgate, field: &str) -> u64 {
    server.ask("GET", "/status", "").json()[field].as_u64().unwrap()
}

/// Lets clients come and asks a server with few descriptors what a new client and an operator ask.
#[track_caller]
fn assert_serves_beside(kind: &str, clients: usize, secure: bool, come: impl Fn(&Tollgate) -> TcpStream) {
    let dir = TempDir::new().unwrap();
    let backend = [Backend::scripted("a")];
    let mut setup = Setup::app(&backend, NO_CHECK).line("pingora: {threads: 2}");
    if secure {
        write_pair(dir.path(), NOW);
        setup = setup.tls(dir.path());
    }
    let server = Tollgate::with_few_files(&setup.yaml(), FILES);
    let held: Vec<_> = (0..clients).map(|_| come(&server)).collect();
    for turn in 0..3 {
        assert_eq!(server.ask("GET", "/healthz", "").status, 200, "{kind} {turn}");
        if !secure {
            let answer = server.client().get("/");
            assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{kind} {turn}: {answer:?}");
        }
    }
    let (bound, open) = (status(&server, "max_connections"), status(&server, "connections"));
    assert!((50..=128).contains(&bound) && open <= bound, "{kind}: {open} of {bound}");
    // Those who speak TLS were asked nothing meanwhile, so most of them may not have been accepted yet.
    let closed = || metric(&server, "tollgate_connections_closed_total{reason=\"max_connections\"}") > 0;
    assert!(eventually(PATIENCE, closed), "{kind}");
    let events = server.process.err.text();
    assert!(!events.contains("Too many open files") && !events.contains("panicked"), "{kind}: {events}");
    assert!(server.process.err.lines().len() < 100, "{kind}: {events}");
    drop(held);
}

/// Waits until a new client is let in. The one that makes room may have its answer a moment before its connection is
/// silent.
#[track_caller]
fn wait_for_room(server: &Tollgate) {
    let let_in = || server.client().get("/").is_ok_and(|answer| answer.status == 200);
    assert!(eventually(PATIENCE, let_in), "nobody made room");
}

fn begin(server: &Tollgate, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    // A connection that has given its seat up already takes nothing.
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn six_hundred_silent_clients_take_neither_the_admin_api_nor_new_clients_away() {
    assert_serves_beside("silent", 600, false, |server| begin(server, b""));
}

#[test]
fn so_do_as_many_with_half_a_header() {
    assert_serves_beside("half a header", 600, false, |server| begin(server, b"GET / HTTP/1.1\r\nHost: a\r\nX"));
}

#[test]
fn so_do_as_many_that_had_a_request() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_serves_beside("kept", 600, false, |server| begin(server, request));
}

#[test]
fn so_do_as_many_in_the_middle_of_a_handshake() {
    assert_serves_beside("half a handshake", 600, true, |server| begin(server, b"\x16\x03\x01\x02\x00\x01"));
}

#[test]
fn the_connection_that_was_silent_longest_is_closed_and_then_new_ones_are() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line("limits: {max_connections: 3}").start();
    let mut clients = [server.client(), server.client(), server.client()];
    // Silent in the order of their answers: each is over before the next one is asked for.
    let over = || server.ask("GET", "/status", "").json()["in_flight"] == 0;
    for place in [0, 1, 2, 0] {
        assert_eq!(clients[place].get("/").unwrap().status, 200);
        assert!(eventually(PATIENCE, over));
    }
    let mut fourth = server.client();
    assert_eq!(fourth.get("/").unwrap().status, 200);
    let [first, second, third] = &mut clients;
    second.wait_closed(PATIENCE).unwrap();
    assert_eq!((first.get("/").unwrap().status, third.get("/").unwrap().status), (200, 200));
    for client in [&mut *first, third, &mut fourth] {
        client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    }
    assert!(eventually(PATIENCE, || backend[0].held("k") == 3));
    let mut fifth = server.client();
    fifth.wait_closed(PATIENCE).unwrap();
    assert_eq!(metric(&server, "tollgate_connections_refused_total{reason=\"max_connections\"}"), 1);
    assert_eq!(metric(&server, "tollgate_connections_closed_total{reason=\"max_connections\"}"), 1);
    server.wait_for_event(&["limits.max_connections: a new connection was refused"], PATIENCE);
    backend[0].release("k");
    assert_eq!(first.read("GET").unwrap().status, 200);
    wait_for_room(&server);
}

#[test]
fn an_address_has_a_bound_of_its_own_unless_it_is_a_proxy() {
    let backend = [Backend::scripted("a")];
    let setup = Setup::app(&backend, NO_CHECK).line("limits: {max_connections_per_address: 2}");
    let server = setup.start();
    let mut clients = [server.client(), server.client()];
    for (client, key) in clients.iter_mut().zip(["first", "second"]) {
        client.send(&Request::new("GET", &format!("/?hold={key}")).encode()).unwrap();
        assert!(eventually(PATIENCE, || backend[0].held(key) == 1));
    }
    server.client().wait_closed(PATIENCE).unwrap();
    assert_eq!(metric(&server, "tollgate_connections_refused_total{reason=\"max_connections_per_address\"}"), 1);
    // One after the other, so that the first is most often the one that has been silent longest.
    for (client, key) in clients.iter_mut().zip(["first", "second"]) {
        backend[0].release(key);
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
    wait_for_room(&server);
    let closes = |client: &mut Client| client.wait_closed(Duration::from_millis(20)).is_ok();
    assert!(eventually(PATIENCE, || clients.iter_mut().any(closes)), "none made room");
    let server = setup.line("identity: {trusted_proxies: [127.0.0.0/8]}").start();
    let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").is_ok_and(|answer| answer.status == 200)));
}

#[test]
fn a_silent_connection_in_http_2_is_given_up_by_a_goaway() {
    let (dir, backend) = (TempDir::new().unwrap(), [Backend::scripted("a")]);
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line("limits: {max_connections: 1}").start();
    let mut first = Frames::connect(server.address);
    let lines = [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", "/")];
    first.headers(1, END_STREAM, &lines).unwrap();
    first.wait_for(&[HEADERS]);
    let mut second = None;
    let let_in = || {
        second = Frames::try_connect(server.address).ok();
        second.is_some()
    };
    // As in `wait_for_room`.
    assert!(eventually(PATIENCE, let_in), "nobody made room");
    let goaway = first.wait_for(&[GOAWAY]);
    assert_eq!((error_code(&goaway), goaway.payload[3]), (0, 1), "the request was taken");
    let mut second = second.unwrap();
    second.headers(1, END_STREAM, &lines).unwrap();
    second.wait_for(&[HEADERS]);
}

#[test]
fn a_number_that_does_not_fit_is_told() {
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, NO_CHECK).line("limits: {max_connections: 100000}").yaml();
    let server = Tollgate::with_few_files(&yaml, FILES);
    server.wait_for_event(&["limits.max_connections: 100000 does not fit"], PATIENCE);
    assert!(status(&server, "max_connections") < u64::from(FILES));
}

#[test]
fn a_body_may_be_silent_for_the_body_timeout() {
    let (dir, backend) = (TempDir::new().unwrap(), [Backend::scripted("a")]);
    write_pair(dir.path(), NOW);
    let limits = "limits: {body_timeout: 300ms}";
    let server = Setup::app(&backend, NO_CHECK).line(limits).start();
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").unwrap();
    let answer = client.read("POST").unwrap();
    assert_ours(&answer, 408, "Request timeout");
    assert!(answer.closes());
    let secure = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(limits).start();
    let mut frames = Frames::connect(secure.address);
    let lines = [(":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", "/")];
    frames.headers(1, 0, &lines).unwrap();
    frames.send(DATA, 0, 1, b"abc").unwrap();
    frames.wait_for(&[HEADERS]);
    let lines = secure.access_lines(1);
    assert_eq!(lines[0]["status"], 408, "{lines:?}");
}

/// Sends a body a byte a fifth of a second until the server has had enough; for how long that was.
fn drip(client: &mut Client, head: &[u8], limit: Duration) -> Option<Duration> {
    let begun = now();
    client.send(head).unwrap();
    while now() - begun < limit {
        if client.has_answer(Duration::from_millis(200)) || client.send(b"1\r\nx\r\n").is_err() {
            return Some(now() - begun);
        }
    }
    None
}

#[test]
fn a_body_of_grpc_is_as_long_and_as_silent_as_it_likes() {
    let (dir, backend) = (TempDir::new().unwrap(), [Backend::scripted("a")]);
    write_pair(dir.path(), NOW);
    let limits = "limits: {body_timeout: 200ms, max_body: 4B}";
    let server = Setup::app(&backend, NO_CHECK).line(limits).start();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\n";
    for (framing, first, second) in [
        ("Content-Length: 10", "abcde", "fghij"),
        ("Transfer-Encoding: chunked", "5\r\nabcde\r\n", "5\r\nfghij\r\n0\r\n\r\n"),
    ] {
        let mut client = server.client();
        client.send(format!("{head}{framing}\r\n\r\n{first}").as_bytes()).unwrap();
        assert!(!client.has_answer(Duration::from_secs(1)), "{framing}");
        client.send(second.as_bytes()).unwrap();
        let answer = client.read("POST").unwrap();
        assert_eq!(answer.status, 200, "{framing}: {answer:?}");
    }
    let secure = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(limits).start();
    let mut frames = Frames::connect(secure.address);
    let lines = [(":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", "/")];
    frames.headers(1, 0, &[&lines[..], &[("content-type", "application/grpc")]].concat()).unwrap();
    frames.send(DATA, 0, 1, b"abcde").unwrap();
    dawdle(Duration::from_secs(1));
    frames.send(DATA, END_STREAM, 1, b"fghij").unwrap();
    frames.wait_for(&[HEADERS]);
    let lines = secure.access_lines(1);
    assert_eq!((&lines[0]["status"], &lines[0]["bytes_in"]), (&json!(200), &json!(10)), "{lines:?}");
}

#[test]
fn a_body_that_drips_over_http_2_is_cut() {
    let (dir, backend) = (TempDir::new().unwrap(), [Backend::scripted("a")]);
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
    let mut frames = Frames::connect(server.address);
    let lines = [(":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", "/")];
    frames.headers(1, 0, &lines).unwrap();
    for _ in 0..55 {
        // Once it is cut, nobody takes more.
        let _ = frames.send(DATA, 0, 1, b"x");
        dawdle(Duration::from_millis(200));
    }
    let lines = server.access_lines(1);
    assert_eq!(lines[0]["status"], 408, "{lines:?}");
    let duration = lines[0]["duration_ms"].as_f64().unwrap();
    // The timers that bound reads may be a hundredth of a second early.
    assert!((9_900.0..14_000.0).contains(&duration), "{lines:?}");
}

#[test]
fn a_body_that_drips_is_cut_and_a_slow_backend_is_not_blamed_on_its_client() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    let (plain, grpc) = (format!("{chunked}\r\n"), format!("{chunked}Content-Type: application/grpc\r\n\r\n"));
    let played = Played::new();
    let slow = Setup::default().pool("slow", &[played.address], NO_CHECK).start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            let time = drip(&mut client, plain.as_bytes(), PATIENCE).expect("it is cut");
            assert!((10..14).contains(&time.as_secs()), "{time:?}");
            let answer = client.read("POST").unwrap();
            assert_ours(&answer, 408, "Request timeout");
            assert!(answer.closes());
        });
        scope.spawn(|| assert_eq!(drip(&mut server.client(), grpc.as_bytes(), Duration::from_secs(13)), None));
        scope.spawn(move || {
            let (mut client, body) = (slow.client(), vec![b'x'; 8 << 20]);
            let mut stream = client.stream();
            let sending = scope
                .spawn(move || stream.write_all(&Request::new("POST", "/").body(Body::Length(&body)).encode()).is_ok());
            let mut taken = played.take();
            dawdle(Duration::from_secs(12));
            assert_eq!(taken.request().body.len(), 8 << 20);
            taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.read("POST").unwrap().status, 200);
            assert!(sending.join().unwrap());
        });
    });
}

#[test]
fn a_request_gets_64_interim_answers_by_either_way() {
    for (count, expected) in [(64, 200), (65, 502)] {
        for te in ["", "TE: trailers\r\n"] {
            let played = Played::new();
            let server = Setup::default().pool("app", &[played.address], NO_CHECK).start();
            let mut client = server.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{te}\r\n").as_bytes()).unwrap();
            let mut taken = played.take();
            taken.request();
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
            taken.send(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").as_bytes());
            let all = client.rest(PATIENCE).unwrap();
            assert_eq!(all.matches("HTTP/1.1 103 ").count(), 64, "{te:?}: {all}");
            assert!(all.contains(&format!("HTTP/1.1 {expected} ")), "{count} {te:?}: {all}");
            let lines = server.access_lines(1);
            assert_eq!(lines[0]["status"], expected, "{count} {te:?}: {lines:?}");
        }
    }
}
