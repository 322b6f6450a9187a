//! Listeners with TLS: handshakes, certificates, what goes on behind them in HTTP/1.1.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConnection, ProtocolVersion};
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::checksum;
use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::Http2;
use crate::harness::process::run;
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{self, NAME, NOW, Tunnel, write_pair};
use crate::harness::{PATIENCE, assert_ours, eventually, now};

/// A scripted backend behind a TLS listener, with more lines in the file.
fn server(more: &str) -> ([Backend; 1], Tollgate) {
    // The files are read at the start, and no more.
    let (backend, server, _dir) = server_with_files(more);
    (backend, server)
}

/// The same, and the directory of `cert.pem` and `key.pem`.
fn server_with_files(more: &str) -> ([Backend; 1], Tollgate, TempDir) {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(more).start();
    (backend, server, dir)
}

fn tunnel(server: &Tollgate) -> Tunnel {
    Tunnel::to(server.address, &tls::config(ALL_VERSIONS, &[]))
}

#[test]
fn the_protocol_is_agreed_on_by_alpn() {
    let (_backend, server, dir) = server_with_files("");
    let certificate = CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&["http/0.9", "http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
        (&["spdy/3", "http/1.0", "x"], Some("http/1.0")),
        (&["http/1.0", "http/1.1"], Some("http/1.1")),
        (&["http/1.0", "h2"], Some("h2")),
        (&[], None),
    ] {
        let (outcome, _) = tls::handshake(server.address, &tls::config(ALL_VERSIONS, offered)).unwrap();
        assert_eq!(outcome.protocol.as_deref(), agreed, "{offered:?}");
        assert_eq!(outcome.certificate, certificate);
    }
    for unknown in [&["http/0.9"][..], &["h2c", "HTTP/1.1", "imap"]] {
        let nothing_in_common = tls::handshake(server.address, &tls::config(ALL_VERSIONS, unknown));
        assert!(nothing_in_common.unwrap_err().to_string().contains("NoApplicationProtocol"), "{unknown:?}");
    }
    let tunnel = Tunnel::to(server.address, &tls::config(ALL_VERSIONS, &["http/1.0"]));
    let mut client = Client::connect(tunnel.address);
    client.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 200);
}

#[test]
fn both_versions_of_tls_carry_requests() {
    let (_backend, server) = server("");
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = tls::config(&[version], &["http/1.1"]);
        let (agreed, _) = tls::handshake(server.address, &config).unwrap();
        assert_eq!(agreed.version, expected);
        let tunnel = Tunnel::to(server.address, &config);
        let mut client = Client::connect(tunnel.address);
        for _ in 0..3 {
            assert_eq!(client.get("/").unwrap().status, 200, "{expected:?}");
        }
    }
}

#[test]
fn the_backend_learns_that_the_request_came_over_tls() {
    for (more, claimed, expected) in [
        ("", "http", "https"),
        ("identity: {trusted_proxies: [127.0.0.1]}", "http", "http"),
        ("identity: {trusted_proxies: [127.0.0.1]}", "", "https"),
    ] {
        let (_backend, server) = server(more);
        let tunnel = tunnel(&server);
        let headers = [("X-Forwarded-Proto", claimed)];
        let request = Request::new("GET", "/").headers(if claimed.is_empty() { &[] } else { &headers });
        let got = Client::connect(tunnel.address).call(&request).unwrap().json();
        let headers = got["headers"].as_array().unwrap().clone();
        let named = headers.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case("x-forwarded-proto"));
        assert_eq!(named.map(|pair| pair[1].clone()).collect::<Vec<_>>(), [expected], "{more} {claimed}");
    }
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let (_backend, server) = server("");
    let tunnel = tunnel(&server);
    let mut client = Client::connect(tunnel.address);
    let body = checksum::body(1, 3_000_000);
    for framing in [Body::Length(&body), Body::Chunked(&body, 10_007)] {
        let response = client.call(&Request::new("POST", "/?bytes=4000000&seed=2").body(framing)).unwrap();
        let got = format!("{} {:x}", body.len(), checksum::sum(&body));
        assert_eq!((response.status, response.header("x-got")), (200, Some(got.as_str())));
        assert!(response.body == checksum::body(2, 4_000_000), "{} bytes", response.body.len());
    }
    // The end of the connection is the end of this one: over TLS it is said, not just done.
    let closing = client.call(&Request::new("GET", "/?answer=close&bytes=100000")).unwrap();
    assert!(closing.body == checksum::body(0, 100_000));
}

