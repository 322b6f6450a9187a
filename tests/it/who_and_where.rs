//! What a backend may believe: the host is the one that the target names, and of names and addresses nothing passes
//! that a stranger could have made up, whatever way the request goes.

use serde_json::json;
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::http2::{self, Http2};
use crate::harness::played::{Got, Played};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// A line that changes nothing but the way: directly, and by Pingora's loop.
const WAYS: [&str; 2] = ["", "TE: trailers\r\n"];

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn setup(backend: &Played) -> Setup {
    Setup::default().pool("app", &[backend.address], NO_CHECK)
}

/// What the backend gets of a request, whose header is sent as it is.
#[track_caller]
fn got(server: &Tollgate, backend: &Played, request: &str) -> Got {
    let mut client = server.client();
    client.send(request.as_bytes()).unwrap();
    let taken = backend.take_within(PATIENCE);
    let mut taken = taken.unwrap_or_else(|| panic!("{request:?} is not served: {:?}", client.read("GET")));
    let got = taken.request();
    taken.send(ANSWER);
    assert_eq!(client.read("GET").unwrap().status, 200, "{request:?}");
    got
}

/// All values under a name.
fn all<'g>(got: &'g Got, name: &str) -> Vec<&'g str> {
    let named = got.head.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn the_host_of_an_absolute_target_counts_and_nothing_else() {
    let backend = Played::new();
    let server = setup(&backend).line("routes: [{host: b.example, path: /, upstream: app}]").start();
    let mut lines = 0;
    for way in WAYS {
        for (line, host, target, authority) in [
            ("GET http://b.example/x?y=1 HTTP/1.1", "a.example", "/x?y=1", "b.example"),
            ("GET http://B.Example HTTP/1.1", "b.example", "/", "B.Example"),
            ("GET HTTP://b.example:80/ HTTP/1.1", "b.example", "/", "b.example:80"),
            ("GET http://b.example?x=1 HTTP/1.1", "a.example:1", "/?x=1", "b.example"),
            ("GET https://b.example:8443//x/../y HTTP/1.1", "", "//x/../y", "b.example:8443"),
            ("OPTIONS http://b.example HTTP/1.1", "a.example", "*", "b.example"),
            ("OPTIONS http://b.example/ HTTP/1.1", "a.example", "/", "b.example"),
            ("OPTIONS http://b.example?x HTTP/1.1", "a.example", "/?x", "b.example"),
            ("POST http://b.example/x HTTP/1.1", "a.example", "/x", "b.example"),
        ] {
            let got = got(&server, &backend, &format!("{line}\r\nhOST: {host}\r\n{way}Content-Length: 2\r\n\r\nhi"));
            let method = line.split(' ').next().unwrap();
            assert_eq!(got.head.first, format!("{method} {target} HTTP/1.1"), "{line}");
            assert_eq!(all(&got, "host"), [authority], "{line}");
            assert_eq!(all(&got, "x-forwarded-host"), [authority], "{line}");
            assert_eq!(got.body, b"hi", "{line}");
            let line = server.access_lines(lines + 1).remove(lines);
            let path = target.split('?').next().unwrap();
            assert_eq!((&line["host"], &line["path"]), (&json!(authority), &json!(path)), "{line}");
            lines += 1;
        }
        // Where another host has no route, Host does not open one.
        let mut client = server.client();
        let other = format!("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n{way}\r\n");
        client.send(other.as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, 404);
        lines += 1;
    }
    let old = got(&server, &backend, "GET http://b.example/x HTTP/1.0\r\n\r\n");
    assert_eq!((old.head.first.as_str(), all(&old, "host")), ("GET /x HTTP/1.1", vec!["b.example"]));
}

#[test]
fn an_absolute_target_with_any_doubt_is_400() {
    let backend = Played::new();
    let server = setup(&backend).start();
    for way in WAYS {
        for (target, lines) in [
            ("http://user@a/", "Host: a\r\n"),
            ("http://user:secret@a/", "Host: a\r\n"),
            ("http:///x", "Host: a\r\n"),
            ("http://", "Host: a\r\n"),
            ("http://:80/", "Host: a\r\n"),
            ("http://a:port/", "Host: a\r\n"),
            ("http://a b/", "Host: a\r\n"),
            ("http://a/#b", "Host: a\r\n"),
            ("ftp://a/", "Host: a\r\n"),
            ("http://a/", ""),
            ("http://a/", "Host: a\r\nHost: a\r\n"),
            ("http://a/", "Host: u@a\r\n"),
            ("http://a/", "Host: a, a\r\n"),
        ] {
            let mut client = server.client();
            client.send(format!("GET {target} HTTP/1.1\r\n{lines}{way}\r\n").as_bytes()).unwrap();
            assert_eq!(client.read("GET").unwrap().status, 400, "{target} {lines:?}");
        }
    }
    assert!(backend.take_within(std::time::Duration::ZERO).is_none());
}

