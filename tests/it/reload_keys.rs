//! Reloads, key by key: what changes at once, what is kept, and what is refused.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Body, Client, Request};
use crate::harness::instance::ask;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_HTTP, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, assert_ours, eventually};

/// Writes the file anew and has it read: what has changed.
#[track_caller]
fn reload(server: &Tollgate, setup: &Setup) -> Vec<String> {
    server.rewrite(&setup.yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.json()["changed"].clone()).unwrap()
}

/// Writes the file anew and has it read: why it is refused, by key.
#[track_caller]
fn refused(server: &Tollgate, setup: &Setup) -> Vec<(String, String)> {
    server.rewrite(&setup.yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!(422)), "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| (text(&error["field"]), text(&error["message"]))).collect()
}

/// The names of the backends that answer `count` requests over one connection.
#[track_caller]
fn answering(server: &Tollgate, count: usize) -> String {
    let mut client = server.client();
    (0..count).map(|_| client.get("/").unwrap().backend().to_owned()).collect()
}

/// What the admin API says of a backend of pool `app`; nothing when it has none there.
fn backend(server: &Tollgate, backend: &Backend) -> Value {
    let pools = server.ask("GET", "/upstreams", "").json();
    let pool = pools["items"].as_array().unwrap().iter().find(|pool| pool["name"] == "app").unwrap().clone();
    let address = backend.address.to_string();
    let found = pool["backends"].as_array().unwrap().iter().find(|backend| backend["address"] == address);
    found.cloned().unwrap_or(Value::Null)
}

#[test]
fn flags_still_count_before_the_file() {
    let backends = ["a", "b", "c"].map(Backend::scripted);
    let flag = backends[2].address.to_string();
    let setup = |count: usize| Setup::app(&backends[..count], NO_CHECK);
    let server = Tollgate::start(&setup(1).yaml(), &["run", "-c", "tollgate.yaml", "--backend", &flag], &[], false);
    assert_eq!(reload(&server, &setup(2).line("limits: {max_body: 5}")), ["limits changed"]);
    assert_eq!(answering(&server, 2), "cc");
}

