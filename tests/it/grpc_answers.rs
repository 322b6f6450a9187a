//! Answers of our own to requests of gRPC: its statuses, in a header section that is the whole answer.

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request, Response};
use crate::harness::http2::{END_STREAM, Frames, HEADERS, Http2, request};
use crate::harness::played::Played;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Both ways.
const WAYS: [&str; 2] = ["direct: true", "direct: false"];

fn call(client: &mut Http2, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut asked = request("POST", path);
    asked.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    for (name, value) in headers {
        asked.headers_mut().insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    client.call(asked, b"\0\0\0\0\0").unwrap()
}

#[track_caller]
fn assert_status(answer: &Response, code: &str, message: &str, pushback: Option<&str>) {
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/grpc"), "{answer:?}");
    assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), (Some(code), Some(message)));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), pushback, "{answer:?}");
    assert!(answer.header("x-request-id").is_some() && answer.header("retry-after").is_none(), "{answer:?}");
}

fn server(way: &str, dir: &TempDir, slow: &Played) -> (Tollgate, Backend) {
    write_pair(dir.path(), NOW);
    let backend = Backend::scripted("a");
    let server = Setup::default()
        .pool("app", &[backend.address], NO_CHECK)
        .pool("dead", &[free_address()], NO_CHECK)
        .pool("slow", &[slow.address], &format!("{NO_CHECK}, read_timeout: 200ms"))
        .tls(dir.path())
        .line(way)
        .line("routes: [{path: /app, upstream: app}, {path: /dead, upstream: dead}, {path: /slow, upstream: slow}]")
        .line("identity: {unknown_api_key: reject}")
        .line("rate_limit: {default: {capacity: 100, rate_per_sec: 0.000001}}")
        .start();
    for client in [
        r#"{"client_id":"poor","capacity":1,"rate_per_sec":0.1,"api_key":"poor-key"}"#,
        r#"{"client_id":"banned","capacity":1,"rate_per_sec":1,"mode":"blocked","api_key":"banned-key"}"#,
    ] {
        assert_eq!(server.ask("POST", "/clients", client).status, 201);
    }
    (server, backend)
}

#[test]
fn every_refusal_is_a_status_of_grpc_and_is_logged_as_one_of_http() {
    let slow = Played::new();
    for way in WAYS {
        let dir = TempDir::new().unwrap();
        let (server, _backend) = server(way, &dir, &slow);
        let mut client = Http2::connect(server.address);
        assert_status(&call(&mut client, "/nowhere", &[]), "12", "No route matches", None);
        assert_status(&call(&mut client, "/dead", &[]), "14", "No healthy backend", None);
        assert_status(&call(&mut client, "/app", &[("x-api-key", "nobody")]), "16", "Unknown API key", None);
        assert_status(&call(&mut client, "/app", &[("x-api-key", "banned-key")]), "7", "Client is blocked", None);
        let two = [("x-api-key", "poor-key"), ("authorization", "Bearer banned-key")];
        assert_status(&call(&mut client, "/app", &two), "13", "Bad request", None);
        assert_eq!(call(&mut client, "/app", &[("x-api-key", "poor-key")]).header("x-backend"), Some("a"));
        let limited = call(&mut client, "/app", &[("x-api-key", "poor-key")]);
        let pushback: u64 = limited.header("grpc-retry-pushback-ms").unwrap().parse().unwrap();
        assert!((1..=10).contains(&(pushback / 1000)) && pushback.is_multiple_of(1000), "{pushback}");
        assert_status(&limited, "8", "Rate limit exceeded", Some(&pushback.to_string()));
        assert!(limited.header("ratelimit").is_some(), "{limited:?}");
        assert_status(&call(&mut client, "/slow", &[]), "4", "Gateway timeout", None);
        let lines = server.access_lines(8);
        let told: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line["grpc_status"].as_u64())).collect();
        let expected = [(404, 12), (503, 14), (401, 16), (403, 7), (400, 13), (200, 99), (429, 8), (504, 4)];
        let expected = expected.map(|(status, grpc)| (Some(status), Some(grpc).filter(|grpc| *grpc != 99)));
        assert_eq!(told, expected, "{way}");
        let metrics = server.ask("GET", "/metrics", "").text();
        assert!(metrics.contains(r#"tollgate_requests_total{upstream="app",status="200"} 1"#), "{metrics}");
        assert!(metrics.contains(r#"status="504"} 1"#) && metrics.contains(r#"status="429"} 1"#), "{metrics}");
        drop(slow.take());
    }
}

/// The frames of a refusal: one, which ends the stream.
#[test]
fn the_header_section_is_the_whole_answer() {
    let slow = Played::new();
    for way in WAYS {
        let dir = TempDir::new().unwrap();
        let (server, _backend) = server(way, &dir, &slow);
        let mut frames = Frames::connect(server.address);
        for (stream, path) in [(1, "/nowhere"), (3, "/dead")] {
            let lines = [
                (":method", "POST"),
                (":scheme", "https"),
                (":path", path),
                (":authority", "a"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ];
            frames.headers(stream, END_STREAM, &lines).unwrap();
            let answer = frames.wait_for(&[HEADERS]);
            assert_eq!((answer.stream, answer.flags & END_STREAM), (stream, END_STREAM), "{way} {path}");
        }
    }
}

#[test]
fn over_http1_it_is_the_same_and_grpc_web_is_no_grpc() {
    let slow = Played::new();
    for way in WAYS {
        let backend = Backend::scripted("a");
        let server = Setup::default()
            .pool("app", &[backend.address], NO_CHECK)
            .pool("dead", &[slow.address], &format!("{NO_CHECK}, read_timeout: 100ms"))
            .line(way)
            .line("routes: [{path: /app, upstream: app}, {path: /slow, upstream: dead}]")
            .line("limits: {max_body: 3}")
            .start();
        let mut client = server.client();
        for (path, code, message) in [("/nowhere", "12", "No route matches"), ("/slow", "4", "Gateway timeout")] {
            let headers = [("Content-Type", "application/grpc")];
            let answer = client.call_again(&Request::new("POST", path).headers(&headers).body(Body::Length(b"hello")));
            let answer = answer.unwrap();
            assert_status(&answer, code, message, None);
            assert_eq!(answer.header("content-length"), Some("0"), "{way}");
        }
        let web = [("Content-Type", "application/grpc-web+proto")];
        let large = Request::new("POST", "/app").headers(&web).body(Body::Length(b"hello"));
        let answer = client.call_again(&large).unwrap();
        assert_eq!((answer.status, answer.header("grpc-status")), (413, None), "{way}");
    }
}
