//! How many requests of one caller run at once: one more is refused at once, and whatever ends gives its turn back.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderValue, Response};
use tokio::sync::mpsc::unbounded_channel;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::http2::{Http2, get, read, request};
use crate::harness::http2_backend::{Call, Http2Backend};
use crate::harness::server::Tollgate;
use crate::harness::{PATIENCE, assert_ours, eventually};

/// Two at once of one caller, over both protocols, directly or by the loop.
fn start(backend: &Backend, direct: bool) -> Tollgate {
    let address = backend.address;
    Tollgate::from_yaml(&format!(
        "listeners: [{{address: $LISTEN, h2c: true}}]\nadmin: {{address: $ADMIN}}\ndatabase: $DIR/t.db\ndirect: {direct}\n\
         upstreams:\n  - {{name: app, backends: [{{address: \"{address}\"}}], health_check: {{type: none}}}}\n\
         rate_limit: {{max_concurrent: 2, default: {{capacity: 100000, rate_per_sec: 1}}}}\n\
         access_log: {{path: $DIR/access.log}}\n"
    ))
}

/// A connection on which a request is held by the backend, as soon as one may be: the end of the request before is seen
/// a little after its answer.
#[track_caller]
fn held(server: &Tollgate, backend: &Backend, key: &str, headers: &[(&str, &str)]) -> Client {
    let (mut client, target, before) = (server.client(), format!("/?hold={key}"), backend.held(key));
    let request = Request::new("GET", &target).headers(headers).encode();
    client.send(&request).unwrap();
    let is_held = || {
        if client.has_answer(Duration::from_millis(1)) {
            assert_eq!(client.read("GET").unwrap().status, 429);
            client.send(&request).unwrap();
        }
        backend.held(key) > before
    };
    assert!(eventually(PATIENCE, is_held), "the backend does not hold {target}");
    client
}

fn status(server: &Tollgate, headers: &[(&str, &str)]) -> u16 {
    server.client().call(&Request::new("GET", "/").headers(headers)).unwrap().status
}

/// Whether a caller with these headers may soon ask again: the end of a request is seen a little after its answer.
fn is_free(server: &Tollgate, headers: &[(&str, &str)]) -> bool {
    eventually(PATIENCE, || status(server, headers) == 200)
}

