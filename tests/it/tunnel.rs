//! What becomes of a connection after a 101: nothing is lost, ends are passed on, silence and stops end it, and nobody
//! gets through who was not asked in.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustls::version::TLS13;
use serde_json::Value;

use crate::harness::client::{Body, Client, Request};
use crate::harness::daemon::Daemon;
use crate::harness::played::{Got, Played, Taken};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, checksum, dawdle, eventually, now, tls};

/// Too short for anything to come that is not on its way already.
const MOMENT: Duration = Duration::from_millis(200);

/// A request for this protocol.
fn offer(protocol: &str) -> Vec<u8> {
    let websocket = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
    format!(
        "GET /t HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n{websocket}\r\n\r\n"
    )
    .into_bytes()
}

/// The answer that takes it up.
fn agree(protocol: &str) -> Vec<u8> {
    format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nX-Accept: y\r\n\r\n")
        .into_bytes()
}

/// A server in front of a backend that the test plays; `keys` are the pool's, `line` one of the file.
fn start(keys: &str, line: &str) -> (Played, Tollgate) {
    let backend = Played::new();
    let keys = if keys.is_empty() { NO_CHECK.to_owned() } else { format!("{keys}, {NO_CHECK}") };
    let server = Setup::default().pool("app", &[backend.address], &keys).line(line).start();
    (backend, server)
}

/// Both ends of a tunnel.
#[track_caller]
fn tunnel(server: &Tollgate, backend: &Played) -> (Client, Taken) {
    let mut client = server.client();
    client.send(&offer("websocket")).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(&agree("websocket"));
    assert_eq!(client.read("GET").unwrap().status, 101);
    (client, taken)
}

/// The one access line.
#[track_caller]
fn line(server: &Tollgate) -> Value {
    server.access_lines(1).pop().unwrap()
}

#[test]
fn the_backend_gets_the_offer_and_the_client_the_answer() {
    let (backend, server) = start("", "");
    let mut client = server.client();
    client.send(&offer("websocket")).unwrap();
    let (mut taken, Got { head, body }) = backend.take_request();
    assert_eq!((head.all("connection"), head.all("upgrade")), (vec!["Upgrade"], vec!["websocket"]), "{head:?}");
    assert!(head.header("sec-websocket-key").is_some() && head.header("x-forwarded-for") == Some("127.0.0.1"));
    assert!(body.is_empty() && head.framing().unwrap().is_none());
    taken.send(&agree("websocket"));
    let answer = client.read("GET").unwrap();
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!((answer.header("x-accept"), answer.framing), (Some("y"), None), "{answer:?}");
}

#[test]
fn what_comes_right_behind_the_101_arrives() {
    let (backend, server) = start("", "");
    let agreed = agree("websocket");
    for size in [1, 125, 8 << 10, 100_000] {
        let data = checksum::body(size as u64, size);
        // In one write with the header, and with the header cut in two.
        for cut in [0, agreed.len() - 1, agreed.len()] {
            let mut client = server.client();
            client.send(&offer("websocket")).unwrap();
            let (mut taken, _) = backend.take_request();
            taken.send(&agreed[..cut]);
            if cut > 0 {
                dawdle(Duration::from_millis(20));
            }
            taken.send(&[&agreed[cut..], &data].concat());
            assert_eq!(client.read("GET").unwrap().status, 101);
            assert!(client.read_bytes(size).unwrap() == data, "{size} bytes, cut at {cut}");
        }
    }
}

#[test]
fn a_backend_that_says_all_with_its_101_and_goes_is_heard() {
    let (backend, server) = start("", "");
    for size in [1, 100_000] {
        let data = checksum::body(size as u64, size);
        let mut client = server.client();
        client.send(&offer("websocket")).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(&[agree("websocket"), data.clone()].concat());
        drop(taken);
        assert_eq!(client.read("GET").unwrap().status, 101);
        assert!(client.read_bytes(size).unwrap() == data, "{size}");
        client.wait_closed(PATIENCE).unwrap();
    }
}

