//! The PROXY protocol from load balancers: whom it names counts, who may not send it is closed.

use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::ALL_VERSIONS;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::haproxy::HaProxy;
use crate::harness::http2::Http2;
use crate::harness::ports::free_address;
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::NO_CHECK;
use crate::harness::tls::{self, NOW, Tunnel, write_pair};
use crate::harness::{PATIENCE, dawdle, eventually, now};

/// From where HAProxy connects, so that its address is not that of its clients.
const BALANCER: &str = "127.0.0.3";
const TRUSTED: &str = "identity: {trusted_proxies: [127.0.0.0/8, \"::1\"]}";

/// A server with these keys at its listener.
fn server(backend: &Backend, keys: &str, more: &str) -> Tollgate {
    let limits = if more.contains("rate_limit:") { "" } else { "rate_limit: {enabled: false}\n" };
    Tollgate::from_yaml(&format!(
        "listeners: [{{address: {LISTEN}, {keys}}}]\n\
         upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n{more}\n{limits}",
        backend.address
    ))
}

/// An HAProxy that listens there and passes connections on to the server, with `options` about how.
fn balancer(server: &Tollgate, listens: SocketAddr, options: &str) -> HaProxy {
    let to = server.address;
    let sections = format!(
        "listen l\n  mode tcp\n  unique-id-format %ci:%cp\n  bind {listens}\n  server s {to} source {BALANCER} {options}"
    );
    HaProxy::start(&sections, listens)
}

/// What the backend got under this name.
fn got(answer: &Response, name: &str) -> Vec<String> {
    let value = answer.json();
    let headers = value["headers"].as_array().unwrap().iter();
    let named = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

/// How many connections were closed for this reason.
fn closed(server: &Tollgate, reason: &str) -> u64 {
    let name = format!("tollgate_proxy_protocol_errors_total{{reason=\"{reason}\"}} ");
    let text = server.ask("GET", "/metrics", "").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.parse().unwrap()
}

/// A connection that begins with `bytes`.
fn begun(server: &Tollgate, bytes: &[u8]) -> Client {
    let mut client = server.client();
    client.send(bytes).unwrap();
    client
}

#[test]
fn what_haproxy_says_counts_over_both_versions_and_families() {
    let backend = Backend::scripted("a");
    let only = format!("identity: {{trusted_proxies: [{BALANCER}]}}");
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, free_address().port()));
    for (expected, options) in [
        ("v1", "send-proxy"),
        ("v2", "send-proxy-v2"),
        ("any", "send-proxy"),
        ("any", "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
    ] {
        let server = server(&backend, &format!("proxy_protocol: {expected}"), &only);
        for (listens, client) in [(free_address(), "127.0.0.1"), (v6, "::1")] {
            let _haproxy = balancer(&server, listens, options);
            let mut connection = Client::connect(listens);
            let claimed = [("X-Forwarded-For", "192.0.2.1"), ("X-Real-IP", "192.0.2.2")];
            for _ in 0..3 {
                let answer = connection.call(&Request::new("GET", "/").headers(&claimed)).unwrap();
                assert_eq!(got(&answer, "x-forwarded-for"), [client], "{expected} {options}");
                assert_eq!(got(&answer, "x-real-ip"), [client], "{expected} {options}");
            }
        }
        let lines = server.access_lines(6);
        assert_eq!((&lines[2]["client_ip"], &lines[5]["client_ip"]), (&"127.0.0.1".into(), &"::1".into()));
        // HAProxy was looked at before it was asked: it connected, said a header and went.
        let faults = ["untrusted", "missing", "version", "malformed", "timeout"].map(|reason| closed(&server, reason));
        assert_eq!(faults, [0; 5]);
    }
}

#[test]
fn it_comes_before_the_handshake() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let pair = format!("tls: {{cert: {0}/cert.pem, key: {0}/key.pem}}", dir.path().display());
    let only = format!("identity: {{trusted_proxies: [{BALANCER}]}}");
    let server = server(&backend, &format!("proxy_protocol: v2, {pair}"), &only);
    let listens = free_address();
    let _haproxy = balancer(&server, listens, "send-proxy-v2 proxy-v2-options unique-id,crc32c");
    let tunnel = Tunnel::to(listens, &tls::config(ALL_VERSIONS, &["http/1.1"]));
    let answer = Client::connect(tunnel.address).get("/").unwrap();
    assert_eq!(got(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got(&answer, "x-forwarded-proto"), ["https"]);
    let answer = Http2::connect(listens).get("/").unwrap();
    assert_eq!(got(&answer, "x-forwarded-for"), ["127.0.0.1"]);
    // Plain HTTP is still told that it is.
    let mut plain = begun(&server, b"");
    assert_eq!(plain.rest(PATIENCE).unwrap(), "", "not from the balancer");
    assert_eq!(closed(&server, "untrusted"), 1);
}

