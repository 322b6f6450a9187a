//! Bodies over HTTP/2: as fast as over HTTP/1.1, bounded, and over when their answers are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::SendStream;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::http2::{END_STREAM, Frames, Http2, SETTINGS, read, request, send_all};
use crate::harness::played::Played;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{self, NAME, NOW, write_pair};
use crate::harness::way::differs;
use crate::harness::wire::Wire;
use crate::harness::{PATIENCE, eventually, now, relay};

const MIB: usize = 1 << 20;

fn start(backend: SocketAddr) -> Tollgate {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    Setup::default().pool("app", &[backend], NO_CHECK).tls(dir.path()).start()
}

/// How long `body` takes over HTTP/1.1, from the handshake to the end of the answer.
fn by_http1(address: SocketAddr, body: &[u8]) -> Duration {
    let start = now();
    let (_, mut stream) = tls::handshake(address, &tls::config(rustls::ALL_VERSIONS, &["http/1.1"])).unwrap();
    let head =
        format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    // The end of the connection may be rude.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    now() - start
}

/// The same over HTTP/2; on a connection that is there already, where one is given.
fn by_http2(address: SocketAddr, known: Option<&mut Http2>, body: &[u8], announced: bool) -> Duration {
    let start = now();
    let mut fresh = None;
    let client = known.unwrap_or_else(|| fresh.insert(Http2::connect(address)));
    let mut asked = request("POST", "/");
    if announced {
        asked.headers_mut().insert("content-length", body.len().into());
    }
    let answer = client.call(asked, body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("x-got").unwrap().starts_with(&format!("{} ", body.len())), "{answer:?}");
    now() - start
}

#[test]
fn an_upload_over_a_long_way_is_about_as_fast_as_over_http_1() {
    let backend = [Backend::scripted("a")];
    let server = start(backend[0].address);
    let far = relay::to(server.address, Duration::from_millis(50));
    let body = vec![b'x'; 8 * MIB];
    // The best of some, since a machine that is busy with other tests may take its time for any of them.
    let best = |took: &dyn Fn() -> Duration| (0..4).map(|_| took()).min().unwrap();
    let http1 = best(&|| by_http1(far, &body));
    // A handshake, and the body with its answer: that is two round trips. The third is the one in which a client of
    // HTTP/2 learns what it may send, which no server can spare it; and this is no release build.
    for announced in [true, false] {
        let http2 = best(&|| by_http2(far, None, &body, announced));
        println!("8 MiB over 100 ms: HTTP/1.1 {http1:?}, HTTP/2 {http2:?}, announced: {announced}");
        assert!(
            http2 <= http1.mul_f64(1.5) + Duration::from_millis(100),
            "{announced}: {http2:?}, HTTP/1.1: {http1:?}"
        );
        let mut known = Http2::connect(far);
        let http2 = (0..4).map(|_| by_http2(far, Some(&mut known), &body, announced)).min().unwrap();
        println!("on a known connection {http2:?}");
        assert!(
            http2 <= http1.mul_f64(1.5) + Duration::from_millis(50),
            "{announced}: {http2:?} on a known connection, HTTP/1.1: {http1:?}"
        );
    }
}

/// Sends without end; how much was taken when for a while no more was.
fn fill(client: &Http2, streams: &mut [SendStream<Bytes>]) -> usize {
    let (mut sent, mut silent) = (0, now());
    while now() - silent < Duration::from_millis(1500) {
        let mut more = 0;
        for stream in streams.iter_mut() {
            stream.reserve_capacity(64 << 10);
            let room = stream.capacity();
            if room > 0 {
                let _entered = client.runtime.enter();
                stream.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                more += room;
            }
        }
        if more > 0 {
            (sent, silent) = (sent + more, now());
        } else {
            std::thread::yield_now();
        }
    }
    sent
}

#[test]
fn bodies_that_nobody_takes_are_bounded_and_leave_room_for_others() {
    let backend = Played::new();
    let server = start(backend.address);
    for stalled in [1, 2, 4] {
        let mut client = Http2::connect(server.address);
        let opened = (0..stalled).map(|_| client.open(request("POST", "/stalled"), false).unwrap());
        let (_answers, mut streams): (Vec<_>, Vec<_>) = opened.unzip();
        let sent = fill(&client, &mut streams);
        let _silent: Vec<_> = (0..stalled).map(|_| backend.take()).collect();
        // What the kernel takes for each connection is not ours.
        assert!(sent <= 17 * MIB + stalled * 8 * MIB, "{stalled} streams: {sent} bytes");
        let (answer, stream) = client.open(request("POST", "/other"), false).unwrap();
        let sending = client.runtime.spawn(send_all(stream, Bytes::from(vec![b'y'; 50_000])));
        let (mut taken, got) = backend.take_request();
        assert_eq!(got.body.len(), 50_000, "beside {stalled} that stand still");
        taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(client.runtime.block_on(read(answer)).unwrap().status, 200);
        client.runtime.block_on(sending).unwrap().unwrap();
    }
}