#[test]
fn what_the_client_sends_ahead_waits_for_the_101_and_arrives() {
    let (backend, server) = start("", "");
    for size in [5, 4096, 100_000] {
        let data = checksum::body(size as u64, size);
        let mut client = server.client();
        client.send(&[offer("websocket"), data.clone()].concat()).unwrap();
        let (mut taken, _) = backend.take_request();
        let stream = taken.stream();
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        assert!(stream.peek(&mut [0]).is_err(), "nothing is sent before the backend has agreed");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        taken.send(&agree("websocket"));
        assert_eq!(client.read("GET").unwrap().status, 101);
        assert!(taken.read_bytes(size).unwrap() == data, "{size}");
        client.send(b"more").unwrap();
        assert_eq!(taken.read_bytes(4).unwrap(), b"more");
    }
}

#[test]
fn fifty_megabytes_pass_both_ways_at_once() {
    const SIZE: usize = 50 << 20;
    let (backend, server) = start("", "");
    let (mut client, mut taken) = tunnel(&server, &backend);
    let (up, down) = (checksum::body(1, SIZE), checksum::body(2, SIZE));
    let (client_end, backend_end) = (client.stream(), taken.stream());
    let say = |mut stream: TcpStream, bytes: &[u8]| {
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| say(client_end, &up));
        scope.spawn(|| say(backend_end, &down));
        scope.spawn(|| assert_eq!(checksum::sum(&taken.read_bytes(SIZE).unwrap()), checksum::sum(&up)));
        assert_eq!(checksum::sum(&client.read_bytes(SIZE).unwrap()), checksum::sum(&down));
    });
    client.wait_closed(PATIENCE).unwrap();
    let line = line(&server);
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&SIZE.into(), &SIZE.into()), "{line}");
    assert_eq!((&line["status"], &line["error"]), (&101.into(), &Value::Null), "{line}");
}

#[test]
fn one_that_takes_nothing_holds_the_other_back_and_loses_nothing() {
    let (backend, server) = start("", "");
    let (mut client, mut taken) = tunnel(&server, &backend);
    let data = checksum::body(3, 64 << 20);
    let mut stream = taken.stream();
    std::thread::scope(|scope| {
        scope.spawn(|| stream.write_all(&data).unwrap());
        dawdle(MOMENT);
        // The other direction is not held back.
        client.send(b"hello").unwrap();
        assert_eq!(taken.read_bytes(5).unwrap(), b"hello");
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: usize = resident.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kilobytes < 200 << 10, "{kilobytes} KiB are held");
        assert_eq!(checksum::sum(&client.read_bytes(data.len()).unwrap()), checksum::sum(&data));
    });
}

#[test]
fn one_end_is_passed_on_and_the_other_direction_goes_on() {
    for client_first in [true, false] {
        let (backend, server) = start("", "");
        let (mut client, mut taken) = tunnel(&server, &backend);
        client.send(b"up").unwrap();
        taken.send(b"down");
        assert_eq!((taken.read_bytes(2).unwrap(), client.read_bytes(4).unwrap()), (b"up".to_vec(), b"down".to_vec()));
        if client_first {
            client.finish();
            assert!(taken.is_closed(PATIENCE), "the backend is not told");
            for _ in 0..5 {
                taken.send(b"still");
                assert_eq!(client.read_bytes(5).unwrap(), b"still");
            }
            taken.stream().shutdown(Shutdown::Write).unwrap();
            client.wait_closed(PATIENCE).unwrap();
        } else {
            taken.stream().shutdown(Shutdown::Write).unwrap();
            client.wait_closed(PATIENCE).unwrap();
            for _ in 0..5 {
                client.send(b"still").unwrap();
                assert_eq!(taken.read_bytes(5).unwrap(), b"still");
            }
            client.finish();
            assert!(taken.is_closed(PATIENCE));
        }
        let line = line(&server);
        let (up, down) = if client_first { (2, 29) } else { (27, 4) };
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&up.into(), &down.into()), "{line}");
        assert_eq!(line["error"], Value::Null, "{line}");
    }
}

#[test]
fn a_break_is_passed_on_and_told() {
    let reset = |stream: &TcpStream| set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    let (backend, server) = start("", "");
    let (client, taken) = tunnel(&server, &backend);
    reset(&client.stream());
    drop(client);
    let mut stream = taken.stream();
    let error = stream.read(&mut [0]).expect_err("the backend is to learn that it was no end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(line(&server)["error"], "the client closed the connection");
    drop(taken);

    let (mut client, taken) = tunnel(&server, &backend);
    reset(&taken.stream());
    drop(taken);
    client.wait_closed(PATIENCE).unwrap();
    let last = server.access_lines(2).pop().unwrap();
    assert_eq!(
        (&last["error"], &last["status"]),
        (&"connection broken after the upgrade".into(), &101.into()),
        "{last}"
    );
    let failures = server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0]["failures"].clone();
    assert_eq!(failures, 1);
}