#[test]
fn a_websocket_passes_in_http_1() {
    let (_backend, server) = server("");
    let tunnel = tunnel(&server);
    let mut client = Client::connect(tunnel.address);
    client.send(b"GET /?switch=echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 101);
    for said in [&b"hello"[..], b"again"] {
        client.send(said).unwrap();
        assert_eq!(client.read_bytes(said.len()).unwrap(), said);
    }
}

#[test]
fn a_client_that_does_not_end_its_handshake_is_cut_after_the_header_timeout() {
    let (_backend, server) = server("limits: {header_timeout: 500ms}");
    let hello = hello();
    for (name, sent) in [("silent", &[][..]), ("one byte", &hello[..1]), ("half a hello", &hello[..hello.len() / 2])] {
        let start = now();
        let mut client = Client::connect(server.address);
        client.send(sent).unwrap();
        client.wait_closed(PATIENCE).unwrap_or_else(|e| panic!("{name}: {e}"));
        let took = now() - start;
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{name}: {took:?}");
    }
    // One that drips a byte every so often gains nothing by it.
    let (start, mut client) = (now(), Client::connect(server.address));
    let dripped = hello.iter().take_while(|byte| {
        crate::harness::dawdle(Duration::from_millis(50));
        client.send(&[**byte]).is_ok()
    });
    let dripped = dripped.count();
    assert!(now() - start < Duration::from_secs(5) && dripped < 90, "{dripped} bytes");
    let (_, mut idle) = tls::handshake(server.address, &tls::config(ALL_VERSIONS, &["http/1.1"])).unwrap();
    let start = now();
    assert_eq!(idle.read(&mut [0]).expect("a goodbye, not just an end"), 0, "idle after the handshake");
    assert!(now() - start < Duration::from_secs(5), "idle after the handshake");
}

/// The first bytes of a handshake.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    let name = NAME.try_into().unwrap();
    ClientConnection::new(tls::config(ALL_VERSIONS, &[]), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn plain_http_to_a_tls_listener_is_told_so_in_plain_http() {
    let (backend, server) = server("");
    let mut client = server.client();
    let response = client.get("/secret").unwrap();
    assert_ours(&response, 400, "Bad request");
    assert!(response.closes());
    client.wait_closed(PATIENCE).unwrap();
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["status"], &line["path"], &line["method"]), (&400.into(), &"/secret".into(), &"GET".into()));
    assert_eq!(line["error"], "plain HTTP on a listener of HTTPS");
    assert_eq!(backend[0].seen(), Vec::<String>::new());
}

#[test]
fn handshakes_that_fail_harm_nobody_and_say_nothing_in_the_log() {
    let (_backend, mut server) = server("");
    for garbage in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", b"\x16", b"\x80\x2e\x01\x00\x02", b"\x00"]
    {
        let mut client = server.client();
        client.send(garbage).unwrap();
        client.finish();
        client.rest(PATIENCE).unwrap();
    }
    let tunnel = tunnel(&server);
    assert_eq!(Client::connect(tunnel.address).get("/").unwrap().status, 200);
    assert!(server.process.is_running());
    let noise: Vec<_> = server.process.err.lines().into_iter().filter(|line| line.contains(" WARN ")).collect();
    assert!(noise.is_empty(), "{noise:?}");
}

/// A file with a pair in `dir`, and one good upstream.
fn file(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "listeners: [{{address: 127.0.0.1:1, tls: {{cert: {dir}/cert.pem, key: {dir}/key.pem}}}}]\n\
         admin: {{address: null}}\ndatabase: null\nupstreams: [{{name: app, backends: [{{address: 127.0.0.1:9}}]}}]\n"
    )
}

#[test]
fn check_and_the_start_name_every_bad_pair() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil, &str, &str); 4] = [
        ("missing", |dir| std::fs::remove_file(dir.join("cert.pem")).unwrap(), "cert", "there is no such file"),
        ("not PEM", |dir| std::fs::write(dir.join("cert.pem"), "hello").unwrap(), "cert", "holds no certificate"),
        ("no key", |dir| std::fs::write(dir.join("key.pem"), "").unwrap(), "key", "holds no private key"),
        (
            "mismatched",
            |dir| std::fs::copy(other_key().path(), dir.join("key.pem")).map(drop).unwrap(),
            "key",
            "is not that of",
        ),
    ];
    for (name, spoil, key, message) in spoils {
        let dir = TempDir::new().unwrap();
        write_pair(dir.path(), NOW);
        let yaml = dir.path().join("tollgate.yaml");
        std::fs::write(&yaml, file(dir.path())).unwrap();
        let good = run(command().args(["check", "-c"]).arg(&yaml));
        assert_eq!(good.code, Some(0), "{good:?}");
        spoil(dir.path());
        for verb in ["check", "run"] {
            let finished = run(command().args([verb, "-c"]).arg(&yaml));
            assert_eq!(finished.code, Some(2), "{name}: {finished:?}");
            let said = finished.all();
            let path = dir.path().join(format!("{key}.pem")).display().to_string();
            let line = said.lines().find(|line| line.starts_with(&format!("listeners[0].tls.{key}: {path}")));
            assert!(line.is_some_and(|line| line.contains(message) && line.ends_with("(line 1)")), "{name}: {said}");
        }
    }
}

