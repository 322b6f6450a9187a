//! Callers ask how they stand, and those that hammer lose their connection.

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::http2::{Http2, request};
use crate::harness::instance::Instance;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, assert_ours};

const PATH: &str = "/.well-known/ratelimit";
const TRUSTED: &str = "identity: {trusted_proxies: [127.0.0.0/8]}";

fn ask(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    client.call_again(&Request::new(method, path).headers(headers)).unwrap()
}

fn bucket(answer: &Response) -> Value {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    answer.json()["policies"][0].clone()
}

#[test]
fn a_caller_learns_how_it_stands_and_pays_nothing() {
    for direct in ["direct: true", "direct: false"] {
        let backend = Backend::scripted("a");
        let limits = "rate_limit: {self_service: true, default: {capacity: 2, rate_per_sec: 0.001}}";
        let server = Instance::start(backend.address, &format!("{limits}\n{TRUSTED}\n{direct}"));
        server.create("user1", 3, 0.001);
        let mut client = Client::connect(server.address);
        let from = [("X-Forwarded-For", "192.0.2.1")];
        for _ in 0..5 {
            let answer = ask(&mut client, "GET", PATH, &from);
            assert_eq!((answer.header("x-backend"), answer.header("cache-control")), (None, Some("no-store")));
            let full = json!({
                "name": "default", "capacity": 2, "rate_per_sec": 0.001, "tokens": 2.0, "retry_after": 0, "full_after": 0,
            });
            assert_eq!(bucket(&answer), full);
            let who = json!([null, "anonymous", "limit"]);
            assert_eq!(json!([answer.json()["client_id"], answer.json()["identity"], answer.json()["mode"]]), who);
        }
        for status in [200, 200, 429] {
            assert_eq!(ask(&mut client, "GET", "/", &from).status, status);
        }
        let spent = bucket(&ask(&mut client, "GET", &format!("{PATH}?x=y"), &from));
        assert!(spent["tokens"].as_f64().unwrap() < 1.0 && spent["retry_after"].as_u64().unwrap() > 900, "{spent}");
        let known = ask(&mut client, "GET", PATH, &[("X-Api-Key", "user1")]);
        assert_eq!((bucket(&known)["capacity"].clone(), known.json()["client_id"].clone()), (json!(3), json!("user1")));
        let head = ask(&mut client, "HEAD", PATH, &from);
        assert_eq!((head.status, head.text().as_str()), (200, ""));
        let other = ask(&mut client, "POST", PATH, &from);
        assert_ours(&other, 405, "Method not allowed");
        assert_eq!(other.header("allow"), Some("GET, HEAD"));
        // A key that nobody has is a guess, which pays as any request does.
        let guess = [("X-Api-Key", "guess"), ("X-Forwarded-For", "192.0.2.9")];
        for left in [1.0, 0.0] {
            let tokens = bucket(&ask(&mut client, "GET", PATH, &guess))["tokens"].as_f64().unwrap();
            assert!((left..left + 0.5).contains(&tokens), "{tokens}");
        }
        assert_ours(&ask(&mut client, "GET", PATH, &guess), 429, "Rate limit exceeded");
    }
}

#[test]
fn a_stranger_is_answered_as_ever_and_a_blocked_client_is_blocked() {
    let backend = Backend::scripted("a");
    let rejects = "identity: {unknown_api_key: reject}\nrate_limit: {self_service: true}";
    let server = Instance::start(backend.address, rejects);
    for (name, mode) in [("bad", "blocked"), ("vip", "unlimited")] {
        let body = json!({"client_id": name, "capacity": 1, "rate_per_sec": 1, "mode": mode}).to_string();
        assert_eq!(server.admin("POST", "/clients", &body).status, 201);
    }
    let mut client = Client::connect(server.address);
    assert_ours(&ask(&mut client, "GET", PATH, &[("X-Api-Key", "guess")]), 401, "Unknown API key");
    assert_ours(&ask(&mut client, "GET", PATH, &[("X-Api-Key", "bad")]), 403, "Client is blocked");
    let vip = ask(&mut client, "GET", PATH, &[("X-Api-Key", "vip")]).json();
    assert_eq!(vip, json!({"client_id": "vip", "identity": "api_key", "mode": "unlimited", "policies": []}));
}

#[test]
fn it_is_off_until_it_is_switched_on_and_works_over_http2() {
    let (backend, dir) = ([Backend::scripted("a")], tempfile::TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let setup = |more: &str| Setup::app(&backend, NO_CHECK).tls(dir.path()).line(&format!("rate_limit: {{{more}}}"));
    let server = setup("").start();
    let mut client = Http2::connect(server.address);
    assert_eq!(client.get(PATH).unwrap().backend(), "a");
    server.rewrite(&setup("self_service: true").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").status, 200);
    let answer = client.get(PATH).unwrap();
    assert_eq!((answer.status, bucket(&answer)["capacity"].clone()), (200, json!(100)));
    assert_eq!(client.call(request("DELETE", PATH), &[]).unwrap().status, 405);
}

#[test]
fn who_is_refused_too_often_in_a_row_loses_its_connection() {
    for direct in ["direct: true", "direct: false"] {
        let backend = [Backend::scripted("a")];
        let limits = "rate_limit: {close_after: 3, default: {capacity: 1, rate_per_sec: 0.001}}";
        let server = Setup::app(&backend, NO_CHECK).line(limits).line(TRUSTED).line(direct).start();
        let mut client = server.client();
        let mut status = |caller: &str| {
            let answer = ask(&mut client, "GET", "/", &[("X-Forwarded-For", caller)]);
            (answer.status, answer.closes())
        };
        assert_eq!(status("192.0.2.1"), (200, false));
        for _ in 0..2 {
            assert_eq!(status("192.0.2.1"), (429, false));
        }
        // Another caller of the same proxy ends the row.
        assert_eq!(status("192.0.2.2"), (200, false));
        for closes in [false, false, true] {
            assert_eq!(status("192.0.2.1"), (429, closes));
        }
        client.wait_closed(PATIENCE).unwrap();
        let mut again = server.client();
        let answer = ask(&mut again, "GET", "/", &[("X-Forwarded-For", "192.0.2.1")]);
        assert!(answer.status == 429 && !answer.closes(), "a new connection begins anew: {answer:?}");
    }
}