/// What a stranger claims, beside what is its own business.
const CLAIMS: &str = "X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n\
                      X_Forwarded-For: 6.6.6.6\r\nContent_Length: 9\r\n_: 1\r\nREMOTE_USER: root\r\nX-Mine: a_b\r\nX_Key: k1\r\n";

#[test]
fn nothing_passes_that_a_stranger_could_have_made_up() {
    let backend = Played::new();
    let server = setup(&backend).start();
    for way in WAYS {
        let got = got(&server, &backend, &format!("GET /a_b HTTP/1.1\r\nHost: a\r\n{way}{CLAIMS}\r\n"));
        assert_eq!((all(&got, "x-real-ip"), all(&got, "forwarded")), (vec!["127.0.0.1"], vec![]), "{got:?}");
        assert_eq!((all(&got, "x-forwarded-for"), all(&got, "x-mine")), (vec!["127.0.0.1"], vec!["a_b"]), "{got:?}");
        assert!(got.head.headers.iter().all(|(name, value)| !name.contains('_') && value != "6.6.6.6"), "{got:?}");
    }
    // Neither does a trailer.
    let trailer = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X_Real_IP\r\n\r\n0\r\nX_Real_IP: 6.6.6.6\r\n\r\n";
    let got = got(&server, &backend, trailer);
    assert!(!format!("{got:?}").contains("6.6.6.6"), "{got:?}");
}

#[test]
fn what_a_trusted_proxy_says_is_believed_but_for_one() {
    let backend = Played::new();
    let server = setup(&backend).line("identity: {trusted_proxies: [127.0.0.1], underscores: pass}").start();
    for way in WAYS {
        let sent = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{way}{CLAIMS}X-Forwarded-For:\r\nX-Forwarded-For: , 9.9.9.9,\r\n\r\n"
        );
        let got = got(&server, &backend, &sent);
        assert_eq!(all(&got, "x-real-ip"), ["9.9.9.9"], "{got:?}");
        assert_eq!(all(&got, "forwarded"), ["for=6.6.6.6"], "{got:?}");
        assert_eq!(all(&got, "x-forwarded-for"), ["6.6.6.6, , 9.9.9.9,, 127.0.0.1"], "{got:?}");
        let passed = ["x_real_ip", "x_forwarded-for", "content_length", "_", "remote_user", "x_key"];
        assert!(passed.iter().all(|name| all(&got, name).len() == 1), "{got:?}");
    }
}

#[test]
fn what_the_configuration_names_is_read_before_it_is_dropped() {
    let backend = Played::new();
    let identity = |underscores: &str| {
        let line = format!("identity: {{api_key_header: x_key, unknown_api_key: reject, underscores: {underscores}}}");
        setup(&backend).line(&line)
    };
    let server = identity("drop").start();
    let client = r#"{"client_id":"k1","capacity":10,"rate_per_sec":1}"#;
    assert_eq!(server.ask("POST", "/clients", client).status, 201);
    let request = |way: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{way}X_Key: k1\r\n\r\n");
    for way in WAYS {
        assert_eq!(all(&got(&server, &backend, &request(way)), "x_key"), Vec::<&str>::new());
    }
    assert!(server.access_lines(2).iter().all(|line| line["client_id"] == "k1"));
    server.rewrite(&identity("pass").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").json()["changed"], json!(["identity changed"]));
    for way in WAYS {
        assert_eq!(all(&got(&server, &backend, &request(way)), "x_key"), ["k1"]);
    }
}

#[test]
fn over_http_2_it_is_the_same() {
    let (backend, dir) = (Played::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = setup(&backend).tls(dir.path()).start();
    let mut client = Http2::connect(server.address);
    for te in [false, true] {
        for (host, status) in
            [("TEST.example:443", 200), ("test.example", 200), ("test.example:80", 400), ("other", 400)]
        {
            let (mut parts, ()) = http2::get("/x_y").into_parts();
            let claims =
                [("x-real-ip", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x_real_ip", "6.6.6.6"), ("host", host)];
            for (name, value) in claims.into_iter().chain(te.then_some(("te", "trailers"))) {
                parts.headers.append(name, value.parse().unwrap());
            }
            let (answer, _) = client.open(http::Request::from_parts(parts, ()), true).unwrap();
            if status == 200 {
                let (mut taken, got) = backend.take_request();
                taken.send(ANSWER);
                assert_eq!((all(&got, "host"), all(&got, "x-real-ip")), (vec!["test.example"], vec!["127.0.0.1"]));
                assert!(!format!("{got:?}").contains("6.6.6.6"), "{got:?}");
            }
            assert_eq!(client.runtime.block_on(http2::read(answer)).unwrap().status, status, "{host}");
        }
    }
}
