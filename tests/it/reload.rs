//! Reloads: all of the file or nothing, and no request notices.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::checksum;
use crate::harness::client::{Client, Request};
use crate::harness::instance::Instance;
use crate::harness::load::Load;
use crate::harness::ports::free_address;
use crate::harness::{PATIENCE, eventually};

/// Nobody is limited, and nothing is written about requests.
const QUIET: &str = "rate_limit: {enabled: false}\naccess_log: {path: null}\n";

/// One upstream with these backends; `keys` are its other keys.
fn upstream(name: &str, backends: &[&Backend], keys: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|backend| format!("{{address: \"{}\"}}", backend.address)).collect();
    format!("  - {{name: {name}, backends: [{}], {keys}}}\n", backends.join(", "))
}

const CHECKED: &str = "health_check: {interval: 200ms, timeout: 1s, unhealthy_threshold: 1}";

/// Starts before `upstreams`, with `rest` as the rest of the file.
fn start(upstreams: &str, rest: &str) -> Instance {
    let nobody = free_address();
    let mut server = Instance::start(nobody, "");
    server.stop();
    server.configure(&format!("upstreams:\n{upstreams}{rest}"));
    server.start_again();
    server
}

/// Reloads, which must succeed, and tells what changed.
#[track_caller]
fn reload(server: &Instance) -> Vec<String> {
    let answer = server.admin("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let changed = answer.json()["changed"].as_array().unwrap().clone();
    changed.iter().map(|sentence| sentence.as_str().unwrap().to_owned()).collect()
}

/// Reloads, which must be refused, and tells the fields.
#[track_caller]
fn refused(server: &Instance) -> Vec<String> {
    let answer = server.admin("POST", "/config/reload", "");
    assert_eq!(answer.status, 422, "{}", answer.text());
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

/// The names of the backends that answer `count` requests for `path`.
fn answering(server: &Instance, path: &str, count: usize) -> BTreeSet<String> {
    let mut client = Client::connect(server.address);
    (0..count).map(|_| client.call_again(&Request::new("GET", path)).unwrap().backend().to_owned()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn backend_of(server: &Instance, upstream: usize, address: &str) -> Value {
    let all = server.admin("GET", "/upstreams", "").json();
    let backends = all["items"][upstream]["backends"].as_array().unwrap().clone();
    backends.into_iter().find(|backend| backend["address"] == address).unwrap_or(Value::Null)
}

#[test]
fn what_the_file_says_of_requests_counts_from_the_reload_on() {
    let (a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let server = start(&upstream("app", &[&a], CHECKED), QUIET);
    assert_eq!(reload(&server), [""; 0]);
    let first = |rest: &str| {
        server.configure(&format!("upstreams:\n{}{rest}", upstream("app", &[&a], CHECKED)));
        reload(&server)
    };
    let get = |headers: &[(&str, &str)]| {
        Client::connect(server.address).call(&Request::new("GET", "/x").headers(headers)).unwrap()
    };
    // Limits on requests.
    let big = [("X-Fill", "x"), ("Content-Length", "100")];
    assert_eq!(first(&format!("{QUIET}limits: {{max_body: 10}}")), ["limits changed"]);
    assert_eq!(get(&big).status, 413);
    // Identity.
    let rest = "rate_limit: {default: {capacity: 3, rate_per_sec: 0.001}}\nidentity: {unknown_api_key: reject}\naccess_log: {path: null}\n";
    assert_eq!(first(rest), ["identity changed", "rate_limit changed", "limits changed"]);
    assert_eq!(get(&[("X-Api-Key", "nobody's")]).status, 401);
    // The limiter that was off is on, with the default of the file; two of its tokens are left.
    let answer = get(&[]);
    assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, Some("3")));
    assert_eq!((get(&[]).status, get(&[]).status), (200, 429));
    // A larger capacity gives no tokens, and no headers are no headers.
    let rest = "rate_limit: {headers: false, default: {capacity: 5, rate_per_sec: 0.001}}\naccess_log: {path: null}\n";
    assert_eq!(first(rest), ["identity changed", "rate_limit changed"]);
    let answer = get(&[]);
    assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (429, None));
    assert_eq!(first(QUIET), ["rate_limit changed"]);
    assert_eq!(get(&[]).status, 200);
    // Upstreams and routes.
    let two = [upstream("app", &[&a], CHECKED), upstream("other", &[&b], CHECKED)].concat();
    server.configure(&format!(
        "upstreams:\n{two}routes: [{{path: /, upstream: app}}, {{path: /o, upstream: other}}]\n{QUIET}"
    ));
    assert_eq!(reload(&server), ["upstreams added: other", "routes changed"]);
    assert_eq!((answering(&server, "/", 4), answering(&server, "/o", 4)), (names(["a"]), names(["b"])));
    server.configure(&format!("upstreams:\n{}{QUIET}", upstream("other", &[&b, &a], CHECKED)));
    let told = reload(&server);
    assert_eq!(told, ["upstreams removed: app", "upstreams changed: other", "routes changed"]);
    assert_eq!(answering(&server, "/", 8), names(["a", "b"]));
    // Its timeouts.
    server.configure(&format!("upstreams:\n{}{QUIET}", upstream("other", &[&b, &a], "read_timeout: 100ms")));
    reload(&server);
    assert_eq!(Client::connect(server.address).get("/?delay_ms=3000").unwrap().status, 504);
    let metrics = server.admin("GET", "/metrics", "").text();
    assert!(metrics.contains("tollgate_config_reloads_total{result=\"success\"} 8"), "{metrics}");
}

#[test]
fn a_signal_reloads_too() {
    let (a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let server = start(&upstream("app", &[&a], CHECKED), QUIET);
    assert_eq!(answering(&server, "/", 4), names(["a"]));
    server.configure(&format!("upstreams:\n{}{QUIET}", upstream("app", &[&b], CHECKED)));
    server.process.signal("HUP");
    assert!(eventually(PATIENCE, || answering(&server, "/", 2) == names(["b"])), "{}", server.process.err.text());
    server.process.err.wait_for(&["configuration reloaded: upstreams changed: app"], PATIENCE);
    server.configure("upstreams: 5");
    server.process.signal("HUP");
    let refused = || server.process.err.text().contains("configuration not reloaded: upstreams: ");
    assert!(eventually(PATIENCE, refused), "{}", server.process.err.text());
    assert_eq!(answering(&server, "/", 2), names(["b"]));
    // Whoever asks again is told again, and not that it was so before.
    let told = || server.process.err.lines().iter().filter(|line| line.contains("not reloaded: upstreams: ")).count();
    for times in 2..4 {
        server.process.signal("HUP");
        assert!(eventually(PATIENCE, || told() == times), "{}", server.process.err.text());
    }
}

#[test]
fn a_file_with_problems_is_refused_whole_and_each_is_named() {
    let (a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let server = start(&upstream("app", &[&a], CHECKED), QUIET);
    let good = upstream("app", &[&b], CHECKED);
    for (file, expected) in [
        (
            format!("upstreams:\n{good}limits: {{max_body: much}}\nidentity: {{nonsense: 1}}\n"),
            vec!["identity.nonsense", "limits.max_body"],
        ),
        (format!("upstreams:\n{good}database: other.db\n{QUIET}"), vec!["database"]),
        (
            format!("upstreams:\n{good}pingora: {{threads: 63}}\nrate_limit: {{max_buckets: 7}}\n"),
            vec!["pingora.threads", "rate_limit.max_buckets"],
        ),
        (format!("upstreams:\n{good}access_log: {{path: /nowhere/at/all/access.log}}\n"), vec!["access_log.path"]),
    ] {
        // A key may not come twice, so the test's own lines go where the file has another.
        let head: String = server
            .head()
            .lines()
            .filter(|line| !file.contains(line.split(':').next().unwrap()))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(server.file(), format!("{head}{file}")).unwrap();
        assert_eq!(
            refused(&server).into_iter().collect::<BTreeSet<_>>(),
            expected.into_iter().map(str::to_owned).collect(),
            "{file}"
        );
        assert_eq!(answering(&server, "/", 2), names(["a"]), "nothing of it counts: {file}");
    }
    let elsewhere = free_address();
    let head = server.head().replace(&server.address.to_string(), &elsewhere.to_string());
    let head = head.replace(&server.admin.to_string(), &free_address().to_string());
    std::fs::write(server.file(), format!("{head}upstreams:\n{good}{QUIET}")).unwrap();
    assert_eq!(refused(&server), ["listeners[0].address", "admin.address"]);
    std::fs::remove_file(server.file()).unwrap();
    assert_eq!(refused(&server).len(), 1);
    assert_eq!(answering(&server, "/", 2), names(["a"]));
    let metrics = server.admin("GET", "/metrics", "").text();
    assert!(metrics.contains("tollgate_config_reloads_total{result=\"failure\"} 6"), "{metrics}");
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request_and_leave_no_memory_behind() {
    let backends = ["a", "b", "c", "d"].map(Backend::scripted);
    let [a, b, c, d] = &backends;
    let server = start(&upstream("app", &[a, b], CHECKED), QUIET);
    let loads = [true, false].map(|kept| Load::start(server.address, (8, kept), "/?bytes=500", &[]));
    let balances = ["round_robin", "random", "least_connections", "least_time", "hash, hash: {by: path}"];
    let (mut before, mut early) = (0, 0);
    for round in 0..100 {
        // Every round another pair, so that two of three backends come or go, and once in a while all of them.
        let pair = match round % 5 {
            0 => [a, b],
            1 => [b, c],
            2 => [c, d],
            3 => [a, b],
            _ => [d, a],
        };
        let keys = format!("{CHECKED}, balance: {}, retries: {}", balances[round % 5], round % 4);
        server.configure(&format!("upstreams:\n{}{QUIET}", upstream("app", &pair, &keys)));
        reload(&server);
        loads.iter().for_each(|load| load.wait_for(1));
        let requests = server.admin("GET", "/status", "").json()["requests"].as_u64().unwrap();
        assert!(requests >= before, "a counter went back from {before} to {requests}");
        before = requests;
        if round == 20 {
            early = resident(server.process.id());
        }
    }
    let late = resident(server.process.id());
    for load in loads {
        let outcome = load.stop();
        assert_eq!(outcome.failures, [""; 0]);
        assert_eq!(outcome.with(200), outcome.answered(), "{:?}", outcome.statuses);
    }
    assert!(late < early + (16 << 10), "{early} KiB after 20 reloads, {late} KiB after 100");
    let idle = || {
        backends
            .iter()
            .all(|backend| backend_of(&server, 0, &backend.address.to_string())["in_flight"].as_u64().unwrap_or(0) == 0)
    };
    assert!(eventually(PATIENCE, idle));
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_backend_that_stays_keeps_what_is_known_of_it() {
    let (a, b, mut dead) = (Backend::scripted("a"), Backend::scripted("b"), Backend::scripted("dead"));
    let never = "health_check: {interval: 1h, unhealthy_threshold: 1}";
    dead.kill();
    let server = start(&upstream("app", &[&a, &dead], never), QUIET);
    let (at_a, at_dead) = (a.address.to_string(), dead.address.to_string());
    let mut held = Client::connect(server.address);
    held.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || a.held("k") == 1));
    answering(&server, "/", 3);
    let drain = server.admin("PATCH", &format!("/upstreams/app/backends/{at_dead}"), r#"{"state":"drain","weight":7}"#);
    assert_eq!(drain.status, 200, "{}", drain.text());
    server.configure(&format!(
        "upstreams:\n{}{QUIET}",
        upstream("app", &[&b, &dead, &a], &format!("{never}, retries: 0"))
    ));
    assert_eq!(reload(&server), ["upstreams changed: app"]);
    let known = backend_of(&server, 0, &at_a);
    assert_eq!((&known["in_flight"], &known["requests"], &known["state"]), (&json!(1), &json!(4), &json!("up")));
    let known = backend_of(&server, 0, &at_dead);
    assert_eq!((&known["state"], &known["weight"]), (&json!("drain"), &json!(7)));
    assert_eq!(backend_of(&server, 0, &b.address.to_string())["state"], "up", "it was checked before it got requests");
    // It goes, and what it holds ends whole.
    server.configure(&format!("upstreams:\n{}{QUIET}", upstream("app", &[&b], never)));
    reload(&server);
    assert_eq!(answering(&server, "/", 6), names(["b"]));
    a.release("k");
    assert_eq!(held.read("GET").unwrap().backend(), "a");
}

#[test]
fn a_download_from_a_backend_that_goes_ends_whole() {
    let (a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let server = start(&upstream("app", &[&a], CHECKED), QUIET);
    let address = server.address;
    let download = std::thread::spawn(move || Client::connect(address).get("/?bytes=3000000&over_ms=2000").unwrap());
    assert!(eventually(PATIENCE, || a.count("GET /") == 1));
    server.configure(&format!("upstreams:\n{}{QUIET}", upstream("renamed", &[&b], CHECKED)));
    assert_eq!(reload(&server), ["upstreams added: renamed", "upstreams removed: app", "routes changed"]);
    assert_eq!(answering(&server, "/", 2), names(["b"]));
    let answer = download.join().unwrap();
    let sum = format!("{:x}", checksum::sum(&answer.body));
    assert_eq!((answer.body.len(), answer.header("x-sum")), (3_000_000, Some(sum.as_str())));
}

#[test]
fn logs_and_tokens_follow_the_file() {
    let backend = Backend::scripted("a");
    let dir = tempfile::TempDir::new().unwrap();
    let (old, new, tokens) = (dir.path().join("old.log"), dir.path().join("new.log"), dir.path().join("tokens"));
    let server = start(&upstream("app", &[&backend], CHECKED), &format!("access_log: {{path: {}}}\n", old.display()));
    answering(&server, "/old", 2);
    let lines = |file: &std::path::Path| std::fs::read_to_string(file).unwrap_or_default().lines().count();
    assert!(eventually(PATIENCE, || lines(&old) == 2));
    std::fs::write(&tokens, "0123456789abcdef\n").unwrap();
    let admin = format!("admin: {{address: \"{}\", token_file: {}}}\n", server.admin, tokens.display());
    let head: String =
        server.head().lines().filter(|line| !line.starts_with("admin")).map(|line| format!("{line}\n")).collect();
    let upstreams = upstream("app", &[&backend], CHECKED);
    let file = format!("{head}{admin}upstreams:\n{upstreams}access_log: {{path: {}, format: text}}\n", new.display());
    std::fs::write(server.file(), file).unwrap();
    assert_eq!(reload(&server), ["access_log changed", "admin tokens changed"]);
    answering(&server, "/new", 3);
    assert!(eventually(PATIENCE, || lines(&new) == 3), "{}", lines(&new));
    assert_eq!(lines(&old), 2);
    assert!(!std::fs::read_to_string(&new).unwrap().starts_with('{'));
    assert_eq!(server.admin("GET", "/status", "").status, 401);
    let token = [("Authorization", "Bearer 0123456789abcdef")];
    let asked = Client::connect(server.admin).call(&Request::new("GET", "/status").host("localhost").headers(&token));
    assert_eq!(asked.unwrap().status, 200);
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let (backend, address, admin) = (Backend::scripted("a"), free_address(), free_address());
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = crate::harness::server::command();
    command.current_dir(dir.path()).args(["run", "--listen", &address.to_string(), "--admin", &admin.to_string()]);
    command.args(["--backend", &backend.address.to_string()]);
    let process = crate::harness::process::Process::start(&mut command);
    assert!(eventually(Duration::from_secs(20), || Client::try_connect(address).is_ok()), "{}", process.err.text());
    let request = Request::new("POST", "/config/reload").host("localhost");
    let answer = Client::connect(admin).call(&request).unwrap();
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("without a configuration file"), "{}", answer.text());
}
