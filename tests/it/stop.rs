//! Signals: the end of the server, with nothing lost and nothing waited for in vain.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::checksum;
use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{Http2, get, request};
use crate::harness::instance::Instance;
use crate::harness::load::{Behaviour, Load};
use crate::harness::ports::free_address;
use crate::harness::process::run;
use crate::harness::server::command;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, eventually, now};

/// Soon, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn an_idle_server_stops_at_once_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let backend = [Backend::scripted("a")];
        let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 60}").start();
        // Idle connections are no reason to wait: one that has served, and one that has not said a word.
        let mut used = server.client();
        used.get("/").unwrap();
        let _silent = server.client();
        let start = now();
        server.process.signal(signal);
        let finished = server.process.wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(0), "{signal}: {finished:?}");
        assert!(now() - start < SOON, "{signal} took {:?}", now() - start);
        assert!(Client::try_connect(server.address).is_err());
    }
}

#[test]
fn requests_in_flight_finish_and_new_connections_are_refused() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 20}").start();
    let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&Request::new("GET", "/?hold=k&bytes=500000").encode()).unwrap();
    }
    assert!(eventually(PATIENCE, || backend[0].held("k") == 10));
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    assert!(server.process.is_running(), "requests are still running");
    backend[0].release("k");
    for client in &mut clients {
        let response = client.read("GET").unwrap();
        assert_eq!((response.status, response.body.len()), (200, 500_000));
    }
    let start = now();
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(now() - start < SOON, "drained, yet it took {:?}", now() - start);
    assert_eq!(finished.out.lines().count(), 10, "the last requests are in the access log");
}

#[test]
fn a_request_whose_header_is_half_there_still_gets_its_answer() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 20}").start();
    let (mut fresh, mut used) = (server.client(), server.client());
    used.get("/").unwrap();
    for client in [&mut fresh, &mut used] {
        client.send(b"GET /half HTTP/1.1\r\nHost: a\r\nX-Half: ").unwrap();
    }
    // The answer to a request that was sent later shows that the halves have arrived.
    server.client().get("/").unwrap();
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    for (name, client) in [("fresh", &mut fresh), ("used", &mut used)] {
        client.send(b"whole\r\n\r\n").unwrap();
        let response = client.read("GET").unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(response.status, 200, "{name}: {response:?}");
    }
    let start = now();
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < SOON, "drained, yet it took {:?}", now() - start);
    assert_eq!(backend[0].count("GET /half"), 2);
}

#[test]
fn the_grace_period_is_the_longest_wait() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 1}").start();
    let mut client = server.client();
    client.send(&Request::new("GET", "/?fault=hang").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend[0].count("GET /") == 1));
    let start = now();
    server.process.signal("TERM");
    let finished = server.process.wait_exit(PATIENCE);
    let took = now() - start;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "took {took:?}");
}

#[test]
fn a_second_interrupt_exits_at_once() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 60}").start();
    let mut client = server.client();
    client.send(&Request::new("GET", "/?fault=hang").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend[0].count("GET /") == 1));
    server.process.signal("INT");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    assert!(server.process.is_running());
    server.process.signal("INT");
    let start = now();
    server.process.wait_exit(PATIENCE);
    assert!(now() - start < SOON);
}

#[test]
fn a_stop_under_load_fails_no_request() {
    let backends = [Backend::scripted("a"), Backend::scripted("b")];
    for kept in [true, false] {
        let mut server = Setup::app(&backends, NO_CHECK).line("access_log: {path: null}").start();
        // Who is refused afterwards has come too late, which is no failure.
        let behaviour = Behaviour { clients: 8, kept, until_refused: true };
        let load = Load::with(server.address, behaviour, "/?bytes=2000", &[]);
        load.wait_for(500);
        server.process.signal("TERM");
        let outcome = load.finish();
        // A connection that the kernel completed in the very moment in which the socket closed has no owner.
        let lost = if kept { 0 } else { 1 };
        assert!(outcome.failures.len() <= lost, "kept: {kept}: {:?}", outcome.failures);
        assert_eq!(outcome.with(200), outcome.answered(), "kept: {kept}: {:?}", outcome.statuses);
        let finished = server.process.wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
}

#[test]
fn the_last_answer_of_a_connection_says_so() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line("limits: {max_body: 10}").start();
    let (mut held, mut served, mut refused) = (server.client(), server.client(), server.client());
    held.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend[0].held("k") == 1));
    for client in [&mut served, &mut refused] {
        assert!(!client.get("/").unwrap().closes());
    }
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    // These come in the moment after an answer, and are no surprise to the proxy.
    let late = [served.get("/"), refused.call(&Request::new("POST", "/").body(Body::Length(&[b'x'; 100])))];
    let statuses = late.map(|answer| answer.map(|answer| (answer.status, answer.closes())).unwrap());
    assert_eq!(statuses, [(200, true), (413, true)]);
    backend[0].release("k");
    let answer = held.read("GET").unwrap();
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
}

