//! Backends that are told whose connection theirs is, by the PROXY protocol.

use std::net::{SocketAddr, TcpListener};

use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::authority::Authority;
use crate::harness::client::{Client, Request};
use crate::harness::haproxy::HaProxy;
use crate::harness::http2::Http2;
use crate::harness::played::Played;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Says what HAProxy was told: both ends of the connection.
const SAYS: &str = "http-request return status 200 content-type text/plain \
                    lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"";

/// A free port of this machine in IPv6.
fn free_v6() -> SocketAddr {
    TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap()
}

fn ends(client: &Client, server: SocketAddr) -> String {
    let near = client.stream().local_addr().unwrap();
    format!("{} {} {} {}", near.ip(), near.port(), server.ip(), server.port())
}

#[test]
fn haproxy_learns_who_the_client_is() {
    let (authority, dir) = (Authority::new("the test"), TempDir::new().unwrap());
    let ca = authority.write(dir.path(), "ca").display().to_string();
    let signed = authority.sign(&["app.example"], NOW);
    let pem = dir.path().join("both.pem");
    std::fs::write(&pem, format!("{}{}", signed.cert, signed.key)).unwrap();
    let (plain, secure) = (free_address(), free_address());
    let sections = format!(
        "frontend plain\n  mode http\n  bind {plain} accept-proxy\n  {SAYS}\n\
         frontend secure\n  mode http\n  bind {secure} accept-proxy ssl crt {}\n  {SAYS}\n",
        pem.display()
    );
    let _haproxy = HaProxy::start(&sections, plain);
    let check = "health_check: {type: tcp, interval: 200ms, timeout: 2s}";
    for version in ["v1", "v2"] {
        for (address, tls) in
            [(plain, String::new()), (secure, format!("tls: {{server_name: app.example, ca: {ca}}}, "))]
        {
            let six = free_v6();
            let keys = format!("proxy_protocol: {version}, {tls}{check}");
            let yaml = Setup::default().pool("app", &[address], &keys).yaml();
            let server = Tollgate::from_yaml(
                &yaml.replace("{address: $LISTEN}", &format!("{{address: $LISTEN}}, {{address: \"{six}\"}}")),
            );
            for listener in [server.address, six] {
                let mut clients = [Client::connect(listener), Client::connect(listener)];
                for _ in 0..3 {
                    for client in &mut clients {
                        let answer = client.get("/").unwrap();
                        assert_eq!((answer.status, answer.text()), (200, ends(client, listener)), "{version} {tls}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_streams_of_a_connection_are_those_of_its_client() {
    let (haproxy, dir) = (free_address(), TempDir::new().unwrap());
    let _haproxy =
        HaProxy::start(&format!("frontend plain\n  mode http\n  bind {haproxy} accept-proxy\n  {SAYS}\n"), haproxy);
    write_pair(dir.path(), NOW);
    let keys = format!("proxy_protocol: v2, {NO_CHECK}");
    let server = Setup::default().pool("app", &[haproxy], &keys).tls(dir.path()).start();
    let mut client = Http2::connect(server.address);
    let told = client.get("/").unwrap().text();
    let words: Vec<_> = told.split(' ').collect();
    assert_eq!((words[0], words[2]), ("127.0.0.1", "127.0.0.1"), "{told}");
    assert_eq!(words[3], server.address.port().to_string(), "{told}");
    assert_eq!(client.get("/").unwrap().text(), told);
    assert_ne!(Http2::connect(server.address).get("/").unwrap().text(), told, "another client has another port");
}

#[test]
fn a_connection_is_told_once_whose_it_is_and_serves_nobody_else() {
    let played = Played::new();
    let keys = format!("proxy_protocol: v1, {NO_CHECK}");
    let server = Setup::default().pool("app", &[played.address], &keys).start();
    let (mut one, mut other) = (server.client(), server.client());
    let line = |client: &Client| {
        let port = client.stream().local_addr().unwrap().port();
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", server.address.port())
    };
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut connections = Vec::new();
    for client in [&mut one, &mut other] {
        client.send(&Request::new("GET", "/first").encode()).unwrap();
        let mut taken = played.take();
        let told = line(client);
        assert_eq!(String::from_utf8(taken.read_bytes(told.len()).unwrap()).unwrap(), told);
        assert_eq!(taken.request().head.first, "GET /first HTTP/1.1");
        taken.send(answer);
        assert_eq!(client.read("GET").unwrap().status, 200);
        connections.push(taken);
    }
    // Each goes on over its own, whichever was used last.
    for (client, taken) in [&mut one, &mut other].into_iter().zip(&mut connections) {
        client.send(&Request::new("GET", "/second").encode()).unwrap();
        assert_eq!(taken.request().head.first, "GET /second HTTP/1.1");
        taken.send(answer);
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
    // A new one of the same address is another one.
    let mut third = server.client();
    third.send(&Request::new("GET", "/third").encode()).unwrap();
    let mut taken = played.take();
    let told = line(&third);
    assert_eq!(String::from_utf8(taken.read_bytes(told.len()).unwrap()).unwrap(), told);
}

#[test]
fn checks_are_nobodys_connections() {
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00")] {
        let played = Played::new();
        let keys = format!("proxy_protocol: {version}, health_check: {{type: tcp, interval: 200ms, timeout: 2s}}");
        let (_server, _) = Tollgate::launch(
            &Setup::default().pool("app", &[played.address], &keys).yaml(),
            &["run", "-c", "$FILE"],
            &[],
            false,
        );
        let mut taken = played.take();
        assert_eq!(taken.read_bytes(header.len()).unwrap(), header, "{version}");
        assert!(taken.is_closed(PATIENCE), "{version}");
    }
}

#[test]
fn whom_a_trusted_proxy_names_is_told_and_its_port_is_not_known() {
    let haproxy = free_address();
    let _haproxy =
        HaProxy::start(&format!("frontend plain\n  mode http\n  bind {haproxy} accept-proxy\n  {SAYS}\n"), haproxy);
    let keys = format!("proxy_protocol: v2, {NO_CHECK}");
    let server =
        Setup::default().pool("app", &[haproxy], &keys).line("identity: {trusted_proxies: [127.0.0.1]}").start();
    let mut client = server.client();
    // HAProxy writes no port where it is 0.
    for address in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
        let headers = [("X-Forwarded-For", address)];
        let answer = client.call(&Request::new("GET", "/").headers(&headers)).unwrap();
        assert_eq!(answer.text(), format!("{address}  127.0.0.1 {}", server.address.port()));
    }
    let headers = [("X-Forwarded-For", "2001:db8::7")];
    let answer = client.call(&Request::new("GET", "/").headers(&headers)).unwrap();
    assert_eq!(answer.text(), format!("2001:db8::7  ::ffff:127.0.0.1 {}", server.address.port()));
}

#[test]
fn a_websocket_is_told_too() {
    let played = Played::new();
    let keys = format!("proxy_protocol: v1, {NO_CHECK}");
    let server = Setup::default().pool("app", &[played.address], &keys).start();
    let mut client = server.client();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let mut taken = played.take();
    let start = b"PROXY TCP4 127.0.0.1 127.0.0.1 ";
    assert_eq!(taken.read_bytes(start.len()).unwrap(), start);
    while taken.read_bytes(1).unwrap() != b"\n" {}
    assert_eq!(taken.request().head.first, "GET / HTTP/1.1");
    taken.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    assert_eq!(client.read("GET").unwrap().status, 101);
    assert_eq!(client.read_bytes(5).unwrap(), b"hello");
}
