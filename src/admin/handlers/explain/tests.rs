use serde_json::json;

use super::*;
use crate::admin::api::json::parse;
use crate::client::{ClientId, Quota};
use crate::limit::{Bucket, Standing, Tokens};

fn read(text: &str) -> Result<Question, ApiError> {
    question(parse(text.as_bytes()).unwrap())
}

#[test]
fn a_question_has_an_address_and_headers() {
    let text = r#"{"address":"::1","headers":{"X-Api-Key":" k ","x-forwarded-for":["1.2.3.4","5.6.7.8"],"x-none":[]}}"#;
    let question = read(text).unwrap();
    let all = |name: &str| question.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    let (keys, hops): (Vec<_>, Vec<_>) = (all("x-api-key"), all("x-forwarded-for"));
    assert_eq!((question.address.to_string().as_str(), keys, hops), ("::1", vec!["k"], vec!["1.2.3.4", "5.6.7.8"]));
    let bare = read(r#"{"address":"203.0.113.7"}"#).unwrap();
    assert!(bare.headers.is_empty() && bare.certificate.is_empty() && bare.target.is_none());
}

#[test]
fn a_question_may_have_a_certificate_and_a_target() {
    let question = |more: &str| read(&format!(r#"{{"address":"::1",{more}}}"#)).unwrap();
    let known = [KeyDigest::of(b"cert-san:a"), KeyDigest::of(b"cert-san:b")];
    assert_eq!(question(r#""certificate":"cert-san:A""#).certificate, known[..1]);
    assert_eq!(question(r#""certificate":["cert-san:a","cert-san:b"]"#).certificate, known);
    assert_eq!((question(r#""method":"put""#).method, question(r#""host":"a""#).method), ("put".into(), "GET".into()));
    let target = |more: &str| question(more).target.unwrap();
    let pair = |host: &str, path: &str| (host.to_owned(), path.to_owned());
    assert_eq!(target(r#""host":"a.example","path":"/v1?x=/y""#), pair("a.example", "/v1"));
    assert_eq!(target(r#""host":"a.example""#), pair("a.example", "/"));
    assert_eq!(target(r#""path":"/v1","headers":{"Host":"b"}"#), pair("b", "/v1"));
}

#[test]
fn everything_wrong_with_a_question_is_told() {
    let address = "must be an IP address without a port, such as \"203.0.113.7\" or \"2001:db8::7\"";
    let headers = "must be an object of strings or arrays of strings";
    let value = "must be a string or an array of strings";
    let name = "has no valid name: letters, digits and !#$%&'*+-.^_`|~ are allowed";
    for (text, wrong) in [
        ("[]", vec![("body", "must be a JSON object")]),
        ("{}", vec![("address", "is required")]),
        (r#"{"address":null}"#, vec![("address", address)]),
        (r#"{"address":"1.2.3.4:80"}"#, vec![("address", address)]),
        (r#"{"address":7,"headers":[]}"#, vec![("address", address), ("headers", headers)]),
        (r#"{"address":"::1","headers":null}"#, vec![("headers", headers)]),
        (r#"{"adress":"::1"}"#, vec![("adress", "is unknown; did you mean address?"), ("address", "is required")]),
        (r#"{"address":"::1","headers":{"a b":"c"}}"#, vec![("headers.\"a b\"", name)]),
        (r#"{"address":"::1","headers":{"a":1}}"#, vec![("headers.a", value)]),
        (r#"{"address":"::1","headers":{"a":["b",1]}}"#, vec![("headers.a[1]", value)]),
        (r#"{"address":"::1","headers":{"a":"b\n"}}"#, vec![("headers.a", "must not have control characters")]),
        (r#"{"address":"::1","method":"a b"}"#, vec![("method", "must be a method, such as \"POST\"")]),
        (r#"{"address":"::1","certificate":"key"}"#, vec![("certificate", CERTIFICATE)]),
        (r#"{"address":"::1","certificate":["cert:12"]}"#, vec![("certificate", CERTIFICATE)]),
        (
            r#"{"address":"::1","host":7,"path":"v1"}"#,
            vec![("host", "must be a string"), ("path", "must be a path that starts with /")],
        ),
    ] {
        let error = read(text).unwrap_err();
        let told: Vec<_> = error.errors.iter().map(|wrong| (wrong.field.as_str(), wrong.message.as_str())).collect();
        assert_eq!((error.status.as_u16(), told), (422, wrong), "{text}");
    }
}

#[test]
fn no_question_has_too_many_headers() {
    let names = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("\"h{number}\":\"\"")).collect();
        read(&format!(r#"{{"address":"::1","headers":{{{}}}}}"#, names.join(",")))
    };
    assert_eq!(names(MAX_NAMES).unwrap().headers.len(), MAX_NAMES);
    assert_eq!(names(MAX_NAMES + 1).unwrap_err().message, "headers: must be at most 128 names");
    let values = |count: usize| {
        let values = vec!["\"\""; count].join(",");
        read(&format!(r#"{{"address":"::1","headers":{{"a":[{values}]}}}}"#))
    };
    assert_eq!(values(MAX_VALUES).unwrap().headers.len(), MAX_VALUES);
    assert_eq!(values(MAX_VALUES + 1).unwrap_err().message, "headers.a: must be at most 16 values");
}

fn explanation() -> Explanation {
    let quota = Quota::new(100, 0.5).unwrap();
    let bucket = Bucket::resume(Tokens::from_parts(87, 999_999_999_999_999_999), 0);
    Explanation {
        steps: vec!["the connection comes from 10.0.0.1, which is a trusted proxy".to_owned()],
        trusted_proxy: Some(IpAddr::from([10, 0, 0, 1])),
        client_ip: IpAddr::from([203, 0, 113, 7]),
        api_key_from: Some("x-api-key".to_owned()),
        client_id: Some(ClientId::parse("user1").unwrap()),
        network: None,
        identity: "api_key",
        mode: Some(Mode::Limit),
        standing: Some(Standing::new(bucket, quota, 0)),
        decision: Some("allowed"),
        limited_by: None,
        policies: vec![ExplainedPolicy {
            name: "writes".to_owned(),
            key: "header:x-tenant".to_owned(),
            quota,
            cost: Some(88),
            cost_header: None,
            shadow: true,
            standing: Some(Standing::new(bucket, quota, 0).for_cost(88)),
            enough: false,
        }],
        at_once: Some((8, 3)),
        upstream: Some("app".to_owned()),
        upstreams: vec![("app".to_owned(), 9), ("canary".to_owned(), 1)],
        refusal: None,
        headers: vec![("X-RateLimit-Limit".to_owned(), "100".to_owned())],
    }
}

#[test]
fn an_explanation_is_told_in_full() {
    let told = |explanation| serde_json::to_value(ExplanationBody::new(explanation)).unwrap();
    let expected = json!({
        "steps": ["the connection comes from 10.0.0.1, which is a trusted proxy"],
        "trusted_proxy": "10.0.0.1", "client_ip": "203.0.113.7", "api_key_from": "x-api-key", "client_id": "user1",
        "matched_by": "api_key", "network": null, "mode": "limit", "capacity": 100, "rate_per_sec": 0.5,
        "tokens": 87.999, "decision": "allowed", "limited_by": null, "max_concurrent": 8, "running": 3,
        "policies": [{
            "name": "writes", "key": "header:x-tenant", "capacity": 100, "rate_per_sec": 0.5, "tokens": 87.999,
            "cost": 88, "cost_header": null, "enough": false, "mode": "shadow",
        }],
        "upstream": "app", "upstreams": [{"name": "app", "weight": 9}, {"name": "canary", "weight": 1}],
        "answer": {"status": null, "message": "Goes on to its route", "headers": {"X-RateLimit-Limit": "100"}},
    });
    assert_eq!(told(explanation()), expected);
    let blocked = Explanation {
        mode: Some(Mode::Blocked),
        standing: None,
        decision: Some("blocked"),
        refusal: Some((403, "Client is blocked".to_owned())),
        headers: Vec::new(),
        ..explanation()
    };
    let told = told(blocked);
    assert_eq!([&told["mode"], &told["capacity"], &told["tokens"]], [&json!("blocked"), &json!(null), &json!(null)]);
    assert_eq!(told["answer"], json!({"status": 403, "message": "Client is blocked", "headers": {}}));
}
