//! Trailers pass in both directions, whatever each side speaks, and say nothing there that only a header may say.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use crate::harness::client::Client;
use crate::harness::http2::{Http2, request};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::way::differs;

/// What is sent behind a body, of which the second and the third may not be there.
const SENT: &str = "X-Sum: 1\r\nContent-Length: 3\r\nAuthorization: x\r\ngrpc-status:0\r\n";
const PASSED: &str = "X-Sum: 1\r\ngrpc-status: 0\r\n";

fn plain() -> (Played, Tollgate) {
    let backend = Played::new();
    let server = Setup::default().pool("app", &[backend.address], NO_CHECK).start();
    (backend, server)
}

fn secure() -> (Played, Tollgate) {
    let (backend, dir) = (Played::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::default().pool("app", &[backend.address], NO_CHECK).tls(dir.path()).start();
    (backend, server)
}

#[test]
fn those_of_a_request_in_chunks_reach_the_backend() {
    if differs() {
        return;
    }
    let (backend, server) = plain();
    let mut client = server.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n0\r\n{SENT}\r\n").as_bytes()).unwrap();
    let mut taken = backend.take();
    let end = format!("\r\n\r\n5\r\nhello\r\n0\r\n{PASSED}\r\n");
    let mut got = String::new();
    while !got.ends_with(&end) {
        got.push_str(&String::from_utf8(taken.read_bytes(1).unwrap()).unwrap());
    }
    assert!(got.contains("\r\nTrailer: X-Sum\r\n"), "{got}");
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read("POST").unwrap().text(), "ok");
}

#[test]
fn those_of_a_stream_reach_the_backend() {
    if differs() {
        return;
    }
    let (backend, server) = secure();
    let mut client = Http2::connect(server.address);
    let (_answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "1"), ("host", "b"), ("x_real_ip", "6.6.6.6")] {
        trailers.insert(name, HeaderValue::from_static(value));
    }
    stream.send_trailers(trailers).unwrap();
    let mut taken = backend.take();
    let mut got = String::new();
    while !got.ends_with("\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n") {
        got.push_str(&String::from_utf8(taken.read_bytes(1).unwrap()).unwrap());
    }
}

#[test]
fn those_of_an_answer_in_chunks_reach_every_client_that_has_them() {
    if differs() {
        return;
    }
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{SENT}\r\n");
    let (backend, server) = plain();
    for (version, end) in [("1.1", format!("0\r\n{PASSED}\r\n")), ("1.0", "\r\n\r\nhello".to_owned())] {
        let mut client = server.client();
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut taken = backend.take_request().0;
        taken.send(answer.as_bytes());
        let all = client.rest(Duration::from_secs(10)).unwrap();
        assert!(all.ends_with(&end), "{all}");
    }
    let (backend, server) = secure();
    let mut client = Http2::connect(server.address);
    let (coming, _) = client.open(request("GET", "/"), true).unwrap();
    backend.take_request().0.send(answer.as_bytes());
    let trailers = client.runtime.block_on(async {
        let mut body = coming.await.unwrap().into_body();
        let mut data = Vec::new();
        while let Some(part) = body.data().await {
            data.extend_from_slice(&part.unwrap());
        }
        assert_eq!(data, b"hello");
        body.trailers().await.unwrap().unwrap()
    });
    assert_eq!(
        (trailers.len(), &trailers["x-sum"], &trailers["grpc-status"]),
        (2, &"1".parse().unwrap(), &"0".parse().unwrap())
    );
}

#[test]
fn who_takes_trailers_says_so_to_the_backend() {
    if differs() {
        return;
    }
    let (backend, server) = plain();
    let mut client = Client::connect(server.address);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: TE, close\r\n\r\n").unwrap();
    let (_taken, got) = backend.take_request();
    assert_eq!((got.head.header("te"), got.head.header("connection")), (Some("trailers"), Some("TE")));
}
