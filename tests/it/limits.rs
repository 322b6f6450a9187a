//! Every caller has its own token bucket, and an answer that tells it when to come back.
//!
//! Callers are told apart by `X-Forwarded-For`, with the loopback addresses as trusted proxies.

use std::time::Duration;

use ::tollgate::clock::{Clock, SystemClock};

use crate::harness::PATIENCE;
use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request, Response};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{assert_ours, dawdle, now};

/// A server whose callers have this quota each.
fn server(capacity: u32, rate: f64) -> ([Backend; 1], Tollgate) {
    with(&format!("rate_limit: {{default: {{capacity: {capacity}, rate_per_sec: {rate}}}}}"), "")
}

fn with(rate_limit: &str, identity: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let identity = format!("identity: {{trusted_proxies: [127.0.0.0/8]{identity}}}");
    let server = Setup::app(&backend, NO_CHECK).line(rate_limit).line(&identity).start();
    (backend, server)
}

fn ask(client: &mut Client, caller: &str) -> Response {
    client.call_again(&Request::new("GET", "/").headers(&[("X-Forwarded-For", caller)])).unwrap()
}

#[test]
fn a_burst_gets_the_capacity_and_what_refills_meanwhile() {
    let (_backend, server) = server(100, 10.0);
    let begin = now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let burst =
            |_| scope.spawn(|| (0..10).map(|_| ask(&mut server.client(), "192.0.2.1").status).collect::<Vec<_>>());
        let bursts: Vec<_> = (0..30).map(burst).collect();
        bursts.into_iter().flat_map(|burst| burst.join().unwrap()).collect()
    });
    let refilled = (begin.elapsed().as_secs_f64() * 10.0).ceil() as usize;
    let allowed = statuses.iter().filter(|status| **status == 200).count();
    assert!((100..=100 + refilled).contains(&allowed), "{allowed} allowed, {refilled} refilled at most");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 300 - allowed);
}

#[test]
fn callers_do_not_touch_each_other() {
    let (_backend, server) = server(5, 0.001);
    let mut client = server.client();
    let count = |client: &mut Client, caller: &str| (0..20).filter(|_| ask(client, caller).status == 200).count();
    for caller in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        assert_eq!(count(&mut client, caller), 5, "{caller}");
    }
    for same in ["192.0.2.1:4711", "::ffff:192.0.2.1", "2001:db8:0:1:ffff::9", "1.1.1.1, 192.0.2.2", "x, 192.0.2.2"] {
        assert_eq!(count(&mut client, same), 0, "{same}");
    }
}

#[test]
fn in_the_long_run_a_caller_gets_its_rate() {
    const SECONDS: f64 = 60.0;
    let (_backend, server) = server(20, 20.0);
    let (mut client, begin) = (server.client(), now());
    let (mut sent, mut allowed) = (0, 0);
    while begin.elapsed().as_secs_f64() < SECONDS {
        allowed += u32::from(ask(&mut client, "192.0.2.1").status == 200);
        sent += 1;
        // One and a half times the rate.
        let next = begin + Duration::from_secs_f64(f64::from(sent) / 30.0);
        dawdle(next.saturating_duration_since(now()));
    }
    let expected = 20.0 + 20.0 * begin.elapsed().as_secs_f64();
    let ratio = f64::from(allowed) / expected;
    assert!((0.99..=1.01).contains(&ratio), "{allowed} of {sent} allowed, {expected} expected");
}

#[test]
fn retry_after_is_true_and_a_refusal_costs_nothing() {
    let (_backend, server) = server(3, 0.5);
    let mut client = server.client();
    (0..3).for_each(|_| assert_eq!(ask(&mut client, "192.0.2.1").status, 200));
    let refused = ask(&mut client, "192.0.2.1");
    let since = now();
    assert_ours(&refused, 429, "Rate limit exceeded");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // Who asks again and again in the meantime pays nothing for it.
    while now() < since + Duration::from_millis(500) {
        assert_eq!(ask(&mut client, "192.0.2.1").status, 429);
    }
    dawdle((since + Duration::from_secs(wait)).saturating_duration_since(now()));
    assert_eq!(ask(&mut client, "192.0.2.1").status, 200);
}

#[test]
fn answers_tell_how_the_bucket_stands() {
    let (_backend, server) = server(3, 0.001);
    let mut client = server.client();
    let mut headers = || {
        let answer = ask(&mut client, "192.0.2.1");
        ["ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining"]
            .map(|name| answer.head.all(name).join("|"))
    };
    let expect = |remaining: u32, reset: u32| {
        let rate_limit = format!("\"default\";r={remaining};t={reset}");
        ["\"default\";q=3;w=3000".to_owned(), rate_limit, "3".to_owned(), remaining.to_string()]
    };
    assert_eq!(headers(), expect(2, 2000));
    assert_eq!(headers(), expect(1, 1000));
    assert_eq!(headers()[3], "0");
    assert_eq!((headers()[0].as_str(), headers()[3].as_str()), ("\"default\";q=3;w=3000", "0"), "on refusals too");
}

