//! What operators and callers are told of policies, by `explain` and by how they stand; and that a reset fills them.

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::instance::Instance;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually};

const POLICIES: &str = "[\
    {name: writes, match: {paths: [/v1], methods: [POST]}, capacity: 4, rate_per_sec: 0.000001, cost: 2}, \
    {name: place, key: address, capacity: 9, rate_per_sec: 0.000001}, \
    {name: tenant, match: {paths: [/v1]}, key: 'header:X-Tenant', capacity: 5, rate_per_sec: 0.000001}, \
    {name: trial, key: all, capacity: 1, rate_per_sec: 0.000001, mode: shadow}, \
    {name: gql, match: {paths: [/v1]}, key: all, capacity: 7, rate_per_sec: 0.000001, cost: {answer_header: X-Cost}}]";

fn call(client: &mut Client, (method, target): (&str, &str), headers: &[(&str, &str)]) -> Response {
    client.call_again(&Request::new(method, target).headers(headers)).unwrap()
}

#[test]
fn an_explanation_names_every_policy_that_the_request_meets_and_says_what_it_gets() {
    let backend = Backend::scripted("a");
    let limits = format!("rate_limit: {{reset_header: off, max_retry_after: 2s, policies: {POLICIES}}}");
    let server = Instance::start(backend.address, &limits);
    let own = r#"{"client_id":"c","capacity":9,"rate_per_sec":0.000001,"policies":{"place":{"capacity":1,"rate_per_sec":1}}}"#;
    assert_eq!(server.admin("POST", "/clients", own).status, 201);
    let headers = [("X-Api-Key", "c"), ("X-Tenant", "t")];
    let explain = |method: &str, headers: &str| {
        let question = format!(
            r#"{{"address":"127.0.0.1","method":"{method}","path":"/v1/x","headers":{{"X-Api-Key":"c"{headers}}}}}"#
        );
        let told = server.admin("POST", "/explain", &question);
        assert_eq!(told.status, 200, "{told:?}");
        told.json()
    };
    let policy = |told: &Value, name: &str| {
        let all = told["policies"].as_array().unwrap();
        all.iter().find(|policy| policy["name"] == name).cloned().unwrap_or(Value::Null)
    };
    let with_tenant = r#","X-Tenant":"t""#;
    let told = explain("POST", with_tenant);
    let expected = json!({
        "name": "writes", "key": "client", "capacity": 4, "rate_per_sec": 1e-6, "tokens": 4, "cost": 2,
        "cost_header": null, "enough": true, "mode": "enforce",
    });
    assert_eq!(policy(&told, "writes"), expected, "{told}");
    // Its own quota counts where the key is the client.
    assert_eq!(
        (policy(&told, "place")["capacity"].clone(), policy(&told, "place")["key"].clone()),
        (json!(9), json!("address"))
    );
    assert_eq!(policy(&told, "tenant")["key"], "header:x-tenant");
    assert_eq!(
        (policy(&told, "gql")["cost"].clone(), policy(&told, "gql")["cost_header"].clone()),
        (Value::Null, json!("x-cost"))
    );
    assert_eq!(policy(&told, "trial")["mode"], "shadow");
    assert_eq!(
        (policy(&explain("GET", with_tenant), "writes"), told["policies"].as_array().unwrap().len()),
        (Value::Null, 5)
    );
    // One that goes by a header that is not sent is met, and not paid.
    let without = explain("POST", "");
    assert_eq!(
        (policy(&without, "tenant")["tokens"].clone(), policy(&without, "tenant")["enough"].clone()),
        (Value::Null, Value::Null)
    );
    let mut client = Client::connect(server.address);
    for (decision, status, limited_by) in
        [("allowed", 200, Value::Null), ("allowed", 200, Value::Null), ("limited", 429, json!("writes"))]
    {
        let told = explain("POST", with_tenant);
        let answer = call(&mut client, ("POST", "/v1/x"), &headers);
        assert_eq!(
            (&told["decision"], answer.status, &told["limited_by"]),
            (&json!(decision), status, &limited_by),
            "{told}"
        );
        for (name, value) in told["answer"]["headers"].as_object().unwrap() {
            assert_eq!(answer.header(name), value.as_str(), "{name}: {told}");
        }
        assert!(told["answer"]["headers"]["ratelimit"].as_str().unwrap().contains("\"tenant\";r="), "{told}");
    }
    let told = explain("POST", with_tenant);
    assert_eq!(
        (policy(&told, "writes")["enough"].clone(), policy(&told, "trial")["enough"].clone()),
        (json!(false), json!(false))
    );
    let steps = told["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step.as_str().unwrap().starts_with("policy trial, by all, on trial: ")), "{told}");
}

#[test]
fn an_explanation_tells_how_many_run_and_all_upstreams_of_a_route() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK)
        .pool("canary", &[backend[0].address], NO_CHECK)
        .line("routes: [{path: /, upstreams: [{name: app, weight: 9}, {name: canary, weight: 1}]}, {path: /one, upstream: canary}]")
        .line("rate_limit: {max_concurrent: 1, reset_header: off}")
        .start();
    let explain = |path: &str| {
        let question = format!(r#"{{"address":"127.0.0.1","path":"{path}"}}"#);
        server.ask("POST", "/explain", &question).json()
    };
    let told = explain("/");
    assert_eq!(told["upstreams"], json!([{"name": "app", "weight": 9}, {"name": "canary", "weight": 1}]));
    assert_eq!((&told["upstream"], &told["max_concurrent"], &told["running"]), (&json!("app"), &json!(1), &json!(0)));
    assert_eq!(
        (told["answer"]["status"].clone(), explain("/one")["upstreams"].clone()),
        (Value::Null, json!([{"name": "canary", "weight": 1}]))
    );
    let mut held = server.client();
    held.send(&Request::new("GET", "/?hold=a").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend[0].held("a") > 0));
    let told = explain("/");
    assert_eq!(
        (&told["running"], &told["limited_by"], &told["decision"]),
        (&json!(1), &json!("max_concurrent"), &json!("limited"))
    );
    let refused = server.client().get("/").unwrap();
    assert_eq!((&told["answer"]["message"], refused.status), (&json!("Too many requests at once"), 429));
    for (name, value) in told["answer"]["headers"].as_object().unwrap() {
        assert_eq!(refused.header(name), value.as_str(), "{name}: {told}");
    }
    assert_eq!(
        (&told["answer"]["headers"]["retry-after"], told["answer"]["headers"].as_object().unwrap().len()),
        (&json!("1"), 5)
    );
    backend[0].release("a");
    assert_eq!(held.read("GET").unwrap().status, 200);
    // Nothing moved the shares: the first nine are not the canary's.
    assert_eq!(explain("/")["upstream"], "app");
}

