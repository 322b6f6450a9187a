//! A plain listener that sends everybody to HTTPS.

use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{Http2, request};
use crate::harness::process::run;
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::NO_CHECK;
use crate::harness::{PATIENCE, assert_is_our_json};

fn server(keys: &str, more: &str) -> (Backend, Tollgate) {
    let backend = Backend::scripted("a");
    let server = Tollgate::from_yaml(&format!(
        "listeners: [{{address: {LISTEN}, {keys}}}]\n{more}\n\
         upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n",
        backend.address
    ));
    (backend, server)
}

#[test]
fn every_request_is_sent_to_the_same_address_in_https() {
    let (backend, server) = server("redirect_to_https: 443", "");
    let mut client = server.client();
    for (method, host, target, location) in [
        ("GET", "a.example", "/x/y?z=%20&w", "https://a.example/x/y?z=%20&w"),
        ("GET", "a.example:8080", "/", "https://a.example/"),
        ("HEAD", "[::1]:80", "/", "https://[::1]/"),
        ("DELETE", "a.example", "http://b.example:80/q?r", "https://b.example/q?r"),
        ("OPTIONS", "a.example", "*", "https://a.example/"),
        ("GET", "a.example", "/.well-known/acme-challeng", "https://a.example/.well-known/acme-challeng"),
        ("POST", "a.example", "/form", "https://a.example/form"),
    ] {
        let body = if method == "POST" { Body::Length(b"a=1") } else { Body::None };
        let answer = client.call(&Request::new(method, target).host(host).body(body)).unwrap();
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{method} {target}");
        assert!(!answer.closes(), "{answer:?}");
        if method != "HEAD" {
            assert_is_our_json(&answer);
        }
    }
    client.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 400, "whither?");
    assert_eq!(backend.seen(), Vec::<String>::new());
}

#[test]
fn it_names_a_port_that_is_not_the_usual_one_over_http_2_too() {
    let (_backend, server) = server("redirect_to_https: 8443, h2c: true", "");
    let answer = server.client().get("/a?b").unwrap();
    assert_eq!(answer.header("location"), Some("https://test.example:8443/a?b"));
    let mut streams = Http2::plain(server.address);
    for (method, body) in [("GET", &b""[..]), ("POST", b"body"), ("POST", &[b'x'; 100_000])] {
        let answer = streams.call(request(method, "/a?b"), body).unwrap();
        assert_eq!((answer.status, answer.header("location")), (308, Some("https://test.example:8443/a?b")));
    }
    let url = format!("http://{}/c", server.address);
    let finished =
        run(Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]));
    assert_eq!(finished.out, "308 https://127.0.0.1:8443/c", "{finished:?}");
}

#[test]
fn what_proves_whose_a_name_is_goes_on() {
    let (backend, server) = server("redirect_to_https: 443", "");
    let answer = server.client().get("/.well-known/acme-challenge/token").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(backend.seen(), ["GET /.well-known/acme-challenge/token"]);
}

#[test]
fn it_costs_no_token_and_is_logged_and_counted() {
    let more = "rate_limit: {default: {capacity: 1, rate_per_sec: 0.0001}}\nidentity: {trusted_proxies: [127.0.0.1]}";
    let (_backend, server) = server("redirect_to_https: 443", more);
    let mut client = Client::connect(server.address);
    for _ in 0..5 {
        let forwarded = [("X-Forwarded-For", "192.0.2.7"), ("X-Request-Id", "mine")];
        let answer = client.call(&Request::new("GET", "/a").headers(&forwarded)).unwrap();
        assert_eq!((answer.status, answer.header("x-request-id")), (308, Some("mine")));
        assert!(answer.header("ratelimit").is_none());
    }
    let line = server.access_lines(5).remove(4);
    assert_eq!((&line["status"], &line["client_ip"], &line["path"]), (&308.into(), &"192.0.2.7".into(), &"/a".into()));
    assert_eq!((&line["limit"], &line["upstream"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let text = server.ask("GET", "/metrics", "").text();
    assert!(text.contains("tollgate_requests_total{upstream=\"\",status=\"308\"} 5"), "{text}");
    assert!(text.contains("tollgate_ratelimit_decisions_total{decision=\"allowed\"} 0"), "{text}");
    server.process.signal("TERM");
    let mut server = server;
    server.process.wait_exit(PATIENCE);
}