#[test]
fn a_file_with_mistakes_is_refused_with_all_of_them() {
    let backends = three_scripted();
    let good = Setup::app(&backends[..1], NO_CHECK);
    let server = good.start();
    let bad = Setup::app(&backends[1..], "retries: 99").line("limits: {max_body: none}").line("colour: blue");
    let told = refused(&server, &bad);
    let fields: Vec<_> = told.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["upstreams[0].retries", "limits.max_body", "colour"]);
    assert!(told.iter().all(|(_, message)| message.contains("(line ")), "{told:?}");
    server.process.signal("HUP");
    server.wait_for_event(&["configuration not reloaded: 3 problems", "the old one stays in force"], PATIENCE);
    for (field, _) in &told {
        server.wait_for_event(&["configuration not reloaded: ", field], PATIENCE);
    }
    assert_eq!(answering(&server, 3), "aaa");
    std::fs::remove_file(server.path("tollgate.yaml")).unwrap();
    let answer = server.ask("POST", "/config/reload", "");
    assert!(answer.status == 422 && answer.text().contains("there is no such file"), "{answer:?}");
    assert_eq!(reload(&server, &Setup::app(&backends[..2], NO_CHECK)).len(), 1, "the next one is as good as any");
    let metrics = server.ask("GET", "/metrics", "").text();
    assert!(metrics.contains("tollgate_config_reloads_total{result=\"failure\"} 3"), "{metrics}");
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_else_of_the_file_counts() {
    let backends = three_scripted();
    let server = Setup::app(&backends[..1], NO_CHECK).start();
    let fixed = [
        ("pingora: {threads: 3}", "pingora.threads"),
        ("pingora: {work_stealing: true}", "pingora.work_stealing"),
        ("pingora: {listener_tasks_per_fd: 3}", "pingora.listener_tasks_per_fd"),
        ("pingora: {upstream_keepalive_pool_size: 3}", "pingora.upstream_keepalive_pool_size"),
        ("pingora: {grace_period_seconds: 3}", "pingora.grace_period_seconds"),
        ("rate_limit: {enabled: false, max_buckets: 3}", "rate_limit.max_buckets"),
        ("rate_limit: {enabled: false, refill_interval: 3s}", "rate_limit.refill_interval"),
        ("rate_limit: {enabled: false, persist_interval: 3s}", "rate_limit.persist_interval"),
    ];
    let told = |key: &str| {
        (key.to_owned(), "cannot change while tollgate runs; restart it, or run `tollgate upgrade`".to_owned())
    };
    for (line, key) in fixed {
        let other = Setup::app(&backends[1..2], NO_CHECK).line(line).line("limits: {max_body: 1}");
        assert_eq!(refused(&server, &other), [told(key)], "{line}");
    }
    let all = Setup::app(&backends[1..2], NO_CHECK)
        .line("pingora: {threads: 3, work_stealing: true}")
        .line("rate_limit: {enabled: false, max_buckets: 3}");
    assert_eq!(
        refused(&server, &all),
        ["pingora.threads", "pingora.work_stealing", "rate_limit.max_buckets"].map(told)
    );
    let more = Setup::app(&backends[1..2], NO_CHECK)
        .yaml()
        .replace("listeners: [", "listeners: [{address: \"127.0.0.2:9\"}, ");
    server.rewrite(&more);
    assert!(server.ask("POST", "/config/reload", "").text().contains(r#""field":"listeners[0].address""#));
    let moved = Setup::app(&backends[1..2], NO_CHECK).yaml().replace("$LISTEN", &free_address().to_string());
    server.rewrite(&moved);
    assert!(server.ask("POST", "/config/reload", "").text().contains(r#""field":"listeners[0].address""#));
    assert_eq!(answering(&server, 3), "aaa");
    let request = Request::new("POST", "/").body(Body::Length(b"more than one"));
    assert_eq!(server.client().call(&request).unwrap().status, 200);
}

#[test]
fn the_admin_address_and_the_database_need_a_restart() {
    let backends = three_scripted();
    let lines = |setup: Setup, admin: &str, database: &str| {
        setup.line(&format!("admin: {{address: \"{admin}\"}}")).line(&format!("database: $DIR/{database}.db"))
    };
    let server = lines(Setup::app(&backends[..1], NO_CHECK), "$ADMIN", "one").start();
    let other = lines(Setup::app(&backends[1..2], NO_CHECK), &free_address().to_string(), "two");
    let keys: Vec<_> = refused(&server, &other).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["admin.address", "database"]);
    assert!(!server.path("two.db").exists());
    assert_eq!(answering(&server, 2), "aa");
}

#[test]
fn limits_routes_and_identity_count_from_the_next_request() {
    let backends = three_scripted();
    let pools =
        || Setup::default().pool("app", &[backends[0].address], NO_CHECK).pool("api", &[backends[1].address], NO_CHECK);
    let server = pools().line("routes: [{path: /, upstream: app}]").start();
    let mut kept = server.client();
    assert_eq!(kept.get("/api").unwrap().backend(), "a");
    let next = pools()
        .line("routes: [{path: /, upstream: app}, {path: /api, upstream: api}]")
        .line("limits: {max_body: 5, keepalive_timeout: 300ms}")
        .line("identity: {api_key_header: x-other, unknown_api_key: reject}")
        .line("rate_limit: {default: {capacity: 100, rate_per_sec: 1}}");
    assert_eq!(reload(&server, &next), ["routes changed", "identity changed", "rate_limit changed", "limits changed"]);
    // Also over a connection that was open already.
    assert_eq!(kept.get("/api").unwrap().backend(), "b");
    let large = Request::new("POST", "/").body(Body::Length(b"six by"));
    assert_eq!(server.client().call(&large).unwrap().status, 413);
    for (header, status) in [("x-other", 401), ("x-api-key", 200)] {
        let headers = [(header, "nobody")];
        assert_eq!(server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap().status, status);
    }
    let mut idle = server.client();
    idle.get("/").unwrap();
    idle.wait_closed(PATIENCE).unwrap();
}

#[test]
fn rate_limits_change_and_nobody_gets_his_tokens_back() {
    let backends = [Backend::scripted("a")];
    let limit = |limit: &str| Setup::app(&backends, NO_CHECK).line(&format!("rate_limit: {{{limit}}}"));
    let server = limit("default: {capacity: 5, rate_per_sec: 0.001}").start();
    let status = || server.client().get("/").unwrap();
    let statuses = |count: usize| (0..count).map(|_| status().status).collect::<Vec<_>>();
    assert_eq!(statuses(4), [200; 4]);
    let changed = reload(&server, &limit("default: {capacity: 3, rate_per_sec: 0.001}"));
    assert_eq!(changed, ["rate_limit changed"]);
    let last = status();
    assert_eq!((last.status, last.header("x-ratelimit-limit")), (200, Some("3")));
    assert_eq!(statuses(2), [429; 2]);
    // A higher capacity fills nobody's bucket.
    reload(&server, &limit("default: {capacity: 1000, rate_per_sec: 0.001}"));
    assert_eq!(statuses(2), [429; 2]);
    let off = limit("enabled: false, default: {capacity: 1000, rate_per_sec: 0.001}");
    assert_eq!(reload(&server, &off), ["rate_limit changed"]);
    let free = status();
    assert_eq!((free.status, free.header("x-ratelimit-limit")), (200, None));
    assert_eq!(statuses(20), [200; 20], "while nobody is limited, nobody is counted");
    reload(&server, &limit("default: {capacity: 1000, rate_per_sec: 0.001}, headers: false"));
    let refused = status();
    assert_eq!((refused.status, refused.header("x-ratelimit-limit")), (429, None));
}

#[test]
fn a_client_has_tokens_while_anybody_is_limited_and_keeps_its_debt() {
    let backends = [Backend::scripted("a")];
    let limited = |enabled: bool| {
        let line = format!("rate_limit: {{enabled: {enabled}}}");
        Setup::app(&backends, NO_CHECK).line(&line)
    };
    let server = limited(true).start();
    let body = r#"{"client_id":"user1","capacity":10,"rate_per_sec":0.000001}"#;
    assert_eq!(server.ask("POST", "/clients", body).status, 201);
    let headers = [("X-Api-Key", "user1")];
    let call = || server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap().status;
    let tokens = || server.ask("GET", "/clients/user1", "").json()["tokens"].as_f64().map(f64::floor);
    assert!((0..4).all(|_| call() == 200) && tokens() == Some(6.0), "{:?}", tokens());
    reload(&server, &limited(false));
    assert!((0..20).all(|_| call() == 200) && tokens().is_none(), "{:?}", tokens());
    reload(&server, &limited(true));
    assert_eq!(tokens(), Some(6.0), "it goes on from where it was");
    // What fills a bucket fills it also while nobody asks it.
    reload(&server, &limited(false));
    assert_eq!(server.ask("POST", "/clients/user1/reset", "").status, 200);
    reload(&server, &limited(true));
    assert_eq!(tokens(), Some(10.0));
}

#[test]
fn those_who_ask_at_once_wait_for_each_other() {
    let backends = three_scripted();
    let server = Setup::app(&backends[..1], NO_CHECK).start();
    server.rewrite(&Setup::app(&backends[1..2], QUICK_TCP).yaml());
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| server.ask("POST", "/config/reload", ""))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let changes = answers.iter().filter(|answer| answer.json()["changed"] != json!([])).count();
    assert_eq!(changes, 1, "the first one changes it, the others find it so: {answers:?}");
    assert_eq!(answering(&server, 2), "bb");
}

#[test]
fn a_pools_settings_change() {
    let backends = three_scripted();
    let mut reordered = Setup::app(&backends[..2], NO_CHECK);
    let server = reordered.start();
    assert_eq!(answering(&server, 4), "abab");
    let [a, b] = [backends[0].address, backends[1].address];
    let weighted = |weight: u32, keys: &str| Setup::default().weighted_pool("app", &[(a, weight), (b, 1)], keys);
    let slow = "read_timeout: 200ms, retries: 0, health_check: {type: none}";
    let changed = reload(&server, &weighted(3, slow));
    assert_eq!(changed, ["upstreams changed: app"]);
    assert_eq!(answering(&server, 8), "aabaaaba");
    assert_ours(&server.client().get("/?fault=hang").unwrap(), 504, "Gateway timeout");
    reordered = weighted(3, &format!("balance: least_connections, {NO_CHECK}"));
    assert_eq!(reload(&server, &reordered), ["upstreams changed: app"]);
    assert_eq!(answering(&server, 4).matches('a').count(), 2, "nothing is in flight, so ties take turns");
    assert_eq!(reload(&server, &weighted(3, QUICK_TCP)), ["upstreams changed: app"]);
    assert!(eventually(PATIENCE, || backend(&server, &backends[0])["last_check"].is_object()), "nobody checks");
    let checks = || backends[0].control("checks").as_array().unwrap().len();
    reload(&server, &weighted(3, QUICK_HTTP));
    assert!(eventually(PATIENCE, || checks() > 1), "it is still checked the old way");
    reload(&server, &weighted(3, NO_CHECK));
    backends[0].control("health=500");
    assert_eq!(answering(&server, 8).matches('a').count(), 6);
}

#[test]
fn the_access_log_changes_its_place_and_form_and_loses_no_line() {
    let backends = [Backend::scripted("a")];
    let log = |keys: &str| Setup::app(&backends, NO_CHECK).line(&format!("access_log: {{{keys}}}"));
    let mut server = log("path: $DIR/one.log").start();
    let lines = |server: &Tollgate, name: &str| {
        let text = std::fs::read_to_string(server.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let get = |server: &Tollgate, count: usize| {
        let mut client = server.client();
        (0..count).for_each(|_| assert_eq!(client.get("/").unwrap().status, 200));
    };
    get(&server, 10);
    assert!(eventually(PATIENCE, || lines(&server, "one.log").len() == 10));
    assert_eq!(reload(&server, &log("path: $DIR/two.log, format: text")), ["access_log changed"]);
    get(&server, 5);
    assert!(eventually(PATIENCE, || lines(&server, "two.log").len() == 5));
    assert!(lines(&server, "two.log")[0].starts_with("127.0.0.1 "));
    assert_eq!(reload(&server, &log("path: $DIR/three.log, fields: [{status: code}]")), ["access_log changed"]);
    get(&server, 2);
    assert!(eventually(PATIENCE, || lines(&server, "three.log") == [r#"{"code":200}"#; 2]));
    assert_eq!(reload(&server, &log("path: $DIR/three.log, fields: [user_agent]")), ["access_log changed"]);
    get(&server, 1);
    assert!(eventually(PATIENCE, || lines(&server, "three.log")
        .get(2)
        .is_some_and(|line| line.starts_with(r#"{"user_agent":"#))));
    assert_eq!(reload(&server, &log("path: $DIR/three.log, sample: 0")), ["access_log changed"]);
    get(&server, 5);
    // A log that cannot be opened is refused, and with it the rest of the file.
    let told = refused(&server, &log("path: $DIR/no/such/dir.log").line("limits: {max_body: 1}"));
    assert_eq!(told[0].0, "access_log.path");
    reload(&server, &log("path: null"));
    get(&server, 3);
    assert_eq!(reload(&server, &log("path: $DIR/one.log")), ["access_log changed"]);
    get(&server, 2);
    // A line is written behind its answer, to the file that there is then; so they are waited for.
    assert!(eventually(PATIENCE, || lines(&server, "one.log").len() == 12));
    // It is the new file that is opened again.
    std::fs::rename(server.path("one.log"), server.path("old.log")).unwrap();
    server.process.signal("USR1");
    assert!(eventually(PATIENCE, || server.path("one.log").exists()), "not opened again");
    get(&server, 1);
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    let counts = ["old.log", "one.log", "two.log", "three.log"].map(|name| lines(&server, name).len());
    assert_eq!(counts, [12, 1, 5, 3]);
}

#[test]
fn other_admin_tokens_count_at_once() {
    let backends = [Backend::scripted("a")];
    let setup = Setup::app(&backends, NO_CHECK).line("admin: {address: \"$ADMIN\", token_file: $DIR/tokens}").yaml();
    let [old, new] = ["old-token-0123456789", "new-token-0123456789"];
    let keep = |path: &Path, token: &str| std::fs::write(path, format!("ops {token}\n")).unwrap();
    // The file of tokens must be there before the server is, so it gets its path first.
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    keep(&tokens, old);
    let server = Tollgate::from_yaml(&setup.replace("$DIR/tokens", tokens.to_str().unwrap()));
    let call = |token: &str, method: &str, target: &str| {
        let bearer = format!("Bearer {token}");
        let request = Request::new(method, target).host("localhost");
        let headers = [("Authorization", bearer.as_str())];
        let answer = Client::connect(server.admin).call(&request.headers(&headers)).unwrap();
        (answer.status, answer.text())
    };
    assert_eq!((call(old, "GET", "/status").0, call(new, "GET", "/status").0), (200, 401));
    keep(&tokens, "short");
    let (status, text) = call(old, "POST", "/config/reload");
    assert!(status == 422 && text.contains("admin.token_file") && !text.contains("short"), "{text}");
    assert_eq!(call(old, "GET", "/status").0, 200, "the old ones stay");
    keep(&tokens, new);
    assert_eq!(call(old, "POST", "/config/reload"), (200, r#"{"changed":["admin tokens changed"]}"#.to_owned()));
    assert_eq!((call(old, "GET", "/status").0, call(new, "GET", "/status").0), (401, 200));
    assert_eq!(ask(&mut Client::connect(server.admin), "POST", "/config/reload", "").unwrap().status, 401);
}

#[test]
fn a_viewer_looks_and_changes_nothing() {
    let backends = [Backend::scripted("a")];
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let [ops, eve] = ["ops-token-0123456789", "eve-token-0123456789"];
    std::fs::write(&tokens, format!("ops {ops}\n")).unwrap();
    let line = format!("admin: {{address: \"$ADMIN\", token_file: {}}}", tokens.display());
    let server = Tollgate::from_yaml(&Setup::app(&backends, NO_CHECK).line(&line).yaml());
    let call = |token: &str, method: &str, target: &str, body: &'static str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let request =
            Request::new(method, target).host("localhost").headers(&headers).body(Body::Length(body.as_bytes()));
        let answer = Client::connect(server.admin).call(&request).unwrap();
        (answer.status, answer.text())
    };
    let client = r#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#;
    assert_eq!(call(eve, "GET", "/clients", "").0, 401);
    std::fs::write(&tokens, format!("viewer eve {eve}\nops {ops}\n")).unwrap();
    assert_eq!(call(ops, "POST", "/config/reload", ""), (200, r#"{"changed":["admin tokens changed"]}"#.to_owned()));
    assert_eq!(call(ops, "POST", "/clients", client).0, 201);
    assert!(call(eve, "GET", "/status", "").1.contains(r#""caller":{"name":"eve","viewer":true}"#));
    assert!(call(ops, "GET", "/status", "").1.contains(r#""caller":{"name":"ops","viewer":false}"#));
    for path in ["/clients", "/clients/a", "/clients/a/history", "/decisions", "/upstreams", "/metrics"] {
        assert_eq!(call(eve, "GET", path, "").0, 200, "{path}");
    }
    assert_eq!(call(eve, "POST", "/explain", r#"{"address":"203.0.113.7"}"#).0, 200);
    let (status, text) = call(eve, "POST", "/clients/a/simulate", r#"{"capacity":1,"rate_per_sec":1}"#);
    assert!(
        status == 404 && text.contains("recorded"),
        "nothing is recorded of it, which only a handler knows: {text}"
    );
    for (method, path, body) in [
        ("POST", "/clients", r#"{"client_id":"b","capacity":1,"rate_per_sec":1}"#),
        ("PATCH", "/clients/a", r#"{"capacity":9}"#),
        ("PUT", "/clients/a/simulate", r#"{"capacity":9,"rate_per_sec":1}"#),
        ("POST", "/clients/a/reset", ""),
        ("POST", "/clients/a/grant", r#"{"tokens":9}"#),
        ("DELETE", "/clients/a", ""),
        ("POST", "/config/reload", ""),
    ] {
        let (status, text) = call(eve, method, path, body);
        assert!(
            status == 403 && text.contains("viewer's, which may read, explain and simulate"),
            "{method} {path}: {text}"
        );
    }
    let (status, left) = call(ops, "GET", "/clients/a", "");
    assert!(status == 200 && left.contains(r#""version":1"#) && left.contains(r#""capacity":1,"#), "{left}");
    std::fs::write(&tokens, format!("viewer {eve}\nops {ops}\n")).unwrap();
    let (status, text) = call(ops, "POST", "/config/reload", "");
    assert!(
        status == 422 && text.contains("viewer NAME TOKEN; `viewer` alone is no name") && !text.contains(eve),
        "{text}"
    );
}

#[test]
fn a_backend_that_is_down_stays_down_and_one_that_drains_drains() {
    let mut backends = three_scripted();
    let mut setup = Setup::app(&backends, QUICK_TCP);
    let server = setup.start();
    backends[0].kill();
    assert!(eventually(PATIENCE, || backend(&server, &backends[0])["state"] == "down"));
    let target = format!("/upstreams/app/backends/{}", backends[1].address);
    assert_eq!(server.ask("PATCH", &target, r#"{"state":"drain","weight":7}"#).status, 200);
    // So seldom that no check can be what is seen here.
    setup = Setup::app(&backends, "health_check: {type: tcp, interval: 1h}, retries: 1");
    assert_eq!(reload(&server, &setup), ["upstreams changed: app"]);
    assert_eq!(backend(&server, &backends[0])["state"], "down");
    let drained = backend(&server, &backends[1]);
    assert_eq!((&drained["state"], &drained["weight"]), (&json!("drain"), &json!(7)));
    assert_eq!(answering(&server, 6), "cccccc");
    // The file's own weight counts from when it changes; the drain goes on.
    let weighted = [(backends[1].address, 3), (backends[2].address, 1)];
    reload(&server, &Setup::default().weighted_pool("app", &weighted, "health_check: {type: tcp, interval: 1h}"));
    let drained = backend(&server, &backends[1]);
    assert_eq!((&drained["state"], &drained["weight"]), (&json!("drain"), &json!(3)));
    assert_eq!(server.ask("PATCH", &target, r#"{"state":"up"}"#).status, 200);
    assert_eq!(answering(&server, 8).matches('b').count(), 6);
}

#[test]
fn a_name_stays_resolved_and_a_new_one_is_resolved_before_it_counts() {
    let backends = ["a", "b"].map(Backend::scripted_everywhere);
    let pool = |backends: &[Backend], keys: &str| {
        let names: Vec<_> =
            backends.iter().map(|backend| format!("{{address: \"localhost:{}\"}}", backend.address.port())).collect();
        let pool = format!("  - {{name: app, backends: [{}], {keys}}}\n", names.join(", "));
        Setup::default().yaml().replace("upstreams:\n", &format!("upstreams:\n{pool}"))
    };
    let server = Tollgate::from_yaml(&pool(&backends[..1], NO_CHECK));
    let call = |yaml: &str| {
        server.rewrite(yaml);
        server.ask("POST", "/config/reload", "").status
    };
    assert_eq!(call(&pool(&backends, QUICK_TCP)), 200);
    let (mut seen, mut client) = (Vec::new(), server.client());
    for _ in 0..8 {
        let answer = client.get("/").unwrap();
        assert_eq!(answer.status, 200);
        seen.push(answer.backend().to_owned());
    }
    assert!(seen.contains(&"a".to_owned()) && seen.contains(&"b".to_owned()), "{seen:?}");
    assert_eq!(call(&pool(&backends[1..], QUICK_TCP)), 200);
    assert_eq!(answering(&server, 3), "bbb");
}

#[test]
fn while_it_drains_the_configuration_stays() {
    let backends = three_scripted();
    let server = Setup::app(&backends[..1], NO_CHECK).start();
    let mut client = server.client();
    client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || backends[0].held("k") == 1));
    server.process.signal("TERM");
    // The event comes a moment before the state.
    assert!(eventually(PATIENCE, || server.ask("GET", "/readyz", "").status == 503));
    server.rewrite(&Setup::app(&backends[1..], NO_CHECK).yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert!(answer.status == 503 && answer.text().contains("the server is draining"), "{answer:?}");
    server.process.signal("HUP");
    server.wait_for_event(&["SIGHUP: not reloading"], PATIENCE);
    backends[0].release("k");
    assert_eq!(client.read("GET").unwrap().status, 200);
}
