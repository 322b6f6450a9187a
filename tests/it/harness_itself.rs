//! The harness against itself: a client and a scripted backend without a proxy between them.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::script::GARBAGE;
use crate::harness::scripted::big;
use crate::harness::{PATIENCE, checksum, eventually};

#[test]
fn bodies_arrive_both_ways_in_every_framing() {
    let backend = Backend::scripted("a");
    let mut client = Client::connect(backend.address);
    for (seed, length) in [0, 1, 1000, 100 << 10].into_iter().enumerate() {
        let body = checksum::body(seed as u64, length);
        for framing in [Body::Length(&body), Body::Chunked(&body, 1), Body::Chunked(&body, 4096)] {
            for answer in ["length", "chunked"] {
                let target = format!("/both?answer={answer}&bytes={length}&seed={}", seed + 1);
                let response = client.call(&Request::new("POST", &target).body(framing)).unwrap();
                assert_eq!(response.header("x-got"), Some(&*format!("{length} {:x}", checksum::sum(&body))));
                assert!(response.body == checksum::body(seed as u64 + 1, length), "{framing:?} {answer}");
            }
        }
    }
    let response = client.get("/close?answer=close&bytes=5000").unwrap();
    assert!(response.closes() && response.body == checksum::body(0, 5000));
    client.wait_closed(PATIENCE).unwrap();
    assert_eq!((backend.count("POST /both"), backend.count("GET /close")), (24, 1));
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let backend = Backend::scripted("a");
    let mut client = Client::connect(backend.address);
    let head = client.call(&Request::new("HEAD", "/?bytes=1234")).unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("1234"), 0));
    assert_eq!(client.get("/?status=204").unwrap().header("content-length"), None);
    assert_eq!(client.get("/?status=304&bytes=99").unwrap().header("content-length"), Some("99"));
    let response = client.get("/?header_kb=100").unwrap();
    assert!((0..100).all(|n| response.header(&format!("X-Big-{n}")) == Some(&*big(n))));
    assert_eq!(response.json()["served"], 3);
    assert_eq!(backend.control("connections"), 1);
}

#[test]
fn faults_do_what_they_are_called() {
    let backend = Backend::scripted("a");
    let mut client = Client::connect(backend.address);
    assert_eq!(client.get("/?fault=close&at=b").unwrap().backend(), "a", "the fault of another backend");
    for target in ["/?fault=close", "/?fault=close_reused", "/?fault=half_body", "/?fault=half_chunked"] {
        assert_eq!(client.get("/").unwrap().status, 200);
        assert!(client.get(target).is_err(), "{target}");
        client = Client::connect(backend.address);
    }
    assert_eq!(client.get("/?fault=close_reused").unwrap().status, 200, "the first request of a connection");
    for target in ["/?fault=hang", "/?fault=half_head", "/?fault=head_only"] {
        let mut client = Client::connect(backend.address);
        client.set_timeout(Duration::from_millis(50));
        let kind = client.get(target).unwrap_err().kind();
        assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{target}: {kind}");
    }
    for (index, garbage) in GARBAGE.iter().enumerate() {
        let got = Client::connect(backend.address).get(&format!("/?raw={index}"));
        assert!(got.is_err(), "{garbage:?} was read as {got:?}");
    }
}

#[test]
fn requests_are_held_until_they_are_released() {
    let backend = Backend::scripted("a");
    let mut clients = [Client::connect(backend.address), Client::connect(backend.address)];
    for client in &mut clients {
        client.send(&Request::new("GET", "/?hold=k").encode()).unwrap();
    }
    assert!(eventually(PATIENCE, || backend.held("k") == 2));
    backend.release("k");
    for client in &mut clients {
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
    assert_eq!(backend.held("k"), 0);
}

#[test]
fn a_killed_backend_comes_back_on_its_address() {
    let mut backend = Backend::scripted("a");
    let mut client = Client::connect(backend.address);
    client.get("/").unwrap();
    for _ in 0..3 {
        backend.kill();
        assert!(Client::try_connect(backend.address).is_err());
        backend.restart();
    }
    client.wait_closed(PATIENCE).unwrap();
    assert_eq!(backend.count("GET /"), 0);
}

#[test]
fn health_answers_as_told() {
    let backend = Backend::scripted("a");
    let ask = |limit| {
        let mut client = Client::connect(backend.address);
        client.set_timeout(limit);
        client.get("/health").map(|response| response.status).ok()
    };
    assert_eq!(ask(PATIENCE), Some(200));
    backend.control("health=503");
    assert_eq!(ask(PATIENCE), Some(503));
    backend.control("health=0");
    assert_eq!(ask(Duration::from_millis(200)), None);
    assert!(backend.control("checks").as_array().unwrap().len() >= 3);
    assert_eq!(backend.seen(), Vec::<String>::new(), "checks are not requests");
}
