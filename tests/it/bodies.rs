//! Bodies and headers pass through unchanged, whatever their size and framing.

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::checksum;
use crate::harness::client::{Body, Client, Request, Response};
use crate::harness::scripted::big;
use crate::harness::server::Tollgate;
use crate::harness::setup::Setup;
use crate::harness::way::differs;
use crate::harness::wire::Framing;

const SIZE: usize = 100 << 10;

/// Posts `sent` and asks for an answer of `bytes` bytes; both are checked.
fn exchange(client: &mut Client, seed: u64, sent: Body<'_>, answer: &str, bytes: usize) -> Response {
    let target = format!("/body?answer={answer}&bytes={bytes}&seed={seed}");
    let response = client.call_again(&Request::new("POST", &target).body(sent)).unwrap();
    let body = match sent {
        Body::None => &[],
        Body::Length(body) | Body::Chunked(body, _) => body,
    };
    let got = format!("{} {:x}", body.len(), checksum::sum(body));
    assert_eq!((response.status, response.header("x-got")), (200, Some(&*got)), "{:?}", response.head);
    let sum = format!("{:x}", checksum::sum(&response.body));
    assert_eq!((response.body.len(), response.header("x-sum")), (bytes, Some(&*sum)));
    assert!(response.body == checksum::body(seed, bytes), "another answer's body");
    response
}

fn one(backends: &[Backend]) -> Tollgate {
    Setup::app(backends, "").start()
}

#[test]
fn ten_thousand_requests_with_100_kb_both_ways_arrive_intact() {
    let backends = three_scripted();
    let server = Setup::app(&backends, "").line("access_log: {path: null}").start();
    std::thread::scope(|scope| {
        for worker in 0..16_u64 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for turn in 0..625_u64 {
                    let seed = worker * 625 + turn;
                    let body = checksum::body(!seed, SIZE);
                    let sent = if turn % 2 == 0 { Body::Length(&body) } else { Body::Chunked(&body, 30_011) };
                    let answer = if turn % 4 < 2 { "length" } else { "chunked" };
                    exchange(&mut client, seed, sent, answer, SIZE);
                }
            });
        }
    });
    let counts = backends.each_ref().map(|backend| backend.count("POST /body"));
    assert_eq!(counts.iter().sum::<usize>(), 10_000, "each exactly once: {counts:?}");
}

#[test]
fn every_size_passes_in_every_framing() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    for (seed, size) in [0, 1, 2, 4095, 65_535, 65_536, 65_537, 3 << 20].into_iter().enumerate() {
        let body = checksum::body(99, size);
        for sent in [Body::Length(&body), Body::Chunked(&body, 65_536), Body::Chunked(&body, 997)] {
            for answer in ["length", "chunked", "close"] {
                exchange(&mut client, seed as u64, sent, answer, size);
            }
        }
    }
}

#[test]
fn chunks_of_one_byte_pass() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let body = checksum::body(5, 3000);
    exchange(&mut server.client(), 1, Body::Chunked(&body, 1), "chunked", 10);
}

#[test]
fn a_chunked_answer_stays_chunked_and_a_sized_one_sized() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    let framing = |response: Response| response.framing;
    assert_eq!(framing(client.get("/?answer=chunked").unwrap()), Some(Framing::Chunked));
    assert_eq!(framing(client.get("/?answer=length&bytes=77").unwrap()), Some(Framing::Length(77)));
    let request = Request::new("POST", "/").body(Body::Length(b"hello"));
    assert_eq!(client.call(&request).unwrap().json()["framing"], "length");
}

#[test]
fn a_chunked_body_that_is_there_has_a_length() {
    if differs() {
        return;
    }
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let request = Request::new("POST", "/").body(Body::Chunked(b"hello", 2));
    assert_eq!(server.client().call(&request).unwrap().json()["framing"], "length");
}

#[test]
fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    for _ in 0..20 {
        let head = client.call(&Request::new("HEAD", "/?bytes=5000")).unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, Some("5000")));
        let head = client.call(&Request::new("HEAD", "/?answer=chunked")).unwrap();
        assert_eq!(head.status, 200);
        let no_content = client.get("/?status=204").unwrap();
        assert_eq!((no_content.status, no_content.framing), (204, None));
        assert_eq!(client.get("/?status=304&bytes=5000").unwrap().status, 304);
        let deleted = client.call(&Request::new("DELETE", "/?status=204").body(Body::Length(b"x"))).unwrap();
        assert_eq!((deleted.status, deleted.backend()), (204, "a"));
        assert_eq!(client.get("/?bytes=5").unwrap().body.len(), 5);
    }
}

#[test]
fn head_of_an_error_of_ours_has_no_body_either() {
    let backends = [Backend::scripted("a")];
    let server = Setup::app(&backends, "").line("routes: [{path: /only, upstream: app}]").start();
    let mut client = server.client();
    let head = client.call(&Request::new("HEAD", "/elsewhere")).unwrap();
    assert_eq!((head.status, head.header("content-type")), (404, Some("application/json")));
    assert_eq!(client.get("/only").unwrap().status, 200, "a body would have come first");
}

#[test]
fn sixty_kilobytes_of_headers_pass() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    for _ in 0..10 {
        let response = client.get("/?header_kb=60&bytes=1000").unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        for n in 0..60 {
            assert_eq!(response.header(&format!("x-big-{n}")), Some(&*big(n)));
        }
        assert_eq!(response.body.len(), 1000);
    }
}

#[test]
fn a_client_that_asks_to_continue_is_told_to() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    // `read` passes over the 100, so the body goes out with another hand when it has arrived.
    let mut stream = client.stream();
    let mut first = [0; 12];
    assert_eq!(stream.peek(&mut first).map(|_| &first[..]).unwrap(), b"HTTP/1.1 100");
    std::io::Write::write_all(&mut stream, b"hello").unwrap();
    let response = client.read("POST").unwrap();
    assert_eq!(response.header("x-got"), Some(&*format!("5 {:x}", checksum::sum(b"hello"))));
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn a_client_of_http_1_0_is_served() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    for answer in ["length", "close"] {
        let mut client = server.client();
        client.send(format!("GET /?bytes=5000&answer={answer} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let response = client.read("GET").unwrap();
        assert_ne!(response.framing, Some(Framing::Chunked), "HTTP/1.0 knows no chunks");
        assert!(response.body == checksum::body(0, 5000));
        client.wait_closed(crate::harness::PATIENCE).unwrap();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backends = [Backend::scripted("a")];
    let server = one(&backends);
    let mut client = server.client();
    let requests: Vec<u8> = (1..=5).flat_map(|n| Request::new("GET", &format!("/?bytes={n}")).encode()).collect();
    client.send(&requests).unwrap();
    for n in 1..=5 {
        assert_eq!(client.read("GET").unwrap().body.len(), n);
    }
}
