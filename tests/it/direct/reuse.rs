//! Connections to backends: when one is kept, what may go over it again, and that none is left over.

use std::time::Duration;

use super::{OK, ask, kept, start, start_with};
use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, eventually};

#[test]
fn a_connection_is_kept_when_it_is_clear_that_the_answer_is_over() {
    let (backend, server) = start("");
    let mut client = server.client();
    let mut taken = kept(&mut client, &backend);
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", "ok"),
        ("HTTP/1.1 204 No\r\n\r\n", ""),
        ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", ""),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "ok"),
        ("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ] {
        ask(&mut client, &mut taken);
        taken.send(answer.as_bytes());
        let response = client.read("GET").unwrap();
        assert_eq!((response.text().as_str(), response.closes()), (body, false), "{answer}");
    }
    assert!(backend.take_within(Duration::ZERO).is_none(), "one connection for all of them");
}

#[test]
fn a_connection_is_closed_when_something_about_the_answer_is_not_clear() {
    let (backend, server) = start("");
    let mut client = server.client();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(answer.as_bytes());
        let response = client.read("GET").unwrap();
        assert_eq!((response.text().as_str(), response.closes()), ("ok", false), "{answer}");
        assert!(taken.is_closed(PATIENCE), "{answer}");
    }
}

#[test]
fn what_a_backend_says_unasked_is_nobodys_answer() {
    let (backend, server) = start("");
    let mut client = server.client();
    let mut taken = kept(&mut client, &backend);
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    assert!(taken.is_closed(PATIENCE), "also when no request comes");
    assert_eq!(kept(&mut client, &backend).request_within(Duration::ZERO), None);
}

#[test]
fn an_idle_connection_is_closed_in_time_and_with_its_backend() {
    let (backend, server) = start(", idle_timeout: 300ms");
    let mut client = server.client();
    assert!(kept(&mut client, &backend).is_closed(PATIENCE), "when its time is over");
    drop(kept(&mut client, &backend));
    // What may not be repeated does not meet the closed one.
    client.send(&Request::new("POST", "/").encode()).unwrap();
    backend.take_request().0.send(OK);
    assert_eq!(client.read("POST").unwrap().text(), "ok");
    assert_eq!(server.access_lines(3)[2]["attempts"], 1);
}

/// Far below the fifty seconds that the configuration allows.
#[test]
fn an_idle_connection_is_closed_before_its_backend_says_that_it_will() {
    const SAYS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=1, max=9\r\n\r\nok";
    let (backend, server) = start("");
    let mut client = server.client();
    client.send(&Request::new("GET", "/").encode()).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(SAYS);
    let answer = client.read("GET").unwrap();
    assert_eq!((answer.text().as_str(), answer.header("keep-alive")), ("ok", None));
    assert!(taken.is_closed(PATIENCE));
    // By Pingora's loop, once it was said.
    let by_the_loop = Request::new("POST", "/").headers(&[("TE", "trailers"), ("Connection", "TE")]).encode();
    client.send(&by_the_loop).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(SAYS);
    assert_eq!(client.read("POST").unwrap().text(), "ok");
    assert!(taken.is_closed(PATIENCE));
}

#[test]
fn with_a_pool_of_none_no_connection_is_kept() {
    let (backend, server) = start_with("", "pingora: {threads: 1, upstream_keepalive_pool_size: 0}");
    let mut client = server.client();
    for _ in 0..3 {
        assert!(kept(&mut client, &backend).is_closed(PATIENCE));
    }
}

#[test]
fn no_more_connections_are_kept_than_the_pool_may_have() {
    let (backend, server) = start_with("", "pingora: {threads: 2, upstream_keepalive_pool_size: 4}");
    let mut clients: Vec<_> = (0..32).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&Request::new("GET", "/").encode()).unwrap());
    let mut taken: Vec<_> = clients.iter().map(|_| backend.take_request().0).collect();
    taken.iter_mut().for_each(|taken| taken.send(OK));
    clients.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().text(), "ok"));
    let mut open =
        || taken.iter_mut().map(|taken| usize::from(!taken.is_closed(Duration::from_millis(1)))).sum::<usize>();
    assert!(eventually(PATIENCE, || open() <= 4), "{} are kept", open());
    assert!(open() > 0);
}

