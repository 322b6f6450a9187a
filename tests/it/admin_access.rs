//! Who gets into the admin API, and what becomes of the proxy when somebody sits on it.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request, Response};
use crate::harness::instance::Instance;
use crate::harness::process::run;
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually, now};

const TOKEN: &str = "a-token-of-32-characters-for-test";

fn get(server: &Tollgate, path: &str, host: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(server.admin).call(&Request::new("GET", path).host(host).headers(headers)).unwrap()
}

#[track_caller]
fn assert_error(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let body = answer.json();
    assert_eq!(body["code"], status);
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

#[test]
fn with_a_token_nothing_but_the_probes_is_open() {
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, NO_CHECK).yaml();
    let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("TOLLGATE_ADMIN_TOKEN", TOKEN)], false);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&server, path, "anything.example", &[]).status, 200, "{path}");
    }
    for path in ["/clients", "/status", "/metrics", "/openapi.json", "/clients/x", "/nothing"] {
        let refused = get(&server, path, "localhost", &[]);
        assert_error(&refused, 401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{path}");
        for wrong in ["Bearer wrong", "Bearer ", TOKEN, &format!("Bearer {TOKEN}x"), &format!("Basic {TOKEN}")] {
            assert_error(&get(&server, path, "localhost", &[("Authorization", wrong)]), 401);
        }
    }
    let right = format!("Bearer {TOKEN}");
    assert_eq!(get(&server, "/clients", "tollgate.example", &[("Authorization", &right)]).status, 200);
    let body = Body::Length(br#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#);
    let headers = [("Authorization", right.as_str())];
    let made = Request::new("POST", "/clients").host("tollgate.example").headers(&headers).body(body);
    assert_eq!(Client::connect(server.admin).call(&made).unwrap().status, 201);
    let history = get(&server, "/clients/a/history", "tollgate.example", &headers).json();
    assert_eq!(history["items"][0]["by"], "admin");
    assert!(!server.process.err.text().contains(TOKEN), "the token is never logged");
}

#[test]
fn without_a_token_pages_of_others_are_refused() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let own = format!("127.0.0.1:{}", server.admin.port());
    for host in [own.as_str(), "localhost", "LOCALHOST:9901", "[::1]:9901", "127.1.2.3"] {
        assert_eq!(get(&server, "/clients", host, &[]).status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "169.254.169.254"] {
        assert_error(&get(&server, "/clients", host, &[]), 403);
    }
    assert_eq!(get(&server, "/clients", &own, &[("Origin", &format!("http://{own}"))]).status, 200);
    for origin in ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1", "http://127.0.0.1"] {
        assert_error(&get(&server, "/clients", &own, &[("Origin", origin)]), 403);
    }
    // HTTP/1.0 needs no Host; that is no way around.
    for (target, header, status) in [
        ("/clients", "", 200),
        ("/clients", "Origin: http://evil.example\r\n", 403),
        ("/clients", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("http://evil.example/clients", "", 403),
    ] {
        let mut client = Client::connect(server.admin);
        client.send(format!("GET {target} HTTP/1.0\r\n{header}\r\n").as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, status, "{target} {header}");
    }
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let args = ["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:2", "--database", "unused.db"];
    let finished = run(command().args(args).args(["--admin", "0.0.0.0:9901"]));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("--admin") && finished.err.contains("token"), "{finished:?}");
}

#[test]
fn whoever_sits_on_the_admin_api_does_not_slow_the_proxy() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    server.create("alice", 1_000_000, 1.0);
    // Half a head, half a body, nothing at all: more than there is room for.
    let mut held: Vec<Client> = Vec::new();
    for number in 0..300 {
        let Ok(mut client) = Client::try_connect(server.admin) else { continue };
        let start: &[u8] = match number % 3 {
            0 => b"",
            1 => b"POST /clients HTTP/1.1\r\nHost: loc",
            _ => b"POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        };
        // One that was turned away may be closed already.
        let _ = client.send(start);
        held.push(client);
    }
    assert!(held.len() > 256, "only {} connected", held.len());
    let turned_away = eventually(PATIENCE, || {
        let answer = Client::try_connect(server.admin).and_then(|mut client| client.get("/healthz"));
        answer.is_ok_and(|answer| answer.status == 503 && answer.text().contains("Too many connections"))
    });
    assert!(turned_away, "the connection after the last one is told so");
    let start = now();
    assert_eq!(server.allowed("alice", 200), 200);
    assert!(now() - start < Duration::from_secs(10), "200 requests took {:?}", now() - start);
    drop(held);
    assert!(eventually(PATIENCE, || server.try_admin("GET", "/status", "").is_ok_and(|answer| answer.status == 200)));
}

#[test]
fn what_is_wrong_with_a_body_is_named_and_never_a_500() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    let digits = "9".repeat(200);
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let cases = [
        (400, "", "empty"),
        (400, "{", "JSON"),
        (400, "{'client_id':1}", "JSON"),
        (400, r#"{"client_id":"a","client_id":"b","capacity":1,"rate_per_sec":1}"#, "client_id"),
        (400, r#"{"client_id":"a","capacity":NaN,"rate_per_sec":1}"#, "JSON"),
        (400, r#"{"client_id":"a","capacity":1,"rate_per_sec":1e400}"#, "number"),
        (400, &deep, "deep"),
        (422, "[]", "object"),
        (422, "null", "object"),
        (422, r#"{"capacity":1,"rate_per_sec":1}"#, "client_id"),
        (422, r#"{"client_id":"a b","capacity":1,"rate_per_sec":1}"#, "1 to 128 characters"),
        (422, r#"{"client_id":null,"capacity":1,"rate_per_sec":1}"#, "client_id"),
        (422, r#"{"client_id":"a","capacity":0,"rate_per_sec":1}"#, "from 1 to 1000000000"),
        (422, r#"{"client_id":"a","capacity":-5,"rate_per_sec":1}"#, "from 1 to 1000000000"),
        (422, r#"{"client_id":"a","capacity":10.5,"rate_per_sec":1}"#, "whole"),
        (422, r#"{"client_id":"a","capacity":"10","rate_per_sec":1}"#, "capacity"),
        (422, &format!(r#"{{"client_id":"a","capacity":{digits},"rate_per_sec":1}}"#), "capacity"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":0}"#, "0.000001"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":-1}"#, "rate_per_sec"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":null}"#, "rate_per_sec"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"mode":"Limit"}"#, "unlimited"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"addresses":"10.0.0.1"}"#, "addresses"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"addresses":["10.0.0.0/33"]}"#, "addresses[0]"),
        (422, r#"{"client_id":"a","capacity":1,"rate_per_sec":1,"capasity":1}"#, "capacity"),
    ];
    for (status, body, word) in cases {
        let mut client = Client::connect(server.admin);
        let request = Request::new("POST", "/clients").host("localhost").body(Body::Length(body.as_bytes()));
        let answer = client.call(&request).unwrap();
        assert_error(&answer, status);
        assert!(answer.text().contains(word), "{body}: {}", answer.text());
        assert!(status != 422 || answer.json()["errors"][0]["field"].is_string(), "{body}: {}", answer.text());
    }
    assert_eq!(server.admin("GET", "/clients", "").json()["total"], 0);
}
