//! How many requests backends hold at once, and who waits for them.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderValue, Response};
use tokio::time::timeout;

use crate::harness::assert_ours;
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::daemon::Daemon;
use crate::harness::http2::{Http2, get, read, request};
use crate::harness::http2_backend::{Call, Http2Backend};
use crate::harness::load::Load;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup, UNLIMITED};
use crate::harness::{PATIENCE, eventually, now};

/// Both ways that a request can go.
const WAYS: [&str; 2] = ["direct: true", "direct: false"];

fn setup(backend: &[Backend], keys: &str, way: &str) -> Setup {
    Setup::app(backend, &format!("{keys}, {NO_CHECK}"))
        .line(way)
        .line("limits: {abort_on_half_close: true}")
        .line("identity: {trusted_proxies: [127.0.0.1/32]}")
}

fn start(keys: &str, way: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = setup(&backend, keys, way).start();
    (backend, server)
}

/// One of these upstreams, whose clients may speak HTTP/2, too.
fn with_http2(backend: std::net::SocketAddr, keys: &str, way: &str) -> Tollgate {
    let yaml = Setup::default().pool("app", &[backend], &format!("{keys}, {NO_CHECK}")).line(way).yaml();
    Tollgate::from_yaml(&yaml.replace("address: $LISTEN", "address: $LISTEN, h2c: true"))
}

/// A client that has sent a request which its backend holds.
fn holding(server: &Tollgate, backend: &Backend, key: &str) -> Client {
    let mut client = server.client();
    client.send(&Request::new("GET", &format!("/held?hold={key}")).encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held(key) == 1));
    client
}

/// A client whose request waits, behind `others`.
fn waiting(server: &Tollgate, target: &str, others: u64) -> Client {
    let mut client = server.client();
    client.send(&Request::new("GET", target).encode()).unwrap();
    assert!(eventually(PATIENCE, || metric(server, "tollgate_upstream_queue") == others + 1), "{target}");
    client
}

#[track_caller]
fn reload(server: &Tollgate, setup: &Setup) {
    server.rewrite(&setup.yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn metric(server: &Tollgate, name: &str) -> u64 {
    let metrics = server.ask("GET", "/metrics", "").text();
    let name = format!("{name}{{upstream=\"app\"}} ");
    let line = metrics.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn beyond_what_backends_may_hold_the_answer_is_503_at_once() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1", way);
        let mut first = holding(&server, &backend, "k");
        let response = server.client().get("/").unwrap();
        assert_ours(&response, 503, "All backends are busy");
        assert_eq!(response.header("retry-after"), Some("1"), "{way}");
        backend.release("k");
        assert_eq!(first.read("GET").unwrap().status, 200, "{way}");
        assert!(eventually(PATIENCE, || server.client().get("/").unwrap().status == 200), "{way}");
        let lines = server.access_lines(3);
        let line = lines.iter().find(|line| line["status"] == 503).unwrap();
        assert_eq!((&line["status"], &line["error"]), (&503.into(), &"All backends are busy".into()), "{line}");
        assert!(metric(&server, "tollgate_upstream_busy_total") >= 1, "{way}");
    }
}

#[test]
fn who_waits_gets_the_place_of_who_is_done_or_503_in_time() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1s}", way);
        let mut first = holding(&server, &backend, "k");
        let begun = now();
        assert_ours(&server.client().get("/late").unwrap(), 503, "All backends are busy");
        assert!(now() - begun >= Duration::from_millis(900), "{way}");
        let mut second = server.client();
        second.send(&Request::new("GET", "/second").encode()).unwrap();
        assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 1), "{way}");
        backend.release("k");
        assert_eq!((first.read("GET").unwrap().status, second.read("GET").unwrap().status), (200, 200), "{way}");
        assert_eq!((backend.count("GET /late"), backend.count("GET /second")), (0, 1), "{way}");
        assert_eq!(metric(&server, "tollgate_upstream_queue"), 0, "{way}");
    }
}

#[test]
fn who_goes_waits_no_more() {
    let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", WAYS[0]);
    let mut first = holding(&server, &backend, "k");
    let mut second = server.client();
    second.send(&Request::new("GET", "/gone").encode()).unwrap();
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 1));
    drop(second);
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 0));
    backend.release("k");
    assert_eq!(first.read("GET").unwrap().status, 200);
    assert_eq!(server.client().get("/").unwrap().status, 200);
    assert_eq!(backend.count("GET /gone"), 0);
}

