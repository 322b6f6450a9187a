//! A backend that answers before it has read the body: the answer is passed on at once, and nobody waits for a body
//! that does not come.

use std::io::Write;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually, now};

/// At once, on a busy machine.
const SOON: Duration = Duration::from_secs(2);

fn server() -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    (backend, server)
}

/// Sends a request whose body does not come, and asserts that it is answered and ended all the same.
#[track_caller]
fn assert_ends(server: &Tollgate, sent: &str, lines_before: usize) {
    let mut client = server.client();
    let start = now();
    client.send(sent.as_bytes()).unwrap();
    let response = client.read("POST").unwrap_or_else(|e| panic!("{sent:?}: {e}"));
    assert!(now() - start < SOON, "{sent:?}: the answer took {:?}", now() - start);
    assert_eq!((response.status, response.text().as_str()), (401, "early"), "{sent:?}: {response:?}");
    assert!(response.closes(), "{sent:?}: what comes next on it might be the body: {:?}", response.head);
    let ended = eventually(Duration::from_secs(5), || server.process.out.lines().len() > lines_before);
    assert!(ended, "{sent:?}: no access line {:?} after the request", now() - start);
    let line = server.access_lines(lines_before + 1).remove(lines_before);
    assert_eq!(line["status"], 401, "{line}");
    client.wait_closed(PATIENCE).unwrap_or_else(|e| panic!("{sent:?}: {e}"));
}

#[test]
fn a_client_that_waits_for_100_continue_gets_the_answer_instead() {
    let (_backend, server) = server();
    for (n, framing) in ["Content-Length: 100000", "Transfer-Encoding: chunked"].into_iter().enumerate() {
        let head = format!("POST /?early=401 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        assert_ends(&server, &head, n);
    }
}

#[test]
fn a_body_that_stalls_does_not_hold_up_the_answer_nor_its_end() {
    let (_backend, server) = server();
    for (n, sent) in [
        "Content-Length: 100000\r\n\r\nonly this",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Content-Length: 9\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        assert_ends(&server, &format!("POST /?early=401 HTTP/1.1\r\nHost: a\r\n{sent}"), n);
    }
}

#[test]
fn what_was_sent_behind_an_early_answer_is_not_taken_for_a_request() {
    let (backend, server) = server();
    let mut client = server.client();
    client.send(b"POST /?early=401 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 401);
    // The body comes late, and looks like something else.
    let _ = client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.rest(PATIENCE).unwrap(), "");
    assert_eq!(backend[0].count("GET /smuggled"), 0);
}

#[test]
fn an_early_answer_can_be_read_by_a_client_that_sends_its_whole_body_first() {
    let (_backend, server) = server();
    let body = vec![b'x'; 4 << 20];
    for _ in 0..5 {
        let mut client = Client::connect(server.address);
        let mut stream = client.stream();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let head = format!("POST /?early=401 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
                // How much of it is taken does not matter.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            });
            assert_eq!(client.read("POST").unwrap().status, 401);
        });
    }
}

#[test]
fn with_a_100_continue_the_body_is_sent_and_the_connection_goes_on() {
    let (_backend, server) = server();
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert!(client.has_answer(PATIENCE), "no 100");
    client.send(b"hello").unwrap();
    let response = client.read("POST").unwrap();
    assert!(response.status == 200 && !response.closes(), "{response:?}");
    assert!(response.header("x-got").unwrap().starts_with("5 "), "{response:?}");
    assert_eq!(client.get("/").unwrap().status, 200);
}
