//! What routes and checks do is the same where backends speak HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use h2::server::Builder;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::{Body, Request};
use crate::harness::http2::{Http2, read_body, request};
use crate::harness::http2_backend::{Call, Http2Backend};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, eventually};

/// Answers with what came, and with headers that rules are for.
async fn echo(call: Call) {
    let Call { request, mut respond, .. } = call;
    let (parts, mut stream) = request.into_parts();
    let body = read_body(&mut stream).await.unwrap();
    let got = |name: &str| -> Vec<_> {
        parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let names = ["cookie", "destination", "x-env", "x-who", "x-forwarded-host"];
    let headers: Vec<_> = names.iter().map(|name| got(name)).collect();
    let told = json!({"uri": parts.uri.to_string(), "headers": headers, "length": body.len()});
    let head = Response::builder().header("server", "s").header("location", "http://test.example/x").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(Bytes::from(told.to_string()), true).unwrap();
}

const RULES: &str = "strip_prefix: /git, request_headers: {remove: [Cookie], edit: [{name: Destination, from: '^https:', \
    to: 'http:'}], set: {X-Env: prod, X-Who: '{client_ip}', Host: inner.example}}, response_headers: {remove: [Server], \
    edit: [{name: Location, from: '^http:', to: 'https:'}], set: {Strict-Transport-Security: max-age=1}}";

#[test]
fn paths_and_headers_change_as_the_rules_of_a_route_say() {
    let (backend, dir) = (Http2Backend::new(Builder::new(), echo), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let routes = format!("routes: [{{path: /git, upstream: app, {RULES}}}, {{path: /, upstream: app}}]");
    let setup = Setup::default().pool("app", &[backend.address], &format!("protocol: h2, {NO_CHECK}")).line(&routes);
    let sent = [("cookie", "a=b"), ("destination", "https://test.example/x"), ("x-env", "dev"), ("x-who", "root")];
    let expected = json!([[], ["http://test.example/x"], ["prod"], ["127.0.0.1"], ["test.example"]]);
    let plain = setup.start();
    let secure = setup.clone().tls(dir.path()).start();
    let (mut one, mut two) = (plain.client(), Http2::connect(secure.address));
    for body in [&b""[..], b"hello"] {
        let given = if body.is_empty() { Body::None } else { Body::Chunked(body, 2) };
        let first = one.call(&Request::new("POST", "/git/a?b=c").headers(&sent).body(given)).unwrap();
        let mut asked = request("POST", "/git/a?b=c");
        for (name, value) in sent {
            asked.headers_mut().append(name, value.parse().unwrap());
        }
        let second = two.call(asked, body).unwrap();
        for answer in [first, second] {
            let told = answer.json();
            assert_eq!((&told["uri"], &told["headers"]), (&json!("http://inner.example/a?b=c"), &expected), "{told}");
            assert_eq!(told["length"], body.len());
            assert_eq!((answer.header("server"), answer.header("location")), (None, Some("https://test.example/x")));
            assert_eq!(answer.header("strict-transport-security"), Some("max-age=1"), "{answer:?}");
        }
    }
    let other = one.call(&Request::new("GET", "/x").headers(&sent)).unwrap();
    assert_eq!((other.json()["uri"].as_str(), other.header("server")), (Some("http://test.example/x"), Some("s")));
}

#[test]
fn a_check_of_http_asks_in_http2() {
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let backend = Http2Backend::new(Builder::new(), move |mut call| {
        let status = StatusCode::from_u16(says.load(Ordering::SeqCst)).unwrap();
        async move {
            assert_eq!((call.request.uri().path(), call.request.method().as_str()), ("/ready", "GET"));
            let mut head = Response::new(());
            *head.status_mut() = status;
            call.respond.send_response(head, true).unwrap();
        }
    });
    let keys = "protocol: h2, health_check: {type: http, path: /ready, expect: 200-299, interval: 200ms, timeout: 5s}";
    let server = Setup::default().pool("app", &[backend.address], keys).start();
    let state = || -> (Value, String) {
        let found = server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0].clone();
        (found["state"].clone(), found["last_check"].to_string())
    };
    for (says, expected) in [(200, "up"), (503, "down"), (204, "up")] {
        status.store(says, Ordering::SeqCst);
        assert!(eventually(PATIENCE, || state().0 == expected), "{says}: {:?}", state());
        assert!(says != 503 || state().1.contains("503"), "{:?}", state());
    }
}
