//! A line in the access log for every request that has begun, also where nothing came of it before any hook saw it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Http2, RST_STREAM, encode, get, request,
};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::store::{Engine, StoreServer};
use crate::harness::tls::{self, NOW, write_pair};

const FIELDS: &str = "access_log: {fields: [method, path, protocol, tls_version, status, error, client_ip, referer]}";
const CONTINUATION: u8 = 9;

/// The line that is the `count`th and, by now, the last.
#[track_caller]
fn last(server: &Tollgate, count: usize) -> Value {
    let mut lines = server.access_lines(count);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines.remove(count - 1)
}

/// Asserts what a line says of method, path, protocol and status, and with which word it says why.
#[track_caller]
fn says(line: &Value, (method, path, protocol, status): (&str, &str, Option<&str>, Option<u16>), why: &str) {
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some(method), Some(path)), "{line}");
    assert_eq!((line["protocol"].as_str(), line["status"].as_u64()), (protocol, status.map(u64::from)), "{line}");
    assert!(line["error"].as_str().is_some_and(|error| error.contains(why)), "{line}");
    assert_eq!(line["client_ip"], "127.0.0.1");
}

#[test]
fn what_is_refused_or_lost_before_it_is_a_request_has_its_line() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line("limits: {header_timeout: 300ms}").line(FIELDS).start();
    let (http10, http11) = (Some("HTTP/1.0"), Some("HTTP/1.1"));
    let long = format!("GET /long HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let refused = [
        ("GARBAGE\r\n\r\n", ("GARBAGE", "", None, Some(400)), "request line"),
        ("GET /three HTTP/3.0\r\nHost: a\r\n\r\n", ("GET", "/three", None, Some(400)), "version"),
        ("GET /a?secret HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n", ("GET", "/a", http11, Some(400)), "header name"),
        ("GET /twice HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", ("GET", "/twice", http11, Some(400)), "Host"),
        ("\x16\x03\x01\r\n\r\n", ("-", "", None, Some(400)), "request line"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", ("CONNECT", "a:1", http11, Some(405)), "not allowed"),
        (&long, ("GET", "/long", http11, Some(431)), "too large"),
        ("GET /slow HTTP/1.1\r\nHost:", ("GET", "/slow", http11, Some(408)), "timeout"),
    ];
    let mut count = 0;
    for (bytes, expected, why) in refused {
        let mut client = server.client();
        client.send(bytes.as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, expected.3.unwrap());
        count += 1;
        says(&last(&server, count), expected, why);
    }
    // Lost: alone, behind a request, and byte by byte.
    for (bytes, expected) in [
        ("GET /left?secret HTTP/1.0\r\nHos", ("GET", "/left", http10, None)),
        ("P", ("P", "", None, None)),
        ("\r\n\r\nDELETE /x ", ("DELETE", "/x", None, None)),
    ] {
        let mut client = server.client();
        client.send(bytes.as_bytes()).unwrap();
        client.finish();
        client.wait_closed(Duration::from_secs(10)).unwrap();
        count += 1;
        says(&last(&server, count), expected, "the client went");
    }
    let mut client = server.client();
    client.get("/good").unwrap();
    client.send(b"GET /next HTTP/1.1\r\n").unwrap();
    drop(client);
    count += 2;
    says(&last(&server, count), ("GET", "/next", http11, None), "the client went");
    // What is no beginning has none.
    for bytes in ["", "\r\n", "\r\n\r\n"] {
        let mut client = server.client();
        client.send(bytes.as_bytes()).unwrap();
        client.finish();
        client.wait_closed(Duration::from_secs(10)).unwrap();
    }
    server.client().get("/last").unwrap();
    assert_eq!(last(&server, count + 1)["path"], "/last");
    assert!(!server.process.out.text().contains("secret"));
    let told = server.ask("GET", "/metrics", "").text();
    let lost = "tollgate_requests_total{upstream=\"\",status=\"0\"} 4\n";
    assert!(told.contains(lost), "{told}");
}

#[test]
fn plain_requests_to_a_tls_listener_have_theirs_cut_off_or_not() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(FIELDS).start();
    let mut client = server.client();
    client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 400);
    says(&last(&server, 1), ("GET", "/plain", Some("HTTP/1.1"), Some(400)), "plain HTTP");
    let mut client = server.client();
    client.send(b"GET /cut HT").unwrap();
    client.finish();
    client.wait_closed(Duration::from_secs(10)).unwrap();
    says(&last(&server, 2), ("GET", "/cut", None, None), "the client went");
    assert!(last(&server, 2)["tls_version"].is_null());
    // Over TLS itself.
    let (_, mut stream) =
        tls::handshake(server.address, &tls::config(&[&rustls::version::TLS12], &["http/1.1"])).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /secure HTTP/1.1\r\nHos").unwrap();
    drop(stream);
    let line = last(&server, 3);
    says(&line, ("GET", "/secure", Some("HTTP/1.1"), None), "the client went");
    assert_eq!(line["tls_version"], "TLSv1.2");
}

#[test]
fn one_that_may_be_http2_or_not_ends_as_a_request_of_http1() {
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, NO_CHECK).line("limits: {header_timeout: 300ms}").line(FIELDS).yaml();
    let server = Tollgate::from_yaml(&yaml.replacen("listeners: [{", "listeners: [{h2c: true, ", 1));
    let mut client = server.client();
    client.send(b"P").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 408);
    says(&last(&server, 1), ("P", "", None, Some(408)), "timeout");
}

