//! Policies: further buckets that a request must pay into, all or none of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::daemon::Daemon;
use crate::harness::http2::{self, Http2};
use crate::harness::instance::Instance;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, eventually, now};

/// A server whose callers have much of their own, and these policies.
fn server(policies: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let limit = format!("rate_limit: {{default: {{capacity: 1000, rate_per_sec: 0.001}}, policies: [{policies}]}}");
    let identity = "identity: {trusted_proxies: [127.0.0.0/8]}";
    let server = Setup::app(&backend, NO_CHECK).line(&limit).line(identity).start();
    (backend, server)
}

fn call(client: &mut Client, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    client.call_again(&Request::new(method, target).headers(headers)).unwrap()
}

/// `r` of an item of `RateLimit`.
fn left(answer: &Response, name: &str) -> u64 {
    let limit = answer.header("ratelimit").unwrap_or_else(|| panic!("{answer:?}"));
    let item = limit.split(", ").find_map(|item| item.strip_prefix(&format!("\"{name}\";r="))).unwrap();
    item.split(';').next().unwrap().parse().unwrap()
}

fn metric(server: &Tollgate, line: &str) -> Option<u64> {
    let text = server.ask("GET", "/metrics", "").text();
    text.lines().find_map(|all| all.strip_prefix(line)?.trim().parse().ok())
}