#[test]
fn a_silence_in_both_directions_ends_it() {
    let (backend, server) = start("tunnel_timeout: 300ms, read_timeout: 100ms", "");
    let (mut client, mut taken) = tunnel(&server, &backend);
    let start = now();
    client.wait_closed(PATIENCE).unwrap();
    assert!(now() - start > MOMENT, "after {:?}", now() - start);
    assert!(taken.is_closed(PATIENCE));
    let line = line(&server);
    assert_eq!((&line["error"], &line["status"]), (&"the tunnel was silent for 300ms".into(), &101.into()), "{line}");
    // Half of it is not all of it.
    let (mut client, mut taken) = tunnel(&server, &backend);
    client.finish();
    assert!(taken.is_closed(PATIENCE));
    client.wait_closed(PATIENCE).unwrap();
    assert_eq!(server.access_lines(2)[1]["error"], "the tunnel was silent for 300ms");
}

#[test]
fn bytes_in_either_direction_keep_it_alive() {
    let (backend, server) = start("tunnel_timeout: 1s", "");
    for from_client in [true, false] {
        let (mut client, mut taken) = tunnel(&server, &backend);
        let start = now();
        while now() - start < Duration::from_millis(2500) {
            dawdle(Duration::from_millis(100));
            if from_client {
                client.send(b"x").unwrap();
                taken.read_bytes(1).unwrap();
            } else {
                taken.send(b"x");
                client.read_bytes(1).unwrap();
            }
        }
    }
}

#[test]
fn a_reload_counts_for_new_tunnels() {
    let backend = Played::new();
    let yaml = |keys: &str| Setup::default().pool("app", &[backend.address], &format!("{keys}, {NO_CHECK}")).yaml();
    let server = Tollgate::from_yaml(&yaml("tunnel_timeout: 1h"));
    let (mut old, mut old_end) = tunnel(&server, &backend);
    server.rewrite(&yaml("tunnel_timeout: 200ms"));
    assert_eq!(server.ask("POST", "/config/reload", "").json()["changed"][0], "upstreams changed: app");
    let (mut new, _new_end) = tunnel(&server, &backend);
    new.wait_closed(PATIENCE).unwrap();
    old.send(b"x").unwrap();
    assert_eq!(old_end.read_bytes(1).unwrap(), b"x");
}

#[test]
fn it_ends_with_the_grace_period_and_has_its_line() {
    let (backend, mut server) = start("", "pingora: {grace_period_seconds: 2}");
    let (mut client, mut taken) = tunnel(&server, &backend);
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    client.send(b"still").unwrap();
    assert_eq!(taken.read_bytes(5).unwrap(), b"still");
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    client.wait_closed(PATIENCE).unwrap();
    assert!(taken.is_closed(PATIENCE));
    let line: Value = serde_json::from_str(finished.out.trim()).unwrap();
    assert_eq!((&line["error"], &line["status"]), (&"the server stopped".into(), &101.into()), "{line}");
    assert_eq!(line["bytes_in"], 5, "{line}");
}

#[test]
fn a_stop_waits_for_its_end_and_no_longer() {
    let (backend, mut server) = start("", "pingora: {grace_period_seconds: 60}");
    let (mut client, mut taken) = tunnel(&server, &backend);
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    client.finish();
    assert!(taken.is_closed(PATIENCE));
    drop(taken);
    let start = now();
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!((finished.code, finished.out.lines().count()), (Some(0), 1), "{finished:?}");
    assert!(now() - start < Duration::from_secs(5));
    client.wait_closed(PATIENCE).unwrap();
}