#[test]
fn a_flood_of_one_client_turns_no_other_away() {
    let ([backend], server) = start("max_in_flight: 2, queue: {size: 20, timeout: 1m}", WAYS[0]);
    let flood = Load::start(server.address, (60, true), "/flood?delay_ms=20", &[("X-Forwarded-For", "192.0.2.1")]);
    flood.wait_for(50);
    let mut other = server.client();
    let mut took = Vec::new();
    for _ in 0..40 {
        let (begun, headers) = (now(), [("X-Forwarded-For", "192.0.2.2")]);
        let response = other.call_again(&Request::new("GET", "/other?delay_ms=20").headers(&headers)).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        took.push(now() - begun);
    }
    let flooded = flood.stop();
    assert!(flooded.with(200) > 40 && flooded.with(503) > 40, "{flooded:?}");
    assert_eq!(backend.count("GET /other"), 40);
    took.sort_unstable();
    // Alone it takes 20 ms; behind sixty others in one row it would be 600 ms.
    assert!(took[20] < Duration::from_millis(200), "{took:?}");
}

#[test]
fn who_is_sent_again_keeps_its_place() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", way);
        let mut first = server.client();
        assert_eq!(first.call_again(&Request::new("GET", "/")).unwrap().status, 200);
        // The connection that is kept dies under it while another one waits for its place.
        first.send(&Request::new("GET", "/again?hold=k&fault=close_reused").encode()).unwrap();
        assert!(eventually(PATIENCE, || backend.held("k") == 1), "{way}");
        let mut second = waiting(&server, "/second", 0);
        backend.release("k");
        assert_eq!((first.read("GET").unwrap().status, second.read("GET").unwrap().status), (200, 200), "{way}");
        assert_eq!((backend.count("GET /again"), backend.count("GET /second")), (2, 1), "{way}");
        let told = server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0].clone();
        assert_eq!((&told["requests"], &told["retries"]), (&4.into(), &1.into()), "{way}: {told}");
        assert!(eventually(PATIENCE, || server.client().get("/").unwrap().status == 200), "{way}: a place is left");
    }
}

#[test]
fn who_finds_others_busy_after_a_failure_is_told_that() {
    for way in WAYS {
        let (backend, dead) = (Backend::scripted("a"), free_address());
        let keys = format!("max_in_flight: 1, queue: {{size: 5, timeout: 1m}}, {NO_CHECK}");
        let server = Setup::default().pool("app", &[backend.address, dead], &keys).line(way).start();
        let mut first = holding(&server, &backend, "k");
        assert_ours(&server.client().get("/").unwrap(), 503, "All backends are busy");
        backend.release("k");
        assert_eq!(first.read("GET").unwrap().status, 200, "{way}");
    }
}

#[test]
fn streams_of_one_connection_wait_as_requests_do() {
    for way in WAYS {
        let backend = Backend::scripted("a");
        let server = with_http2(backend.address, "max_in_flight: 1, queue: {size: 2, timeout: 1m}", way);
        let mut client = Http2::plain(server.address);
        let (first, _) = client.open(get("/first?hold=k"), true).unwrap();
        assert!(eventually(PATIENCE, || backend.held("k") == 1));
        let queue = |length: u64| eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == length);
        let (second, mut stream) = client.open(get("/second"), true).unwrap();
        assert!(queue(1), "{way}");
        let (third, _) = client.open(get("/third"), true).unwrap();
        assert!(queue(2), "{way}");
        assert_ours(&client.get("/fourth").unwrap(), 503, "All backends are busy");
        if way == WAYS[0] {
            stream.send_reset(Reason::CANCEL);
            drop(second);
            assert!(queue(1), "one that is reset waits no more");
        }
        backend.release("k");
        for answer in [first, third] {
            assert_eq!(client.runtime.block_on(read(answer)).unwrap().status, 200, "{way}");
        }
        let asked = ["/first", "/second", "/third", "/fourth"].map(|path| backend.count(&format!("GET {path}")));
        assert_eq!(asked, [1, usize::from(way != WAYS[0]), 1, 0], "{way}");
    }
}

