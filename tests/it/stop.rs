//! Signals: the end of the server, with nothing lost and nothing waited for in vain.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::setup::{NO_CHECK, Setup};
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
