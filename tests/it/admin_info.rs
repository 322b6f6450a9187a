//! What the admin API tells of the server, and what it lets operators do to pools while traffic flows.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::backend::{Backend, count_all};
use crate::harness::client::{Client, Request, Response};
use crate::harness::instance::{Instance, ask};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, assert_ours, eventually};

#[track_caller]
fn admin(server: &Tollgate, method: &str, path: &str, body: &str) -> Response {
    ask(&mut Client::connect(server.admin), method, path, body).unwrap()
}

/// Changes a backend, and returns what is said of it.
#[track_caller]
fn change(server: &Tollgate, address: &str, body: &str) -> Value {
    let answer = admin(server, "PATCH", &format!("/upstreams/app/backends/{address}"), body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The names of the backends that answer the next `count` requests on one connection.
#[track_caller]
fn answers(server: &Tollgate, count: usize) -> String {
    let mut client = server.client();
    (0..count).map(|_| client.get("/").unwrap().backend().to_owned()).collect()
}

#[test]
fn a_drained_backend_gets_nothing_and_no_request_fails() {
    let backends = [Backend::scripted("a"), Backend::scripted("b")];
    let server = Setup::app(&backends, QUICK_TCP).start();
    let address = backends[1].address.to_string();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.client();
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(client.get("/").unwrap().status, 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let flows = || backends.iter().all(|backend| backend.count("GET /") > 20);
        assert!(eventually(PATIENCE, flows), "both get requests");
        // A request that is held by the backend is finished in spite of the drain.
        let (key, mut held) = held_by(&server, &backends, 1);
        assert_eq!(change(&server, &address, r#"{"state":"drain"}"#)["state"], "drain");
        let one_left = || pool(&server)["backends"][1]["in_flight"] == 1;
        assert!(eventually(PATIENCE, one_left), "all but the held one end: {}", pool(&server));
        let (before, others) = (backends[1].count("GET /"), backends[0].count("GET /"));
        assert!(eventually(PATIENCE, || backends[0].count("GET /") > others + 50), "traffic flows on");
        assert_eq!(backends[1].count("GET /"), before, "a drained backend got a request");
        backends[1].release(&key);
        assert_eq!(held.read("GET").unwrap().backend(), "b");
        assert_eq!(change(&server, &address, r#"{"state":"up"}"#)["state"], "up");
        assert!(eventually(PATIENCE, || backends[1].count("GET /") > before + 20), "it gets requests again");
        stop.store(true, Ordering::Relaxed);
        let sent: usize = traffic.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(sent <= count_all(&backends, "GET /"));
    });
}

/// A request that waits in the backend `index`, and the key that releases it there.
#[track_caller]
fn held_by(server: &Tollgate, backends: &[Backend], index: usize) -> (String, Client) {
    for attempt in 0..100 {
        let (key, mut client) = (format!("k{attempt}"), server.client());
        client.send(&Request::new("GET", &format!("/?hold={key}")).encode()).unwrap();
        assert!(eventually(PATIENCE, || backends.iter().any(|backend| backend.held(&key) == 1)));
        if backends[index].held(&key) == 1 {
            return (key, client);
        }
        backends.iter().for_each(|backend| backend.release(&key));
    }
    panic!("backend {index} gets none of a hundred requests");
}

/// Some fields of an object, as an array.
fn told(value: &Value, fields: &[&str]) -> Value {
    fields.iter().map(|field| value[*field].clone()).collect()
}

#[track_caller]
fn pool(server: &Tollgate) -> Value {
    let answer = admin(server, "GET", "/upstreams", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"][0].clone()
}

#[test]
fn weights_count_at_once_and_all_drained_is_503() {
    let backends = [Backend::scripted("a"), Backend::scripted("b")];
    let server = Setup::app(&backends, NO_CHECK).start();
    let [a, b] = [0, 1].map(|index| backends[index].address.to_string());
    let changed = change(&server, &a.replace(':', "%3A"), r#"{"weight":3}"#);
    assert_eq!((&changed["address"], &changed["weight"], &changed["state"]), (&json!(a), &json!(3), &json!("up")));
    assert_eq!(answers(&server, 8).matches('a').count(), 6);
    change(&server, &a, r#"{"state":"drain"}"#);
    assert_eq!(answers(&server, 3), "bbb");
    change(&server, &b, r#"{"state":"drain"}"#);
    assert_ours(&server.client().get("/").unwrap(), 503, "No healthy backend");
    change(&server, &a, r#"{"state":"up","weight":1}"#);
    assert_eq!(answers(&server, 3), "aaa");
    let told = pool(&server);
    assert_eq!((&told["name"], &told["balance"]), (&json!("app"), &json!("round_robin")));
    let states: Vec<_> = told["backends"].as_array().unwrap().iter().map(|backend| &backend["state"]).collect();
    assert_eq!(states, ["up", "drain"]);
}

#[test]
fn what_is_no_pool_backend_or_change_is_told() {
    let backends = [Backend::scripted("a")];
    let server = Setup::app(&backends, NO_CHECK).start();
    let address = backends[0].address;
    let right = format!("/upstreams/app/backends/{address}");
    for (path, body, status, message) in [
        (format!("/upstreams/ap/backends/{address}"), "{}", 404, "There is no upstream ap; there are app".to_owned()),
        (
            "/upstreams/app/backends/[::1]:80".to_owned(),
            "{}",
            404,
            format!("Upstream app has no backend [::1]:80; it has {address}"),
        ),
        (right.clone(), "{", 400, "The body is not JSON: EOF while parsing an object at line 1 column 1".to_owned()),
        (right.clone(), r#"{"weight":0}"#, 422, "weight: must be a whole number from 1 to 65535".to_owned()),
        (right.clone(), r#"{"state":"down"}"#, 422, r#"state: must be "drain" or "up""#.to_owned()),
    ] {
        let answer = admin(&server, "PATCH", &path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert_eq!(answer.json()["message"], message, "{path} {body}");
    }
    let wrong = admin(&server, "DELETE", &right, "");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("PATCH")), "{wrong:?}");
}

#[test]
fn the_last_check_of_a_backend_that_is_down_says_why() {
    let mut backends = [Backend::scripted("a"), Backend::scripted("b")];
    backends[1].kill();
    let server = Setup::app(&backends, QUICK_TCP).start();
    let is_down = || pool(&server)["backends"][1]["state"] == "down";
    assert!(eventually(PATIENCE, is_down), "{}", pool(&server));
    let pool = pool(&server);
    let [up, down] = [&pool["backends"][0], &pool["backends"][1]];
    assert_eq!((&up["state"], told(&up["last_check"], &["passed", "error"])), (&json!("up"), json!([true, null])));
    assert_eq!(down["last_check"]["passed"], false);
    assert!(down["last_check"]["error"].as_str().unwrap().contains("refused"), "{down}");
}

/// The rate headers of an answer of the proxy's, by their names in lower case.
fn rate_headers(response: &Response) -> Value {
    let names = [
        "ratelimit-policy",
        "ratelimit",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    ];
    names.iter().filter_map(|name| Some(((*name).to_owned(), json!(response.header(name)?)))).collect()
}

#[test]
fn an_explanation_is_what_the_next_request_gets_and_costs_nothing() {
    let backend = Backend::scripted("a");
    // A moment in the headers would be another one a second later.
    let lines = "identity: {trusted_proxies: [127.0.0.1]}\nrate_limit: {reset_header: seconds, max_retry_after: 2s}";
    let server = Instance::start(backend.address, lines);
    // So slow that nothing comes back while the test runs.
    server.create("user1", 2, 0.000_001);
    let question = r#"{"address":"127.0.0.1","headers":{"X-Api-Key":"user1","X-Forwarded-For":"203.0.113.7"}}"#;
    let explain = || {
        let answer = server.admin("POST", "/explain", question);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let headers = [("X-Api-Key", "user1"), ("X-Forwarded-For", "203.0.113.7")];
    let call = || Client::connect(server.address).call(&Request::new("GET", "/").headers(&headers)).unwrap();
    for (tokens, decision, status) in [(2, "allowed", 200), (1, "allowed", 200), (0, "limited", 429)] {
        let (first, told) = (explain(), explain());
        assert_eq!(first["tokens"], told["tokens"], "an explanation took a token");
        let whole = told["tokens"].as_f64().unwrap().floor();
        assert_eq!((whole, told["decision"].as_str()), (f64::from(tokens), Some(decision)), "{told}");
        let response = call();
        assert_eq!(response.status, status);
        let explained = told["answer"]["headers"].as_object().unwrap().iter();
        let explained: Value = explained.map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        assert_eq!(explained, rate_headers(&response), "{told}");
        let answered = if status == 200 { Value::Null } else { json!(status) };
        assert_eq!(told["answer"]["status"], answered);
    }
    let told = explain();
    for (field, value) in [
        ("trusted_proxy", "127.0.0.1"),
        ("client_ip", "203.0.113.7"),
        ("api_key_from", "x-api-key"),
        ("client_id", "user1"),
        ("matched_by", "api_key"),
        ("mode", "limit"),
    ] {
        assert_eq!(told[field], value, "{told}");
    }
    assert_eq!((&told["capacity"], &told["rate_per_sec"]), (&json!(2), &json!(0.000_001)));
    assert!(told["steps"].as_array().is_some_and(|steps| steps.len() >= 3), "{told}");
}

#[test]
fn a_refusal_is_explained_with_its_retry_after_also_without_rate_headers() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "rate_limit: {headers: false}");
    server.create("user1", 1, 0.01);
    let question = r#"{"address":"127.0.0.1","headers":{"X-Api-Key":"user1"}}"#;
    for status in [200, 429] {
        let told = server.admin("POST", "/explain", question).json();
        let explained = told["answer"]["headers"].as_object().unwrap();
        let names: Vec<_> = explained.keys().map(|name| name.to_lowercase()).collect();
        let headers = [("X-Api-Key", "user1")];
        let response = Client::connect(server.address).call(&Request::new("GET", "/").headers(&headers)).unwrap();
        assert_eq!(response.status, status);
        let sent = rate_headers(&response);
        let sent: Vec<_> = sent.as_object().unwrap().keys().collect();
        assert_eq!(names.iter().collect::<Vec<_>>(), sent, "{told}");
        assert_eq!(names, if status == 429 { vec!["retry-after"] } else { vec![] });
        for value in explained.values() {
            let (told, sent): (u64, u64) =
                (value.as_str().unwrap().parse().unwrap(), response.header("retry-after").unwrap().parse().unwrap());
            assert!(told.abs_diff(sent) <= 1 && sent >= 1, "{told} and {sent}, a moment later");
        }
    }
}

#[test]
fn where_nobody_is_limited_nothing_is_decided_and_nothing_counted() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "rate_limit: {enabled: false}");
    server.create("user1", 1, 0.01);
    let request = Request::new("GET", "/").headers(&[("X-Api-Key", "user1")]);
    for _ in 0..3 {
        assert_eq!(Client::connect(server.address).call(&request).unwrap().status, 200);
    }
    let client = server.admin("GET", "/clients/user1", "").json();
    assert_eq!(told(&client, &["allowed", "limited", "tokens"]), json!([0, 0, null]), "{client}");
    assert!(client["last_seen"].is_string(), "{client}");
    let status = server.admin("GET", "/status", "").json();
    assert_eq!(told(&status, &["allowed", "limited", "blocked", "unlimited"]), json!([0, 0, 0, 0]), "{status}");
}

#[test]
fn a_refusal_is_found_by_the_id_that_its_caller_was_given() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    server.create("user1", 1, 0.001);
    let headers = [("X-Api-Key", "user1")];
    let request = Request::new("GET", "/orders?secret=1").headers(&headers);
    let responses: Vec<_> = (0..3).map(|_| Client::connect(server.address).call(&request).unwrap()).collect();
    let blocked = server.admin("PATCH", "/clients/user1", r#"{"mode":"blocked"}"#);
    assert_eq!(blocked.status, 200, "{blocked:?}");
    let last = Client::connect(server.address).call(&request).unwrap();
    assert_eq!(responses.iter().chain([&last]).map(|r| r.status).collect::<Vec<_>>(), [200, 429, 429, 403]);
    let list = |query: &str| server.admin("GET", &format!("/decisions{query}"), "").json()["items"].clone();
    let all = list("?client_id=user1");
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|item| item["request_id"].as_str()).collect();
    assert_eq!(ids, [&last, &responses[2], &responses[1]].map(|response| response.header("x-request-id")));
    assert_eq!(told(&all[0], &["decision", "status", "retry_after"]), json!(["blocked", 403, null]));
    assert_eq!(told(&all[1], &["decision", "status"]), json!(["limited", 429]));
    assert_eq!(all[1]["retry_after"].to_string(), responses[2].header("retry-after").unwrap());
    assert_eq!(told(&all[1], &["path", "identity", "client_ip"]), json!(["/orders", "api_key", "127.0.0.1"]));
    assert_eq!(list("?limit=1").as_array().map(Vec::len), Some(1));
    assert_eq!(list("?client_id=user2"), json!([]));
}

#[test]
fn the_server_tells_how_it_is() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "rate_limit: {default: {capacity: 2, rate_per_sec: 0.001}}");
    server.create("user1", 5, 1.0);
    for status in [200, 200, 429] {
        assert_eq!(Client::connect(server.address).get("/").unwrap().status, status);
    }
    let status = || server.admin("GET", "/status", "").json();
    let settled = |told: Value| told["requests"] == 3 && told["connections"] == 0;
    assert!(eventually(PATIENCE, || settled(status())), "{}", status());
    let told = status();
    for (field, value) in [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("state", json!("ready")),
        ("listeners", json!([server.address.to_string()])),
        ("admin", json!(server.admin.to_string())),
        ("clients", json!(1)),
        ("allowed", json!(2)),
        ("limited", json!(1)),
        ("blocked", json!(0)),
        ("buckets", json!(1)),
        ("in_flight", json!(0)),
        ("connections", json!(0)),
        ("store_error", Value::Null),
        ("importing", Value::Null),
        ("fleet", json!({"state": "alone", "since": null})),
    ] {
        assert_eq!(told[field], value, "{field} in {told}");
    }
    let metrics = server.admin("GET", "/metrics", "");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(metrics.header("vary"), Some("Accept"));
    let accept = [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")];
    let host = server.admin.to_string();
    let asked = Request::new("GET", "/metrics").host(&host).headers(&accept);
    let open = Client::connect(server.admin).call(&asked).unwrap();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((open.status, open.header("content-type")), (200, Some(kind)));
    let end = open.text();
    assert!(end.ends_with("\n# EOF\n") && end.contains("# TYPE tollgate_requests counter\n"), "{end}");
    for line in [
        "tollgate_ratelimit_decisions_total{decision=\"limited\"} 1",
        "tollgate_requests_total{upstream=\"app\",status=\"200\"} 2",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line} in {}", metrics.text());
    }
    assert_eq!(server.admin("GET", "/healthz", "").json(), json!({"status": "ok"}));
    assert_eq!(server.admin("GET", "/readyz", "").json(), json!({"status": "ready"}));
    let described = server.admin("GET", "/openapi.json", "").text();
    assert!(described == include_str!("../../docs/openapi.json"), "{described}");
}

#[test]
fn a_draining_server_lives_but_is_not_ready() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    let mut held = Client::connect(server.address);
    held.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held("k") == 1));
    server.process.signal("TERM");
    let ready = || server.admin("GET", "/readyz", "");
    assert!(eventually(PATIENCE, || ready().status == 503), "{:?}", ready());
    assert_eq!(ready().json(), json!({"code": 503, "message": "Draining"}));
    assert_eq!(server.admin("GET", "/healthz", "").status, 200);
    assert_eq!(server.admin("GET", "/status", "").json()["state"], "draining");
    backend.release("k");
    assert_eq!(held.read("GET").unwrap().status, 200);
}
