//! Backends are taken out and back in, and each change is told once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::Client;
use crate::harness::played::Played;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_HTTP, QUICK_TCP, Setup};
use crate::harness::{PATIENCE, eventually, now};

/// Who answers `count` requests.
fn answering(server: &Tollgate, count: usize) -> Vec<String> {
    let mut client = server.client();
    let mut names: Vec<_> = (0..count).map(|_| client.get("/").unwrap().backend().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The events that speak of this backend.
fn events_about(server: &Tollgate, backend: &Backend) -> Vec<String> {
    let address = backend.address.to_string();
    server.process.err.lines().into_iter().filter(|line| line.contains(&address)).collect()
}

/// Whether `line` holds the number `n` as a word of its own outside of addresses and times.
fn tells_number(line: &str, n: usize) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | ':' | '-'))
        .flat_map(|word| word.split('/'))
        .any(|word| word.trim_end_matches(['.', ':']) == n.to_string())
}

#[test]
fn a_tcp_check_takes_a_dead_backend_out_and_a_live_one_in_and_tells_both_once() {
    let mut backends = three_scripted();
    let server = Setup::app(&backends, QUICK_TCP).start();
    assert_eq!(answering(&server, 9), ["a", "b", "c"]);
    backends[1].kill();
    let address = backends[1].address.to_string();
    let line = server.wait_for_event(&[&address, "down"], PATIENCE);
    assert!(line.contains("app") && line.contains("up"), "upstream, old and new state: {line}");
    assert!(tells_number(&line, 2), "how many are left: {line}");
    assert!(line.to_lowercase().contains("refused"), "the reason in words: {line}");
    assert_eq!(answering(&server, 9), ["a", "c"]);

    backends[1].restart();
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 3), "b is never back");
    let events = events_about(&server, &backends[1]);
    let back = events.last().unwrap();
    assert!(back.contains("app") && back.contains("down") && back.contains("up") && tells_number(back, 3), "{back}");
    let changes = events.iter().filter(|line| line.contains("up") && line.contains("down")).count();
    assert_eq!(changes, 2, "{events:#?}");
}

#[test]
fn an_http_check_believes_the_status() {
    let backends = three_scripted();
    let server = Setup::app(&backends, QUICK_HTTP).start();
    let address = backends[0].address.to_string();
    backends[0].control("health=503");
    let line = server.wait_for_event(&[&address, "down"], PATIENCE);
    assert!(line.contains("503"), "the reason in words: {line}");
    assert_eq!(answering(&server, 9), ["b", "c"]);
    backends[0].control("health=204");
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 3));
    backends[0].control("health=400");
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 2), "400 is not within 200-399");
    backends[0].control("health=302");
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 3));
    backends[0].control("health=0");
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 2), "no answer within the timeout");
}

#[test]
fn an_http_check_asks_for_its_path_and_expects_its_status() {
    let backend = [Backend::scripted("a")];
    let keys = "health_check: {type: http, path: /ready/now, expect: 404, interval: 200ms, timeout: 200ms, \
                unhealthy_threshold: 1}";
    let server = Setup::app(&backend, keys).start();
    // `/ready/now` is a path like any other for the scripted backend, which answers 200.
    assert!(eventually(PATIENCE, || backend[0].count("GET /ready/now") > 0));
    assert_eq!(server.client().get("/").unwrap().status, 503);
}

#[test]
fn thresholds_are_counted() {
    let backend = [Backend::scripted("a")];
    let keys = "health_check: {type: http, path: /health, interval: 200ms, timeout: 200ms, healthy_threshold: 3, \
                unhealthy_threshold: 4}";
    let server = Setup::app(&backend, keys).start();
    let checks = || backend[0].control("checks").as_array().unwrap().len();
    let status = || Client::connect(server.address).get("/").unwrap().status;
    for (health, expected, threshold) in [(503, 503, 4), (200, 200, 3)] {
        backend[0].control(&format!("health={health}"));
        let before = checks();
        assert!(eventually(PATIENCE, || status() == expected));
        let took = checks() - before;
        assert!((threshold - 1..=threshold + 2).contains(&took), "{health} was believed after {took} checks");
    }
}

#[test]
fn checks_that_repeat_the_same_result_log_nothing() {
    let mut backends = three_scripted();
    let server = Setup::app(&backends, QUICK_HTTP).start();
    backends[2].kill();
    server.wait_for_event(&[&backends[2].address.to_string(), "down"], PATIENCE);
    let before = server.process.err.lines();
    let checks = || backends[0].control("checks").as_array().unwrap().len();
    let start = checks();
    assert!(eventually(PATIENCE, || checks() > start + 8));
    assert_eq!(server.process.err.lines(), before);
}

