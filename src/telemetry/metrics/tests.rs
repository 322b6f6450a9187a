mod format;

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::*;
use crate::client::Quota;
use crate::limit::exact::Exact;
use crate::limit::samples::stranger;
use crate::limit::{Charge, Limiter};
use crate::telemetry::{AccessLogSettings, FleetState, FleetStore, FleetView, LeaseCounts};
use crate::upstream::{
    Anybody, BackendAddress, BackendSettings, Balance, Check, DURATIONS, HealthSettings, PoolSettings, Timeouts,
};
use format::{Kind, Text};

/// All that may break a line apart.
const ODD_NAME: &str = "a\"b\\c\nd{e}, f=\u{e9}";

fn pool(name: &str, address: &str) -> PoolSettings {
    let address = BackendAddress::Socket(address.parse().unwrap());
    PoolSettings {
        name: name.to_owned(),
        balance: Balance::default(),
        backends: vec![BackendSettings { address, weight: NonZeroU32::MIN }],
        health: HealthSettings { check: Check::None, ..HealthSettings::default() },
        retries: 2,
        timeouts: Timeouts::default(),
        ..PoolSettings::default()
    }
}

fn metrics(pools: Vec<PoolSettings>, limiter: Arc<Exact>) -> (Metrics, Arc<Pools>, Arc<Tally>) {
    let pools = Arc::new(Pools::new(pools));
    let off = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    let (access_log, _) = AccessLog::new(&off).unwrap();
    let tally = Arc::<Tally>::default();
    let parts = MetricsParts {
        pools: Arc::clone(&pools),
        tally: Arc::clone(&tally),
        access_log,
        spans: Arc::default(),
        events: None,
        limiter,
        tls: Arc::default(),
        persist_errors: Box::new(|| 7),
        fleet: Arc::new(view),
    };
    (Metrics::new(parts), pools, tally)
}

fn view() -> FleetView {
    let store = FleetStore {
        errors: 4,
        seconds: vec![(0.001, 2), (0.01, 1), (f64::INFINITY, 3)],
        seconds_sum: 0.5,
        ..FleetStore::default()
    };
    let leases = LeaseCounts { asked: 1, ahead: 2, returned: 3, late: 4 };
    FleetView { state: FleetState::Joined, store, leases, waits: 5, ..FleetView::default() }
}

fn limiter(max_buckets: usize) -> Arc<Exact> {
    Arc::new(Exact::new(max_buckets, Quota::new(5, 1.0).unwrap(), 0))
}

/// Metrics after some of everything.
fn busy() -> Metrics {
    let quota = Quota::new(5, 1.0).unwrap();
    let limiter = limiter(2);
    for last in 1..=3 {
        limiter.take(&Charge::one(stranger(last), quota), 0);
    }
    let (metrics, pools, tally) = metrics(vec![pool("app", "127.0.0.1:1"), pool(ODD_NAME, "[::1]:2")], limiter);
    let pools = pools.all();
    for end in DURATIONS {
        pools[0].traffic().record(200, end);
    }
    pools[0].traffic().record(503, Duration::from_secs(60));
    pools[1].traffic().record(0, Duration::ZERO);
    let end = SystemTime::UNIX_EPOCH + Duration::from_millis(1_792_000_000_125);
    for (pool, trace, duration) in [(0, 1, DURATIONS[14] * 2), (0, u128::MAX, DURATIONS[1]), (1, 2, Duration::ZERO)] {
        pools[pool].traffic().name_exemplar(DurationExemplar { trace, duration, end });
    }
    tally.unrouted().record(429, Duration::from_micros(250));
    for (verdict, count) in Verdict::ALL.into_iter().zip(1..) {
        (0..count).for_each(|_| tally.decided(Some(verdict), || None));
    }
    drop(pools[0].lease(&[], &Anybody).unwrap());
    let lease = pools[0].lease(&[], &Anybody).unwrap();
    lease.backend().failed();
    pools[0].retried();
    (0..2).for_each(|_| tally.malformed_target());
    metrics.count_reload(true);
    // Held for good, so that there is something in flight and open.
    std::mem::forget((lease, tally.connection()));
    metrics
}