#[test]
fn what_a_policy_is_for_pays_into_it_all_or_none() {
    let (_backend, server) = server(
        "{name: writes, match: {paths: [/v1], methods: [POST, PUT]}, capacity: 2, rate_per_sec: 0.05}, \
         {name: plan, match: {headers: {X-Plan: free}}, key: all, capacity: 9, rate_per_sec: 9, cost: 3}",
    );
    let mut client = server.client();
    let plain = call(&mut client, "GET", "/v1", &[]);
    assert_eq!(plain.header("ratelimit-policy"), Some("\"default\";q=1000;w=1000000"));
    for (method, target) in [("GET", "/v1"), ("POST", "/v10"), ("post", "/v1"), ("POST", "/")] {
        assert!(!call(&mut client, method, target, &[]).header("ratelimit").unwrap().contains("writes"));
    }
    let both = call(&mut client, "POST", "/v1/users?x=/", &[("X-Plan", "free")]);
    assert_eq!(
        both.header("ratelimit-policy"),
        Some("\"default\";q=1000;w=1000000, \"writes\";q=2;w=40, \"plan\";q=9;w=1")
    );
    assert_eq!((left(&both, "default"), left(&both, "writes"), left(&both, "plan")), (994, 1, 6));
    // The older headers are about the one that is nearest to its end.
    assert_eq!((both.header("x-ratelimit-limit"), both.header("x-ratelimit-remaining")), (Some("2"), Some("1")));
    // An escape is no way around.
    assert_eq!(left(&call(&mut client, "PUT", "/x/..//%761/users", &[]), "writes"), 0);
    let refused = call(&mut client, "POST", "/v1", &[("X-Plan", "free")]);
    assert_ours(&refused, 429, "Rate limit exceeded");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=20).contains(&wait), "{refused:?}");
    assert_eq!((left(&refused, "default"), left(&refused, "writes")), (993, 0), "it has paid nothing");
    let times: Vec<u64> = refused
        .header("ratelimit")
        .unwrap()
        .split(", ")
        .map(|item| item.split("t=").nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(times.len() == 3 && times[1] == wait && times.iter().all(|time| *time >= wait), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(left(&call(&mut client, "GET", "/v1", &[]), "default"), 992);

    let counted = |policy: &str, decision: &str| {
        metric(&server, &format!("tollgate_policy_decisions_total{{policy=\"{policy}\",decision=\"{decision}\"}}"))
    };
    assert_eq!((counted("writes", "allowed"), counted("writes", "limited")), (Some(2), Some(1)));
    assert_eq!((counted("plan", "allowed"), counted("plan", "limited")), (Some(1), Some(0)));
    assert_eq!(metric(&server, "tollgate_policy_buckets{policy=\"writes\"}"), Some(1));
    let decisions = server.ask("GET", "/decisions", "").json();
    assert_eq!(
        (&decisions["items"][0]["limited_by"], &decisions["items"][0]["status"]),
        (&"writes".into(), &429.into())
    );
    let lines = server.access_lines(9);
    let refusals: Vec<_> = lines.iter().filter(|line| line["status"] == 429).collect();
    assert_eq!(
        (refusals.len(), &refusals[0]["limited_by"], &refusals[0]["limit"]),
        (1, &"writes".into(), &"limited".into())
    );
    assert!(lines.iter().filter(|line| line["status"] == 200).all(|line| line.get("limited_by").is_none()));
}

#[test]
fn each_key_has_its_own_bucket() {
    let (_backend, server) = server(
        "{name: address, match: {paths: [/address]}, key: address, capacity: 1, rate_per_sec: 0.001}, \
         {name: all, match: {paths: [/all]}, key: all, capacity: 3, rate_per_sec: 0.001}, \
         {name: tenant, match: {paths: [/tenant]}, key: 'header:X-Tenant', capacity: 1, rate_per_sec: 0.001}, \
         {name: few, match: {paths: [/few]}, key: 'header:X-Tenant', capacity: 2, rate_per_sec: 0.001, max_buckets: 1}",
    );
    let mut client = server.client();
    let mut count = |target: &str, caller: &str, tenant: Option<&str>, times: usize| {
        let mut headers = vec![("X-Forwarded-For", caller)];
        headers.extend(tenant.map(|tenant| ("X-Tenant", tenant)));
        (0..times).filter(|_| call(&mut client, "GET", target, &headers).status == 200).count()
    };
    let (one, other) = ("192.0.2.1", "192.0.2.2");
    assert_eq!([one, other, one].map(|caller| count("/address", caller, None, 3)), [1, 1, 0]);
    assert_eq!([one, other].map(|caller| count("/all", caller, None, 2)), [2, 1]);
    assert_eq!([Some("a"), Some("b"), Some("a"), None].map(|tenant| count("/tenant", one, tenant, 2)), [1, 1, 0, 2]);
    // Two of the first, and two for all others together.
    assert_eq!(["a", "b", "c", "a"].map(|tenant| count("/few", one, Some(tenant), 3)), [2, 2, 0, 0]);
    assert_eq!(metric(&server, "tollgate_policy_buckets{policy=\"few\"}"), Some(1));
    assert_eq!(metric(&server, "tollgate_policy_overflow_total{policy=\"few\"}"), Some(6));
}

#[test]
fn one_on_trial_refuses_nobody_and_tells_who_it_would_have() {
    let (_backend, server) = server(
        "{name: trial, capacity: 2, rate_per_sec: 0.001, mode: shadow}, \
         {name: real, match: {paths: [/real]}, capacity: 1, rate_per_sec: 0.001}",
    );
    let mut client = server.client();
    for _ in 0..4 {
        let answer = call(&mut client, "GET", "/", &[]);
        assert_eq!((answer.status, answer.header("ratelimit").unwrap().contains("trial")), (200, false));
    }
    assert_eq!([200, 429].map(|_| call(&mut client, "GET", "/real", &[]).status), [200, 429]);
    let lines = server.access_lines(6);
    let shadow: Vec<_> = lines.iter().map(|line| line.get("shadow").and_then(|name| name.as_str())).collect();
    assert_eq!(shadow, [None, None, Some("trial"), Some("trial"), Some("trial"), None]);
    let counted = |decision: &str| {
        metric(&server, &format!("tollgate_policy_decisions_total{{policy=\"trial\",decision=\"{decision}\"}}"))
    };
    assert_eq!((counted("allowed"), counted("limited")), (Some(2), Some(3)));
}

#[test]
fn who_pays_nothing_of_his_own_pays_into_no_policy() {
    let backend = [Backend::scripted("a")];
    let limit = "rate_limit: {policies: [{name: one, key: all, capacity: 1, rate_per_sec: 0.001, cost: {answer_header: X-Cost}}]}";
    let routes = "routes: [{path: /, upstream: app}, {path: /free, upstream: app, limit: false}]";
    let server = Setup::app(&backend, NO_CHECK).line(limit).line(routes).start();
    let client = r#"{"client_id":"boss","capacity":1,"rate_per_sec":1,"mode":"unlimited"}"#;
    assert_eq!(server.ask("POST", "/clients", client).status, 201);
    let mut client = server.client();
    for (target, headers) in
        [("/free?answer_header=X-Cost:5", &[][..]), ("/?answer_header=x-cost:5", &[("X-Api-Key", "boss")])]
    {
        for _ in 0..3 {
            let answer = call(&mut client, "GET", target, headers);
            assert_eq!((answer.status, answer.header("x-cost"), answer.header("ratelimit")), (200, None, None));
        }
    }
    assert_eq!(left(&call(&mut client, "GET", "/", &[]), "one"), 1);
}

/// Of each protocol a way to ask for a target; the status, `RateLimit` and whether `X-Cost` came.
fn costly(mut ask: impl FnMut(&str) -> (u16, Option<String>, bool)) {
    let r = |limit: &Option<String>| {
        limit.as_ref().unwrap().split("\"gql\";r=").nth(1).unwrap().split(';').next().unwrap().to_owned()
    };
    let (status, limit, told) = ask("/?answer_header=X-Cost:30");
    assert_eq!((status, r(&limit).as_str(), told), (200, "70", false));
    for senseless in ["-1", "1.5", "x", "4294967297", "1000000001"] {
        let (status, limit, told) = ask(&format!("/?answer_header=x-cost:{senseless}"));
        assert_eq!((status, r(&limit).as_str(), told), (200, "70", false), "{senseless}");
    }
    assert_eq!(r(&ask("/").1), "70", "it says nothing");
    assert_eq!(r(&ask("/?answer_header=X-Cost:0").1), "70");
    assert_eq!(r(&ask("/?status=500&answer_header=X-Cost:120").1), "0", "fifty are owed");
    let (status, limit, _) = ask("/?answer_header=X-Cost:1");
    let wait: u64 =
        limit.as_ref().unwrap().split("\"gql\";").nth(1).unwrap().split("t=").nth(1).unwrap().parse().unwrap();
    assert!(status == 429 && (50_000..=51_000).contains(&wait), "{limit:?}");
}

#[test]
fn what_an_answer_says_it_costs_is_taken_afterwards_over_every_way() {
    for (direct, h2) in [(true, false), (true, true), (false, false), (false, true)] {
        let backend = [Backend::scripted("a")];
        let limit = "rate_limit: {policies: [{name: gql, key: all, capacity: 100, rate_per_sec: 0.001, cost: {answer_header: x-COST}}]}";
        let yaml = Setup::app(&backend, NO_CHECK).line(limit).line(&format!("direct: {direct}")).yaml();
        let server = Tollgate::from_yaml(&yaml.replacen("}]", ", h2c: true}]", 1));
        if h2 {
            let mut client = Http2::plain(server.address);
            costly(|target| {
                let answer = client.get(target).unwrap();
                let limit = answer.header("ratelimit").map(str::to_owned);
                (answer.status, limit, answer.header("x-cost").is_some())
            });
        } else {
            let mut client = server.client();
            costly(|target| {
                let answer = call(&mut client, "GET", target, &[]);
                (answer.status, answer.header("ratelimit").map(str::to_owned), answer.header("x-cost").is_some())
            });
        }
        assert_eq!(metric(&server, "tollgate_policy_cost_errors_total{policy=\"gql\"}"), Some(5), "{direct} {h2}");
    }
}

/// Asks over so many connections at once, of HTTP/1.1 or HTTP/2, so often each; how many were answered 200.
fn flood(address: SocketAddr, (connections, times, h2): (usize, usize, bool)) -> u64 {
    let allowed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut statuses = Vec::new();
                if h2 {
                    let mut client = Http2::plain(address);
                    statuses.extend((0..times).map(|_| client.call(http2::request("GET", "/v1"), &[]).unwrap().status));
                } else {
                    let mut client = Client::connect(address);
                    statuses.extend((0..times).map(|_| call(&mut client, "GET", "/v1", &[]).status));
                }
                assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
                let some = statuses.iter().filter(|status| **status == 200).count();
                allowed.fetch_add(some as u64, Ordering::SeqCst);
            });
        }
    });
    allowed.into_inner()
}

