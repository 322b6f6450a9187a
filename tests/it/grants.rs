//! Tokens that are granted once: above the capacity, spent first, and kept whatever happens but a reset.

use serde_json::json;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::daemon::Daemon;
use crate::harness::instance::Instance;

#[test]
fn what_is_granted_outlasts_edits_and_crashes_and_goes_at_a_reset() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "");
    server.create("a", 3, 0.001);
    let granted = server.admin("POST", "/clients/a/grant", r#"{"tokens":5}"#);
    assert_eq!((granted.status, &granted.json()["tokens"], &granted.json()["version"]), (200, &json!(8), &json!(1)));
    // As soon as it was answered no crash takes it away.
    server.kill();
    server.start_again();
    assert_eq!(server.tokens("a"), 8.0);
    let headers = [("x-api-key", "a")];
    let answer = Client::connect(server.address).call(&Request::new("GET", "/").headers(&headers)).unwrap();
    assert_eq!(answer.header("ratelimit-policy").map(|policy| policy.contains("q=3")), Some(true), "{answer:?}");
    assert_eq!(answer.header("ratelimit").map(|limit| limit.contains("r=7")), Some(true), "{answer:?}");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("7"));
    // Three are of the bucket, four above it.
    assert_eq!(server.admin("PATCH", "/clients/a", r#"{"capacity":1}"#).json()["tokens"], json!(5));
    server.stop();
    server.start_again();
    assert_eq!((server.tokens("a"), server.allowed("a", 9)), (5.0, 5));
    // Into an empty bucket, and twice.
    for total in [2, 4] {
        let answer = server.admin("POST", "/clients/a/grant", r#"{"tokens":2}"#).json();
        assert_eq!(answer["tokens"].as_f64().unwrap().floor(), f64::from(total));
    }
    assert_eq!(server.admin("POST", "/clients/a/reset", "").json()["tokens"], json!(1));
    assert_eq!(server.allowed("a", 9), 1);
    for (body, field) in [(r#"{"tokens":0}"#, "tokens"), (r#"{"tokens":1.5}"#, "tokens"), ("{}", "tokens")] {
        let wrong = server.admin("POST", "/clients/a/grant", body);
        assert_eq!((wrong.status, wrong.json()["errors"][0]["field"].as_str()), (422, Some(field)), "{body}");
    }
    assert_eq!(server.admin("POST", "/clients/nobody/grant", r#"{"tokens":1}"#).status, 404);
}

#[test]
fn what_is_granted_is_handed_over() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "");
    let made = daemon.ask("POST", "/clients", r#"{"client_id":"a","capacity":2,"rate_per_sec":0.001}"#).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(daemon.ask("POST", "/clients/a/grant", r#"{"tokens":4}"#).unwrap().json()["tokens"], json!(6));
    assert_eq!(daemon.call("a"), 200);
    daemon.upgrade();
    let calls: Vec<_> = (0..7).map(|_| daemon.call("a")).collect();
    assert_eq!(calls, [200, 200, 200, 200, 200, 429, 429]);
}
