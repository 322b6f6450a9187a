//! What requests cost in policies: debts, own quotas that are smaller than a cost, and when a refusal says to come
//! back.

use std::time::SystemTime;

use ::tollgate::clock::{Clock, SystemClock};

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::instance::Instance;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, dawdle, eventually};

fn call(client: &mut Client, target: &str, headers: &[(&str, &str)]) -> Response {
    client.call_again(&Request::new("GET", target).headers(headers)).unwrap()
}

fn retry_after(answer: &Response) -> u64 {
    assert_ours(answer, 429, "Rate limit exceeded");
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn a_debt_longer_than_the_bucket_takes_to_fill_survives_a_crash() {
    let backend = Backend::scripted("a");
    let limits = "rate_limit: {persist_interval: 10ms, policies: \
        [{name: gql, key: all, capacity: 100, rate_per_sec: 1, cost: {answer_header: X-Cost}}]}";
    let mut server = Instance::start(backend.address, limits);
    let ask = |server: &Instance, target: &str| call(&mut Client::connect(server.address), target, &[]);
    assert_eq!(ask(&server, "/?answer_header=X-Cost:1000").status, 200);
    let wait = retry_after(&ask(&server, "/"));
    assert!((880..=901).contains(&wait), "{wait}: nine hundred are owed");
    assert!(eventually(PATIENCE, || is_saved(&server)));
    server.kill();
    server.start_again();
    let after = retry_after(&ask(&server, "/"));
    assert!((wait.saturating_sub(60)..=wait).contains(&after), "{wait}, and {after} after a crash");
}

/// Whether the database has the one bucket of a policy.
fn is_saved(server: &Instance) -> bool {
    let text = std::fs::read_to_string(server.file()).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("database: ")).unwrap();
    let file = rusqlite::Connection::open(path).unwrap();
    file.query_row("SELECT count(*) FROM policy_buckets", [], |row| row.get::<_, i64>(0)).unwrap() == 1
}

#[test]
fn a_raised_quota_forgives_no_debt_at_a_crash() {
    let backend = Backend::scripted("a");
    let limits = "rate_limit: {persist_interval: 10s, policies: \
        [{name: gql, capacity: 10, rate_per_sec: 1, cost: {answer_header: X-Cost}}]}";
    let mut server = Instance::start(backend.address, limits);
    server.create("c", 100, 1.0);
    let key = [("X-Api-Key", "c")];
    let ask = |server: &Instance, target: &str| call(&mut Client::connect(server.address), target, &key);
    assert_eq!(ask(&server, "/?answer_header=X-Cost:1000").status, 200);
    let raised = r#"{"policies":{"gql":{"capacity":20,"rate_per_sec":1}}}"#;
    assert_eq!(server.admin("PATCH", "/clients/c", raised).status, 200);
    assert!(eventually(PATIENCE, || is_saved(&server)));
    server.kill();
    server.start_again();
    let wait = retry_after(&ask(&server, "/"));
    assert!((900..=1_000).contains(&wait), "{wait}: some 990 are owed");
}

#[test]
fn a_reload_that_raises_a_rate_shortens_what_is_owed() {
    let backend = Backend::scripted("a");
    let with = |rate: u32| {
        format!(
            "rate_limit: {{policies: [{{name: gql, key: all, capacity: 100, rate_per_sec: {rate}, cost: {{answer_header: X-Cost}}}}]}}"
        )
    };
    let server = Instance::start(backend.address, &with(1));
    let mut client = Client::connect(server.address);
    assert_eq!(call(&mut client, "/?answer_header=X-Cost:10000", &[]).status, 200);
    let wait = retry_after(&call(&mut client, "/", &[]));
    assert!((9_850..=9_901).contains(&wait), "{wait}");
    let text = std::fs::read_to_string(server.file()).unwrap();
    server.configure(&text.strip_prefix(server.head()).unwrap().replace(&with(1), &with(10)));
    assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
    let wait = retry_after(&call(&mut client, "/", &[]));
    assert!((930..=991).contains(&wait), "{wait}");
}

#[test]
fn a_reset_forgives_a_debt_and_the_bucket_earns_again() {
    let backend = Backend::scripted("a");
    let limits = "rate_limit: {policies: [{name: gql, capacity: 2, rate_per_sec: 5, cost: {answer_header: X-Cost}}]}";
    let server = Instance::start(backend.address, limits);
    server.create("c", 100_000, 1_000.0);
    let mut client = Client::connect(server.address);
    let mut ask = |target: &str| call(&mut client, target, &[("X-Api-Key", "c")]);
    assert_eq!(ask("/?answer_header=X-Cost:100000").status, 200);
    assert!(retry_after(&ask("/")) > 19_000);
    assert_eq!(server.admin("POST", "/clients/c/reset", "").status, 200);
    assert_eq!(ask("/?answer_header=X-Cost:2").status, 200);
    assert!(eventually(PATIENCE, || ask("/").status == 200), "what was owed has come back: {:?}", ask("/"));
}

#[test]
fn a_bucket_that_refused_says_when_to_come_back_whatever_it_holds() {
    let backend = [Backend::scripted("a")];
    let limits = "rate_limit: {policies: [{name: dear, capacity: 10, rate_per_sec: 0.01, cost: 6}]}";
    let server = Setup::app(&backend, NO_CHECK).line(limits).start();
    let mut client = server.client();
    assert_eq!(call(&mut client, "/", &[]).status, 200);
    let refused = call(&mut client, "/", &[]);
    let wait = retry_after(&refused);
    assert!((180..=200).contains(&wait), "two are missing: {refused:?}");
    // Four are left, which would be earned in 400 seconds.
    let state = refused.header("ratelimit").unwrap();
    assert!(state.ends_with(&format!("\"dear\";r=4;t={wait}")), "{state}");
}

#[test]
fn a_client_whose_own_bucket_is_smaller_than_a_cost_pays_what_it_can_hold() {
    let backend = [Backend::scripted("a")];
    let limits = "rate_limit: {policies: [{name: dear, capacity: 10, rate_per_sec: 1, cost: 6}]}";
    let server = Setup::app(&backend, NO_CHECK).line(limits).start();
    let own =
        r#"{"client_id":"c","capacity":100,"rate_per_sec":1,"policies":{"dear":{"capacity":2,"rate_per_sec":0.01}}}"#;
    assert_eq!(server.ask("POST", "/clients", own).status, 201);
    let mut client = server.client();
    assert_eq!(call(&mut client, "/", &[("X-Api-Key", "c")]).status, 200);
    let wait = retry_after(&call(&mut client, "/", &[("X-Api-Key", "c")]));
    assert!((180..=200).contains(&wait), "{wait}");
}

#[test]
fn the_moment_to_come_back_counts_from_the_decision_however_slowly_the_header_came() {
    let wall = || SystemClock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    for direct in ["direct: true", "direct: false"] {
        let backend = [Backend::scripted("a")];
        let limits = "rate_limit: {default: {capacity: 1, rate_per_sec: 0.01}}";
        let server = Setup::app(&backend, NO_CHECK).line(limits).line(direct).start();
        let mut client = server.client();
        assert_eq!(call(&mut client, "/", &[]).status, 200);
        let mut slow = server.client();
        slow.send(b"G").unwrap();
        dawdle(std::time::Duration::from_millis(1_200));
        let before = wall();
        slow.send(b"ET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let refused = slow.read("GET").unwrap();
        let reset: u64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!(reset as f64 >= before + retry_after(&refused) as f64, "{before}, {refused:?}");
    }
}