#[test]
fn it_outlives_an_upgrade_of_the_server() {
    let backend = Played::new();
    let pingora = format!("pingora: {}\n", Daemon::pingora(", grace_period_seconds: 3"));
    let daemon = Daemon::start(backend.address, &pingora);
    let mut client = Client::connect(daemon.address);
    client.send(&offer("websocket")).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(&agree("websocket"));
    assert_eq!(client.read("GET").unwrap().status, 101);
    daemon.upgrade();
    client.send(b"still").unwrap();
    assert_eq!(taken.read_bytes(5).unwrap(), b"still");
    client.wait_closed(PATIENCE).unwrap();
    assert!(eventually(PATIENCE, || daemon.text("access.log").contains("the server stopped")));
}

#[test]
fn after_a_refusal_both_connections_go_on() {
    let (backend, server) = start("", "");
    let mut client = server.client();
    let mut connection: Option<Taken> = None;
    for (status, body) in [(403, "no"), (426, ""), (400, "bad"), (200, "no WebSocket here")] {
        client.send(&offer("websocket")).unwrap();
        let mut taken = connection.take().unwrap_or_else(|| backend.take());
        let got = taken.request();
        assert_eq!(got.head.header("upgrade"), Some("websocket"));
        taken.send(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let answer = client.read("GET").unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (status, body, false));
        connection = Some(taken);
    }
    let mut taken = connection.unwrap();
    client.send(&Request::new("GET", "/next").encode()).unwrap();
    assert_eq!(taken.request().head.first, "GET /next HTTP/1.1");
    taken.send(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.read("GET").unwrap().status, 204);
    // And at last it agrees, over the same connections.
    client.send(&offer("websocket")).unwrap();
    taken.request();
    taken.send(&agree("websocket"));
    assert_eq!(client.read("GET").unwrap().status, 101);
    taken.send(b"hello");
    assert_eq!(client.read_bytes(5).unwrap(), b"hello");
}

#[test]
fn it_pays_once_is_told_its_rates_and_is_refused_without_a_token() {
    let rates = "rate_limit: {default: {capacity: 2, rate_per_sec: 0.001}}";
    let (backend, server) = start("", rates);
    for left in ["1", "0"] {
        let mut client = server.client();
        client.send(&offer("websocket")).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(&agree("websocket"));
        let answer = client.read("GET").unwrap();
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (101, Some(left)), "{answer:?}");
        for _ in 0..3 {
            client.send(b"x").unwrap();
            taken.read_bytes(1).unwrap();
        }
    }
    let mut client = server.client();
    client.send(&offer("websocket")).unwrap();
    let answer = client.read("GET").unwrap();
    assert_ours(&answer, 429, "Rate limit exceeded");
    assert!(!answer.closes());
    client.send(&offer("websocket")).unwrap();
    assert_eq!(client.read("GET").unwrap().status, 429, "the connection is still good");
}

#[test]
fn it_counts_as_in_flight_and_as_one_request_when_it_ends() {
    let (backend, server) = start("", "");
    let in_flight = || server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0]["in_flight"].clone();
    let counted = || {
        server.ask("GET", "/metrics", "").text().contains(r#"tollgate_requests_total{upstream="app",status="101"} 1"#)
    };
    let (mut client, taken) = tunnel(&server, &backend);
    assert_eq!((in_flight(), counted()), (1.into(), false));
    drop(taken);
    client.wait_closed(PATIENCE).unwrap();
    drop(client);
    assert!(eventually(PATIENCE, || in_flight() == 0 && counted()));
}

#[test]
fn other_protocols_pass_and_h2c_never_does() {
    let (backend, server) = start("", "");
    for (offered, passed, agreed) in [
        ("IRC/6.9", "IRC/6.9", "IRC/6.9"),
        ("tcp", "tcp", "tcp"),
        ("postgres, WebSocket", "postgres, WebSocket", "websocket"),
        ("h2c, websocket", "websocket", "websocket"),
    ] {
        let mut client = server.client();
        client.send(&offer(offered)).unwrap();
        let (mut taken, got) = backend.take_request();
        assert_eq!(got.head.all("upgrade"), [passed]);
        taken.send(&agree(agreed));
        let answer = client.read("GET").unwrap();
        assert_eq!((answer.status, answer.header("upgrade")), (101, Some(agreed)));
        client.send(b"\0\x01").unwrap();
        assert_eq!(taken.read_bytes(2).unwrap(), b"\0\x01");
    }
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA";
    for lines in [
        format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}"),
        format!("Connection: Upgrade\r\nUpgrade: H2C\r\n{settings}"),
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0".to_owned(),
        "Connection: Upgrade\r\nUpgrade: TLS/1.2".to_owned(),
        // Named for nobody.
        "Upgrade: websocket".to_owned(),
        "Connection: keep-alive\r\nUpgrade: websocket".to_owned(),
    ] {
        let mut client = server.client();
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\nX-Kept: 1\r\n\r\n").as_bytes()).unwrap();
        let (mut taken, Got { head, .. }) = backend.take_request();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(head.header(name), None, "{lines}: {head:?}");
        }
        assert_eq!(head.header("x-kept"), Some("1"));
        taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let answer = client.read("GET").unwrap();
        assert_eq!((answer.status, answer.closes()), (200, false), "{lines}");
        drop(taken);
    }
}