#[test]
fn a_request_that_dies_on_a_kept_connection_is_sent_again_if_it_may_be() {
    let (backend, server) = start("");
    for (n, (method, said, again)) in [
        ("GET", "", true),
        ("DELETE", "", true),
        ("POST", "", false),
        ("PATCH", "", false),
        ("GET", "H", false),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false),
        ("GET", "HTTP/1.1 103 Early\r\n\r\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.client();
        let mut taken = kept(&mut client, &backend);
        client.send(&Request::new(method, "/dies").body(Body::Length(b"body")).encode()).unwrap();
        assert_eq!(taken.request().body, b"body");
        taken.send(said.as_bytes());
        drop(taken);
        let second = if again {
            let (mut taken, got) = backend.take_request();
            assert_eq!((got.head.first, got.body), (format!("{method} /dies HTTP/1.1"), b"body".to_vec()));
            taken.send(OK);
            Some(taken)
        } else {
            None
        };
        let response = client.read(method).unwrap();
        let line = server.access_lines(2 * n + 2).remove(2 * n + 1);
        if again {
            assert_eq!(response.text(), "ok", "{method} {said:?}");
            assert_eq!((&line["attempts"], &line["error"]), (&2.into(), &().into()), "{line}");
        } else {
            assert_ours(&response, 502, "Bad gateway");
            assert_eq!(line["attempts"], 1, "{method} {said:?}: {line}");
            let why = line["error"].as_str().unwrap();
            assert!(
                why.starts_with("connection closed before the answer was complete, on a reused connection"),
                "{line}"
            );
        }
        assert!(backend.take_within(Duration::ZERO).is_none(), "{method} {said:?}: sent again");
        // What is kept now is not to meet the next case.
        drop(second);
    }
}

#[test]
fn a_request_that_dies_on_a_new_connection_is_sent_once_more_if_it_may_be() {
    let (backend, server) = start("");
    for (method, said, again) in [("GET", "", true), ("PUT", "", true), ("POST", "", false), ("GET", "H", false)] {
        let mut client = server.client();
        let request = Request::new(method, "/").body(Body::Length(b"body"));
        client.send(&request.encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        taken.send(said.as_bytes());
        drop(taken);
        if again {
            let (mut taken, got) = backend.take_request();
            assert_eq!(got.body, b"body");
            taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            assert_eq!(client.read(method).unwrap().text(), "ok", "{method} {said}");
        } else {
            assert_ours(&client.read(method).unwrap(), 502, "Bad gateway");
        }
        assert!(backend.take_within(Duration::ZERO).is_none(), "{method} {said}");
    }
}

#[test]
fn connections_to_a_backend_do_not_pile_up() {
    let (backend, server) = start("");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count();
    drop(kept(&mut server.client(), &backend));
    let before = descriptors();
    for n in 0..30 {
        let mut client = server.client();
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut taken, _) = backend.take_request();
        // Each ends in another way: the client leaves, the backend does, both are done.
        if n % 3 > 0 {
            taken.send(if n % 3 == 1 { b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" } else { OK });
            assert!(client.has_answer(PATIENCE));
        } else {
            client.reset();
            assert!(taken.is_closed(PATIENCE));
        }
    }
    assert!(eventually(PATIENCE, || descriptors() <= before), "{} and before {before}", descriptors());
}

#[test]
fn connections_that_stay_with_their_thread_and_those_that_do_not_are_served() {
    for stealing in [false, true] {
        let backend = [Backend::scripted("a")];
        let line = format!("pingora: {{threads: 3, work_stealing: {stealing}}}");
        let mut server = Setup::app(&backend, NO_CHECK).line(&line).start();
        let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
        for round in 0..5 {
            for client in &mut clients {
                assert_eq!(client.get("/").unwrap().status, 200, "stealing: {stealing}, round {round}");
            }
        }
        server.process.signal("TERM");
        assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0), "stealing: {stealing}");
    }
}