#[test]
fn downloads_that_take_seconds_end_whole() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 20}").start();
    let address = server.address;
    // One at a megabyte a second for five seconds, and ten streams of three seconds.
    let targets =
        std::iter::once("/?bytes=5000000&over_ms=5000").chain(std::iter::repeat_n("/?bytes=30000&over_ms=3000", 10));
    let clients = targets.map(|target| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            let answer = client.get(target).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(answer.header("x-sum"), Some(format!("{:x}", checksum::sum(&answer.body)).as_str()), "{target}");
            answer.body.len()
        })
    });
    let clients: Vec<_> = clients.collect();
    assert!(eventually(PATIENCE, || backend[0].count("GET /") == 11));
    server.process.signal("TERM");
    let lengths: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(lengths, [vec![5_000_000], vec![30_000; 10]].concat());
    let start = now();
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < SOON, "drained, yet it took {:?}", now() - start);
}

#[test]
fn only_a_second_interrupt_is_impatience() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("pingora: {grace_period_seconds: 60}").start();
    let mut client = server.client();
    client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend[0].held("k") == 1));
    server.process.signal("TERM");
    server.wait_for_event(&["SIGTERM: draining"], PATIENCE);
    server.process.signal("TERM");
    server.wait_for_event(&["SIGTERM: draining already"], PATIENCE);
    backend[0].release("k");
    assert_eq!(client.read("GET").unwrap().status, 200);
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}

#[test]
fn what_the_end_of_the_grace_period_cuts_is_counted_and_has_its_lines() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    // Over TLS as in the clear, with h2 where it is agreed.
    for tls in [false, true] {
        let stop = "pingora: {grace_period_seconds: 1}";
        let mut setup = Setup::app(&backend, NO_CHECK).line(stop);
        if tls {
            setup = setup.tls(dir.path());
        }
        let mut server = setup.start();
        let before = backend[0].count("GET /hang") + backend[0].count("GET /midway") + backend[0].count("POST /body");
        let (mut plain, mut http2) = (Vec::new(), None);
        if tls {
            let mut client = Http2::connect(server.address);
            let begun = [get("/hang?fault=hang"), get("/midway?fault=head_only")];
            let [(hangs, _), (midway, _)] = begun.map(|request| client.open(request, true).unwrap());
            let begins = client.runtime.block_on(midway).unwrap();
            assert_eq!(begins.status(), 200);
            let (answer, mut body) = client.open(request("POST", "/body?fault=hang"), false).unwrap();
            body.send_data("abc".into(), false).unwrap();
            http2 = Some((client, hangs, begins, answer, body));
        } else {
            let body = "POST /body?fault=hang HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
            let half = "GET /half?x HTTP/1.1\r\nHost: a\r\nX-Half: ";
            let whole = |target| Request::new("GET", target).encode();
            let [hang, midway] = ["/hang?fault=hang", "/midway?fault=head_only"].map(whole);
            for bytes in [hang.as_slice(), &midway, body.as_bytes(), half.as_bytes()] {
                plain.push(server.client());
                plain.last_mut().unwrap().send(bytes).unwrap();
            }
            // The first bytes of its body have come: it is midway.
            let head = String::from_utf8(plain[1].read_bytes(15).unwrap()).unwrap();
            assert_eq!(head, "HTTP/1.1 200 OK");
        }
        let begun = || {
            backend[0].count("GET /hang") + backend[0].count("GET /midway") + backend[0].count("POST /body") - before
        };
        assert!(eventually(PATIENCE, || begun() == 3), "{}", begun());
        server.process.signal("TERM");
        let finished = server.process.wait_exit(PATIENCE);
        let cut = if tls { 3 } else { 4 };
        let told = format!("the grace period is over; requests cut: {cut}");
        assert!(finished.code == Some(0) && finished.err.contains(&told), "{finished:?}");
        let mut lines: Vec<_> = finished.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        lines.sort_by_key(|line| line["path"].to_string());
        let statuses = lines.iter().map(|line| (line["path"].as_str().unwrap(), line["status"].as_u64()));
        let mut expected = vec![("/body", None), ("/half", None), ("/hang", None), ("/midway", Some(200))];
        expected.retain(|(path, _)| !tls || *path != "/half");
        assert_eq!(statuses.collect::<Vec<_>>(), expected, "{lines:?}");
        for line in &lines {
            assert_eq!(line["error"], "the server stopped", "{line}");
            let [ms, got, sent] = ["duration_ms", "bytes_in", "bytes_out"].map(|key| line[key].as_f64().unwrap());
            let expected = (3.0 * f64::from(line["path"] == "/body"), 5.0 * f64::from(line["path"] == "/midway"));
            assert_eq!((got, sent), expected, "{line}");
            assert!(ms >= 900.0 && (line["path"] == "/half" || line["backend"].is_string()), "{line}");
        }
        drop((plain, http2));
    }
}