/// Two policies of which the second is tighter, and a third that is out of reach.
const TWO: &str = "[{name: wide, key: all, capacity: 700, rate_per_sec: 0.000001}, \
    {name: tight, match: {paths: [/v1]}, key: address, capacity: 500, rate_per_sec: 0.000001}, \
    {name: trial, capacity: 100, rate_per_sec: 0.000001, mode: shadow}]";

#[test]
fn two_hundred_and_fifty_six_connections_get_what_there_is_and_no_more() {
    for (connections, h2) in [(256, false), (64, true)] {
        let backend = [Backend::scripted("a")];
        let limit = format!("rate_limit: {{default: {{capacity: 100000, rate_per_sec: 1}}, policies: {TWO}}}");
        let yaml = Setup::app(&backend, NO_CHECK).line(&limit).yaml();
        let server = Tollgate::from_yaml(&yaml.replacen("}]", ", h2c: true}]", 1));
        assert_eq!(flood(server.address, (connections, 1280 / connections, h2)), 500, "h2 {h2}");
        // What the tight one refused has cost the wide one nothing.
        let answer = call(&mut server.client(), "GET", "/", &[]);
        assert_eq!(left(&answer, "wide"), 700 - 500 - 1);
        let counted = |policy: &str, decision: &str| {
            metric(&server, &format!("tollgate_policy_decisions_total{{policy=\"{policy}\",decision=\"{decision}\"}}"))
        };
        assert_eq!((counted("tight", "allowed"), counted("tight", "limited")), (Some(500), Some(1280 - 500)));
        assert_eq!((counted("trial", "allowed"), counted("trial", "limited")), (Some(100), Some(401)));
    }
}

