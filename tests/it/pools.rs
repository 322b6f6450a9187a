//! What is counted of requests, and what operators change in a pool while requests run.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate::client::Quota;
use tollgate::limit::{Striped, StripedSettings};
use tollgate::telemetry::{AccessLog, AccessLogSettings, FleetView, Metrics, MetricsParts, TextFormat};
use tollgate::upstream::{AdminState, BackendState};

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Client, Request};
use crate::harness::in_process::InProcess;
use crate::harness::setup::UNLIMITED;
use crate::harness::{PATIENCE, assert_ours, eventually};

const NO_CHECK: &str = "health_check: {type: none}";

fn metrics(server: &InProcess) -> Metrics {
    let off = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    let (max_buckets, default_quota) = (NonZeroUsize::MIN, Quota::new(1, 1.0).unwrap());
    Metrics::new(MetricsParts {
        tls: Arc::default(),
        pools: Arc::clone(&server.all_pools),
        tally: server.tally.clone(),
        access_log: AccessLog::new(&off).unwrap().0,
        spans: Arc::default(),
        events: None,
        limiter: Arc::new(Striped::new(StripedSettings { max_buckets, stripes: None, default_quota }, 0)),
        persist_errors: Box::new(|| 0),
        fleet: Arc::new(FleetView::default),
    })
}

/// Waits until the metrics have each of these lines: a request is counted when it has ended, which is after its answer.
#[track_caller]
fn assert_lines(metrics: &Metrics, expected: &[String]) {
    let missing = || {
        let text = metrics.text(TextFormat::Prometheus);
        expected.iter().filter(|line| !text.lines().any(|found| found == **line)).cloned().collect::<Vec<_>>()
    };
    assert!(
        eventually(PATIENCE, || missing().is_empty()),
        "{:?} in {}",
        missing(),
        metrics.text(TextFormat::Prometheus)
    );
}

/// Sends one request on a connection of its own.
#[track_caller]
fn status(server: &InProcess, target: &str) -> u16 {
    Client::connect(server.address).get(target).unwrap().status
}

#[test]
fn requests_are_counted_by_upstream_and_status() {
    let backend = Backend::scripted("a");
    let limit = "rate_limit: {default: {capacity: 7, rate_per_sec: 0.001}}\nlimits: {max_body: 10}";
    let server = InProcess::start(&[&backend], &format!("read_timeout: 200ms\n    retries: 0\n    {NO_CHECK}"), limit);
    let metrics = metrics(&server);
    for _ in 0..3 {
        assert_eq!(status(&server, "/"), 200);
    }
    assert_eq!(status(&server, "/?status=404"), 404);
    assert_eq!(status(&server, "/?fault=close"), 502);
    assert_eq!(status(&server, "/?fault=hang"), 504);
    assert_eq!(Client::connect(server.address).call(&large()).unwrap().status, 413);
    for _ in 0..2 {
        assert_eq!(status(&server, "/"), 429);
    }
    let mut malformed = Client::connect(server.address);
    malformed.send(b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n").unwrap();
    assert_eq!(malformed.read("GET").unwrap().status, 400);
    drop(malformed);
    let requests = |upstream: &str, status: u16, count: u64| {
        format!("tollgate_requests_total{{upstream=\"{upstream}\",status=\"{status}\"}} {count}")
    };
    let backend_line = |name: &str, count: u64| {
        format!("tollgate_backend_{name}{{upstream=\"app\",backend=\"{}\"}} {count}", backend.address)
    };
    assert_lines(
        &metrics,
        &[
            requests("app", 200, 3),
            requests("app", 404, 1),
            requests("app", 502, 1),
            requests("app", 504, 1),
            requests("app", 413, 1),
            requests("", 429, 2),
            requests("", 400, 1),
            "tollgate_request_duration_seconds_count{upstream=\"app\"} 7".into(),
            "tollgate_request_duration_seconds_count{upstream=\"\"} 3".into(),
            "tollgate_request_duration_seconds_bucket{le=\"0.1\",upstream=\"app\"} 6".into(),
            "tollgate_ratelimit_decisions_total{decision=\"allowed\"} 7".into(),
            "tollgate_ratelimit_decisions_total{decision=\"limited\"} 2".into(),
            "tollgate_ratelimit_decisions_total{decision=\"blocked\"} 0".into(),
            "tollgate_ratelimit_decisions_total{decision=\"unlimited\"} 0".into(),
            backend_line("requests_total", 6),
            backend_line("failures_total", 2),
            backend_line("in_flight", 0),
            "tollgate_upstream_retries_total{upstream=\"app\"} 0".into(),
            "tollgate_connections 0".into(),
        ],
    );
    assert_eq!(metrics.totals().requests, 10);
    server.stop();
}

/// A request whose body is announced as too large.
fn large() -> Request<'static> {
    Request::new("POST", "/").body(crate::harness::client::Body::Length(b"eleven byte"))
}