#[test]
fn whatever_comes_with_it_or_in_pieces_is_read_once() {
    let backend = Backend::scripted("a");
    let server = server(&backend, "proxy_protocol: any", TRUSTED);
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2b"[..],
        &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets(),
        &Ipv6Addr::LOCALHOST.octets(),
        b"\x12\x67\0\x50",
        b"\x02\0\x04a.ex",
    ];
    let binary = binary.concat();
    let request = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n";
    for (head, client) in [
        (&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n"[..], "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", "2001:db8::7"),
        (&binary, "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
    ] {
        let all = [head, request].concat();
        for cut in [0, 1, 7, head.len() - 1, head.len(), head.len() + 5, all.len()] {
            let mut connection = begun(&server, &all[..cut]);
            if cut > 0 && cut < all.len() {
                dawdle(Duration::from_millis(20));
            }
            connection.send(&all[cut..]).unwrap();
            for _ in 0..2 {
                let answer = connection.read("GET").unwrap();
                assert_eq!(got(&answer, "x-forwarded-for"), [client], "{} cut at {cut}", head.escape_ascii());
            }
            assert_eq!(connection.get("/three").unwrap().status, 200);
        }
    }
}

#[test]
fn whom_it_names_has_the_bucket_and_may_be_a_proxy_itself() {
    let backend = Backend::scripted("a");
    let limit = "rate_limit: {default: {capacity: 2, rate_per_sec: 0.0001}}\n\
                 identity: {trusted_proxies: [127.0.0.1, 10.0.0.0/8]}";
    let server = server(&backend, "proxy_protocol: v1", limit);
    let call = |from: &str, forwarded: &str| {
        let mut client = begun(&server, format!("PROXY TCP4 {from} 10.0.0.1 1 80\r\n").as_bytes());
        client.call(&Request::new("GET", "/").headers(&[("X-Forwarded-For", forwarded)])).unwrap()
    };
    let statuses = |from: &str| (0..3).map(|_| call(from, "203.0.113.9").status).collect::<Vec<_>>();
    assert_eq!(statuses("192.0.2.1"), [200, 200, 429], "its X-Forwarded-For is believed from nobody");
    assert_eq!(statuses("192.0.2.2"), [200, 200, 429]);
    // A proxy of ours that came through the load balancer is believed as ever.
    let answer = call("10.0.0.7", "203.0.113.9");
    assert_eq!(got(&answer, "x-forwarded-for"), ["203.0.113.9, 10.0.0.7"]);
    assert_eq!(got(&answer, "x-real-ip"), ["203.0.113.9"]);
    assert_eq!(statuses("10.0.0.7"), [200, 429, 429]);
}

#[test]
fn what_is_none_is_closed_without_a_word_and_counted() {
    let backend = Backend::scripted("a");
    let server = server(&backend, "proxy_protocol: v2", &format!("{TRUSTED}\nlimits: {{header_timeout: 500ms}}"));
    let mut expected = 0;
    for (reason, sent) in [
        ("missing", &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        ("version", b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n\r\n"),
        ("malformed", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01a"),
        ("malformed", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
        ("timeout", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        ("timeout", b""),
    ] {
        let before = closed(&server, reason);
        let (start, mut client) = (now(), begun(&server, sent));
        assert_eq!(client.rest(PATIENCE).unwrap(), "", "{}", sent.escape_ascii());
        assert!(now() - start < Duration::from_secs(5), "{}", sent.escape_ascii());
        assert!(eventually(PATIENCE, || closed(&server, reason) == before + 1), "{}", sent.escape_ascii());
        expected += 1;
    }
    // One that ends within it is malformed, one that never begins is only looking.
    let half = begun(&server, b"\r\n\r\n\0\r\n");
    half.finish();
    assert!(eventually(PATIENCE, || closed(&server, "malformed") == 3));
    drop(server.client());
    let all: u64 =
        ["untrusted", "missing", "version", "malformed", "timeout"].map(|it| closed(&server, it)).iter().sum();
    assert_eq!(all, expected + 1);
    server.wait_for_event(&["WARN", "proxy_protocol: connections were closed", "do not begin with"], PATIENCE);
    assert_eq!(backend.seen(), Vec::<String>::new());
}

#[test]
fn a_reload_turns_it_on_for_the_next_connection() {
    let backend = Backend::scripted("a");
    let yaml = |keys: &str| {
        format!(
            "listeners: [{{address: {LISTEN}{keys}}}]\nrate_limit: {{enabled: false}}\n{TRUSTED}\n\
             upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n",
            backend.address
        )
    };
    let server = Tollgate::from_yaml(&yaml(""));
    let mut kept = server.client();
    assert_eq!(kept.get("/").unwrap().status, 200);
    server.rewrite(&yaml(", proxy_protocol: any"));
    let answer = server.ask("POST", "/config/reload", "");
    assert!(answer.text().contains("listeners changed: 127.0.0.1:"), "{answer:?}");
    assert_eq!(kept.get("/").unwrap().status, 200, "on the connection from before");
    assert_eq!(begun(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").rest(PATIENCE).unwrap(), "");
    assert_eq!(begun(&server, b"PROXY UNKNOWN\r\n").get("/").unwrap().status, 200);
}

#[test]
fn connections_count_for_whom_they_are_from() {
    let backend = Backend::scripted("a");
    let limits = "limits: {max_connections_per_address: 1}\nidentity: {trusted_proxies: [127.0.0.1]}";
    let server = server(&backend, "proxy_protocol: v1", limits);
    let from = |client: &str| begun(&server, format!("PROXY TCP4 {client} 10.0.0.1 1 80\r\n").as_bytes());
    let (mut first, mut other) = (from("192.0.2.1"), from("192.0.2.2"));
    assert_eq!((first.get("/").unwrap().status, other.get("/").unwrap().status), (200, 200));
    // The first may have its answer a moment before its connection is silent.
    assert!(eventually(PATIENCE, || from("192.0.2.1").get("/").is_ok_and(|answer| answer.status == 200)));
    first.wait_closed(PATIENCE).unwrap();
    assert_eq!(other.get("/").unwrap().status, 200);
}

#[test]
fn a_stop_does_not_wait_for_those_who_say_nothing() {
    let backend = Backend::scripted("a");
    let mut server = server(&backend, "proxy_protocol: v1", TRUSTED);
    let (_mute, _half) = (TcpStream::connect(server.address).unwrap(), begun(&server, b"PROXY"));
    let mut idle = begun(&server, b"PROXY UNKNOWN\r\n");
    idle.get("/").unwrap();
    let start = now();
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < Duration::from_secs(3), "took {:?}", now() - start);
}
