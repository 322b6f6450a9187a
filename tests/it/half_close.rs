//! A client that ends its side behind its request gets its answer, whatever way the request goes; one that is really
//! gone is noticed all the same.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::played::{Played, Taken};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{self, Blocking, NOW, write_pair};

/// What goes directly, and what by Pingora's loop for one reason or another.
const REQUESTS: [&str; 6] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
];

/// Long enough for the proxy to have seen what it was sent, and to have looked after it.
const MEANWHILE: Duration = Duration::from_millis(300);

/// The beginning of an answer, part of which is passed on at once by every way.
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

fn setup(backend: &Played) -> Setup {
    Setup::default().pool("app", &[backend.address], NO_CHECK)
}

fn start() -> (Played, Tollgate) {
    let backend = Played::new();
    let server = setup(&backend).start();
    (backend, server)
}

fn send(server: &Tollgate, request: &str) -> Client {
    let mut client = server.client();
    client.send(request.as_bytes()).unwrap();
    client
}

/// Answers slowly, over a connection that no other request goes over.
fn answer(taken: &mut Taken) {
    assert!(!taken.is_closed(MEANWHILE), "given up");
    taken.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc");
    assert!(!taken.is_closed(MEANWHILE), "given up midway");
    taken.send(b"def");
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer_whole() {
    let (backend, server) = start();
    for (n, request) in REQUESTS.into_iter().enumerate() {
        let mut client = send(&server, request);
        client.finish();
        let (mut taken, _) = backend.take_request();
        answer(&mut taken);
        let response = client.read("GET").unwrap_or_else(|e| panic!("{request:?}: {e}"));
        assert_eq!((response.status, response.text().as_str()), (200, "abcdef"), "{request:?}");
        assert!(response.closes(), "{request:?}: {response:?}");
        client.wait_closed(PATIENCE).unwrap();
        let line = server.access_lines(n + 1).remove(n);
        assert_eq!((&line["status"], &line["error"]), (&json!(200), &json!(null)), "{line}");
    }
}

#[test]
fn requests_that_were_sent_ahead_are_answered_too() {
    let (backend, server) = start();
    for request in &REQUESTS[..5] {
        let mut client = send(&server, &request.repeat(3));
        client.finish();
        for n in 0..3 {
            answer(&mut backend.take_request().0);
            assert_eq!(client.read("GET").unwrap().text(), "abcdef", "{request:?} {n}");
        }
        client.wait_closed(PATIENCE).unwrap();
    }
}

#[test]
fn a_client_that_resets_after_its_end_is_noticed() {
    let (backend, server) = start();
    for (n, request) in REQUESTS.into_iter().enumerate() {
        for said in ["", CHUNKS] {
            let mut client = send(&server, request);
            client.finish();
            let (mut taken, _) = backend.take_request();
            taken.send(said.as_bytes());
            assert!(said.is_empty() || client.has_answer(PATIENCE), "{request:?}");
            assert!(!taken.is_closed(MEANWHILE), "{request:?}: it is not gone yet");
            client.reset();
            assert!(taken.is_closed(PATIENCE), "{request:?} {said:?}");
            let at = 2 * n + usize::from(!said.is_empty());
            let line = server.access_lines(at + 1).remove(at);
            assert_eq!(line["error"], "the client closed the connection", "{line}");
        }
    }
}

#[test]
fn a_client_that_is_gone_is_noticed_when_it_is_written_to() {
    let (backend, server) = start();
    for request in REQUESTS {
        drop(send(&server, request));
        let (mut taken, _) = backend.take_request();
        assert!(!taken.is_closed(MEANWHILE), "{request:?}");
        taken.send(CHUNKS.as_bytes());
        // The first bytes are answered by a reset.
        assert!(
            (0..20).any(|_| {
                taken.send(b"4\r\nmore\r\n");
                taken.is_closed(MEANWHILE)
            }),
            "{request:?}"
        );
    }
}

#[test]
fn an_end_within_a_request_is_the_end_of_it() {
    let (backend, server) = start();
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let mut client = send(&server, request);
        let mut taken = backend.take();
        client.finish();
        assert!(!matches!(taken.next(), Ok(Some(_))), "{request:?} was taken for whole");
        let _ = client.rest(PATIENCE).unwrap();
    }
    for request in
        ["GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"]
    {
        let mut client = send(&server, request);
        client.finish();
        assert!(!client.rest(PATIENCE).unwrap().contains(" 200 "), "{request:?}");
    }
}

#[test]
fn it_can_be_taken_for_an_end_which_a_reload_changes() {
    let backend = Played::new();
    let abort = |abort: bool| setup(&backend).line(&format!("limits: {{abort_on_half_close: {abort}}}"));
    let server = abort(true).start();
    for request in REQUESTS {
        let client = send(&server, request);
        let (mut taken, _) = backend.take_request();
        client.finish();
        assert!(taken.is_closed(PATIENCE), "{request:?}");
    }
    server.rewrite(&abort(false).yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").json()["changed"], json!(["limits changed"]));
    let mut client = send(&server, REQUESTS[0]);
    client.finish();
    let (mut taken, _) = backend.take_request();
    answer(&mut taken);
    assert_eq!(client.read("GET").unwrap().text(), "abcdef");
}

/// How a client ends its side over TLS: with a goodbye, with a goodbye and a FIN, with a FIN alone.
const ENDS: [fn(&mut Blocking); 3] = [goodbye, |tls| (goodbye(tls), fin(tls)).1, fin];

fn goodbye(tls: &mut Blocking) {
    tls.conn.send_close_notify();
    tls.flush().unwrap();
}

fn fin(tls: &mut Blocking) {
    tls.sock.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn over_tls_it_is_the_same() {
    let (backend, dir) = (Played::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = setup(&backend).tls(dir.path()).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (n, end) in ENDS.into_iter().enumerate() {
            for request in [REQUESTS[1], REQUESTS[3]] {
                let config = tls::config(&[version], &["http/1.1"]);
                let open = || {
                    let (_, mut tls) = tls::handshake(server.address, &config).unwrap();
                    tls.write_all(request.as_bytes()).unwrap();
                    tls.flush().unwrap();
                    end(&mut tls);
                    let taken = backend.take_within(PATIENCE);
                    let mut taken = taken.unwrap_or_else(|| panic!("{version:?} {n} {request:?}: not served"));
                    taken.request();
                    assert!(!taken.is_closed(MEANWHILE), "{version:?} {n} {request:?}: given up");
                    (tls, taken)
                };
                let (mut tls, mut taken) = open();
                answer(&mut taken);
                let mut text = String::new();
                // How it ends does not matter here.
                let _ = tls.read_to_string(&mut text);
                assert!(
                    text.starts_with("HTTP/1.1 200") && text.ends_with("abcdef"),
                    "{version:?} {n} {request:?}: {text}"
                );
                let (tls, mut taken) = open();
                rustix::net::sockopt::set_socket_linger(&tls.sock, Some(Duration::ZERO)).unwrap();
                drop(tls);
                assert!(taken.is_closed(PATIENCE), "{version:?} {n} {request:?}: a reset is not noticed");
            }
        }
    }
}