#[test]
fn a_retry_is_counted_where_it_failed_and_where_it_went() {
    let (mut dead, live) = (Backend::scripted("dead"), Backend::scripted("live"));
    dead.kill();
    let server = InProcess::start(&[&dead, &live], NO_CHECK, UNLIMITED);
    let metrics = metrics(&server);
    // Each of the first three that round robin gives the dead one goes on; then it is out.
    for _ in 0..10 {
        assert_eq!(status(&server, "/"), 200);
    }
    let of = |name: &str, backend: &Backend, rest: &str| {
        format!("tollgate_{name}{{upstream=\"app\",backend=\"{}\"{rest}", backend.address)
    };
    assert_lines(
        &metrics,
        &[
            "tollgate_upstream_retries_total{upstream=\"app\"} 3".into(),
            of("backend_requests_total", &dead, "} 3"),
            of("backend_failures_total", &dead, "} 3"),
            of("backend_requests_total", &live, "} 10"),
            of("backend_failures_total", &live, "} 0"),
            of("backend_up", &dead, "} 0"),
            of("backend_up", &live, "} 1"),
            of("health_transitions_total", &dead, ",to=\"down\"} 1"),
            of("health_transitions_total", &dead, ",to=\"up\"} 0"),
            "tollgate_requests_total{upstream=\"app\",status=\"200\"} 10".into(),
        ],
    );
    server.stop();
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let backend = Backend::scripted("a");
    let server = InProcess::start(&[&backend], NO_CHECK, UNLIMITED);
    let metrics = metrics(&server);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(server.address)).collect();
    assert_lines(&metrics, &["tollgate_connections 5".into()]);
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").unwrap().status, 200));
    assert_eq!(metrics.connections(), 5, "kept open");
    clients.truncate(2);
    assert_lines(&metrics, &["tollgate_connections 2".into()]);
    drop(clients);
    server.stop();
}

#[test]
fn a_drain_fails_no_request_and_leaves_the_backend_to_finish() {
    let backends = three_scripted();
    let server = InProcess::start(&[&backends[0], &backends[1], &backends[2]], NO_CHECK, UNLIMITED);
    let pool = &server.pools[0];
    let set = |backend: &Backend, state| pool.set_backend(backend.address, Some(state), None).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| {
            loop {
                let mut client = Client::connect(server.address);
                let answer = client.get("/held?at=b&hold=k").unwrap();
                if answer.backend() == "b" {
                    return answer.status;
                }
            }
        });
        let traffic = scope.spawn(|| {
            let mut statuses = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                statuses.push(status(&server, "/"));
            }
            statuses
        });
        assert!(eventually(PATIENCE, || backends[1].held("k") == 1));
        let seen = set(&backends[1], AdminState::Drain);
        assert!(seen.state == BackendState::Drain && seen.in_flight >= 1, "{seen:?}");
        assert!(eventually(PATIENCE, || pool.overview().backends[1].in_flight == 1), "the held one is left");
        let given = pool.overview().backends[1].requests;
        let before = pool.traffic().requests();
        assert!(eventually(PATIENCE, || pool.traffic().requests() >= before + 50));
        assert_eq!(pool.overview().backends[1].requests, given, "no new request");
        backends[1].release("k");
        assert_eq!(held.join().unwrap(), 200);
        assert_eq!(set(&backends[1], AdminState::Up).state, BackendState::Up);
        assert!(eventually(PATIENCE, || pool.overview().backends[1].requests > given), "it takes requests again");
        stop.store(true, Ordering::Relaxed);
        let statuses = traffic.join().unwrap();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
    backends.iter().for_each(|backend| assert_eq!(set(backend, AdminState::Drain).state, BackendState::Drain));
    let answer = Client::connect(server.address).get("/").unwrap();
    assert_ours(&answer, 503, "No healthy backend");
    assert!(answer.header("retry-after").is_some());
    server.stop();
}

#[test]
fn another_weight_counts_from_the_next_request() {
    let backends = ["a", "b"].map(Backend::scripted);
    let server = InProcess::start(&[&backends[0], &backends[1]], NO_CHECK, UNLIMITED);
    let sequence = |count: usize| (0..count).map(|_| server.backend_of_next_answer()).collect::<String>();
    assert_eq!(sequence(4), "abab");
    server.pools[0].set_backend(backends[0].address, None, NonZeroU32::new(3)).unwrap();
    assert_eq!(sequence(8), "aabaaaba");
    server.stop();
}