#[test]
fn one_too_many_is_refused_at_once_and_what_ends_makes_room() {
    for direct in [true, false] {
        let backend = Backend::scripted("a");
        let server = start(&backend, direct);
        let (mut first, mut second) = (held(&server, &backend, "a", &[]), held(&server, &backend, "b", &[]));
        let refused = server.client().get("/").unwrap();
        assert_ours(&refused, 429, "Too many requests at once");
        assert_eq!(refused.header("retry-after"), Some("1"));
        // Its bucket is told as it is, and has paid nothing.
        let left: u32 = refused.header("x-ratelimit-remaining").unwrap().parse().unwrap();
        let again: u32 = server.client().get("/").unwrap().header("x-ratelimit-remaining").unwrap().parse().unwrap();
        assert!(left > 0 && again >= left, "{refused:?}");
        // Over HTTP/2 they are the same caller's, and a client's own are others.
        assert_eq!(Http2::plain(server.address).get("/").unwrap().status, 429);
        let made = server.ask("POST", "/clients", r#"{"client_id":"c","capacity":100,"rate_per_sec":1}"#);
        assert_eq!((made.status, status(&server, &[("x-api-key", "c")])), (201, 200));
        // One is answered, and then the other.
        backend.release("a");
        assert_eq!(first.read("GET").unwrap().status, 200);
        assert!(is_free(&server, &[]));
        let third = held(&server, &backend, "c", &[]);
        assert_eq!(status(&server, &[]), 429);
        backend.release("b");
        assert_eq!(second.read("GET").unwrap().status, 200);
        assert!(is_free(&server, &[]));
        drop(third);
        let metrics = server.ask("GET", "/metrics", "").text();
        assert!(metrics.contains("tollgate_concurrency_limited_total "), "{metrics}");
        let log = std::fs::read_to_string(server.path("access.log")).unwrap();
        let line = log.lines().find(|line| line.contains(r#""limited_by":"max_concurrent""#));
        assert!(line.is_some_and(|line| line.contains(r#""limit":"limited""#)), "{log}");
        let limited = metrics.lines().find_map(|line| {
            line.strip_prefix(r#"tollgate_ratelimit_decisions_total{decision="limited"} "#)?.parse::<u32>().ok()
        });
        assert!(limited >= Some(3), "{metrics}");
        let decisions = server.ask("GET", "/decisions", "").text();
        assert!(decisions.contains(r#""status":429"#), "{decisions}");
    }
}

#[test]
fn a_client_has_a_bound_of_its_own_that_is_edited_live() {
    let backend = Backend::scripted("a");
    let server = start(&backend, true);
    let key = [("x-api-key", "c")];
    let made = r#"{"client_id":"c","capacity":100000,"rate_per_sec":1,"max_concurrent":1}"#;
    assert_eq!(server.ask("POST", "/clients", made).json()["max_concurrent"], 1);
    let first = held(&server, &backend, "a", &key);
    assert_eq!(status(&server, &key), 429);
    assert_eq!(server.ask("PATCH", "/clients/c", r#"{"max_concurrent":3}"#).json()["limited"], 1);
    let (second, third) = (held(&server, &backend, "b", &key), held(&server, &backend, "c", &key));
    assert_eq!(status(&server, &key), 429);
    // Lowered below what runs, it takes nothing away; null is what counts for everybody.
    assert_eq!(server.ask("PATCH", "/clients/c", r#"{"max_concurrent":1}"#).status, 200);
    backend.release("a");
    backend.release("b");
    drop((first, second));
    assert_eq!(status(&server, &key), 429);
    assert_eq!(server.ask("PATCH", "/clients/c", r#"{"max_concurrent":null}"#).status, 200);
    assert!(is_free(&server, &key));
    // An unlimited client is bound by its own alone.
    drop(third);
    assert_eq!(server.ask("PATCH", "/clients/c", r#"{"mode":"unlimited"}"#).status, 200);
    let kept: Vec<_> = ["d", "e", "f"].iter().map(|name| held(&server, &backend, name, &key)).collect();
    assert_eq!(status(&server, &key), 200);
    assert_eq!(server.ask("PATCH", "/clients/c", r#"{"max_concurrent":4}"#).status, 200);
    let fourth = held(&server, &backend, "g", &key);
    drop(kept);
    backend.release("g");
    drop(fourth);
    let wrong = server.ask("PATCH", "/clients/c", r#"{"max_concurrent":0}"#);
    let said = "must be a whole number from 1 to 1000000, or null for none of its own";
    assert_eq!((wrong.status, wrong.json()["errors"][0]["message"].as_str()), (422, Some(said)));
}

#[test]
fn what_goes_on_for_long_keeps_its_turn() {
    for direct in [true, false] {
        let backend = Backend::scripted("a");
        let server = start(&backend, direct);
        let mut tunnel = server.client();
        let upgrade = "GET /chat?switch=echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        tunnel.send(upgrade.as_bytes()).unwrap();
        assert_eq!(tunnel.read("GET").unwrap().status, 101);
        // A stream that the backend does not answer yet.
        let mut http2 = Http2::plain(server.address);
        let (answer, mut stream) = http2.open(get("/?hold=s"), true).unwrap();
        assert!(eventually(PATIENCE, || backend.held("s") == 1));
        assert_eq!(status(&server, &[]), 429);
        tunnel.send(b"still").unwrap();
        assert_eq!(tunnel.read_bytes(5).unwrap(), b"still");
        assert_eq!((status(&server, &[]), http2.get("/").unwrap().status), (429, 429));
        // The stream is reset, the tunnel closed.
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        assert!(is_free(&server, &[]), "the turn of a stream that was reset");
        let second = held(&server, &backend, "t", &[]);
        assert_eq!(status(&server, &[]), 429);
        tunnel.finish();
        assert!(is_free(&server, &[]), "the turn of a tunnel that was closed");
        drop(second);
        assert!(is_free(&server, &[]));
    }
}

#[test]
fn a_stream_of_grpc_keeps_its_turn_until_it_ends() {
    let (begun, mut begins) = unbounded_channel();
    let backend = Http2Backend::new(Builder::new(), move |call| {
        let begun = begun.clone();
        async move {
            let Call { mut respond, .. } = call;
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x01a"), false).unwrap();
            begun.send(stream).unwrap();
        }
    });
    let server = Tollgate::from_yaml(&format!(
        "listeners: [{{address: $LISTEN, h2c: true}}]\nadmin: {{address: $ADMIN}}\ndatabase: $DIR/t.db\n\
         upstreams:\n  - {{name: app, protocol: h2, backends: [{{address: \"{}\"}}], health_check: {{type: none}}}}\n\
         rate_limit: {{max_concurrent: 2, default: {{capacity: 100000, rate_per_sec: 1}}}}\n",
        backend.address
    ));
    let mut client = Http2::plain(server.address);
    let call = || {
        let mut call = request("POST", "/test.Tested/Stream");
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        call
    };
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (answer, sends) = client.open(call(), false).unwrap();
        let answer = client.runtime.block_on(answer).unwrap();
        streams.push((answer, sends, client.runtime.block_on(begins.recv()).unwrap()));
    }
    let refused = |client: &mut Http2| {
        let (answer, mut sends) = client.open(call(), false).unwrap();
        let refused = client.runtime.block_on(async {
            tokio::select! {
                answer = read(answer) => Some(answer.unwrap()),
                _ = begins.recv() => None,
            }
        });
        sends.send_reset(Reason::CANCEL);
        refused
    };
    let mut refused = refused;
    for _ in 0..2 {
        let refused = refused(&mut client).expect("two of them go on");
        assert_eq!((refused.status, refused.body.len()), (200, 0), "{refused:?}");
        assert_eq!(refused.header("grpc-status"), Some("8"), "{refused:?}");
        assert_eq!(refused.header("grpc-message"), Some("Too many requests at once"), "{refused:?}");
        assert_eq!(refused.header("grpc-retry-pushback-ms"), Some("1000"), "{refused:?}");
    }
    // One that its server ends, and one that its client resets.
    let (_, mut sends, mut stream) = streams.pop().unwrap();
    let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
    stream.send_trailers(trailers.into_iter().collect()).unwrap();
    sends.send_data(Bytes::new(), true).unwrap();
    assert!(eventually(PATIENCE, || refused(&mut client).is_none()), "the turn of one that has ended");
    let (_, mut sends, _stream) = streams.pop().unwrap();
    sends.send_reset(Reason::CANCEL);
    assert!(eventually(PATIENCE, || refused(&mut client).is_none()), "the turn of one that was reset");
}
