//! Backends on Unix sockets.

use rustls::ALL_VERSIONS;
use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request};
use crate::harness::front::{Front, server, socket};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_HTTP, Setup};
use crate::harness::tls::NOW;
use crate::harness::{PATIENCE, checksum, eventually};

/// A server in front of the socket in `dir`.
fn start(dir: &TempDir, keys: &str) -> Tollgate {
    let yaml = Setup::default().pool("app", &["127.0.0.1:9".parse().unwrap()], keys).yaml();
    Tollgate::from_yaml(&yaml.replace("127.0.0.1:9", &address(dir)))
}

fn address(dir: &TempDir) -> String {
    format!("unix:{}", socket(dir.path()).display())
}

#[test]
fn requests_and_checks_go_there_and_it_is_named_by_its_path() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let _front = Front::unix(&socket(dir.path()), backend.address);
    let server = start(&dir, QUICK_HTTP);
    let mut client = server.client();
    let body = checksum::body(1, 3_000_000);
    let answer = client.call(&Request::new("POST", "/?bytes=2000000").body(Body::Length(&body))).unwrap();
    let got = format!("{} {:x}", body.len(), checksum::sum(&body));
    assert_eq!((answer.status, answer.header("x-got")), (200, Some(got.as_str())));
    let seen = client.get("/").unwrap().json();
    let headers: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert!(headers.iter().any(|name| name.eq_ignore_ascii_case("x-forwarded-for")), "{seen}");
    let host = seen["headers"].as_array().unwrap().iter().find(|pair| pair[0] == "Host").unwrap();
    assert_eq!(host[1], "test.example");
    assert!(seen["served"].as_u64().unwrap() >= 1, "the connection was kept: {seen}");

    let told = server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0].clone();
    let name = address(&dir);
    assert_eq!((&told["address"], &told["configured"]), (&name.as_str().into(), &name.as_str().into()));
    assert_eq!(told["last_check"]["passed"], true);
    assert_eq!(server.access_lines(1)[0]["backend"], name);
    let metrics = server.ask("GET", "/metrics", "").text();
    assert!(metrics.contains(&format!("tollgate_backend_up{{upstream=\"app\",backend=\"{name}\"}} 1")), "{metrics}");
    let target = format!("/upstreams/app/backends/{}", name.replace('/', "%2F"));
    let drained = server.ask("PATCH", &target, r#"{"state": "drain"}"#);
    assert_eq!((drained.status, &drained.json()["state"]), (200, &"drain".into()), "{drained:?}");
}

#[test]
fn a_socket_that_is_missing_or_dead_is_a_failed_connection_in_words() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let server = start(&dir, &format!("retries: 0, {NO_CHECK}"));
    let mut client = server.client();
    assert_eq!(client.get("/").unwrap().status, 502);
    assert_eq!(server.access_lines(1)[0]["error"], "there is no such socket");
    server.wait_for_event(&[&address(&dir), "there is no such socket"], PATIENCE);
    // One whose process is gone.
    drop(std::os::unix::net::UnixListener::bind(socket(dir.path())).unwrap());
    assert_eq!(client.get("/").unwrap().status, 502);
    assert_eq!(server.access_lines(2)[1]["error"], "connection refused");
    std::fs::remove_file(socket(dir.path())).unwrap();
    let _front = Front::unix(&socket(dir.path()), backend.address);
    assert!(eventually(PATIENCE, || client.get("/").unwrap().status == 200));
}

#[test]
fn tls_passes_over_one_too() {
    let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
    let ca = authority.write(dir.path(), "ca").display().to_string();
    let config = server(&authority.sign(&["app.example"], NOW), ALL_VERSIONS, None);
    let [_unix, tls] = Front::tls_over_unix(&socket(dir.path()), backend.address, config);
    let server = start(&dir, &format!("tls: {{server_name: app.example, ca: {ca}}}, {NO_CHECK}"));
    assert_eq!(server.client().get("/").unwrap().backend(), "a");
    assert_eq!(tls.handshakes()[0].name.as_deref(), Some("app.example"));
}

#[test]
fn a_websocket_passes() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let _front = Front::unix(&socket(dir.path()), backend.address);
    let server = start(&dir, NO_CHECK);
    let mut client = server.client();
    client.send(b"GET /?switch=echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 101);
    client.send(b"hello").unwrap();
    assert_eq!(client.read_bytes(5).unwrap(), b"hello");
}