/// Seconds since the Unix epoch.
fn epoch() -> u64 {
    SystemClock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn number(answer: &Response, name: &str) -> u64 {
    answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}")).parse().unwrap()
}

#[test]
fn the_reset_is_the_moment_of_retry_after_or_of_a_full_bucket() {
    let (_backend, server) = server(2, 0.01);
    let mut client = server.client();
    for (status, seconds) in [(200, 100), (200, 200), (429, 100)] {
        let before = epoch();
        let answer = ask(&mut client, "192.0.2.1");
        let after = epoch();
        assert_eq!(answer.status, status);
        let wait = if status == 429 { number(&answer, "retry-after") } else { seconds };
        assert!((seconds - 5..=seconds).contains(&wait), "{answer:?}");
        // Rounded up, and the bucket refills while the test runs.
        let told = number(&answer, "x-ratelimit-reset");
        assert!((before + wait - 5..=after + wait + 1).contains(&told), "{before} {after} {answer:?}");
        if status == 429 {
            assert!((before + wait..=after + wait + 1).contains(&told), "{before} {after} {answer:?}");
        }
    }
}

#[test]
fn a_reload_changes_what_answers_say_of_time() {
    let backend = [Backend::scripted("a")];
    let setup = |more: &str| {
        let quota = "default: {capacity: 1, rate_per_sec: 0.01}";
        Setup::app(&backend, NO_CHECK)
            .line(&format!("rate_limit: {{{quota}{more}}}"))
            .line("identity: {trusted_proxies: [127.0.0.0/8]}")
    };
    let server = setup(", reset_header: seconds").start();
    let mut client = server.client();
    assert_eq!(number(&ask(&mut client, "192.0.2.1"), "x-ratelimit-reset"), 100);
    let refused = ask(&mut client, "192.0.2.1");
    assert_eq!(number(&refused, "x-ratelimit-reset"), number(&refused, "retry-after"));
    server.rewrite(&setup(", reset_header: off, max_retry_after: 2s").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").json()["changed"], serde_json::json!(["rate_limit changed"]));
    let refused = ask(&mut client, "192.0.2.1");
    assert_eq!((refused.status, refused.header("x-ratelimit-reset")), (429, None));
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), (Some("2"), Some("\"default\";r=0;t=2")));
    let decisions = server.ask("GET", "/decisions?limit=1", "").json();
    assert_eq!(decisions["items"][0]["retry_after"], 2, "{decisions}");
    assert_eq!(ask(&mut client, "192.0.2.2").header("x-ratelimit-limit"), Some("1"), "the others stay");
}

#[test]
fn what_the_backend_says_under_these_names_is_replaced() {
    let (_backend, server) = server(3, 0.001);
    let answer = server.client().get("/?answer_header=X-RateLimit-Limit:999").unwrap();
    assert_eq!(answer.head.all("x-ratelimit-limit"), ["3"]);
}

#[test]
fn the_connection_is_usable_after_a_refusal_and_its_body_is_never_a_request() {
    let (backend, server) = server(1, 0.001);
    let mut client = server.client();
    assert_eq!(ask(&mut client, "127.0.0.1").status, 200);
    let seen = backend[0].seen().len();
    let body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    for sent in [Body::Length(&body), Body::Chunked(&body, 999)] {
        let refused = client.call_again(&Request::new("POST", "/").body(sent)).unwrap();
        assert_ours(&refused, 429, "Rate limit exceeded");
    }
    assert_eq!(ask(&mut client, "192.0.2.9").status, 200, "another caller on the same connection");
    assert_eq!(backend[0].seen().len(), seen + 1);
}

#[test]
fn a_refusal_of_four_megabytes_is_read_each_time() {
    let (backend, server) = server(1, 0.001);
    assert_eq!(ask(&mut server.client(), "127.0.0.1").status, 200);
    let body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4 << 20 >> 5);
    for _ in 0..20 {
        let mut client = server.client();
        // A client that sends everything before it reads.
        let _ = client.send(&Request::new("POST", "/").body(Body::Length(&body)).encode());
        assert_eq!(client.read("POST").unwrap().status, 429);
    }
    assert_eq!(backend[0].count("GET /smuggled"), 0);
}

