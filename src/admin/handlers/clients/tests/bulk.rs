//! Bulk apply and export.

use serde_json::json;

use super::{body, make};
use crate::admin::fixture::Fixture;

#[tokio::test]
async fn the_difference_is_told_before_it_is_applied() {
    let api = Fixture::new();
    for name in ["gone", "kept", "same"] {
        make(&api, &json!({"client_id": name, "api_key": format!("key-of-{name}")})).await;
    }
    let items = format!(
        "[{},{},{}]",
        body(&json!({"client_id": "new"})),
        body(&json!({"client_id": "kept", "capacity": 7})),
        body(&json!({"client_id": "same"})),
    );
    let config = |capacity: u32| {
        json!({
            "client_id": "kept", "capacity": capacity, "rate_per_sec": 10, "plan": null, "mode": "limit", "addresses": [],
            "has_api_key": true, "api_keys": [{"key_id": "primary", "expires_at": null}], "note": "",
            "candidate": null, "max_concurrent": null,
        })
    };
    let mut expected = json!({
        "dry_run": true, "created": ["new"], "deleted": ["gone"], "unchanged": 1,
        "changed": [{"client_id": "kept", "before": config(100), "after": config(7)}],
    });
    let dry = api.call("PUT", "/clients?dry_run=1&prune=true", &items).await;
    assert_eq!((dry.status.as_u16(), dry.json()), (200, expected.clone()));
    assert_eq!(api.call("GET", "/clients/new", "").await.status, 404);
    let applied = api.call("PUT", "/clients?prune=1", &items).await;
    expected["dry_run"] = json!(false);
    assert_eq!((applied.status.as_u16(), applied.json()), (200, expected));
    assert_eq!(api.call("GET", "/clients/gone", "").await.status, 404);
    let kept = api.call("GET", "/clients/kept", "").await.json();
    assert_eq!((&kept["capacity"], &kept["version"], api.spend("key-of-kept", 1)), (&json!(7), &json!(2), 1));
}

#[tokio::test]
async fn all_or_none() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a", "api_key": "k"})).await;
    let items = [json!({"client_id": "b"}), json!({"client_id": "c", "api_key": "k"})].map(|item| body(&item));
    let answer = api.call("PUT", "/clients", &items.join("\n")).await;
    assert_eq!((answer.status.as_u16(), api.call("GET", "/clients/b", "").await.status.as_u16()), (409, 404));
    for (text, status) in [("", 400), ("[", 400), ("3", 422), ("[null]", 422), ("{}\n{", 400), ("[]", 200)] {
        assert_eq!(api.call("PUT", "/clients", text).await.status, status, "{text}");
    }
}

#[tokio::test]
async fn what_is_exported_is_what_bulk_apply_takes() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a", "api_key": "k", "addresses": ["10.0.0.7", "2001:db8::/32"]})).await;
    make(&api, &json!({"client_id": "b", "mode": "blocked", "rate_per_sec": 0.000_001, "note": "line\nline"})).await;
    let export = api.call("GET", "/clients?format=ndjson", "").await;
    assert_eq!(
        (export.status.as_u16(), &export.headers["content-type"]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    assert_eq!(export.text.lines().count(), 2);
    assert!(!export.text.contains("\"api_key\":"), "{}", export.text);
    let same = api.call("PUT", "/clients?prune=1", &export.text).await.json();
    assert_eq!(same, json!({"dry_run": false, "created": [], "changed": [], "deleted": [], "unchanged": 2}));

    let other = Fixture::new();
    let headers = [("content-type", "application/x-ndjson")];
    let created = other.send("PUT", "/clients", &headers, export.text.clone()).await.json();
    assert_eq!((&created["created"], other.spend("k", 1)), (&json!(["a", "b"]), 1));
    assert_eq!(other.call("GET", "/clients?format=ndjson", "").await.text, export.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_of_many_comes_in_pieces_and_whole() {
    let api = Fixture::new();
    let one = |number: u32| body(&json!({"client_id": format!("client-{number:05}"), "note": "x".repeat(100)}));
    let items: Vec<_> = (0..5_000).map(one).collect();
    let applied = api.call("PUT", "/clients", &items.join("\n")).await.json();
    assert_eq!(applied["created"].as_array().map(Vec::len), Some(5_000));
    let export = api.call("GET", "/clients?format=ndjson", "").await;
    assert_eq!(export.text.lines().count(), 5_000);
    assert!(export.text.ends_with('\n') && export.text.contains("client-04999"));
    let none = Fixture::new().call("GET", "/clients?format=ndjson", "").await;
    assert_eq!((none.status.as_u16(), none.text.as_str()), (200, ""));
}
