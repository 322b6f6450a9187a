//! Whatever comes, it is answered with what is wrong with it, and never with 500.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use serde_json::json;

use super::{body, make};
use crate::admin::fixture::Fixture;

/// Bodies that are no JSON.
fn broken() -> Vec<Vec<u8>> {
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let nested = b"{\"capacity\":".repeat(10_000);
    [
        &b""[..],
        b" ",
        b"x",
        b"{",
        b"{}}",
        b"{\"capacity\":NaN}",
        b"{\"capacity\":Infinity}",
        b"{\"rate_per_sec\":1e400}",
        b"{\"rate_per_sec\":-1e400}",
        b"{\"capacity\":1,\"capacity\":2}",
        b"{\"note\":\"\xff\"}",
        b"\xff\xfe{}",
        b"{\"note\":\"\\ud800\"}",
        b"{\"note\":\"a\nb\"}",
        b"capacity=1&rate_per_sec=1",
        b"{\"capacity\":01}",
        b"{\"capacity\":+1}",
        b"{\"capacity\":0x10}",
        b"{'capacity':1}",
        &deep,
        &nested,
    ]
    .map(<[u8]>::to_vec)
    .into()
}

#[tokio::test]
async fn what_is_no_json_is_400_everywhere() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    let calls = [("POST", "/clients"), ("PUT", "/clients/a"), ("PATCH", "/clients/a"), ("POST", "/clients/a/rollback")];
    for text in broken() {
        for (method, target) in calls.into_iter().chain([("PUT", "/clients")]) {
            let answer = api.send(method, target, &[], text.clone()).await;
            let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
            assert_eq!(answer.status, 400, "{method} {target} {shown}");
            assert_eq!(answer.json()["code"], json!(400), "{shown}");
            assert!(answer.json()["message"].as_str().is_some_and(|message| message.len() > 10), "{shown}");
        }
    }
}

#[tokio::test]
async fn what_is_json_and_no_client_is_422_everywhere() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    let digits = format!(r#"{{"client_id":"a","capacity":{},"rate_per_sec":1}}"#, "9".repeat(200));
    for text in
        ["null", "1", "\"a\"", "true", "[]", "[{}]", r#"{"colour":1}"#, r#"{"capacity":-1}"#, r#"{"":1}"#, &digits]
    {
        for (method, target) in
            [("POST", "/clients"), ("PUT", "/clients/a"), ("PATCH", "/clients/a"), ("POST", "/clients/a/rollback")]
        {
            let answer = api.call(method, target, text).await;
            assert_eq!(answer.status, 422, "{method} {target} {text}: {}", answer.text);
            assert!(answer.errors().iter().all(|(_, message)| !message.is_empty()), "{text}");
            assert!(!answer.errors().is_empty(), "{text}");
        }
    }
}

#[tokio::test]
async fn long_bodies_are_refused_and_long_strings_are_told() {
    let api = Fixture::new();
    let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(1 << 20));
    let answer = api.call("POST", "/clients", &long).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (413, json!(413)));
    // The same without a length in front.
    let pieces = Body::new(Endless);
    assert_eq!(api.send("POST", "/clients", &[], pieces).await.status, 413);
    let almost = body(&json!({"client_id": "a", "note": "x".repeat(1_000_000)}));
    let field = api.call("POST", "/clients", &almost).await.errors();
    assert_eq!(field[0].0, "note");
    let name = format!(r#"{{"{}":1}}"#, "ä".repeat(100_000));
    let answer = api.call("POST", "/clients", &name).await;
    assert!(answer.status == 422 && answer.text.len() < 2_000, "{}", answer.text.len());
}