#[test]
fn every_name_of_the_contract_is_there_with_its_kind_from_the_start() {
    let (metrics, ..) = metrics(vec![pool("app", "127.0.0.1:1")], limiter(1));
    let text = Text::read(&metrics.text(TextFormat::Prometheus));
    let kinds: Vec<_> = text.families.iter().map(|family| (family.name.as_str(), family.kind)).collect();
    let mut expected = vec![
        ("tollgate_requests_total", Kind::Counter),
        ("tollgate_request_duration_seconds", Kind::Histogram),
        ("tollgate_ratelimit_decisions_total", Kind::Counter),
        ("tollgate_ratelimit_buckets", Kind::Gauge),
        ("tollgate_ratelimit_overflow_total", Kind::Counter),
        ("tollgate_candidate_decisions_total", Kind::Counter),
        ("tollgate_concurrency_limited_total", Kind::Counter),
        ("tollgate_policy_decisions_total", Kind::Counter),
        ("tollgate_policy_buckets", Kind::Gauge),
        ("tollgate_policy_overflow_total", Kind::Counter),
        ("tollgate_policy_cost_errors_total", Kind::Counter),
        ("tollgate_backend_up", Kind::Gauge),
        ("tollgate_backend_in_flight", Kind::Gauge),
        ("tollgate_backend_requests_total", Kind::Counter),
        ("tollgate_backend_failures_total", Kind::Counter),
        ("tollgate_upstream_retries_total", Kind::Counter),
        ("tollgate_upstream_retries_denied_total", Kind::Counter),
        ("tollgate_backend_retries_total", Kind::Counter),
        ("tollgate_backend_ejected", Kind::Gauge),
        ("tollgate_backend_ejections_total", Kind::Counter),
        ("tollgate_upstream_queue", Kind::Gauge),
        ("tollgate_upstream_queued_total", Kind::Counter),
        ("tollgate_upstream_busy_total", Kind::Counter),
        ("tollgate_upstream_panic", Kind::Gauge),
        ("tollgate_upstream_panics_total", Kind::Counter),
        ("tollgate_health_transitions_total", Kind::Counter),
        ("tollgate_persist_errors_total", Kind::Counter),
        ("tollgate_fleet_state", Kind::Gauge),
        ("tollgate_fleet_nodes", Kind::Gauge),
        ("tollgate_fleet_store_seconds", Kind::Histogram),
        ("tollgate_fleet_store_errors_total", Kind::Counter),
        ("tollgate_fleet_leases_total", Kind::Counter),
        ("tollgate_fleet_waits_total", Kind::Counter),
        ("tollgate_proxy_protocol_errors_total", Kind::Counter),
        ("tollgate_config_reloads_total", Kind::Counter),
        ("tollgate_connections", Kind::Gauge),
        ("tollgate_connections_refused_total", Kind::Counter),
        ("tollgate_connections_closed_total", Kind::Counter),
        ("tollgate_http2_malformed_targets_total", Kind::Counter),
        ("tollgate_access_log_dropped_total", Kind::Counter),
        ("tollgate_event_log_dropped_total", Kind::Counter),
        ("tollgate_spans_exported_total", Kind::Counter),
        ("tollgate_spans_dropped_total", Kind::Counter),
        ("tollgate_certificate_expiry_timestamp_seconds", Kind::Gauge),
    ];
    let mut sorted = kinds.clone();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    expected.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(sorted, expected);
    for decision in ["allowed", "limited", "blocked", "unlimited"] {
        assert_eq!(text.value("tollgate_ratelimit_decisions_total", &[("decision", decision)]), Some(0.0));
    }
    for result in ["success", "failure"] {
        assert_eq!(text.value("tollgate_config_reloads_total", &[("result", result)]), Some(0.0));
    }
}