#[test]
fn a_caller_learns_how_its_buckets_in_policies_stand() {
    let backend = Backend::scripted("a");
    let limits = format!("rate_limit: {{self_service: true, policies: {POLICIES}}}");
    let server = Instance::start(backend.address, &limits);
    let own =
        r#"{"client_id":"c","capacity":9,"rate_per_sec":1,"policies":{"writes":{"capacity":6,"rate_per_sec":0.001}}}"#;
    assert_eq!(server.admin("POST", "/clients", own).status, 201);
    let mut client = Client::connect(server.address);
    let mut standing = |headers: &[(&str, &str)]| {
        let told = call(&mut client, ("GET", "/.well-known/ratelimit"), headers).json()["policies"].clone();
        told.as_array()
            .unwrap()
            .iter()
            .map(|told| (told["name"].as_str().unwrap().to_owned(), told.clone()))
            .collect::<Vec<_>>()
    };
    let known = [("X-Api-Key", "c")];
    let names = |told: &[(String, Value)]| told.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let before = standing(&known);
    assert_eq!(names(&before), ["default", "writes", "place"], "neither what is shared nor what is on trial");
    assert_eq!(
        (&before[1].1["capacity"], &before[1].1["tokens"], &before[1].1["retry_after"]),
        (&json!(6), &json!(6.0), &json!(0))
    );
    for status in [200, 200, 200, 429] {
        assert_eq!(call(&mut Client::connect(server.address), ("POST", "/v1"), &known).status, status);
    }
    let after = standing(&known);
    assert!(
        after[1].1["tokens"].as_f64().unwrap() < 1.0 && after[1].1["retry_after"].as_u64().unwrap() > 1_900,
        "{after:?}"
    );
    let place = after[2].1["tokens"].as_f64().unwrap();
    assert!((6.0..6.1).contains(&place), "{after:?}: one more way to the address");
    assert_eq!(
        (standing(&[])[1].1["capacity"].clone(), standing(&[])[2].1["tokens"].as_f64().map(f64::floor)),
        (json!(4), Some(6.0))
    );
}

