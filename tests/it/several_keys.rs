//! Several API keys a client, which may end: one is replaced by another without an outage.

use std::time::{Duration, SystemTime};

use ::tollgate::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::instance::Instance;
use crate::harness::process::{faketime, tell_skipped};
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

const REJECT: &str = "identity: {unknown_api_key: reject}";

/// The moment so many seconds from now, as the admin API takes it.
fn ahead(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(SystemClock.wall() + Duration::from_secs(seconds)).to_string()
}

#[track_caller]
fn make_key(server: &Instance, body: &str) -> (String, String) {
    let made = server.admin("POST", "/clients/a/keys", body);
    assert_eq!(made.status, 201, "{made:?}");
    let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
    let (key, id) = (text("api_key"), text("key_id"));
    assert_eq!(made.header("location"), Some(&*format!("/clients/a/keys/{id}")));
    (key, id)
}

fn shown(server: &Instance) -> Value {
    server.admin("GET", "/clients/a", "").json()
}

#[test]
fn a_key_is_replaced_without_an_outage() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, REJECT);
    let made = json!({"client_id": "a", "capacity": 1000, "rate_per_sec": 1, "api_key": "old"});
    assert_eq!(server.admin("POST", "/clients", &made.to_string()).status, 201);
    assert_eq!(shown(&server)["api_keys"], json!([{"key_id": "primary", "expires_at": null}]));
    let (key, id) = make_key(&server, "");
    assert_eq!((server.call("old"), server.call(&key), server.call("a")), (200, 200, 401));
    assert_eq!(shown(&server)["tokens"].as_f64().unwrap().floor(), 998.0, "both are one client's");
    assert!(!server.admin("GET", "/clients/a", "").text().contains(&key));
    // Both outlive the process; the old one goes.
    server.kill();
    server.start_again();
    assert_eq!((server.call("old"), server.call(&key)), (200, 200));
    assert_eq!(server.admin("DELETE", "/clients/a/keys/primary", "").status, 204);
    assert_eq!((server.call("old"), server.call(&key)), (401, 200));
    let gone = server.admin("DELETE", "/clients/a/keys/primary", "");
    assert_eq!((gone.status, gone.json()["message"].as_str()), (404, Some("Client a has no key primary")));
    // The history knows it, and brings it back.
    let changes = server.admin("GET", "/clients/a/history", "").json();
    let keys = |change: usize, when: &str| changes["items"][change][when]["api_keys"].as_array().unwrap().len();
    assert_eq!((keys(0, "before"), keys(0, "after"), keys(1, "before")), (2, 1, 1));
    assert_eq!(server.admin("POST", "/clients/a/rollback", r#"{"version":2}"#).status, 200);
    assert_eq!((server.call("old"), server.call(&key)), (200, 200));
    // Five at most.
    (0..3).for_each(|_| drop(make_key(&server, "{}")));
    let sixth = server.admin("POST", "/clients/a/keys", "");
    let said = "Client a has 5 API keys, which is as many as a client may have; delete one first";
    assert_eq!((sixth.status, sixth.json()["message"].as_str()), (409, Some(said)));
    // What was exported goes in again as it is, and so does what was read.
    let export = server.admin("GET", "/clients?format=ndjson", "").text();
    assert!(export.contains("\"key_sha256\"") && export.contains(&id), "{export}");
    assert_eq!(server.admin("PUT", "/clients", &export).json()["unchanged"], json!(1));
    let (version, text) = (shown(&server)["version"].clone(), server.admin("GET", "/clients/a", "").text());
    assert_eq!(server.admin("PUT", "/clients/a", &text).json()["version"], version);
    // The short form is the only key.
    assert_eq!(server.admin("PATCH", "/clients/a", r#"{"api_key":"new"}"#).status, 200);
    assert_eq!((server.call("old"), server.call(&key), server.call("new")), (401, 401, 200));
}

#[test]
fn a_key_that_has_ended_is_nobodys() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, REJECT);
    let (past, far) = ("2001-01-01T00:00:00Z", ahead(3_600));
    let keys = json!([{"key": "past", "expires_at": past}, {"key": "far", "expires_at": far}, {"key": "ever"}]);
    let made = json!({"client_id": "a", "capacity": 1000, "rate_per_sec": 1, "api_keys": keys});
    let made = server.admin("POST", "/clients", &made.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((server.call("past"), server.call("far"), server.call("ever")), (401, 200, 200));
    let ends: Vec<_> =
        made.json()["api_keys"].as_array().unwrap().iter().map(|key| key["expires_at"].clone()).collect();
    assert_eq!(ends, [json!(past), json!(far), json!(null)]);
    // One ends while it is used, in its second and not before.
    let soon = ahead(2);
    let (key, _) = make_key(&server, &json!({"expires_at": soon}).to_string());
    assert_eq!(server.call(&key), 200);
    let end = humantime::parse_rfc3339(&soon).unwrap();
    let ended = eventually(PATIENCE, || {
        let (before, status, after): (SystemTime, u16, SystemTime) =
            (SystemClock.wall(), server.call(&key), SystemClock.wall());
        let slack = Duration::from_millis(50);
        assert!(status == 200 || after + slack >= end, "it ended too early");
        assert!(status == 401 || before <= end + slack, "it counted too long");
        status == 401
    });
    assert!(ended);
    // A foreign key cannot be had by another, also while it does not count.
    let other = json!({"client_id": "b", "capacity": 1, "rate_per_sec": 1, "api_key": "past"});
    assert_eq!(server.admin("POST", "/clients", &other.to_string()).status, 409);
    let past = server.admin("POST", "/clients/a/keys", &json!({"expires_at": "2001-01-01T00:00:00Z"}).to_string());
    assert_eq!((past.status, past.json()["errors"][0]["field"].as_str()), (422, Some("expires_at")), "{past:?}");
    let wrong = json!({"api_keys": [{"key": "x", "expires_at": "soon"}, {"expires_at": null}, {"key_id": "k9"}]});
    let errors = server.admin("PATCH", "/clients/a", &wrong.to_string()).json()["errors"].clone();
    let fields: Vec<_> = errors.as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["api_keys[0].expires_at", "api_keys[1].key"]);
    let unknown = server.admin("PATCH", "/clients/a", r#"{"api_keys":[{"key_id":"k9"}]}"#);
    assert_eq!((unknown.status, unknown.json()["errors"][0]["field"].as_str()), (422, Some("api_keys")));
}

#[test]
fn a_key_ends_by_the_wall_clock_as_it_is_set() {
    let Some(library) = faketime() else {
        return tell_skipped("faketime");
    };
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, REJECT);
    let made = json!({"client_id": "a", "capacity": 1000, "rate_per_sec": 1,
        "api_keys": [{"key": "k", "expires_at": ahead(3_600)}, {"key": "ever"}]});
    assert_eq!(server.admin("POST", "/clients", &made.to_string()).status, 201);
    server.stop();
    let set = server.file().with_file_name("clock");
    std::fs::write(&set, "+2h").unwrap();
    let mut faked = command();
    faked.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &set).env("FAKETIME_NO_CACHE", "1");
    // Its older and its newer name.
    faked.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    server.start_again_as(faked);
    assert_eq!((server.call("k"), server.call("ever")), (401, 200));
    for (moved, status) in [("+0h", 200), ("+2h", 401), ("+0h", 200)] {
        std::fs::write(&set, moved).unwrap();
        assert!(eventually(PATIENCE, || server.call("k") == status), "{moved}");
        assert_eq!(server.call("ever"), 200);
    }
}

