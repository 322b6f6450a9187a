//! Which pool a request goes to.

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Body, Request};
use crate::harness::setup::{NO_CHECK, Setup};

#[test]
fn host_and_longest_path_choose_the_pool() {
    let backends = three_scripted();
    let mut setup = Setup::default();
    for backend in &backends {
        setup = setup.pool(&backend.name, &[backend.address], NO_CHECK);
    }
    let server = setup
        .line("routes:")
        .line("  - {path: /, upstream: a}")
        .line("  - {host: '*.example.com', upstream: b}")
        .line("  - {host: api.example.com, path: /v1, upstream: c}")
        .line("  - {path: /static, upstream: b}")
        .start();
    let mut client = server.client();
    for (host, target, expected) in [
        ("other.example", "/", "a"),
        ("other.example", "/static", "b"),
        ("other.example", "/static/x?y", "b"),
        ("other.example", "/static?y", "b"),
        ("other.example", "/staticx", "a"),
        ("x.example.com", "/", "b"),
        ("x.y.example.com", "/", "b"),
        ("example.com", "/", "a"),
        ("api.example.com", "/v1", "c"),
        ("API.Example.Com:8080", "/v1/users", "c"),
        ("api.example.com", "/v10", "b"),
        ("api.example.com", "/", "b"),
    ] {
        let response = client.call(&Request::new("GET", target).host(host)).unwrap();
        assert_eq!(response.backend(), expected, "{host}{target}");
    }
    for (line, upstream) in server.access_lines(12).iter().zip(["a", "b", "b", "b", "a", "b", "b", "a", "c", "c"]) {
        assert_eq!(line["upstream"], upstream, "{line}");
    }
}

#[test]
fn a_pool_with_all_backends_down_does_not_borrow_from_another() {
    let live = Backend::scripted("live");
    let server = Setup::default()
        .pool("live", &[live.address], NO_CHECK)
        .pool("dead", &[crate::harness::ports::free_address()], NO_CHECK)
        .line("routes: [{path: /, upstream: live}, {path: /dead, upstream: dead}]")
        .start();
    let mut client = server.client();
    for _ in 0..3 {
        let request = Request::new("POST", "/dead").body(Body::Length(b"x"));
        assert_eq!(client.call_again(&request).unwrap().status, 503);
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!(live.count("POST /dead"), 0);
}
