//! The calls on clients, over a store in memory.

mod bulk;
mod hostile;
mod unavailable;

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::admin::fixture::{Answer, Fixture};

/// A body that makes a client, with `more` in it.
pub(super) fn body(more: &Value) -> String {
    let mut body = json!({"capacity": 100, "rate_per_sec": 10});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    body.to_string()
}

async fn make(api: &Fixture, more: &Value) -> Answer {
    let answer = api.call("POST", "/clients", &body(more)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer
}

#[tokio::test]
async fn a_client_is_made_shown_changed_and_deleted() {
    let api = Fixture::new();
    let made = make(&api, &json!({"client_id": "user1"})).await;
    assert_eq!(
        (&made.headers["location"], &made.headers["etag"]),
        (&"/clients/user1".parse().unwrap(), &"\"1\"".parse().unwrap())
    );
    let shown = api.call("GET", "/clients/user1", "").await;
    assert_eq!((shown.status.as_u16(), shown.json()), (200, made.json()));
    let at = shown.json()["created_at"].clone();
    assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
    let expected = json!({
        "client_id": "user1", "capacity": 100, "rate_per_sec": 10, "plan": null, "mode": "limit", "addresses": [],
        "has_api_key": false, "api_keys": [], "candidate": null, "max_concurrent": null, "candidate_limited": 0, "note": "", "created_at": at, "updated_at": at, "version": 1, "tokens": 100, "allowed": 0, "limited": 0,
        "last_seen": null,
    });
    assert_eq!(shown.json(), expected);
    // Whole numbers are written as such.
    assert!(shown.text.contains("\"rate_per_sec\":10,") && shown.text.contains("\"tokens\":100,"), "{}", shown.text);

    let changed = api.call("PATCH", "/clients/user1", r#"{"rate_per_sec":0.7,"note":"n"}"#).await;
    assert_eq!((changed.status.as_u16(), &changed.headers["etag"]), (200, &"\"2\"".parse().unwrap()));
    assert!(changed.text.contains("\"rate_per_sec\":0.7,"), "{}", changed.text);
    let replaced = api.call("PUT", "/clients/user1", &body(&json!({}))).await;
    assert_eq!((replaced.status.as_u16(), replaced.json()["note"].clone()), (200, json!("")));

    let deleted = api.call("DELETE", "/clients/user1", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for (method, text) in [("GET", ""), ("PATCH", "{}"), ("DELETE", "")] {
        let gone = api.call(method, "/clients/user1", text).await;
        assert_eq!((gone.status.as_u16(), gone.json()["message"].clone()), (404, json!("There is no client user1")));
    }
    assert_eq!(api.call("POST", "/clients/user1/reset", "").await.status, 404);
}

#[tokio::test]
async fn names_keys_and_addresses_belong_to_one_client() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a", "api_key": "k", "addresses": ["10.0.0.0/8"]})).await;
    make(&api, &json!({"client_id": "b"})).await;
    for (method, target, more, message) in [
        ("POST", "/clients", json!({"client_id": "a"}), "Client a exists already"),
        ("POST", "/clients", json!({"client_id": "c", "api_key": "k"}), "The API key of c is that of client a"),
        ("PUT", "/clients/b", json!({"addresses": ["10.1.1.1/8"]}), "The address 10.0.0.0/8 of b is that of client a"),
        ("PUT", "/clients/c", json!({"api_key": "b"}), "The API key of c is that of client b"),
        ("PUT", "/clients/10.0.0.0%2F8", json!({}), "The address 10.0.0.0/8 of 10.0.0.0/8 is that of client a"),
    ] {
        let answer = api.call(method, target, &body(&more)).await;
        assert_eq!((answer.status.as_u16(), answer.json()["message"].clone()), (409, json!(message)));
    }
}

#[tokio::test]
async fn what_was_read_can_be_edited_and_sent_back() {
    let api = Fixture::new();
    let made = make(&api, &json!({"client_id": "a", "api_key": "k", "addresses": ["10.0.0.7/32", "::1"]})).await;
    assert_eq!(made.json()["addresses"], json!(["10.0.0.7", "::1"]));
    let mut shown = api.call("GET", "/clients/a", "").await.json();
    let same = api.call("PUT", "/clients/a", &shown.to_string()).await;
    assert_eq!((same.status.as_u16(), same.json()), (200, shown.clone()), "nothing changes, and the version stays");
    shown["capacity"] = json!(7);
    let edited = api.call("PUT", "/clients/a", &shown.to_string()).await.json();
    assert_eq!((&edited["capacity"], &edited["version"], &edited["has_api_key"]), (&json!(7), &json!(2), &json!(true)));
    assert_eq!(api.spend("k", 1), 1, "the key stayed");
    let without = api.call("PUT", "/clients/a", &body(&json!({"api_key": null}))).await.json();
    assert_eq!(without["has_api_key"], json!(false));
}

#[tokio::test]
async fn a_name_may_have_slashes_and_escapes() {
    let api = Fixture::new();
    let made = make(&api, &json!({"client_id": "203.0.113.0/24"})).await;
    assert_eq!(made.headers["location"], "/clients/203.0.113.0%2F24");
    for path in ["203.0.113.0/24", "203.0.113.0%2F24", "203.0.113.0%2f24", "%3203.0.113.0/24"] {
        assert_eq!(api.call("GET", &format!("/clients/{path}"), "").await.json()["client_id"], json!("203.0.113.0/24"));
        assert_eq!(api.call("POST", &format!("/clients/{path}/reset"), "").await.status, 200, "{path}");
        assert_eq!(api.call("GET", &format!("/clients/{path}/history"), "").await.status, 200, "{path}");
    }
    let other = api.call("PUT", "/clients/a%2Fhistory", &body(&json!({}))).await;
    assert_eq!((other.status.as_u16(), other.json()["client_id"].clone()), (201, json!("a/history")));
    assert_eq!(api.call("GET", "/clients/a%2Fhistory", "").await.status, 200);
    assert_eq!(api.call("GET", "/clients/a/history", "").await.status, 404);
    let renamed = api.call("PUT", "/clients/a", &body(&json!({"client_id": "b"}))).await;
    let message = "must be a, as in the path; a client keeps its name".to_owned();
    assert_eq!(renamed.errors(), [("client_id".to_owned(), message)]);
}

#[tokio::test]
async fn a_key_that_is_made_is_shown_once() {
    let api = Fixture::new();
    let made = make(&api, &json!({"client_id": "a", "generate_api_key": true})).await.json();
    let key = made["api_key"].as_str().unwrap();
    assert_eq!((made["has_api_key"].clone(), api.spend(key, 1)), (json!(true), 1));
    let shown = api.call("GET", "/clients/a", "").await;
    assert!(shown.json().get("api_key").is_none() && !shown.text.contains(key));
    let patched = api.call("PATCH", "/clients/a", r#"{"generate_api_key":true}"#).await.json();
    assert_ne!(patched["api_key"], made["api_key"]);
    assert_eq!(api.spend(patched["api_key"].as_str().unwrap(), 1), 1);
}

#[tokio::test]
async fn an_edit_keeps_what_was_spent_and_a_reset_fills() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a", "rate_per_sec": 1})).await;
    assert_eq!(api.spend("a", 60), 60);
    api.clock.advance(Duration::from_millis(500));
    let tokens = async || api.call("GET", "/clients/a", "").await.json()["tokens"].clone();
    assert_eq!(tokens().await, json!(40.5));
    let smaller = api.call("PATCH", "/clients/a", r#"{"capacity":10}"#).await;
    assert_eq!(smaller.json()["tokens"], json!(10));
    let larger = api.call("PATCH", "/clients/a", r#"{"capacity":1000}"#).await;
    assert_eq!(larger.json()["tokens"], json!(10));
    let reset = api.call("POST", "/clients/a/reset", "").await;
    assert_eq!(
        (reset.status.as_u16(), reset.json()["tokens"].clone(), reset.json()["version"].clone()),
        (200, json!(1000), json!(3))
    );
    assert_eq!(tokens().await, json!(1000));
}

#[tokio::test]
async fn what_a_client_did_is_shown() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    let seen = 1_795_290_088_123_000_000;
    let directory = api.directory.load();
    let client = directory.by_key(&crate::client::KeyDigest::of(b"a"), SystemTime::UNIX_EPOCH).unwrap();
    client.usage.count_allowed(seen);
    client.usage.count_limited(seen);
    client.usage.count_limited(seen);
    let shown = api.call("GET", "/clients/a", "").await.json();
    let expected = (&json!(1), &json!(2), &json!("2026-11-21T19:41:28.123Z"));
    assert_eq!((&shown["allowed"], &shown["limited"], &shown["last_seen"]), expected);
    // The clock was three hours slow all the time.
    api.clock.set_wall(3 * 3600);
    let shown = api.call("GET", "/clients/a", "").await.json();
    assert_eq!(shown["last_seen"], json!("2026-11-21T22:41:28.123Z"));
}

#[tokio::test]
async fn of_two_edits_at_once_if_match_decides() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    let call = async |method: &str, name: &str, value: &str, text: &str| {
        api.send(method, "/clients/a", &[(name, value)], text.to_owned()).await.status.as_u16()
    };
    let edit = body(&json!({"note": "first"}));
    assert_eq!(call("PUT", "if-match", "\"1\"", &edit).await, 200);
    assert_eq!(call("PUT", "if-match", "\"1\"", &body(&json!({"note": "second"}))).await, 412);
    assert_eq!(call("PATCH", "if-match", "\"1\"", "{}").await, 412);
    assert_eq!(call("DELETE", "if-match", "\"1\"", "").await, 412);
    assert_eq!(call("PATCH", "if-match", "W/\"2\"", "{}").await, 412);
    assert_eq!(call("PUT", "if-none-match", "*", &edit).await, 412);
    assert_eq!(call("PATCH", "if-match", "2", "{}").await, 400);
    assert_eq!(call("PATCH", "if-match", "\"1\", \"2\"", r#"{"note":"third"}"#).await, 200);
    let back = api.send("POST", "/clients/a/rollback", &[("if-match", "\"2\"")], r#"{"version":1}"#).await;
    assert_eq!((back.status.as_u16(), back.json()["message"].clone()), (412, json!("Client a has version 3 by now")));
    assert_eq!(call("DELETE", "if-match", "\"3\"", "").await, 204);
    assert_eq!(call("PUT", "if-match", "*", &edit).await, 412);
    assert_eq!(call("PATCH", "if-match", "*", "{}").await, 404);
    assert_eq!(call("PUT", "if-none-match", "*", &edit).await, 201);
}

#[tokio::test]
async fn every_change_is_recorded_and_can_be_taken_back() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a", "api_key": "k"})).await;
    api.call("PATCH", "/clients/a", r#"{"capacity":5,"api_key":null}"#).await;
    api.call("PATCH", "/clients/a", r#"{"capacity":5}"#).await;
    api.call("DELETE", "/clients/a", "").await;
    let history = api.call("GET", "/clients/a/history", "").await.json();
    let items = history["items"].as_array().unwrap();
    let brief = |item: &Value| (item["version"].clone(), item["action"].clone(), item["by"].clone());
    let expected = [(3, "delete"), (2, "update"), (1, "create")];
    let expected = expected.map(|(version, action)| (json!(version), json!(action), json!("loopback")));
    assert_eq!(items.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!((&items[0]["after"], &items[2]["before"]), (&Value::Null, &Value::Null));
    let first = json!({
        "client_id": "a", "capacity": 100, "rate_per_sec": 10, "plan": null, "mode": "limit", "addresses": [],
        "has_api_key": true, "api_keys": [{"key_id": "primary", "expires_at": null}], "note": "",
        "candidate": null, "max_concurrent": null,
    });
    assert_eq!((&items[2]["after"], &items[1]["before"]), (&first, &first));

    let back = api.call("POST", "/clients/a/rollback", r#"{"version":1}"#).await;
    let (shown, expected) = (back.json(), (200, json!(100), json!(true), json!(4)));
    assert_eq!(
        (back.status.as_u16(), shown["capacity"].clone(), shown["has_api_key"].clone(), shown["version"].clone()),
        expected
    );
    assert_eq!(api.spend("k", 1), 1, "the key came back");
    let same = api.call("POST", "/clients/a/rollback", r#"{"version":4}"#).await.json();
    assert_eq!(same["version"], json!(4), "it is that already");
    for (text, message) in [
        (r#"{"version":3}"#, "version 3 is the deletion of client a"),
        (r#"{"version":9}"#, "client a has no version 9 in its history"),
        (r#"{"version":0}"#, "must be a whole number from 1 on, the version of a change in the history"),
        (r#"{"version":1.0}"#, "must be a whole number from 1 on, the version of a change in the history"),
        (r"{}", "is required"),
    ] {
        let answer = api.call("POST", "/clients/a/rollback", text).await;
        assert_eq!((answer.status.as_u16(), answer.errors()), (422, vec![("version".to_owned(), message.to_owned())]));
    }
    assert_eq!(api.call("POST", "/clients/b/rollback", r#"{"version":1}"#).await.status, 404);
    assert_eq!(api.call("GET", "/clients/b/history", "").await.status, 404);
}

#[tokio::test]
async fn the_history_comes_in_pages_and_keeps_all() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    for capacity in 1..=150 {
        api.call("PATCH", "/clients/a", &format!(r#"{{"capacity":{capacity},"note":"x"}}"#)).await;
    }
    let page = async |query: &str| {
        let page = api.call("GET", &format!("/clients/a/history{query}"), "").await.json();
        let versions = page["items"].as_array().unwrap().iter().map(|item| item["version"].as_u64().unwrap());
        (versions.collect::<Vec<_>>(), page["next_before"].as_u64())
    };
    assert_eq!(page("").await, ((1..=151).rev().collect(), None));
    assert_eq!(page("?limit=2").await, (vec![151, 150], Some(150)));
    assert_eq!(page("?limit=2&before=3").await, (vec![2, 1], None));
    assert_eq!(page("?limit=1&before=3").await, (vec![2], Some(2)));
    assert_eq!(page("?before=1").await, (vec![], None));
    assert_eq!(api.call("GET", "/clients/b/history?before=9", "").await.status, 404);
    let back = api.call("POST", "/clients/a/rollback", r#"{"version":1}"#).await;
    assert_eq!((back.status.as_u16(), back.json()["capacity"].clone()), (200, json!(100)));
    let largest = format!(r#"{{"version":{}}}"#, u64::MAX);
    assert_eq!(api.call("POST", "/clients/a/rollback", &largest).await.status, 422);
}

#[tokio::test]
async fn the_list_comes_in_pages() {
    let api = Fixture::new();
    for name in ["b", "a", "d", "c", "10.0.0.0/8"] {
        make(&api, &json!({"client_id": name, "note": if name == "d" { "The Fourth" } else { "" }})).await;
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.call("GET", &format!("/clients?limit=2{cursor}"), "").await.json();
        assert_eq!(page["total"], json!(5));
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["client_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(items.len(), 2);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["10.0.0.0/8", "a", "b", "c", "d"]);
    let first = api.call("GET", "/clients?limit=1&cursor=", "").await.json();
    assert_eq!(first["items"][0]["client_id"], "10.0.0.0/8", "an empty cursor is none");
    let found = api.call("GET", "/clients?q=fourth", "").await.json();
    assert_eq!((&found["total"], &found["items"][0]["client_id"]), (&json!(1), &json!("d")));
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=!", "cursor"),
        ("format=xml", "format"),
        ("format=ndjson&limit=1", "limit"),
        ("other=1", "other"),
        ("q=1&q=2", "q"),
    ] {
        let answer = api.call("GET", &format!("/clients?{query}"), "").await;
        let fields: Vec<_> = answer.errors().into_iter().map(|(field, _)| field).collect();
        assert_eq!((answer.status.as_u16(), fields), (422, vec![field.to_owned()]), "{query}");
    }
}

#[tokio::test]
async fn the_list_comes_in_the_order_of_what_was_done() {
    let api = Fixture::new();
    for (name, limited) in [("a", 1), ("b", 3), ("c", 0), ("d", 2)] {
        make(&api, &json!({"client_id": name})).await;
        let directory = api.directory.load();
        let client = directory.by_key(&crate::client::KeyDigest::of(name.as_bytes()), SystemTime::UNIX_EPOCH).unwrap();
        (0..limited).for_each(|_| client.usage.count_limited(1_000_000_000));
    }
    let first = api.call("GET", "/clients?sort=limited&limit=2", "").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = api.call("GET", &format!("/clients?sort=limited&limit=2&cursor={cursor}"), "").await.json();
    let names = [&first["items"][0], &first["items"][1], &rest["items"][0], &rest["items"][1]];
    assert_eq!(names.map(|item| item["client_id"].as_str().unwrap()), ["b", "d", "a", "c"]);
    assert_eq!((&first["total"], &rest["next_cursor"]), (&json!(4), &json!(null)));
    // Who is deleted since is not in it, and who is made is.
    assert_eq!(api.call("DELETE", "/clients/b", "").await.status, 204);
    make(&api, &json!({"client_id": "aa"})).await;
    let all = api.call("GET", "/clients?sort=limited", "").await.json();
    let names: Vec<_> = all["items"].as_array().unwrap().iter().map(|item| item["client_id"].as_str()).collect();
    assert_eq!((names, &all["total"]), (["d", "a", "aa", "c"].map(Some).to_vec(), &json!(4)));
    for (query, field) in [
        ("sort=name", "sort"),
        ("sort=limited&q=a", "sort"),
        ("sort=limited&cursor=YQ", "cursor"),
        ("sort=requests&format=ndjson", "sort"),
    ] {
        let answer = api.call("GET", &format!("/clients?{query}"), "").await;
        let fields: Vec<_> = answer.errors().into_iter().map(|(field, _)| field).collect();
        assert_eq!((answer.status.as_u16(), fields), (422, vec![field.to_owned()]), "{query}");
    }
}

#[tokio::test]
async fn a_quota_that_counts_in_no_policy_is_told_to_who_writes_it() {
    let api = Fixture::new();
    let own = json!({"capacity": 5, "rate_per_sec": 1});
    let made = make(&api, &json!({"client_id": "user1", "policies": {"writes": own}})).await;
    assert_eq!(made.json().get("warnings"), None, "{}", made.text);
    let more = json!({"policies": {"by-address": own, "wirtes": own}}).to_string();
    let changed = api.call("PATCH", "/clients/user1", &more).await;
    let told = changed.json()["warnings"].clone();
    let [of_address, of_nobody] = [0, 1].map(|at| told[at].as_str().unwrap_or_default().to_owned());
    assert!(
        of_address.starts_with("policies.by-address: ") && of_address.contains("whose key is not client"),
        "{told}"
    );
    assert!(of_nobody.starts_with("policies.wirtes: the configuration has no such policy"), "{told}");
    assert_eq!((changed.status.as_u16(), told.as_array().map(Vec::len)), (200, Some(2)));
    // What is read tells it not, and what was answered is taken again.
    assert_eq!(api.call("GET", "/clients/user1", "").await.json().get("warnings"), None);
    assert_eq!(api.call("PUT", "/clients/user1", &changed.text).await.json()["warnings"], told);
    // In bulk each is told with its name, of those that are written.
    let other = json!([{"client_id": "user2", "capacity": 1, "rate_per_sec": 1, "policies": {"wirtes": own}}]);
    for dry_run in [1, 0] {
        let applied = api.call("PUT", &format!("/clients?dry_run={dry_run}"), &other.to_string()).await;
        assert_eq!(applied.json()["warnings"], json!([format!("user2: {of_nobody}")]), "{}", applied.text);
    }
    assert_eq!(api.call("PUT", "/clients", &other.to_string()).await.json().get("warnings"), None);
}
