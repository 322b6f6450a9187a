//! The headers that a backend and a client get to see.

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request, Response};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};

/// All values of a header as the backend got it.
fn got(response: &Response, name: &str) -> Vec<String> {
    let report = response.json();
    let headers = report["headers"].as_array().unwrap().clone();
    let named = headers.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

fn server() -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    (backend, server)
}

#[test]
fn the_backend_learns_who_asked_for_what() {
    let (_backend, server) = server();
    let response = server.client().call(&Request::new("GET", "/x").host("shop.example:8080")).unwrap();
    assert_eq!(got(&response, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got(&response, "x-forwarded-proto"), ["http"]);
    assert_eq!(got(&response, "x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(got(&response, "host"), ["shop.example:8080"], "Host is kept");
    assert_eq!(got(&response, "x-request-id").len(), 1);
}

#[test]
fn what_a_client_claims_is_replaced() {
    let (_backend, server) = server();
    let claims = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("x-forwarded-for", "203.0.113.8, 10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "admin.example"),
        ("X-Request-Id", "mine"),
    ];
    let response = server.client().call(&Request::new("GET", "/").headers(&claims)).unwrap();
    assert_eq!(got(&response, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(got(&response, "x-forwarded-proto"), ["http"]);
    assert_eq!(got(&response, "x-forwarded-host"), ["test.example"]);
    let ids = got(&response, "x-request-id");
    assert!(ids.len() == 1 && ids[0] != "mine" && ids[0].len() >= 8, "{ids:?}");
}

#[test]
fn a_client_cannot_name_our_headers_hop_by_hop() {
    let (_backend, server) = server();
    let all = "keep-alive, Host, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, Cookie";
    let headers = [("Connection", all), ("Cookie", "a=b")];
    let response = server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap();
    if response.status == 400 {
        return;
    }
    for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"] {
        assert_eq!(got(&response, name).len(), 1, "{name} is gone");
    }
    let request = Request::new("POST", "/").headers(&[("Connection", "Content-Length")]).body(Body::Length(b"hello"));
    let response = server.client().call(&request).unwrap();
    assert!(response.status == 400 || response.json()["framing"] == "length", "{response:?}");
}

#[test]
fn every_request_has_an_id_of_its_own_also_in_the_log() {
    let (_backend, server) = server();
    let mut client = server.client();
    let ids: Vec<_> = (0..50).map(|_| got(&client.get("/").unwrap(), "x-request-id").remove(0)).collect();
    let logged: Vec<_> = server.access_lines(50).iter().map(|line| line["request_id"].clone()).collect();
    assert_eq!(logged, ids.iter().map(|id| Value::from(id.as_str())).collect::<Vec<_>>());
    let mut unique = ids;
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 50);
}

#[test]
fn hop_by_hop_headers_end_at_the_proxy_on_the_way_in() {
    let (_backend, server) = server();
    let headers = [
        ("Connection", "keep-alive, X-Private, close-not"),
        ("X-Private", "for the proxy alone"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("TE", "trailers"),
        ("X-Public", "for the backend"),
        ("Cookie", "a=b"),
        ("Authorization", "Bearer token"),
    ];
    let response = server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap();
    for name in ["x-private", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert_eq!(got(&response, name), Vec::<String>::new(), "{name}");
    }
    assert!(got(&response, "te").is_empty(), "TE is for one hop");
    for (name, value) in [("x-public", "for the backend"), ("cookie", "a=b"), ("authorization", "Bearer token")] {
        assert_eq!(got(&response, name), [value]);
    }
}

#[test]
fn hop_by_hop_headers_end_at_the_proxy_on_the_way_out() {
    let (_backend, server) = server();
    let response = server.client().get("/").unwrap();
    for name in ["keep-alive", "proxy-connection", "x-private"] {
        assert_eq!(response.header(name), None, "{:?}", response.head);
    }
    assert_eq!(response.backend(), "a", "other headers stay");
    // A backend that closes its connection does not close the client's.
    let mut client = server.client();
    let closing = client.get("/?answer=close&bytes=10").unwrap();
    assert_eq!(closing.body.len(), 10);
    assert_ne!(closing.header("connection").map(str::to_lowercase).as_deref(), Some("close"), "{:?}", closing.head);
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn the_target_arrives_byte_for_byte() {
    let (backend, server) = server();
    let mut client = server.client();
    for target in ["/a%2Fb/../c//d;e?x=%20&y=+#", "/%zz", "/?", "/a?b?c", "//double", "/~!$&'()*,;=:@"] {
        let target = target.trim_end_matches('#');
        assert_eq!(client.get(target).unwrap().json()["target"], target);
    }
    assert_eq!(backend[0].seen().len(), 6);
}

#[test]
fn any_method_passes() {
    let (_backend, server) = server();
    let mut client = server.client();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "M-SEARCH"] {
        assert_eq!(client.call(&Request::new(method, "/")).unwrap().json()["method"], method);
    }
}

#[test]
fn a_target_in_absolute_form_arrives_in_origin_form() {
    let (_backend, server) = server();
    let mut client = server.client();
    for (method, target, path) in [
        ("GET", "http://shop.example/a%2Fb?x=y", "/a%2Fb?x=y"),
        ("GET", "http://shop.example", "/"),
        ("GET", "http://shop.example/", "/"),
        ("GET", "http://shop.example?x=y", "/?x=y"),
        ("GET", "HTTP://shop.example:80//a/../b", "//a/../b"),
        ("POST", "http://shop.example/pay", "/pay"),
        ("OPTIONS", "http://shop.example/pay", "/pay"),
    ] {
        let host = target.split('/').nth(2).unwrap().split('?').next().unwrap();
        let response = client.call(&Request::new(method, target).host(host)).unwrap();
        assert_eq!(response.status, 200, "{method} {target}: {response:?}");
        assert_eq!(response.json()["target"], path, "{method} {target}");
        assert_eq!(got(&response, "host"), [host], "{method} {target}");
    }
}