#[test]
fn idle_connections_to_the_admin_api_do_not_hold_a_stop() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "pingora: {grace_period_seconds: 60}");
    let mut used = Client::connect(server.admin);
    assert_eq!(used.call(&Request::new("GET", "/healthz").host("localhost")).unwrap().status, 200);
    let _silent = Client::connect(server.admin);
    let start = now();
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < SOON, "it took {:?}", now() - start);
}

#[test]
fn an_address_that_is_taken_ends_the_start_and_names_who_has_it() {
    let backend = Backend::scripted("a");
    let first = Instance::start(backend.address, "");
    for (key, taken) in [("listeners", first.address), ("admin", first.admin)] {
        let (free, dir) = (free_address(), tempfile::TempDir::new().unwrap());
        let (listen, admin) = if key == "admin" { (free, taken) } else { (taken, free) };
        let file = dir.path().join("tollgate.yaml");
        let yaml = format!(
            "listeners: [{{address: \"{listen}\"}}]\nadmin: {{address: \"{admin}\"}}\ndatabase: null\nupstreams: [{{name: app, \
             backends: [{{address: \"{}\"}}]}}]\n",
            backend.address
        );
        std::fs::write(&file, yaml).unwrap();
        let start = now();
        let finished = run(command().args(["run", "-c"]).arg(&file));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(now() - start < SOON, "it took {:?}", now() - start);
        let owner = format!("tollgate (pid {}) listens there", first.process.id());
        let said = [format!("cannot listen on {taken}"), owner];
        assert!(said.iter().all(|words| finished.err.contains(words)), "{finished:?}");
    }
}

#[test]
fn a_listener_that_dies_ends_the_process() {
    let backend = Backend::scripted("a");
    for admin in [false, true] {
        let mut server = Instance::start(backend.address, "");
        let address = if admin { server.admin } else { server.address };
        assert_eq!(
            Client::connect(address).call(&Request::new("GET", "/healthz").host("localhost")).unwrap().status,
            200
        );
        kill_listener(server.process.id(), address);
        let finished = server.process.wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.err.contains(&format!("the listener on {address} died")), "{finished:?}");
    }
}

/// Makes the socket of another process that listens on `address` stop listening, behind that process' back.
fn kill_listener(pid: u32, address: SocketAddr) {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let process = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        let Ok(file) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        let listens = rustix::net::sockopt::socket_acceptconn(&file).unwrap_or(false);
        let here = rustix::net::getsockname(&file).ok().and_then(|name| SocketAddr::try_from(name).ok());
        if listens && here == Some(address) {
            rustix::net::shutdown(&file, rustix::net::Shutdown::Both).unwrap();
            return;
        }
    }
    panic!("process {pid} does not listen on {address}");
}