#[test]
fn what_was_spent_survives_a_reload_a_crash_and_a_stop() {
    let backend = Backend::scripted("a");
    let with = |capacity: u64, more: &str| {
        format!(
            "rate_limit: {{persist_interval: 10ms, default: {{capacity: 100000, rate_per_sec: 1}}, policies: [{{name: p, key: all, capacity: {capacity}, rate_per_sec: 0.000001}}{more}]}}"
        )
    };
    let mut server = Instance::start(backend.address, &with(500, ""));
    assert_eq!(flood(server.address, (16, 10, false)), 160);
    let head = std::fs::read_to_string(server.file()).unwrap();
    let rest = head.strip_prefix(server.head()).unwrap().replace(&with(500, ""), "");
    let left_now = |server: &Instance| left(&call(&mut Client::connect(server.address), "GET", "/", &[]), "p");
    assert_eq!(left_now(&server), 339);
    // Another quota, while requests run: what was spent stays.
    for (capacity, more) in [(200, ""), (900, ", {name: q, key: all, capacity: 1000, rate_per_sec: 0.000001}")] {
        server.configure(&format!("{rest}{}", with(capacity, more)));
        let allowed = std::thread::scope(|scope| {
            let flood = scope.spawn(|| flood(server.address, (8, 5, false)));
            assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
            flood.join().unwrap()
        });
        assert_eq!(allowed, 40);
    }
    assert!(left_now(&server) < 160, "200 were the most once");
    let before = left_now(&server);
    // A crash loses what was taken since the last save at most, and that was saved.
    let saved = || {
        let database = saved_tokens(&server);
        database == Some(before as i64)
    };
    assert!(eventually(PATIENCE, saved), "{:?} of {before}", saved_tokens(&server));
    server.kill();
    server.start_again();
    assert_eq!(left_now(&server), before - 1);
    server.stop();
    server.start_again();
    assert_eq!(left_now(&server), before - 2);
    // Without the policy its buckets go, and it begins anew.
    let none =
        with(1, "").replace("policies: [{name: p, key: all, capacity: 1, rate_per_sec: 0.000001}]", "policies: []");
    server.configure(&format!("{rest}{none}"));
    assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
    assert!(eventually(PATIENCE, || saved_tokens(&server).is_none()));
    server.configure(&format!("{rest}{}", with(50, "")));
    assert_eq!(server.admin("POST", "/config/reload", "").status, 200);
    assert_eq!(left_now(&server), 49);
}

/// The tokens of the policy's bucket as they are saved; none when there is no such bucket.
fn saved_tokens(server: &Instance) -> Option<i64> {
    let text = std::fs::read_to_string(server.file()).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("database: ")).unwrap();
    let file = rusqlite::Connection::open(path).unwrap();
    let tokens = "SELECT tokens FROM policy_buckets ORDER BY tokens LIMIT 1";
    file.query_row(tokens, [], |row| row.get(0)).ok()
}

#[test]
fn upgrades_under_load_give_no_token_twice() {
    const CAPACITY: u64 = 2_000;
    let backend = Backend::scripted("a");
    let limit = format!(
        "rate_limit: {{default: {{capacity: 1000000, rate_per_sec: 1}}, \
         policies: [{{name: p, key: all, capacity: {CAPACITY}, rate_per_sec: 0.000001}}]}}"
    );
    let daemon = Daemon::start(backend.address, &limit);
    let address = daemon.address;
    let allowed = std::thread::scope(|scope| {
        let ask = move || {
            let (mut allowed, mut refused) = (0_u64, 0);
            let end = now() + PATIENCE;
            // Until it has been refused for a while, so that nothing was left.
            while refused < 20 && now() < end {
                match Client::try_connect(address).and_then(|mut client| client.get("/")) {
                    Ok(answer) if answer.status == 200 => allowed += 1,
                    Ok(answer) => refused += u64::from(answer.status == 429),
                    Err(error) => panic!("{error}"),
                }
            }
            allowed
        };
        let asks: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for _ in 0..3 {
            daemon.upgrade_by_hand();
        }
        asks.into_iter().map(|ask| ask.join().unwrap()).sum::<u64>()
    });
    // One that is given in the very moment of a hand-over may be counted twice, for each of those who asked.
    assert!((CAPACITY - 3 * 8..=CAPACITY).contains(&allowed), "{allowed} of {CAPACITY}");
    daemon.upgrade_by_hand();
    assert_eq!(Client::connect(daemon.address).get("/").unwrap().status, 429, "it came by memory");
}