#[test]
fn every_change_of_state_is_told_at_once_also_when_it_repeats() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, QUICK_HTTP).start();
    let changes = || {
        let is_change = |line: &&String| line.contains("down") && line.contains("up");
        events_about(&server, &backend[0]).iter().filter(is_change).count()
    };
    let status = || Client::connect(server.address).get("/").unwrap().status;
    for (n, (health, expected)) in [(503, 503), (200, 200), (503, 503), (200, 200), (503, 503)].into_iter().enumerate()
    {
        backend[0].control(&format!("health={health}"));
        assert!(eventually(PATIENCE, || status() == expected));
        let told = eventually(Duration::from_secs(2), || changes() == n + 1);
        assert!(told, "{} changes, {} told: {:#?}", n + 1, changes(), events_about(&server, &backend[0]));
    }
}

#[test]
fn three_failures_to_connect_take_a_backend_out_until_a_check_brings_it_back() {
    let mut backends = three_scripted();
    // The interval is too long for checks to be what takes it out.
    let server = Setup::app(&backends, "health_check: {type: tcp, interval: 4s, unhealthy_threshold: 100}").start();
    backends[0].kill();
    assert_eq!(answering(&server, 30), ["b", "c"]);
    let address = backends[0].address.to_string();
    let line = server.wait_for_event(&["app", &address, "up", "down"], PATIENCE);
    assert!(tells_number(&line, 2), "{line}");
    backends[0].restart();
    assert!(eventually(PATIENCE, || answering(&server, 9).len() == 3), "no check brought it back");
}

#[test]
fn without_checks_a_backend_that_failed_three_times_is_back_after_ten_seconds() {
    let mut backends = ["a", "b"].map(Backend::scripted);
    let server = Setup::app(&backends, &format!("retries: 0, {NO_CHECK}")).start();
    let status = || Client::connect(server.address).get("/").unwrap().status;
    assert_eq!(answering(&server, 2), ["a", "b"]);
    backends[0].kill();
    let first = now();
    // Every other one goes there; one more fails where it is sent over a connection before its end is seen.
    let failed = (0..8).filter(|_| matches!(status(), 502 | 503)).count();
    assert!((3..=4).contains(&failed), "{failed}");
    let address = backends[0].address.to_string();
    server.wait_for_event(&["app", &address, "up", "down"], PATIENCE);
    let out = now();
    backends[0].restart();
    assert_eq!(answering(&server, 4), ["b"], "it is out, alive or not");
    assert!(eventually(PATIENCE, || answering(&server, 2).len() == 2), "it is never back");
    assert!(now() - out < Duration::from_secs(13), "back only after {:?}", now() - out);
    assert!(now() - first > Duration::from_secs(9), "back already after {:?}", now() - first);
}

#[test]
fn failures_to_connect_never_take_the_last_ready_backend_out() {
    let mut backends = three_scripted();
    let server = Setup::app(&backends, &format!("retries: 0, {NO_CHECK}")).start();
    backends.iter_mut().for_each(Backend::kill);
    let mut client = server.client();
    let statuses: Vec<_> = (0..30).map(|_| client.get("/").unwrap().status).collect();
    assert_eq!(statuses, [502; 30], "there is always one to try");
    let line = server.wait_for_event(&["app", "stays up", "no other one is ready"], PATIENCE);
    let last = backends.iter_mut().find(|backend| line.contains(&backend.address.to_string())).unwrap();
    last.restart();
    assert_eq!(client.get("/").unwrap().status, 200, "it is back as soon as it is");
    let downs = server.process.err.lines().iter().filter(|line| line.contains("up -> down")).count();
    assert_eq!(downs, 2, "{}", server.process.err.text());
}

#[test]
fn an_http_check_counts_the_final_status() {
    let played = Played::new();
    let setup = Setup::default().pool("app", &[played.address], QUICK_HTTP);
    let answers = [
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 204 No\r\n\r\n", true),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 103 Early\r\n\r\n", false),
    ];
    let many =
        |interim: usize| "HTTP/1.1 103 Early\r\n\r\n".repeat(interim) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (enough, too_many) = (many(64), many(65));
    let answers = answers.into_iter().chain([(enough.as_str(), true), (too_many.as_str(), false)]);
    let answer = Arc::new(Mutex::new(answers.clone().next().unwrap().0.to_owned()));
    let says = Arc::clone(&answer);
    std::thread::spawn(move || {
        // It ends with the proxy.
        while let Some(mut taken) = played.take_within(PATIENCE) {
            if matches!(taken.next(), Ok(Some(_))) {
                taken.send(says.lock().unwrap().as_bytes());
            }
        }
    });
    let server = setup.start();
    for (text, well) in answers {
        text.clone_into(&mut answer.lock().unwrap());
        let state = || server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0]["state"].clone();
        let expected = if well { "up" } else { "down" };
        assert!(eventually(PATIENCE, || state() == expected), "{text:?}: {}", state());
    }
}