#[test]
fn what_http2_refuses_by_itself_has_its_line() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(FIELDS).start();
    let with = |path: &'static str, more: &[(&'static str, &'static str)]| {
        let mut lines = vec![(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "a")];
        lines.extend_from_slice(more);
        lines
    };
    let http2 = Some("HTTP/2.0");
    let mut count = 0;
    // Reset by h2, refused by us, given up with all of its connection.
    for (lines, expected, why) in [
        (with("/?secret=<x>", &[]), ("-", "", http2, None), "target"),
        (with("", &[]), ("-", "", http2, None), "pseudo-header"),
        (with("/x", &[("connection", "close")]), ("-", "", http2, None), "malformed header"),
        (with("/x", &[("content-length", "5")]), ("-", "", http2, None), "Content-Length"),
        (with("/twice?secret", &[("host", "b")]), ("GET", "/twice", http2, Some(400)), "authority"),
        (with("/x", &[("X-Upper", "1")]), ("-", "", http2, None), "malformed header"),
    ] {
        let mut client = Frames::connect(server.address);
        client.headers(1, END_STREAM, &lines).unwrap();
        client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        count += 1;
        let line = last(&server, count);
        says(&line, expected, why);
        assert_eq!(line["tls_version"], "TLSv1.3");
    }
    // More than 64 KiB of lines, in frames of up to 16 KiB.
    let long = "x".repeat(8000);
    let mut lines = with("/long", &[]);
    let names: Vec<_> = (0..9).map(|n| format!("x-{n}")).collect();
    lines.extend(names.iter().map(|name| (name.as_str(), long.as_str())));
    let block = encode(&lines);
    let mut client = Frames::connect(server.address);
    let parts: Vec<_> = block.chunks(16_000).collect();
    for (index, part) in parts.iter().enumerate() {
        let end = if index + 1 == parts.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if index == 0 { (HEADERS, END_STREAM | end) } else { (CONTINUATION, end) };
        client.send(kind, flags, 1, part).unwrap();
    }
    assert_eq!(client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]).kind, HEADERS);
    says(&last(&server, count + 1), ("-", "", http2, Some(431)), "too large");
    // Trailers that are malformed are the end of a request that has its own line, and get no second one.
    let mut client = Frames::connect(server.address);
    let mut post = with("/post", &[]);
    post[0] = (":method", "POST");
    client.headers(1, 0, &post).unwrap();
    client.send(DATA, 0, 1, b"abc").unwrap();
    client.headers(1, END_STREAM, &[("connection", "close")]).unwrap();
    client.wait_for(&[RST_STREAM]);
    assert_eq!(last(&server, count + 2)["path"], "/post");
    Http2::connect(server.address).call(request("GET", "/last"), &[]).unwrap();
    assert_eq!(last(&server, count + 3)["path"], "/last");
    assert!(!server.process.out.text().contains("secret"));
}

#[test]
fn a_client_that_leaves_while_it_is_served_has_one_line() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line(FIELDS).start();
    let mut client = Client::connect(server.address);
    client.send(b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc").unwrap();
    drop(client);
    let line = last(&server, 1);
    assert_eq!((&line["path"], &line["error"].is_string()), (&"/post".into(), &true), "{line}");
    server.client().get("/last").unwrap();
    assert_eq!(last(&server, 2)["path"], "/last");
}

#[test]
fn one_that_waits_for_the_fleets_store_when_the_server_stops_has_its_line() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let store = StoreServer::start(Engine::all()[0]);
    for tls in [false, true] {
        let has_cut = (0..10).any(|_| cut_while_it_waits(&backend, &store, tls.then_some(dir.path())) > 0);
        assert!(has_cut, "none waited when the server stopped");
    }
}

/// Stops a server while its store stands still and requests wait for that, over HTTP/2 with this certificate; how many
/// the stop has cut. Each has its line. Those that come too late, or are judged before, are none of them.
fn cut_while_it_waits(backend: &[Backend; 1], store: &StoreServer, tls: Option<&Path>) -> usize {
    let fleet = format!("fleet: {{store: \"{}\", timeout: 1s}}", store.url());
    let setup = Setup::app(backend, NO_CHECK).line(&fleet).line("pingora: {grace_period_seconds: 0}").line(FIELDS);
    let setup = setup.line("rate_limit: {}").line("identity: {trusted_proxies: [127.0.0.1]}");
    let setup = if let Some(dir) = tls { setup.tls(dir) } else { setup };
    let mut server = setup.start();
    let (mut plain, mut http2) = (Vec::new(), tls.map(|_| Http2::connect(server.address)));
    if let Some(client) = &mut http2 {
        client.get("/first").unwrap();
    }
    store.pause();
    let of = |n: u8| ("x-forwarded-for", format!("192.0.2.{n}"));
    let mut answers = Vec::new();
    for n in 0..8 {
        let (name, address) = of(n);
        if let Some(client) = &mut http2 {
            let mut asked = get("/waits");
            asked.headers_mut().insert(name, address.parse().unwrap());
            answers.push(client.open(asked, true).unwrap());
        } else {
            plain.push(server.client());
            plain
                .last_mut()
                .unwrap()
                .send(&Request::new("GET", "/waits").headers(&[(name, &address)]).encode())
                .unwrap();
        }
    }
    server.process.signal("TERM");
    let finished = server.process.wait_exit(PATIENCE);
    store.resume();
    let lines: Vec<Value> = finished.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_those =
        lines.iter().filter(|line| line["error"] == "the server stopped" && line["path"] == "/waits").count();
    let told = finished.err.split_once("the grace period is over; requests cut: ").map_or("0", |(_, told)| told);
    let told: usize = told.split(|other: char| !other.is_ascii_digit()).next().unwrap().parse().unwrap();
    // Some may have come after that was counted.
    assert!((told..=8).contains(&of_those), "{of_those} of {told}: {finished:?}");
    told
}