/// A call of gRPC with one empty message.
fn grpc(path: &str) -> http::Request<()> {
    let mut call = request("POST", path);
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    call
}

#[test]
fn a_call_that_finds_no_room_is_told_so_in_trailers_alone() {
    for way in WAYS {
        let backend = Backend::scripted("a");
        let server = with_http2(backend.address, "max_in_flight: 1, queue: {size: 1, timeout: 300ms}", way);
        let held = holding(&server, &backend, "k");
        let mut client = Http2::plain(server.address);
        let (late, _) = client.open(grpc("/late"), true).unwrap();
        assert!(eventually(PATIENCE, || metric(&server, "tollgate_upstream_queue") == 1), "{way}");
        let refused = client.call(grpc("/refused"), b"\0\0\0\0\0").unwrap();
        for answer in [refused, client.runtime.block_on(read(late)).unwrap()] {
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{way}: {answer:?}");
            assert_eq!(answer.header("grpc-status"), Some("14"), "{way}: {answer:?}");
            assert_eq!(answer.header("grpc-message"), Some("All backends are busy"), "{way}: {answer:?}");
        }
        drop(held);
        backend.release("k");
    }
}

#[test]
fn a_call_holds_its_place_until_its_stream_ends() {
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let backend = Http2Backend::new(Builder::new(), move |call| {
        let begun = begun.clone();
        async move {
            let Call { request, mut respond, .. } = call;
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x01a"), false).unwrap();
            begun.send((request.uri().path().to_owned(), stream)).unwrap();
        }
    });
    let server = with_http2(backend.address, "protocol: h2, max_in_flight: 1, queue: {size: 1, timeout: 1m}", WAYS[0]);
    let mut client = Http2::plain(server.address);
    let queued = || metric(&server, "tollgate_upstream_queue");
    let mut begun =
        |client: &Http2| client.runtime.block_on(async { timeout(PATIENCE, begins.recv()).await.unwrap().unwrap() });
    let mut call = client.open(grpc("/first"), false).unwrap();
    for path in ["/first", "/next", "/next"] {
        let (began, mut stream) = begun(&client);
        assert_eq!((began.as_str(), queued()), (path, 0));
        let next = client.open(grpc("/next"), false).unwrap();
        // It is answered and goes on, so the next one waits, until its server ends it, or its client.
        let (answer, mut sends) = std::mem::replace(&mut call, next);
        assert_eq!(client.runtime.block_on(answer).unwrap().status(), 200);
        assert!(eventually(PATIENCE, || queued() == 1), "{path}");
        if path == "/first" {
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
            stream.send_trailers(trailers.into_iter().collect()).unwrap();
            sends.send_data(Bytes::new(), true).unwrap();
        } else {
            sends.send_reset(Reason::CANCEL);
        }
    }
}

#[test]
fn a_reload_changes_who_waits_and_for_what() {
    for way in WAYS {
        let keys = |most: usize, size: usize| format!("max_in_flight: {most}, queue: {{size: {size}, timeout: 1m}}");
        let ([backend], server) = start(&keys(1, 5), way);
        let app = |keys: &str| setup(std::slice::from_ref(&backend), keys, way);
        let mut held = vec![holding(&server, &backend, "a")];
        // One more may be held, and who waits is the first to have it.
        let second = waiting(&server, "/?hold=b", 0);
        let mut last = waiting(&server, "/last", 1);
        reload(&server, &app(&keys(2, 5)));
        assert!(eventually(PATIENCE, || backend.held("b") == 1), "{way}");
        held.push(second);
        // A shorter queue sends nobody away, but takes nobody else of the same client.
        reload(&server, &app(&keys(1, 1)));
        assert_eq!(metric(&server, "tollgate_upstream_queue"), 1, "{way}");
        assert_ours(&server.client().get("/").unwrap(), 503, "All backends are busy");
        // One less is held when one ends, and its place is not handed on.
        backend.release("a");
        assert_eq!(held.remove(0).read("GET").unwrap().status, 200, "{way}");
        assert!(eventually(PATIENCE, || {
            let told = server.ask("GET", "/upstreams", "").json();
            told["items"][0]["backends"][0]["in_flight"] == 1
        }));
        assert_eq!((backend.count("GET /last"), metric(&server, "tollgate_upstream_queue")), (0, 1), "{way}");
        // No bound at all.
        reload(&server, &app("retries: 1"));
        assert_eq!((last.read("GET").unwrap().status, backend.held("b")), (200, 1), "{way}");
        backend.release("b");
        assert_eq!(held.remove(0).read("GET").unwrap().status, 200, "{way}");
    }
}

