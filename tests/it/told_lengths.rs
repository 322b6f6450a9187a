//! A body without a length whose end is there with its header has one, and its backend is told: many backends read a
//! body in chunks as an empty one.

use bytes::Bytes;
use http::HeaderMap;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Response, chunks};
use crate::harness::dawdle;
use crate::harness::http2::{Http2, read, request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::way::differs;
use std::time::Duration;

fn plain(more: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line(more).start();
    (backend, server)
}

fn secure(more: &str) -> ([Backend; 1], Tollgate) {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).line(more).tls(dir.path()).start();
    (backend, server)
}

/// How the backend got the body, what was told of its length, and how long it was.
fn got(response: &Response) -> (Option<String>, Vec<String>, usize) {
    let report = response.json();
    let headers = report["headers"].as_array().unwrap();
    let lengths = headers.iter().filter(|line| line[0].as_str().unwrap().eq_ignore_ascii_case("content-length"));
    let lengths = lengths.map(|line| line[1].as_str().unwrap().to_owned()).collect();
    let bytes = response.header("x-got").unwrap().split(' ').next().unwrap().parse().unwrap();
    (report["framing"].as_str().map(str::to_owned), lengths, bytes)
}

#[track_caller]
fn assert_told(response: &Response, bytes: usize) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(got(response), (Some("length".into()), vec![bytes.to_string()], bytes));
}

#[track_caller]
fn assert_chunked(response: &Response, bytes: usize) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(got(response), (Some("chunked".into()), vec![], bytes));
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";

#[test]
fn chunks_that_are_there_have_a_length() {
    if differs() {
        return;
    }
    let (_backend, server) = plain("");
    let mut client = server.client();
    for bytes in [1, 5, 4000, 65_000] {
        let body = vec![b'x'; bytes];
        for size in [bytes, bytes.div_ceil(3).max(500)] {
            client.send(&[format!("{HEAD}\r\n").as_bytes(), &chunks(&body, size)].concat()).unwrap();
            assert_told(&client.read("POST").unwrap(), bytes);
        }
    }
    client.send(format!("{HEAD}\r\n0\r\n\r\n").as_bytes()).unwrap();
    assert_told(&client.read("POST").unwrap(), 0);
    // Extensions are nobody's business, and what comes behind the body is the next request.
    let two = format!("{HEAD}\r\n5;a=b\r\nhello\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(two.as_bytes()).unwrap();
    assert_told(&client.read("POST").unwrap(), 5);
    assert_eq!(client.read("GET").unwrap().json()["target"], "/next");
    let lines = server.access_lines(11);
    assert!(lines.iter().any(|line| line["bytes_in"] == 65_000), "{lines:?}");
}

#[test]
fn chunks_whose_end_is_not_there_are_passed_on_as_they_come() {
    let (_backend, server) = plain("");
    let mut client = server.client();
    client.send(format!("{HEAD}\r\n5\r\nhello\r\n").as_bytes()).unwrap();
    dawdle(Duration::from_millis(300));
    client.send(b"0\r\n\r\n").unwrap();
    assert_chunked(&client.read("POST").unwrap(), 5);
    let body = vec![b'x'; 200_000];
    client.send(&[format!("{HEAD}\r\n").as_bytes(), &chunks(&body, 10_000)].concat()).unwrap();
    assert_chunked(&client.read("POST").unwrap(), 200_000);
}

#[test]
fn chunks_with_trailers_or_an_expectation_stay_chunks() {
    let (_backend, server) = plain("");
    let mut client = server.client();
    client.send(format!("{HEAD}\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").as_bytes()).unwrap();
    assert_chunked(&client.read("POST").unwrap(), 5);
    client.send(format!("{HEAD}Expect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n").as_bytes()).unwrap();
    let mut response = client.read("POST").unwrap();
    if response.status == 100 {
        response = client.read("POST").unwrap();
    }
    assert_chunked(&response, 5);
}

#[test]
fn the_limit_of_bodies_holds() {
    if differs() {
        return;
    }
    let (_backend, server) = plain("limits: {max_body: 10}");
    let mut client = Client::connect(server.address);
    client.send(&[format!("{HEAD}\r\n").as_bytes(), &chunks(b"0123456789", 3)].concat()).unwrap();
    assert_told(&client.read("POST").unwrap(), 10);
    client.send(&[format!("{HEAD}\r\n").as_bytes(), &chunks(b"0123456789a", 3)].concat()).unwrap();
    let refused = client.read("POST").unwrap();
    assert_eq!(refused.status, 413, "{refused:?}");
    let (_backend, server) = secure("limits: {max_body: 10}");
    let mut client = Http2::connect(server.address);
    assert_told(&client.call(request("POST", "/"), b"0123456789").unwrap(), 10);
    assert_eq!(client.call(request("POST", "/"), b"0123456789a").unwrap().status, 413);
}

#[test]
fn streams_whose_body_is_there_tell_its_length() {
    if differs() {
        return;
    }
    let (_backend, server) = secure("");
    let mut client = Http2::connect(server.address);
    for bytes in [1, 5, 50_000] {
        assert_told(&client.call(request("POST", "/"), &vec![b'x'; bytes]).unwrap(), bytes);
        let mut announced = request("PUT", "/");
        announced.headers_mut().insert("content-length", bytes.into());
        assert_told(&client.call(announced, &vec![b'x'; bytes]).unwrap(), bytes);
    }
    for method in ["POST", "PUT", "PATCH"] {
        let (answer, mut stream) = client.open(request(method, "/"), false).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        let answer = client.runtime.block_on(read(answer)).unwrap();
        assert_told(&answer, 0);
    }
    let lines = server.access_lines(9);
    assert!(lines.iter().any(|line| line["bytes_in"] == 50_000), "{lines:?}");
}

#[test]
fn streams_whose_body_goes_on_or_has_trailers_are_passed_on_as_they_come() {
    let (_backend, server) = secure("");
    let mut client = Http2::connect(server.address);
    let (answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    dawdle(Duration::from_millis(300));
    stream.send_data(Bytes::from_static(b" again"), true).unwrap();
    assert_chunked(&client.runtime.block_on(read(answer)).unwrap(), 11);
    let (answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert_chunked(&client.runtime.block_on(read(answer)).unwrap(), 5);
    assert_chunked(&client.call(request("POST", "/"), &vec![b'x'; 200_000]).unwrap(), 200_000);
}