#[test]
fn a_reset_fills_the_buckets_in_policies_too_and_no_crash_undoes_it() {
    let backend = Backend::scripted("a");
    let limits = format!("rate_limit: {{persist_interval: 10ms, policies: {POLICIES}}}");
    let mut server = Instance::start(backend.address, &limits);
    for (name, own) in [("c", ""), ("d", r#","policies":{"writes":{"capacity":2,"rate_per_sec":0.000001}}"#)] {
        let body = format!(r#"{{"client_id":"{name}","capacity":99,"rate_per_sec":0.000001{own}}}"#);
        assert_eq!(server.admin("POST", "/clients", &body).status, 201);
    }
    let spend = |server: &Instance, name: &str| {
        let mut client = Client::connect(server.address);
        (0..4).filter(|_| call(&mut client, ("POST", "/v1"), &[("X-Api-Key", name)]).status == 200).count()
    };
    assert_eq!((spend(&server, "c"), spend(&server, "d")), (2, 1));
    let saved = || {
        let text = std::fs::read_to_string(server.file()).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("database: ")).unwrap();
        let file = rusqlite::Connection::open(path).unwrap();
        let spent = "SELECT count(*) FROM policy_buckets WHERE tokens = 0";
        file.query_row(spent, [], |row| row.get::<_, i64>(0)).unwrap() >= 3
    };
    assert!(eventually(PATIENCE, saved));
    for name in ["c", "d"] {
        assert_eq!(server.admin("POST", &format!("/clients/{name}/reset"), "").status, 200);
    }
    server.kill();
    server.start_again();
    assert_eq!((spend(&server, "c"), spend(&server, "d")), (2, 1));
    assert_eq!(server.admin("POST", "/clients/d/reset", "").status, 200);
    assert_eq!((spend(&server, "c"), spend(&server, "d")), (0, 1), "nobody else's");
}

#[test]
fn a_quota_in_a_policy_that_is_not_there_is_told_of_in_one_line_at_the_start_and_at_a_reload() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "");
    for name in ["c", "b", "d"] {
        let own = r#""policies":{"writes":{"capacity":2,"rate_per_sec":1}}"#;
        let body = format!(r#"{{"client_id":"{name}","capacity":9,"rate_per_sec":1,{own}}}"#);
        assert_eq!(server.admin("POST", "/clients", &body).status, 201);
    }
    let told = |server: &Instance| server.process.err.text().matches("3, such as b in writes; it is kept").count();
    let is_told = |server: &Instance| eventually(PATIENCE, || told(server) > 0) && told(server) == 1;
    assert_eq!(told(&server), 0);
    assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
    assert!(is_told(&server), "{}", server.process.err.text());
    server.stop();
    server.start_again();
    assert!(is_told(&server), "{}", server.process.err.text());
    let text = std::fs::read_to_string(server.file()).unwrap();
    let rest = text.strip_prefix(server.head()).unwrap();
    server.configure(&format!("{rest}\nrate_limit: {{policies: {POLICIES}}}"));
    assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
    assert!(eventually(PATIENCE, || server.process.err.text().contains("reloaded")));
    assert_eq!(told(&server), 1, "it is there now");
}
