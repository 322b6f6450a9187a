use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::admin::api::json::parse;
use crate::upstream::health::{CheckOutcome, HealthStatus};
use crate::upstream::{BackendOverview, BackendState, Ejection, LastCheck, Protocol};

fn backend(address: &str, configured: &str) -> BackendOverview {
    BackendOverview {
        configured: configured.to_owned(),
        address: address.parse().unwrap(),
        weight: 3,
        state: BackendState::Drain,
        health: HealthStatus::Down,
        in_flight: 1,
        requests: 20,
        failures: 2,
        retries: 3,
        ejections: 1,
        ejected: Some(Ejection { until: SystemTime::UNIX_EPOCH, reason: "5 errors in a row".to_owned() }),
        went_up: 1,
        went_down: 2,
        idle_closes_after: Some(Duration::from_micros(5_000_900)),
        last_check: Some(LastCheck {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_290_088_123),
            took: Duration::from_micros(1_500),
            outcome: CheckOutcome::Failed("connection refused".to_owned()),
        }),
    }
}

fn pool() -> PoolOverview {
    PoolOverview {
        name: "app".to_owned(),
        balance: "least_connections",
        protocol: Protocol::Http1,
        tls: true,
        backends: vec![
            backend("127.0.0.1:9001", "127.0.0.1:9001"),
            backend("[::1]:80", "one.example:80"),
            backend("10.0.0.1:80", "two.example:80"),
            backend("10.0.0.2:80", "two.example:80"),
        ],
        unresolved: vec!["gone.example:80".to_owned()],
        requests: 40,
        retries: 4,
        panic: false,
    }
}

#[test]
fn a_pool_is_told_in_full() {
    let pool = PoolOverview { backends: vec![backend("[::1]:80", "one.example:80")], ..pool() };
    let told = serde_json::to_value(PoolBody::new(pool)).unwrap();
    let expected = json!({
        "name": "app", "balance": "least_connections", "protocol": "http/1.1", "tls": true, "requests": 40, "retries": 4,
        "panic": false,
        "unresolved": ["gone.example:80"],
        "backends": [{
            "address": "[::1]:80", "configured": "one.example:80", "weight": 3, "state": "drain", "health": "down",
            "in_flight": 1, "requests": 20, "failures": 2, "retries": 3, "ejections": 1,
            "ejected": {"until": "1970-01-01T00:00:00.000Z", "reason": "5 errors in a row"}, "went_up": 1, "went_down": 2,
            "idle_closes_after_ms": 5000,
            "last_check": {
                "at": "2026-11-21T19:41:28.123Z", "duration_ms": 1.5, "passed": false, "error": "connection refused",
            },
        }],
    });
    assert_eq!(told, expected);
}

#[test]
fn a_backend_is_found_by_its_address_or_its_only_name() {
    let find = |given: &str| find_backend(&pool(), given).map(|address| address.to_string());
    for (given, address) in [
        ("127.0.0.1:9001", "127.0.0.1:9001"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("One.example:80", "[::1]:80"),
        ("10.0.0.2:80", "10.0.0.2:80"),
    ] {
        assert_eq!(find(given), Ok(address.to_owned()));
    }
    for (given, status, message) in [
        (
            "two.example:80",
            409,
            "two.example:80 stands for several backends now; name one by its address: 10.0.0.1:80, 10.0.0.2:80",
        ),
        ("gone.example:80", 404, "Backend gone.example:80 of upstream app has no address now: it does not resolve"),
        (
            "127.0.0.1:9",
            404,
            "Upstream app has no backend 127.0.0.1:9; it has 127.0.0.1:9001, [::1]:80, 10.0.0.1:80, 10.0.0.2:80, gone.example:80",
        ),
    ] {
        let error = find(given).unwrap_err();
        assert_eq!((error.status.as_u16(), error.message.as_str()), (status, message));
    }
}

#[test]
fn the_path_names_pool_and_backend() {
    let read = |path: &str| target(path).map_err(|error| error.message);
    let parts = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
    assert_eq!(read("/upstreams/app/backends/[::1]:80"), parts("app", "[::1]:80"));
    assert_eq!(read("/upstreams/a%2Fb/backends/%5B%3A%3A1%5D%3A80"), parts("a/b", "[::1]:80"));
    let wrong = "The path segment a%zz has a % that two hexadecimal digits do not follow";
    assert_eq!(read("/upstreams/a%zz/backends/x"), Err(wrong.to_owned()));
}

#[test]
fn a_change_has_a_state_or_a_weight_or_both() {
    let read = |text: &str| read_change(parse(text.as_bytes()).unwrap()).map_err(|error| error.message);
    let weight = NonZeroU32::new(65_535);
    assert_eq!(read(r#"{"state":"drain","weight":65535}"#), Ok((Some(AdminState::Drain), weight)));
    assert_eq!(read(r#"{"state":"up"}"#), Ok((Some(AdminState::Up), None)));
    assert_eq!(read(r#"{"weight":65535}"#), Ok((None, weight)));
    for (text, message) in [
        ("{}", "body: must have state (\"drain\" or \"up\"), weight, or both"),
        ("[]", "body: must be a JSON object"),
        (r#"{"state":"down"}"#, "state: must be \"drain\" or \"up\""),
        (r#"{"state":null}"#, "state: must be \"drain\" or \"up\""),
        (r#"{"weight":0}"#, "weight: must be a whole number from 1 to 65535"),
        (r#"{"weight":65536}"#, "weight: must be a whole number from 1 to 65535"),
        (r#"{"weight":4294967297}"#, "weight: must be a whole number from 1 to 65535"),
        (r#"{"weight":2.0}"#, "weight: must be a whole number from 1 to 65535"),
        (r#"{"weight":"2"}"#, "weight: must be a whole number from 1 to 65535"),
        (r#"{"wieght":2}"#, "wieght: is unknown; did you mean weight?"),
        (r#"{"state":1,"weight":-1}"#, "state: must be \"drain\" or \"up\" (and 1 more)"),
    ] {
        assert_eq!(read(text), Err(message.to_owned()), "{text}");
    }
}