#[test]
fn check_refuses_a_certificate_that_is_not_valid_now() {
    for (years, message) in [
        ((2001, 2002), "the certificate expired on 2002-01-01 00:00 UTC (line 1)"),
        ((2098, 2099), "the certificate is not valid before 2098-01-01 00:00 UTC (line 1)"),
    ] {
        let dir = TempDir::new().unwrap();
        write_pair(dir.path(), years);
        let yaml = dir.path().join("tollgate.yaml");
        std::fs::write(&yaml, file(dir.path())).unwrap();
        for verb in [&["check", "-c"][..], &["run", "-t", "-c"]] {
            let finished = run(command().args(verb).arg(&yaml));
            assert_eq!(finished.code, Some(2), "{finished:?}");
            let expected = format!("listeners[0].tls.cert: {}/cert.pem: {message}\n", dir.path().display());
            assert_eq!(finished.out, expected);
        }
    }
}

/// A file with a key of another certificate.
fn other_key() -> tempfile::NamedTempFile {
    let dir = TempDir::new().unwrap();
    let (_, key) = write_pair(dir.path(), NOW);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&std::fs::read(key).unwrap()).unwrap();
    file
}

#[test]
fn a_key_that_everybody_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let (_, key) = write_pair(dir.path(), NOW);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let yaml = dir.path().join("tollgate.yaml");
    std::fs::write(&yaml, file(dir.path())).unwrap();
    let finished = run(command().args(["check", "-c"]).arg(&yaml));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let expected = format!("warning: listeners[0].tls.key: {} is open to every user of this machine", key.display());
    assert!(finished.err.contains(&expected), "{finished:?}");
}

#[test]
fn a_reload_takes_a_new_certificate_and_drops_no_connection() {
    let (_backend, server, dir) = server_with_files("");
    let config = tls::config(ALL_VERSIONS, &["http/1.1"]);
    let presented = || tls::handshake(server.address, &config).unwrap().0.certificate;
    let stored = || CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap();
    let first = stored();
    assert_eq!(presented(), first);
    let tunnel = tunnel(&server);
    let (mut kept, mut streams) = (Client::connect(tunnel.address), Http2::connect(server.address));
    kept.get("/").unwrap();
    streams.get("/").unwrap();
    // A key without its certificate: what there was stays.
    let certificate = std::fs::read(dir.path().join("cert.pem")).unwrap();
    write_pair(dir.path(), NOW);
    std::fs::write(dir.path().join("cert.pem"), certificate).unwrap();
    server.process.signal("HUP");
    server.wait_for_event(&["listeners[0].tls.key", "is not that of the certificate"], PATIENCE);
    assert_eq!(presented(), first);
    write_pair(dir.path(), NOW);
    let second = stored();
    assert_ne!(second, first);
    server.process.signal("HUP");
    assert!(eventually(PATIENCE, || presented() == second), "the old one is still presented");
    assert_eq!(kept.get("/").unwrap().status, 200, "on the connection from before");
    assert_eq!(streams.get("/").unwrap().status, 200, "on the connection from before");
}

#[test]
fn a_handshake_that_has_begun_is_finished_and_served_at_a_stop() {
    let (_backend, mut server) = server("pingora: {grace_period_seconds: 20}");
    let config = tls::config(ALL_VERSIONS, &["http/1.1"]);
    let mut client = ClientConnection::new(Arc::clone(&config), NAME.try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(server.address).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let (first, second) = hello.split_at(hello.len() / 2);
    tcp.write_all(first).unwrap();
    // An answer to what was sent later shows that the half has arrived.
    tls::handshake(server.address, &config).unwrap();
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    tcp.write_all(second).unwrap();
    let mut stream = rustls::StreamOwned::new(client, tcp);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // To its end, which is said: a connection that is just cut would be an error.
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}

#[test]
fn silent_tls_connections_are_no_reason_to_wait_at_a_stop() {
    let (_backend, mut server) = server("pingora: {grace_period_seconds: 60}");
    let config = tls::config(ALL_VERSIONS, &["http/1.1"]);
    let _fresh = tls::handshake(server.address, &config).unwrap();
    // This one has agreed on HTTP/2, and does not begin with it.
    let _mute = tls::handshake(server.address, &tls::config(ALL_VERSIONS, &["h2"])).unwrap();
    let _unsaid = server.client();
    let tunnel = tunnel(&server);
    let mut used = Client::connect(tunnel.address);
    used.get("/").unwrap();
    let start = now();
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < Duration::from_secs(3), "took {:?}", now() - start);
}
