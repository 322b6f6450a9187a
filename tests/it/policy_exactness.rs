//! Each policy gives exactly what it has, over HTTP/2 as over HTTP/1.1, to whoever asks at once.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};

/// One for each caller, one for everybody, and one that costs three of a tenant.
const POLICIES: &str = "[{name: each, key: client, capacity: 700, rate_per_sec: 0.000001}, \
    {name: all, match: {paths: [/all]}, key: all, capacity: 500, rate_per_sec: 0.000001}, \
    {name: tenant, match: {paths: [/tenant]}, key: 'header:X-Tenant', capacity: 900, rate_per_sec: 0.000001, cost: 3}]";

/// How many requests run at once, and how many there are of a flood.
const AT_ONCE: usize = 256;
const ALL: usize = 1_280;

/// Opens a connection and has it driven.
async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    send
}

/// The status of a request for `path` of the client with this key.
async fn ask(send: SendRequest<Bytes>, (path, key): (&str, &str)) -> u16 {
    let request = http::Request::get(format!("http://a{path}")).header("x-api-key", key).header("x-tenant", "t");
    let mut send = send.ready().await.unwrap();
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    let answer = answer.await.unwrap();
    let (status, mut body) = (answer.status().as_u16(), answer.into_body());
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece.unwrap().len()).unwrap();
    }
    status
}

/// How many of [`ALL`] requests, [`AT_ONCE`] at once over so many connections, were let in; none but 200 and 429.
fn flood(address: SocketAddr, connections: usize, what: (&'static str, &'static str)) -> usize {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut workers = Vec::new();
        let start = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
        for _ in 0..connections {
            let send = connect(address).await;
            for _ in 0..AT_ONCE / connections {
                let (send, start) = (send.clone(), Arc::clone(&start));
                workers.push(tokio::spawn(async move {
                    start.wait().await;
                    let mut allowed = 0;
                    for _ in 0..ALL / AT_ONCE {
                        let status = ask(send.clone(), what).await;
                        assert!(matches!(status, 200 | 429), "{status}");
                        allowed += usize::from(status == 200);
                    }
                    allowed
                }));
            }
        }
        let mut allowed = 0;
        for worker in workers {
            allowed += worker.await.unwrap();
        }
        allowed
    })
}

#[test]
fn every_policy_gives_what_it_has_and_no_more_over_http2() {
    for connections in [AT_ONCE, 4] {
        let backend = [Backend::scripted("a")];
        let limit = format!("rate_limit: {{default: {{capacity: 100000, rate_per_sec: 1}}, policies: {POLICIES}}}");
        let yaml = Setup::app(&backend, NO_CHECK).line(&limit).yaml();
        let server = Tollgate::from_yaml(&yaml.replacen("}]", ", h2c: true}]", 1));
        for name in ["one", "two"] {
            let body = format!(r#"{{"client_id":"{name}","capacity":100000,"rate_per_sec":0.000001}}"#);
            assert_eq!(server.ask("POST", "/clients", &body).status, 201);
        }
        // What one refuses costs the others nothing, or the next would be short of it.
        let by_all = flood(server.address, connections, ("/all", "one"));
        let by_each = flood(server.address, connections, ("/tenant", "one"));
        let by_tenant = flood(server.address, connections, ("/tenant", "two"));
        assert_eq!((by_all, by_each, by_tenant), (500, 700 - 500, 300 - 200), "{connections}");
        let headers = [("X-Api-Key", "two")];
        let answer = Client::connect(server.address).call(&Request::new("GET", "/").headers(&headers)).unwrap();
        let left = answer.header("ratelimit").unwrap();
        assert!(left.contains("\"each\";r=599;"), "700 without 100 and this one: {left}");
    }
}