#[test]
fn a_reload_that_removes_the_upstream_or_its_protocol_ends_the_wait() {
    for way in WAYS {
        let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", way);
        let mut held = holding(&server, &backend, "k");
        let mut waits = waiting(&server, "/waits", 0);
        let other = Setup::default().pool("other", &[backend.address], NO_CHECK).line(way);
        reload(&server, &other);
        assert_ours(&waits.read("GET").unwrap(), 503, "All backends are busy");
        backend.release("k");
        assert_eq!(held.read("GET").unwrap().status, 200, "{way}");
        assert_eq!((server.client().get("/").unwrap().status, backend.count("GET /waits")), (200, 0), "{way}");

        let ([backend], server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", way);
        let mut held = holding(&server, &backend, "k");
        let mut waits = waiting(&server, "/waits", 0);
        let http2 = Http2Backend::ok();
        let keys = format!("protocol: h2, max_in_flight: 1, queue: {{size: 5, timeout: 1m}}, {NO_CHECK}");
        reload(&server, &Setup::default().pool("app", &[http2.address], &keys).line(way));
        assert_ours(&waits.read("GET").unwrap(), 503, "All backends are busy");
        assert_eq!(server.client().get("/").unwrap().text(), "ok", "{way}");
        backend.release("k");
        assert_eq!(held.read("GET").unwrap().status, 200, "{way}");
    }
}

#[test]
fn who_waits_when_the_server_stops_is_served() {
    for way in WAYS {
        let ([backend], mut server) = start("max_in_flight: 1, queue: {size: 5, timeout: 1m}", way);
        let mut first = holding(&server, &backend, "k");
        let mut second = waiting(&server, "/second", 0);
        server.process.signal("TERM");
        assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
        backend.release("k");
        assert_eq!((first.read("GET").unwrap().status, second.read("GET").unwrap().status), (200, 200), "{way}");
        assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0), "{way}");
    }
}

#[test]
fn who_waits_when_the_grace_period_is_over_is_told_so() {
    for way in WAYS {
        let backend = [Backend::scripted("a")];
        let keys = "max_in_flight: 1, queue: {size: 5, timeout: 1m}";
        let mut server = setup(&backend, keys, way).line("pingora: {grace_period_seconds: 1}").start();
        let _held = holding(&server, &backend[0], "k");
        let mut second = waiting(&server, "/second", 0);
        server.process.signal("TERM");
        assert_ours(&second.read("GET").unwrap(), 503, "All backends are busy");
        assert_eq!((server.process.wait_exit(PATIENCE).code, backend[0].count("GET /second")), (Some(0), 0), "{way}");
    }
}

#[test]
fn who_waits_at_an_upgrade_is_served_by_the_process_that_has_it() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    let bounded = "max_in_flight: 1, queue: {size: 5, timeout: 1m}, health_check";
    std::fs::write(daemon.file(), daemon.text("tollgate.yaml").replace("health_check", bounded)).unwrap();
    assert_eq!(daemon.run(&["run", "-d"]).code, Some(0));
    let mut clients = [Client::connect(daemon.address), Client::connect(daemon.address)];
    clients[0].send(&Request::new("GET", "/first?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held("k") == 1));
    clients[1].send(&Request::new("GET", "/second").encode()).unwrap();
    let waits = "tollgate_upstream_queue{upstream=\"app\"} 1\n";
    assert!(eventually(PATIENCE, || daemon.ask("GET", "/metrics", "").unwrap().text().contains(waits)));
    daemon.upgrade();
    // The new one counts what it has given its backends itself.
    assert_eq!(Client::connect(daemon.address).get("/new").unwrap().status, 200);
    assert_eq!(backend.count("GET /second"), 0);
    backend.release("k");
    assert_eq!(clients.map(|mut client| client.read("GET").unwrap().status), [200, 200]);
}