#[test]
fn a_client_may_have_a_quota_of_its_own_in_a_policy() {
    let (_backend, server) = server("{name: writes, capacity: 2, rate_per_sec: 0.001}");
    let ask = |method: &str, target: &str, body: &str| server.ask(method, target, body);
    let made = ask(
        "POST",
        "/clients",
        r#"{"client_id":"c","capacity":100,"rate_per_sec":1,"policies":{"writes":{"capacity":5,"rate_per_sec":0.001}}}"#,
    );
    assert_eq!((made.status, &made.json()["policies"]["writes"]["capacity"]), (201, &5.into()), "{made:?}");
    let mut client = server.client();
    let mut count = |times: usize| {
        (0..times).filter(|_| call(&mut client, "GET", "/", &[("X-Api-Key", "c")]).status == 200).count()
    };
    assert_eq!(count(3), 3);
    // The policy's from now on: two of them at most, and both were left.
    assert_eq!(ask("PATCH", "/clients/c", r#"{"policies":{"writes":null}}"#).status, 200);
    assert_eq!(count(3), 2);
    let own = r#"{"policies":{"writes":{"capacity":9,"rate_per_sec":0.5},"gone":{"capacity":1,"rate_per_sec":1}}}"#;
    assert_eq!(ask("PATCH", "/clients/c", own).status, 200);
    assert_eq!(ask("PATCH", "/clients/c", r#"{"note":"x"}"#).json()["policies"]["gone"]["capacity"], 1, "it is kept");
    assert!(ask("PATCH", "/clients/c", r#"{"policies":null}"#).json().get("policies").is_none());
    for wrong in
        [r#"{"policies":[]}"#, r#"{"policies":{"a b":{}}}"#, r#"{"policies":{"a":{"capacity":0,"rate_per_sec":1}}}"#]
    {
        assert_eq!(ask("PATCH", "/clients/c", wrong).status, 422, "{wrong}");
    }
    // A merge patch changes a part where there is a whole, and a hundred is the most, however they come.
    assert_eq!(ask("PATCH", "/clients/c", r#"{"policies":{"a":{"capacity":5}}}"#).status, 422);
    let whole = r#"{"policies":{"a":{"capacity":5,"rate_per_sec":1}}}"#;
    assert_eq!(ask("PATCH", "/clients/c", whole).status, 200);
    let part = ask("PATCH", "/clients/c", r#"{"policies":{"a":{"capacity":6}}}"#).json();
    assert_eq!(part["policies"]["a"], serde_json::json!({"capacity": 6, "rate_per_sec": 1}));
    let many: Vec<_> = (0..100).map(|number| format!(r#""p{number}":{{"capacity":1,"rate_per_sec":1}}"#)).collect();
    let refused = ask("PATCH", "/clients/c", &format!(r#"{{"policies":{{{}}}}}"#, many.join(",")));
    assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &"policies".into()), "{refused:?}");
}

#[test]
fn a_raised_quota_in_a_policy_gives_nothing_at_a_crash() {
    let backend = Backend::scripted("a");
    let limits = "rate_limit: {persist_interval: 10s, policies: [{name: writes, capacity: 2, rate_per_sec: 0.001}]}";
    let mut server = Instance::start(backend.address, limits);
    let own = |capacity: u32| format!(r#"{{"policies":{{"writes":{{"capacity":{capacity},"rate_per_sec":0.001}}}}}}"#);
    server.create("c", 100, 1.0);
    assert_eq!(server.admin("PATCH", "/clients/c", &own(3)).status, 200);
    let ask = |server: &Instance| {
        let answer = call(&mut Client::connect(server.address), "GET", "/", &[("X-Api-Key", "c")]);
        left(&answer, "writes")
    };
    // The two that it had, and none for the raise.
    assert_eq!(ask(&server), 1);
    assert_eq!(server.admin("PATCH", "/clients/c", &own(50)).status, 200);
    server.kill();
    server.start_again();
    assert_eq!(ask(&server), 0);
}