#[tokio::test]
async fn of_very_many_wrong_fields_some_are_told() {
    let api = Fixture::new();
    let names = (0..50_000).map(|number| format!(r#""field{number}":1"#));
    let answer = api.call("POST", "/clients", &format!("{{{}}}", names.collect::<Vec<_>>().join(","))).await;
    let errors = answer.errors();
    // The three that are missing are wrong too.
    assert_eq!((answer.status.as_u16(), errors.len()), (422, 101));
    assert_eq!(errors[100], ("body".to_owned(), "49903 more fields are wrong".to_owned()));
    let addresses = vec!["1"; 1_000].join(",");
    let wrong = api.call("PATCH", "/clients/a", &format!(r#"{{"addresses":[{addresses}]}}"#)).await;
    assert_eq!(wrong.errors().len(), 101);
    let query = "x&".repeat(20_000);
    assert_eq!(api.call("GET", &format!("/clients?{query}"), "").await.errors().len(), 101);
}

/// A body that never ends.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 4096])))))
    }
}

#[tokio::test]
async fn names_that_are_none_are_told() {
    let api = Fixture::new();
    for (path, status) in [
        ("%zz", 400),
        ("a%", 400),
        ("%ff", 400),
        ("%00", 400),
        ("a%20b", 422),
        ("%C3%A4", 422),
        ("a%0d%0ab", 422),
        ("<script>", 422),
        (&"x".repeat(129), 422),
        (&"%2F".repeat(129), 422),
        (&"x/".repeat(2_000), 422),
    ] {
        for (method, text) in [("GET", ""), ("PUT", &*body(&json!({}))), ("PATCH", "{}"), ("DELETE", "")] {
            let target = format!("/clients/{path}").replace('<', "%3C").replace('>', "%3E");
            assert_eq!(api.call(method, &target, text).await.status, status, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn no_new_client_is_named_so_that_paths_lose_it() {
    let api = Fixture::new();
    for name in ["a//b", "a/", "/a", ".", "..", "a/../b", "a/.", "./a"] {
        let text = body(&json!({"client_id": name}));
        let path = format!("/clients/{}", name.replace('/', "%2F"));
        let calls = [("POST", "/clients", text.clone()), ("PUT", &path, body(&json!({})))];
        for (method, target, text) in calls.into_iter().chain([("PUT", "/clients", format!("[{text}]"))]) {
            let answer = api.call(method, target, &text).await;
            assert_eq!(answer.status, 422, "{method} {target} {name}");
            let (field, message) = (&answer.json()["errors"][0]["field"], &answer.json()["errors"][0]["message"]);
            assert!(field.as_str().is_some_and(|field| field.ends_with("client_id")), "{field}");
            assert!(message.as_str().is_some_and(|message| message.contains("empty, . or ..")), "{message}");
        }
        assert_eq!(api.call("GET", &path, "").await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn other_paths_methods_and_types_are_told() {
    let api = Fixture::new();
    make(&api, &json!({"client_id": "a"})).await;
    for target in ["/ui", "/client", "/clients/", "/clients?x=1/a/b"] {
        let answer = api.call("GET", target, "").await;
        assert!([404, 422].contains(&answer.status.as_u16()), "{target}");
        assert_eq!(answer.json()["code"], json!(answer.status.as_u16()), "{target}");
    }
    for (method, target, allow) in [
        ("DELETE", "/clients", "GET,HEAD,POST,PUT"),
        ("OPTIONS", "/clients", "GET,HEAD,POST,PUT"),
        ("POST", "/clients/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("TRACE", "/clients/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("BREW", "/clients/a", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", "/config/reload", "POST"),
    ] {
        let answer = api.call(method, target, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"]),
            (405, &allow.parse().unwrap()),
            "{method} {target}"
        );
        assert_eq!(answer.json()["code"], json!(405));
    }
    for target in ["/clients", "/clients/a", "/clients/a/history", "/clients/b"] {
        let (head, get) = (api.call("HEAD", target, "").await, api.call("GET", target, "").await);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{target}");
        assert_eq!(head.headers["content-length"], get.headers["content-length"], "{target}");
    }
    for content_type in ["text/plain", "multipart/form-data", "text/html"] {
        let headers = [("content-type", content_type)];
        assert_eq!(api.send("PATCH", "/clients/a", &headers, "{}").await.status, 415, "{content_type}");
    }
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(api.send("PATCH", "/clients/a", &headers, "{}").await.status, 200);
    for target in
        ["/clients/a?x=1", "/clients/a/history?x=1", "/clients/a/history?limit=0", "/clients/a/history?before=0"]
    {
        assert_eq!(api.call("GET", target, "").await.status, 422, "{target}");
    }
}

#[tokio::test]
async fn pages_of_others_change_nothing() {
    let api = Fixture::new();
    let text = body(&json!({"client_id": "a"}));
    let foreign = [("origin", "http://evil.example"), ("content-type", "application/x-www-form-urlencoded")];
    let answer = api.send("POST", "/clients", &foreign, text.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (403, json!(403)));
    assert_eq!(api.send("POST", "/clients", &[("host", "evil.example")], text).await.status, 400);
    assert_eq!(api.call("GET", "/clients/a", "").await.status, 404);
    assert_eq!(api.send("GET", "/nowhere", &[("origin", "null")], "").await.status, 403);
}