#[test]
fn a_101_for_what_was_not_offered_is_502() {
    let (backend, server) = start("retries: 0", "");
    let plain = b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let posted = Request::new("POST", "/t").headers(&[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    let posted = [Body::Length(b"hello"), Body::Chunked(b"hello", 2)].map(|body| posted.clone().body(body).encode());
    let [known, chunked] = posted;
    for (request, answer) in [
        (offer("websocket"), agree("h2c")),
        (offer("websocket"), agree("websocket, h2c")),
        (offer("websocket"), b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec()),
        (offer("websocket"), b"HTTP/1.0 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec()),
        (offer("h2c"), agree("h2c")),
        (plain, agree("websocket")),
        // One with a body is a plain request.
        (known, agree("websocket")),
        (chunked, agree("websocket")),
    ] {
        let mut client = server.client();
        client.send(&request).unwrap();
        let (mut taken, got) = backend.take_request();
        assert!(got.body.is_empty() || got.head.header("upgrade").is_none(), "{:?}", got.head);
        taken.send(&answer);
        let text = request.escape_ascii().to_string();
        assert_ours(&client.read("GET").unwrap_or_else(|e| panic!("{text}: {e}")), 502, "Bad gateway");
        assert!(taken.is_closed(PATIENCE), "it is not used again");
    }
}

#[test]
fn a_tls_client_that_goes_without_a_goodbye_is_an_end() {
    let dir = tempfile::tempdir().unwrap();
    tls::write_pair(dir.path(), tls::NOW);
    let backend = Played::new();
    let setup = Setup::default().pool("app", &[backend.address], NO_CHECK);
    let server = setup.tls(dir.path()).start();
    for polite in [true, false] {
        let (_, mut client) = tls::handshake(server.address, &tls::config(&[&TLS13], &["http/1.1"])).unwrap();
        client.write_all(&offer("websocket")).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(&[agree("websocket"), b"hello".to_vec()].concat());
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello") {
            let mut piece = [0; 4096];
            let part = client.read(&mut piece).unwrap();
            assert!(part > 0);
            heard.extend_from_slice(&piece[..part]);
        }
        client.write_all(b"world").unwrap();
        assert_eq!(taken.read_bytes(5).unwrap(), b"world");
        if polite {
            client.conn.send_close_notify();
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        client.sock.shutdown(Shutdown::Write).unwrap();
        assert!(taken.is_closed(PATIENCE), "polite: {polite}");
        drop(taken);
    }
    for line in server.access_lines(2) {
        assert_eq!(
            (&line["status"], &line["bytes_in"], &line["bytes_out"]),
            (&101.into(), &5.into(), &5.into()),
            "{line}"
        );
        assert_eq!(line["error"], Value::Null, "{line}");
    }
}

#[test]
fn one_whose_kept_connection_died_is_sent_once_more() {
    let (backend, server) = start("", "");
    let mut client = server.client();
    client.send(&Request::new("GET", "/").encode()).unwrap();
    let (mut kept, _) = backend.take_request();
    kept.send(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.read("GET").unwrap().status, 204);
    client.send(&[offer("websocket"), b"early".to_vec()].concat()).unwrap();
    kept.request();
    drop(kept);
    let (mut taken, got) = backend.take_request();
    assert_eq!(got.head.header("upgrade"), Some("websocket"));
    taken.send(&agree("websocket"));
    assert_eq!(client.read("GET").unwrap().status, 101);
    assert_eq!(taken.read_bytes(5).unwrap(), b"early");
}