#[test]
fn a_slow_header_buys_no_second_burst() {
    let (_backend, server) = server(50, 50.0);
    let mut slow: Vec<_> = (0..50).map(|_| server.client()).collect();
    slow.iter_mut().for_each(|client| client.send(b"G").unwrap());
    dawdle(Duration::from_millis(1500));
    let begin = now();
    let fresh = (0..50).filter(|_| ask(&mut server.client(), "127.0.0.1").status == 200).count();
    let late = slow.iter_mut().filter_map(|client| {
        client.send(b"ET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        Some(client.read("GET").unwrap().status).filter(|status| *status == 200)
    });
    let allowed = fresh + late.count();
    let bound = 50 + (begin.elapsed().as_secs_f64() * 50.0).ceil() as usize;
    assert!(allowed <= bound, "{allowed} allowed, {bound} is the bound");
}

#[test]
fn switched_off_nobody_is_limited_and_no_header_says_so() {
    let (_backend, server) = with("rate_limit: {enabled: false, default: {capacity: 1, rate_per_sec: 0.001}}", "");
    let mut client = server.client();
    for _ in 0..20 {
        let answer = ask(&mut client, "192.0.2.1");
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("x-ratelimit-limit")), (200, None, None));
    }
}

#[test]
fn without_headers_the_limit_holds_all_the_same() {
    let (_backend, server) = with("rate_limit: {headers: false, default: {capacity: 1, rate_per_sec: 0.001}}", "");
    let mut client = server.client();
    assert_eq!(ask(&mut client, "192.0.2.1").header("ratelimit"), None);
    let refused = ask(&mut client, "192.0.2.1");
    assert_eq!((refused.status, refused.header("ratelimit"), refused.header("retry-after")), (429, None, Some("1000")));
}

#[test]
fn keys_are_checked_and_shown_nowhere() {
    const KEY: &str = "SECRET-4711";
    let identity = "identity: {unknown_api_key: reject}";
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, NO_CHECK).line(identity).line("rate_limit: {headers: true}").yaml();
    let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("TOLLGATE_LOG", "trace")], false);
    let mut client = server.client();
    for name in ["X-Api-Key", "Authorization"] {
        let value = if name == "Authorization" { format!("Bearer {KEY}") } else { KEY.to_owned() };
        let answer = client.call_again(&Request::new("GET", "/").headers(&[(name, value.as_str())])).unwrap();
        assert_ours(&answer, 401, "Unknown API key");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let two = [("X-Api-Key", KEY), ("X-Api-Key", "another")];
    let answer = client.call_again(&Request::new("GET", "/").headers(&two)).unwrap();
    assert_ours(&answer, 400, "Bad request");
    assert_eq!(client.get("/").unwrap().status, 200, "without a key");
    let lines = server.access_lines(4);
    assert_eq!(lines[2]["error"], "two different API keys");
    server.wait_for_event(&["pingora"], PATIENCE);
    let written = format!("{lines:?}{}", server.process.err.text());
    assert!(!written.contains(KEY), "{written}");
}

#[test]
fn the_access_line_says_who_and_how_much_is_left() {
    let (_backend, server) = server(2, 0.001);
    let mut client = server.client();
    (0..3).for_each(|_| drop(ask(&mut client, "192.0.2.1")));
    let lines = server.access_lines(3);
    let limits: Vec<_> = lines.iter().map(|line| line["limit"].as_str().unwrap()).collect();
    assert_eq!(limits, ["allowed", "allowed", "limited"]);
    for (line, tokens) in lines.iter().zip([1.0, 0.0, 0.0]) {
        assert_eq!((&line["client_ip"], &line["identity"]), (&"192.0.2.1".into(), &"anonymous".into()), "{line}");
        assert!(line["client_id"].is_null() && (line["tokens"].as_f64().unwrap() - tokens).abs() < 0.1, "{line}");
    }
    assert_eq!((&lines[2]["upstream"], &lines[2]["attempts"]), (&serde_json::Value::Null, &0.into()));
}

#[test]
fn a_trusted_proxys_words_are_kept_and_added_to() {
    let (_backend, server) = server(100, 100.0);
    let headers = [
        ("X-Forwarded-For", "198.51.100.7, 192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Request-Id", "given-4711"),
    ];
    let answer = server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap();
    let got = answer.json()["headers"].clone();
    let value = |name: &str| {
        let lines = got.as_array().unwrap().iter();
        lines
            .filter(|line| line[0].as_str().unwrap().eq_ignore_ascii_case(name))
            .map(|line| line[1].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(value("x-forwarded-for"), ["198.51.100.7, 192.0.2.1, 127.0.0.1"]);
    assert_eq!(
        (value("x-forwarded-proto"), value("x-forwarded-host")),
        (vec!["https".into()], vec!["shop.example".into()])
    );
    assert_eq!(value("x-request-id"), ["given-4711"]);
    assert_eq!(server.access_lines(1)[0]["request_id"], "given-4711");
}