#[test]
fn a_name_that_is_a_credential_counts_beside_the_first_key() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, REJECT);
    let made = json!({"client_id": "a", "capacity": 1000, "rate_per_sec": 1});
    assert_eq!(server.admin("POST", "/clients", &made.to_string()).status, 201);
    assert_eq!(server.call("a"), 200);
    let (key, _) = make_key(&server, "");
    assert_eq!((server.call("a"), server.call(&key)), (200, 200));
    assert_eq!(server.admin("DELETE", "/clients/a/keys/primary", "").status, 204);
    assert_eq!((server.call("a"), server.call(&key)), (401, 200));
}

#[test]
fn a_moment_that_cannot_be_written_is_none() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, REJECT);
    let made = json!({"client_id": "a", "capacity": 1000, "rate_per_sec": 1});
    assert_eq!(server.admin("POST", "/clients", &made.to_string()).status, 201);
    for (moment, status) in [("9999-12-31T23:59:59-00:01", 422), ("9999-12-31T23:59:59Z", 201)] {
        let answer = server.admin("POST", "/clients/a/keys", &json!({"expires_at": moment}).to_string());
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(server.admin("GET", "/clients?format=ndjson", "").status, 200);
    let unknown = r#"[{"client_id":"a","capacity":1,"rate_per_sec":1,"api_keys":[{"key_id":"nope"}]}]"#;
    let refused = server.admin("PUT", "/clients", unknown);
    assert!(refused.status == 422 && refused.text().contains("client a names the key nope"), "{refused:?}");
}
