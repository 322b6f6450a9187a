//! WebSockets over HTTP/2 (RFC 8441), to backends that know them over HTTP/1.1.

use bytes::Bytes;
use h2::Reason;
use h2::client::Builder;
use h2::ext::Protocol;
use http::{Method, Request};
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::http2::{Http2, read, request};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

fn server(keys: &str) -> (Played, Tollgate) {
    let (backend, dir) = (Played::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let keys = format!("{NO_CHECK}{}{keys}", if keys.is_empty() { "" } else { ", " });
    let limits = "limits: {max_body: 1KiB, body_timeout: 1s}";
    let server = Setup::default().pool("app", &[backend.address], &keys).line(limits).tls(dir.path()).start();
    (backend, server)
}

fn asked(protocol: &'static str) -> Request<()> {
    let mut asked = request("CONNECT", "/chat?a=b");
    assert_eq!(asked.method(), Method::CONNECT);
    asked.extensions_mut().insert(Protocol::from_static(protocol));
    asked.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    asked
}

/// Answers what a client asks before it asks for a WebSocket.
fn connected(backend: &Played, server: &Tollgate) -> Http2 {
    let mut client = Http2::with(server.address, &Builder::new());
    let (coming, _) = client.open(request("GET", "/"), true).unwrap();
    let mut taken = backend.take_request().0;
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(client.runtime.block_on(read(coming)).unwrap().status, 200);
    assert!(client.send.is_extended_connect_protocol_enabled());
    client
}

#[test]
fn bytes_pass_both_ways_and_each_end_by_itself() {
    let (backend, server) = server("");
    let mut client = connected(&backend, &server);
    let (coming, mut stream) = client.open(asked("websocket"), false).unwrap();
    let (mut taken, got) = backend.take_request();
    assert_eq!(got.head.first, "GET /chat?a=b HTTP/1.1");
    let said = |name: &str| got.head.header(name).map(str::to_lowercase);
    assert_eq!((said("upgrade").as_deref(), said("connection").as_deref()), (Some("websocket"), Some("upgrade")));
    assert_eq!(
        (said("sec-websocket-key").map(|key| key.len()), said("sec-websocket-version").as_deref()),
        (Some(24), Some("13"))
    );
    assert_eq!((said("content-length"), said("transfer-encoding")), (None, None));
    taken.send(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nhi");
    let mut body = client.runtime.block_on(async {
        let answer = coming.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
            (200, &"chat".parse().unwrap())
        );
        assert!(
            ["sec-websocket-accept", "upgrade", "connection"].iter().all(|name| !answer.headers().contains_key(*name))
        );
        let mut body = answer.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hi");
        body
    });
    let long = vec![b'x'; 100_000];
    let _entered = client.runtime.enter();
    stream.send_data(Bytes::from(long.clone()), true).unwrap();
    // Longer than any body may be, and silent for longer.
    assert!(taken.read_bytes(long.len()).unwrap() == long);
    assert!(taken.is_closed(PATIENCE), "the client has ended its side");
    taken.send(b"bye");
    drop(taken);
    client.runtime.block_on(async {
        assert_eq!(body.data().await.unwrap().unwrap(), "bye");
        assert!(body.data().await.is_none_or(|data| data.unwrap().is_empty()));
        assert!(body.is_end_stream());
    });
    let line = &server.access_lines(2)[1];
    assert_eq!(
        (&line["status"], &line["bytes_in"], &line["bytes_out"]),
        (&101.into(), &100_000.into(), &5.into()),
        "{line}"
    );
}

#[test]
fn what_is_refused_is_an_answer_and_silence_has_its_bound() {
    let (backend, server) = server("tunnel_timeout: 1s");
    let mut client = connected(&backend, &server);
    let (coming, _stream) = client.open(asked("websocket"), false).unwrap();
    let mut taken = backend.take_request().0;
    taken.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    let refused = client.runtime.block_on(read(coming)).unwrap();
    assert_eq!((refused.status, refused.text().as_str()), (403, "no"));
    // A success would tell the client that it may begin to speak.
    let (coming, _stream) = client.open(asked("websocket"), false).unwrap();
    let mut taken = backend.take_request().0;
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    assert_eq!(client.runtime.block_on(read(coming)).unwrap().status, 502);
    let (coming, _stream) = client.open(asked("h2c"), false).unwrap();
    assert_eq!(client.runtime.block_on(read(coming)).unwrap().status, 405);
    let (coming, _stream) = client.open(asked("websocket"), false).unwrap();
    let mut taken = backend.take_request().0;
    taken.send(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    client.runtime.block_on(async {
        let mut body = coming.await.unwrap().into_body();
        let end = body.data().await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL), "{end:?}");
    });
}