#[test]
fn the_text_keeps_the_format_and_says_what_was_counted() {
    let metrics = busy();
    let text = Text::read(&metrics.text(TextFormat::Prometheus));
    let says = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(text.value(name, labels), Some(value), "{name} {labels:?}");
    };
    says("tollgate_requests_total", &[("upstream", "app"), ("status", "200")], 15.0);
    says("tollgate_requests_total", &[("upstream", "app"), ("status", "503")], 1.0);
    says("tollgate_requests_total", &[("upstream", ODD_NAME), ("status", "0")], 1.0);
    says("tollgate_requests_total", &[("upstream", ""), ("status", "429")], 1.0);
    for (decision, count) in [("allowed", 1.0), ("limited", 2.0), ("blocked", 3.0), ("unlimited", 4.0)] {
        says("tollgate_ratelimit_decisions_total", &[("decision", decision)], count);
    }
    says("tollgate_ratelimit_buckets", &[], 2.0);
    says("tollgate_ratelimit_overflow_total", &[], 1.0);
    let app = [("upstream", "app"), ("backend", "127.0.0.1:1")];
    says("tollgate_backend_up", &app, 1.0);
    says("tollgate_backend_in_flight", &app, 1.0);
    says("tollgate_backend_requests_total", &app, 2.0);
    says("tollgate_backend_failures_total", &app, 1.0);
    says("tollgate_backend_requests_total", &[("upstream", ODD_NAME), ("backend", "[::1]:2")], 0.0);
    says("tollgate_upstream_retries_total", &[("upstream", "app")], 1.0);
    says("tollgate_persist_errors_total", &[], 7.0);
    says("tollgate_config_reloads_total", &[("result", "success")], 1.0);
    says("tollgate_connections", &[], 1.0);
    says("tollgate_fleet_state", &[], 1.0);
    says("tollgate_fleet_nodes", &[], 1.0);
    for (end, count) in [("0.001", 2.0), ("0.01", 3.0), ("+Inf", 6.0)] {
        says("tollgate_fleet_store_seconds_bucket", &[("le", end)], count);
    }
    says("tollgate_fleet_store_seconds_sum", &[], 0.5);
    says("tollgate_fleet_store_errors_total", &[], 4.0);
    for (kind, count) in [("asked", 1.0), ("ahead", 2.0), ("returned", 3.0), ("late", 4.0)] {
        says("tollgate_fleet_leases_total", &[("kind", kind)], count);
    }
    says("tollgate_fleet_waits_total", &[], 5.0);
    says("tollgate_http2_malformed_targets_total", &[], 2.0);
    says("tollgate_access_log_dropped_total", &[], 0.0);
    says("tollgate_event_log_dropped_total", &[], 0.0);
    let duration = |end: &str| {
        text.value("tollgate_request_duration_seconds_bucket", &[("le", end), ("upstream", "app")]).unwrap()
    };
    assert_eq!((duration("0.0005"), duration("0.001"), duration("30.0"), duration("+Inf")), (1.0, 2.0, 15.0, 16.0));
    let sum = 60.0 + DURATIONS.iter().map(Duration::as_secs_f64).sum::<f64>();
    says("tollgate_request_duration_seconds_sum", &[("upstream", "app")], (sum * 1e6).round() / 1e6);
    let expected = Totals { requests: 18, allowed: 1, limited: 2, blocked: 3, unlimited: 4 };
    assert_eq!((metrics.totals(), metrics.connections()), (expected, 1));
}

#[test]
fn both_formats_say_the_same() {
    let metrics = busy();
    let text = Text::read(&metrics.text(TextFormat::Prometheus));
    let open = Text::read_as(TextFormat::OpenMetrics, &metrics.text(TextFormat::OpenMetrics));
    assert_eq!(open.samples(), text.samples());
    assert_eq!(text.exemplars, []);
}

