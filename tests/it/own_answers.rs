//! Answers of our own in all that HTTP asks of them: none to HEAD has a body, however early it is given, and a 405
//! names what is allowed.

use std::time::Duration;

use http::Request;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::dawdle;
use crate::harness::http2::{Http2, request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Nothing but `/served` is.
const RULES: &str = "routes: [{path: /served, upstream: app}]\nlimits: {max_body: 5, header_timeout: 1s}";

fn server() -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line(RULES).start();
    (backend, server)
}

/// All that came over a connection on which `sent` was sent, to its end.
#[track_caller]
fn answer_to(server: &Tollgate, sent: &str) -> String {
    let mut client = server.client();
    client.send(sent.as_bytes()).unwrap();
    client.rest(Duration::from_secs(20)).unwrap_or_else(|e| panic!("{sent:.80?}: {e}"))
}

#[test]
fn no_answer_to_head_has_a_body_however_early_it_is_given() {
    let (_backend, server) = server();
    let close = "Host: a\r\nConnection: close\r\n";
    let long = "x".repeat(80_000);
    for (rest, status) in [
        (format!("/ HTTP/1.1\r\n{close}\r\n"), 404),
        (format!("/ HTTP/1.1\r\nTE: trailers\r\n{close}\r\n"), 404),
        ("/ HTTP/1.0\r\n\r\n".to_owned(), 404),
        (format!("/served HTTP/1.1\r\n{close}Content-Length: 6\r\n\r\nhello!"), 413),
        (format!("/served HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n"), 413),
        (format!("/served HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        ("/ HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("/ HTTP/9.9\r\n".to_owned(), 400),
        ("/ HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("/ HTTP/1.1\r\nHost: a\r\nX: {long}"), 431),
        ("/ HTTP/1.1\r\nHost: a\r\nX-Half: ".to_owned(), 408),
        ("/".to_owned(), 408),
    ] {
        for start in ["", "\r\n"] {
            let answer = answer_to(&server, &format!("{start}HEAD {rest}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{rest:.80?}: {answer}");
            assert!(answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1, "{rest:.80?}: {answer}");
            // The length is that of the answer to a GET.
            let get = answer_to(&server, &format!("{start}GET {rest}"));
            let body = get.split_once("\r\n\r\n").unwrap().1;
            assert!(
                !body.is_empty() && answer.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                "{answer}"
            );
        }
    }
    let lines = server.access_lines(48);
    assert!(lines.iter().all(|line| line["status"].is_u64()), "{lines:?}");
    assert!(lines.iter().all(|line| (line["bytes_out"] == 0) == (line["method"] == "HEAD")), "{lines:?}");
}

#[test]
fn what_may_yet_become_another_method_gets_its_answer_whole() {
    let (_backend, server) = server();
    for sent in ["HEAD", "HEADER / HTTP/1.1\r\nno colon\r\n\r\n", "head / HTTP/1.1\r\nno colon\r\n\r\n"] {
        let answer = answer_to(&server, sent);
        assert!(answer.ends_with('}'), "{sent:?}: {answer}");
    }
}

#[test]
fn a_405_to_connect_names_what_is_allowed() {
    let (_backend, server) = server();
    let answer = answer_to(&server, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let allow = answer.lines().find_map(|line| line.strip_prefix("Allow: ")).unwrap_or_else(|| panic!("{answer}"));
    let allowed: Vec<_> = allow.split(", ").collect();
    assert!(["GET", "HEAD", "POST"].iter().all(|method| allowed.contains(method)), "{allow}");
    assert!(!allowed.contains(&"CONNECT"), "{allow}");
}

#[test]
fn the_last_answer_on_a_connection_is_not_overtaken_by_a_reset() {
    let (_backend, server) = server();
    for (size, way) in [(2048, ""), (2048, "TE: trailers\r\n"), (6144, ""), (700, "")] {
        for _ in 0..5 {
            // All that is read at once is the request, and what follows it stays where it is.
            let head = format!("GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{way}X: ");
            let pad = "x".repeat(size - head.len() - 4);
            let mut client = server.client();
            client.send(format!("{head}{pad}\r\n\r\n{}", "y".repeat(60_000)).as_bytes()).unwrap();
            // A client that is slow to read loses what a reset has overtaken.
            dawdle(Duration::from_millis(100));
            let response = client.read("GET").unwrap_or_else(|e| panic!("{size} {way:?}: {e}"));
            assert!(response.status == 404 && response.closes(), "{response:?}");
        }
    }
}

#[test]
fn over_http_2_it_is_the_same() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(RULES).start();
    let mut client = Http2::connect(server.address);
    let with = |request: Request<()>, name: &'static str, value: &'static str| {
        let (mut parts, ()) = request.into_parts();
        parts.headers.append(name, value.parse().unwrap());
        Request::from_parts(parts, ())
    };
    let many = (0..300).fold(request("HEAD", "/"), |request, _| with(request, "x", "y"));
    for (asked, status) in [
        (request("HEAD", "/"), 404),
        (with(request("HEAD", "/"), "te", "trailers"), 404),
        (with(request("HEAD", "/"), "host", "another.example"), 400),
        (with(request("HEAD", "/"), "x", "y\t"), 400),
        (many, 431),
    ] {
        let response = client.call(asked, b"").unwrap();
        assert_eq!((response.status, response.text().as_str()), (status, ""), "{response:?}");
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        assert!(length > 20, "{response:?}");
    }
    let large = client.call(request("HEAD", "/served"), b"hello!").unwrap();
    assert_eq!((large.status, large.text().as_str()), (413, ""), "{large:?}");
    let connect = Request::builder().version(http::Version::HTTP_2).method("CONNECT").uri("a:443").body(()).unwrap();
    let refused = client.call(connect, b"").unwrap();
    assert_eq!(refused.status, 405);
    assert!(refused.header("allow").unwrap().starts_with("GET, HEAD, POST"), "{refused:?}");
    let lines = server.access_lines(7);
    assert!(lines.iter().all(|line| (line["bytes_out"] == 0) == (line["method"] == "HEAD")), "{lines:?}");
}