/// A backend that answers each request as soon as it has read its header, and takes none of the body.
fn refuser() -> SocketAddr {
    let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || refuse(stream));
        }
    });
    address
}

fn refuse(stream: TcpStream) {
    let mut wire = Wire::new(stream);
    if !matches!(wire.head(), Ok(Some(_))) {
        return;
    }
    let answer = "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope";
    // As servers do it that close well: what they said must not be overtaken by a reset.
    let _ = wire.send(answer.as_bytes());
    let _ = wire.stream().shutdown(std::net::Shutdown::Write);
    while wire.fill().unwrap_or(false) {
        wire.take_unread();
    }
}

#[test]
fn every_stream_that_is_refused_early_ends_soon_and_without_blame() {
    let server = start(refuser());
    for (round, expect) in [false, true].into_iter().enumerate() {
        let mut client = Http2::connect(server.address);
        let opened: Vec<_> = (0..15)
            .map(|_| {
                let mut asked = request("PUT", "/");
                asked.headers_mut().insert("content-length", (5 * MIB).into());
                if expect {
                    asked.headers_mut().insert("expect", "100-continue".parse().unwrap());
                }
                client.open(asked, false).unwrap()
            })
            .collect();
        let (answers, streams): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let sending: Vec<_> = streams
            .into_iter()
            .map(|stream| client.runtime.spawn(send_all(stream, Bytes::from(vec![b'x'; 5 * MIB]))))
            .collect();
        for answer in client.runtime.block_on(join_all(answers.into_iter().map(read))) {
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (405, "nope"), "expects: {expect}");
        }
        let answered = now();
        // It has either sent all that it wanted to or was told to stop.
        client.runtime.block_on(join_all(sending));
        assert!(now() - answered < Duration::from_secs(2), "it took {:?} to end them all", now() - answered);
        // And the connection serves others.
        assert_eq!(client.get("/").unwrap().status, 405);
        let lines = server.access_lines(16 * (round + 1));
        for line in lines {
            assert_eq!((&line["status"], &line["error"]), (&405.into(), &Value::Null), "{line}");
        }
    }
}

/// The resident memory of the server, in MiB.
fn resident(server: &Tollgate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

/// What the server comes to hold for clients that ask on all their streams and take nothing, in MiB for each
/// connection.
fn held(method: &str, lines: &[(&str, &str)], body: &[&[u8]]) -> usize {
    const CONNECTIONS: usize = 2;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let backend = [Backend::scripted("a")];
    let server = start(backend[0].address);
    assert_eq!(Http2::connect(server.address).get("/").unwrap().status, 200);
    let before = resident(&server);
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Frames::connect(server.address);
        let wide = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &(8_u32 << 20).to_be_bytes()].concat();
        client.send(SETTINGS, 0, 0, &wide).unwrap();
        client.send(8, 0, 0, &(1_u32 << 30).to_be_bytes()).unwrap();
        let mut all =
            vec![(":method", method), (":scheme", "https"), (":path", "/?bytes=1000000"), (":authority", NAME)];
        all.extend_from_slice(lines);
        for stream in (1..).step_by(2).take(128) {
            client.headers(stream, if body.is_empty() { END_STREAM } else { 0 }, &all).unwrap();
            for (n, part) in body.iter().enumerate() {
                let end = if n + 1 == body.len() { END_STREAM } else { 0 };
                client.send(crate::harness::http2::DATA, end, stream, part).unwrap();
            }
        }
        clients.push(client);
    }
    let asked = || backend[0].seen().len() > 128 * CONNECTIONS;
    assert!(eventually(PATIENCE, asked), "{} asked", backend[0].seen().len());
    // Until it grows no more.
    let (mut most, mut since) = (before, now());
    assert!(eventually(PATIENCE, || {
        let held = resident(&server);
        if held > most {
            (most, since) = (held, now());
        }
        now() - since > Duration::from_secs(2)
    }));
    (most - before) / CONNECTIONS
}

#[test]
fn answers_that_nobody_takes_are_bounded_for_each_connection() {
    if differs() {
        return;
    }
    for (method, lines, body) in [
        ("GET", &[][..], &[][..]),
        ("GET", &[("te", "trailers")], &[]),
        ("POST", &[], &[&b"hello"[..]]),
        ("POST", &[("content-length", "5")], &[&b"hello"[..]]),
        ("POST", &[("expect", "100-continue")], &[&b"hello"[..]]),
    ] {
        let held = held(method, lines, body);
        println!("{method} {lines:?}: {held} MiB for each connection");
        // 16 MiB, and what streams and their connections to the backend take themselves in a debug build.
        assert!(held <= 24, "{method} {lines:?}: {held} MiB for each connection");
    }
}