#[test]
fn openmetrics_names_a_trace_in_each_bucket_that_has_one() {
    let open = Text::read_as(TextFormat::OpenMetrics, &busy().text(TextFormat::OpenMetrics));
    let told = open.exemplars.iter().map(|exemplar| {
        let (bucket, labels) = (&exemplar.bucket, &exemplar.labels);
        assert_eq!((labels.len(), exemplar.seconds), (1, 1_792_000_000.125), "{exemplar:?}");
        (bucket["upstream"].as_str(), bucket["le"].as_str(), labels["trace_id"].as_str(), exemplar.value)
    });
    let (one, two, all) = (format!("{:032x}", 1), format!("{:032x}", 2), "f".repeat(32));
    let expected = [("app", "0.001", &*all, 0.001), ("app", "+Inf", &one, 60.0), (ODD_NAME, "0.0005", &two, 0.0)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn up_is_what_the_checks_say_also_while_it_drains() {
    let other = pool("app", "127.0.0.1:2").backends.remove(0);
    let mut settings = pool("app", "127.0.0.1:1");
    settings.backends.push(other);
    let (metrics, pools, _) = metrics(vec![settings], limiter(1));
    let pool = pools.named("app").unwrap();
    let labels = [("upstream", "app"), ("backend", "127.0.0.1:1")];
    let up = || Text::read(&metrics.text(TextFormat::Prometheus)).value("tollgate_backend_up", &labels);
    let went_down = || {
        let labels = [labels[0], labels[1], ("to", "down")];
        Text::read(&metrics.text(TextFormat::Prometheus)).value("tollgate_health_transitions_total", &labels)
    };
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let now = crate::clock::Clock::now(&crate::clock::ManualClock::new());
    let other = pool.backends()[1].id();
    let lease = || pool.lease(&[other], &Anybody).unwrap();
    (0..2).for_each(|_| pool.connect_failed(&lease(), now, "connection refused"));
    let last = lease();
    pool.set_backend(address, Some(crate::upstream::AdminState::Drain), None).unwrap();
    assert_eq!((up(), went_down()), (Some(1.0), Some(0.0)));
    pool.connect_failed(&last, now, "connection refused");
    assert_eq!((up(), went_down()), (Some(0.0), Some(1.0)));
}

#[test]
fn the_total_does_not_go_back_when_a_pool_goes() {
    let (metrics, pools, _) = metrics(vec![pool("app", "127.0.0.1:1"), pool("b", "127.0.0.1:2")], limiter(1));
    pools.all().iter().for_each(|pool| pool.traffic().record(200, Duration::ZERO));
    let other = PoolSettings { retries: 5, ..pool("app", "127.0.0.1:1") };
    let gone = pools.replace(pools.prepare(vec![other]));
    assert_eq!(gone.len(), 2, "one goes on as another");
    assert_eq!(metrics.totals().requests, 2);
    assert!(!metrics.text(TextFormat::Prometheus).contains("upstream=\"b\""));
}

#[test]
fn a_connection_counts_while_its_guard_lives() {
    let (metrics, _, tally) = metrics(Vec::new(), limiter(1));
    let open: Vec<_> = (0..3).map(|_| tally.connection()).collect();
    assert_eq!(metrics.connections(), 3);
    drop(open);
    assert_eq!(metrics.connections(), 0);
}

#[test]
fn promtool_has_no_complaint() {
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut check = match check {
        Ok(check) => check,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: promtool is not installed (Debian has it in the package prometheus)");
            return;
        }
        Err(error) => panic!("promtool does not start: {error}"),
    };
    check.stdin.take().unwrap().write_all(busy().text(TextFormat::Prometheus).as_bytes()).unwrap();
    let done = check.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success() && said.trim().is_empty(), "{said}");
}