#[test]
fn two_failures_to_connect_do_not_take_a_backend_out() {
    let mut backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("retries: 0, {NO_CHECK}")).start();
    let status = || Client::connect(server.address).get("/").unwrap().status;
    for _ in 0..3 {
        backend[0].kill();
        assert_ne!((status(), status()), (200, 200));
        backend[0].restart();
        assert_eq!(status(), 200, "failures in a row are counted, not all failures");
    }
}

#[test]
fn the_listener_opens_after_the_first_round_and_at_most_one_timeout_later() {
    let (mute, live) = (Backend::scripted("mute"), Backend::scripted("live"));
    mute.control("health=0");
    let timeout = Duration::from_secs(2);
    let keys = "health_check: {type: http, path: /health, interval: 5s, timeout: 2s, unhealthy_threshold: 1}";
    let yaml = Setup::default().pool("app", &[mute.address, live.address], keys).yaml();
    let (server, _) = Tollgate::launch(&yaml, &["run", "-c", "$FILE"], &[], false);
    // The process's own start is not part of the round, so time runs from the first check.
    assert!(eventually(PATIENCE, || !live.control("checks").as_array().unwrap().is_empty()));
    let start = now();
    let open = || Client::try_connect(server.address).is_ok();
    assert!(eventually(PATIENCE, open), "never opened: {}", server.process.err.text());
    let took = now() - start;
    assert!(took > timeout * 3 / 4, "opened after {took:?}, before the first round was over");
    assert!(took < timeout + Duration::from_secs(1), "opened only after {took:?}");
    assert_eq!(answering(&server, 6), ["live"]);
}

#[test]
fn every_pool_has_its_first_round_before_the_listener_opens() {
    let dead = free_address();
    let live = Backend::scripted("live");
    let server = Setup::default()
        .pool("one", &[dead, live.address], QUICK_TCP)
        .pool("two", &[live.address, dead], QUICK_TCP)
        .line("routes: [{path: /one, upstream: one}, {path: /two, upstream: two}]")
        .start();
    for path in ["/one", "/two", "/one", "/two"] {
        assert_eq!(server.client().get(path).unwrap().status, 200);
    }
    for line in server.access_lines(4) {
        assert_eq!(line["attempts"], 1, "a dead backend was tried: {line}");
    }
}

#[test]
fn a_hundred_backends_are_not_checked_in_one_burst() {
    // A scripted backend on all of 127.0.0.0/8 is a hundred backends in one process.
    let backend = Backend::scripted_everywhere("a");
    let addresses: Vec<_> =
        (1..=100).map(|host| std::net::SocketAddr::from(([127, 0, 0, host], backend.address.port()))).collect();
    let keys = "health_check: {type: http, path: /health, interval: 2s, timeout: 1s}";
    let server = Setup::default().pool("app", &addresses, keys).start();
    let checks = || -> Vec<u64> {
        backend.control("checks").as_array().unwrap().iter().map(|time| time.as_u64().unwrap()).collect()
    };
    assert!(eventually(PATIENCE, || checks().len() >= 420), "only {} checks", checks().len());
    // The first check is the harness's own; then comes the first round, which may be a burst as nobody is served yet.
    let later: Vec<_> = checks()[101..401].to_vec();
    let busiest = later.iter().map(|from| later.iter().filter(|at| (*from..from + 200).contains(*at)).count()).max();
    assert!(busiest < Some(50), "{busiest:?} of 100 checks within a tenth of the interval: {:?}", checks());
    let rate = 300.0 / (later[299] - later[0]) as f64 * 2000.0;
    assert!((80.0..125.0).contains(&rate), "{rate} checks in an interval");
    drop(server);
}

#[test]
fn host_names_are_resolved() {
    let backend = Backend::scripted_everywhere("a");
    let name = format!("localhost:{}", backend.address.port());
    let server = Tollgate::from_args(&["run", "--listen", "$LISTEN", "--backend", &name], &[]);
    let mut client = server.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
}
