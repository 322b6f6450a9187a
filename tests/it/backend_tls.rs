//! Backends that speak TLS: whom they are believed to be, what fails and in which words, and that everything else is as
//! it is without.

use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::authority::{Authority, Signed};
use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::front::{Front, Handshake, server};
use crate::harness::ports::free_address;
use crate::harness::process::{Process, run};
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, Tunnel, config, write_pair};
use crate::harness::{PATIENCE, checksum, eventually};

/// The name of every server.
const NAME: &str = "app.example";

/// A scripted backend that speaks TLS, and who signed its certificate.
struct Secure {
    authority: Authority,
    front: Front,
    dir: TempDir,
    plain: Backend,
}

impl Secure {
    fn new() -> Self {
        let (authority, plain, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
        let signed = authority.sign(&[NAME], NOW);
        authority.write(dir.path(), "ca");
        let front = Front::tls(plain.address, server(&signed, ALL_VERSIONS, None));
        Secure { authority, front, dir, plain }
    }

    /// The pool's keys: TLS that is verified, and `more`.
    fn keys(&self, more: &str) -> String {
        format!("{}, {more}", tls(self.dir.path(), ""))
    }

    fn setup(&self, more: &str) -> Setup {
        Setup::default().pool("app", &[self.front.address], &self.keys(more))
    }
}

/// The key `tls` of a pool: the authority in `dir`, the name of every server, and `more`.
fn tls(dir: &Path, more: &str) -> String {
    format!("tls: {{server_name: {NAME}, ca: {}/ca.pem{more}}}", dir.display())
}

fn backend_of(server: &Tollgate, place: usize) -> Value {
    server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][place].clone()
}

#[test]
fn requests_go_over_tls_on_connections_that_are_kept() {
    let secure = Secure::new();
    let server = secure.setup(NO_CHECK).start();
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().backend(), "a");
    }
    let expected =
        Handshake { resumed: false, name: Some(NAME.into()), protocol: Some("http/1.1".into()), certificate: false };
    assert_eq!(secure.front.handshakes(), [expected]);
    let pool = server.ask("GET", "/upstreams", "").json()["items"][0].clone();
    assert_eq!((&pool["protocol"], &pool["tls"]), (&"http/1.1".into(), &true.into()));
    let line = server.access_lines(1).remove(0);
    assert_eq!(line["backend"], secure.front.address.to_string());
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let secure = Secure::new();
    let server = secure.setup(NO_CHECK).start();
    let (mut client, body) = (server.client(), checksum::body(1, 3_000_000));
    for framing in [Body::Length(&body), Body::Chunked(&body, 10_007)] {
        let response = client.call(&Request::new("POST", "/?bytes=4000000&seed=2").body(framing)).unwrap();
        let got = format!("{} {:x}", body.len(), checksum::sum(&body));
        assert_eq!((response.status, response.header("x-got")), (200, Some(got.as_str())));
        assert!(response.body == checksum::body(2, 4_000_000), "{} bytes", response.body.len());
    }
    let closing = client.get("/?answer=close&bytes=100000").unwrap();
    assert!(closing.body == checksum::body(0, 100_000), "{} bytes", closing.body.len());
}

#[test]
fn a_websocket_passes() {
    let secure = Secure::new();
    let server = secure.setup(NO_CHECK).start();
    echoes(server.client());
}

#[test]
fn a_websocket_passes_with_tls_on_both_sides() {
    let (secure, dir) = (Secure::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = secure.setup(NO_CHECK).tls(dir.path()).start();
    let tunnel = Tunnel::to(server.address, &config(ALL_VERSIONS, &["http/1.1"]));
    echoes(Client::connect(tunnel.address));
}

/// Opens a WebSocket over `client` and says much and little.
#[track_caller]
fn echoes(mut client: Client) {
    client.send(b"GET /?switch=echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 101);
    for size in [1, 100_000] {
        let said = checksum::body(3, size);
        let mut stream = client.stream();
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut stream, &said).unwrap());
            assert!(client.read_bytes(said.len()).unwrap() == said, "{size}");
        });
    }
    client.finish();
    assert_eq!(client.rest(PATIENCE).unwrap(), "");
}

#[test]
fn checks_do_the_handshake_too() {
    for kind in ["tcp", "http, path: /health"] {
        let secure = Secure::new();
        let check = format!("health_check: {{type: {kind}, interval: 200ms, timeout: 2s}}");
        let server = secure.setup(&check).start();
        assert_eq!(server.client().get("/").unwrap().status, 200, "{kind}");
        assert_eq!(backend_of(&server, 0)["last_check"]["passed"], true, "{kind}");
        assert!(eventually(PATIENCE, || secure.front.handshakes().len() > 2), "{kind}");
    }
}

/// What is wrong with a backend, and in which words.
struct Fault {
    name: &'static str,
    signed: Signed,
    more: &'static str,
    status: u16,
    words: String,
}

/// A server with `signed`, verified with the authority in `dir`, is told to be wrong in these words everywhere.
fn assert_told(fault: &Fault, dir: &Path, backend: &Backend) {
    let front = Front::tls(backend.address, server(&fault.signed, ALL_VERSIONS, None));
    assert_told_of(fault, dir, &[front.address, backend_with(dir, backend).address]);
}

/// One that has nothing wrong.
fn backend_with(dir: &Path, backend: &Backend) -> Front {
    let key = std::fs::read_to_string(dir.join("good-key.pem")).unwrap();
    let cert = std::fs::read_to_string(dir.join("good-cert.pem")).unwrap();
    Front::tls(backend.address, server(&Signed { cert, key }, ALL_VERSIONS, None))
}

fn assert_told_of(fault: &Fault, dir: &Path, addresses: &[std::net::SocketAddr]) {
    let Fault { name, more, status, words, .. } = fault;
    let keys = format!("{}, connect_timeout: 500ms, retries: 0, {NO_CHECK}", tls(dir, more));
    let server = Setup::default().pool("app", &addresses[..1], &keys).start();
    let answer = server.client().get("/").unwrap();
    assert_eq!(answer.status, *status, "{name}: {answer:?}");
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["error"], &line["attempts"]), (&words.as_str().into(), &1.into()), "{name}");
    server.wait_for_event(&["upstream app", &addresses[0].to_string(), words], PATIENCE);

    let check = "health_check: {type: tcp, interval: 200ms, timeout: 500ms, unhealthy_threshold: 1}";
    let checked = Setup::default().pool("app", &addresses[..1], &format!("{}, {check}", tls(dir, more))).start();
    let told = backend_of(&checked, 0);
    assert_eq!(told["state"], "down", "{name}: {told}");
    let why = told["last_check"]["error"].as_str().unwrap_or_default().to_owned();
    let timed_out = *status == 504 && why.starts_with("no answer within");
    assert!(why == *words || timed_out, "{name}: {told}");
    assert_eq!(checked.client().get("/").unwrap().status, 503, "{name}");
}

#[test]
fn every_failure_has_its_words_in_the_log_the_access_line_and_the_admin_api() {
    let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
    authority.write(dir.path(), "ca");
    authority.sign(&[NAME], NOW).write(dir.path(), "good");
    let fault = |name, signed, words: &str| Fault { name, signed, more: "", status: 502, words: words.to_owned() };
    for fault in [
        fault("expired", authority.sign(&[NAME], (2001, 2002)), "its certificate expired on 2002-01-01 00:00 UTC"),
        fault(
            "not valid yet",
            authority.sign(&[NAME], (2098, 2099)),
            "its certificate is not valid before 2098-01-01 00:00 UTC",
        ),
        fault(
            "unknown authority",
            Authority::new("somebody").sign(&[NAME], NOW),
            "its certificate is signed by an unknown authority",
        ),
        fault(
            "wrong name",
            authority.sign(&["one.example", "*.two.example", "10.0.0.1"], NOW),
            "its certificate is for one.example, *.two.example, 10.0.0.1, not for app.example",
        ),
    ] {
        assert_told(&fault, dir.path(), &backend);
    }
    // As `openssl req -x509` makes them.
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let signed = self_signed(&own, NAME);
    assert_told(&fault("its own", signed, "its certificate is signed by an unknown authority"), dir.path(), &backend);
}

/// A certificate that says that it is an authority and signs itself.
fn self_signed(dir: &Path, name: &str) -> Signed {
    let (cert, key) = (dir.join("own.pem"), dir.join("own.key"));
    let made = run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=x", "-addext", &format!("subjectAltName=DNS:{name}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    assert_eq!(made.code, Some(0), "{made:?}");
    Signed { cert: std::fs::read_to_string(cert).unwrap(), key: std::fs::read_to_string(key).unwrap() }
}

#[test]
fn what_is_no_tls_is_told_to_be_none() {
    let (authority, dir) = (Authority::new("the test"), TempDir::new().unwrap());
    authority.write(dir.path(), "ca");
    let signed = authority.sign(&[NAME], NOW);
    let fault =
        |name, status, words: &str| Fault { name, signed: signed.clone(), more: "", status, words: words.to_owned() };
    for (said, fault) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
            fault("plain HTTP", 502, "it answered a TLS handshake in plain HTTP"),
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", fault("SSH", 502, "it answered something that is not TLS")),
        (b"", fault("closes", 502, "it closed the connection during the TLS handshake")),
    ] {
        let address = speaking(said, true);
        assert_told_of(&fault, dir.path(), &[address]);
    }
    let silent = speaking(b"", false);
    assert_told_of(&fault("silent", 504, "the TLS handshake timed out"), dir.path(), &[silent]);
}

/// Where a server says this to everybody who has said something, and then closes or not.
fn speaking(said: &'static [u8], closes: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            // What was not read would have the end be a reset.
            let _ = std::io::Read::read(&mut stream, &mut [0; 8192]);
            let _ = std::io::Write::write_all(&mut stream, said);
            if closes {
                let _ = stream.shutdown(Shutdown::Write);
            }
            kept.push(stream);
        }
    });
    address
}

#[test]
fn a_client_certificate_is_shown_and_missed_in_words() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
        authority.write(dir.path(), "ca");
        let front =
            Front::tls(backend.address, server(&authority.sign(&[NAME], NOW), versions, Some(authority.roots())));
        let (cert, key) = authority.sign(&["client.example"], NOW).write(dir.path(), "client");
        let shown = tls(dir.path(), &format!(", cert: {}, key: {}", cert.display(), key.display()));
        let server = Setup::default().pool("app", &[front.address], &format!("{shown}, {NO_CHECK}")).start();
        assert_eq!(server.client().get("/").unwrap().status, 200);
        assert!(front.handshakes()[0].certificate);

        let stranger = Authority::new("somebody").sign(&["client.example"], NOW);
        let (cert, key) = stranger.write(dir.path(), "stranger");
        let strange = tls(dir.path(), &format!(", cert: {}, key: {}", cert.display(), key.display()));
        for (keys, words) in
            [(strange, "it refused the client certificate"), (tls(dir.path(), ""), "client certificate")]
        {
            let server =
                Setup::default().pool("app", &[front.address], &format!("{keys}, retries: 0, {NO_CHECK}")).start();
            assert_eq!(server.client().get("/").unwrap().status, 502, "{words}");
            let error = server.access_lines(1)[0]["error"].as_str().unwrap().to_owned();
            assert!(error.contains(words), "{versions:?}: {error}");
            let check = "health_check: {type: tcp, interval: 200ms, timeout: 2s, unhealthy_threshold: 1}";
            let checked = Setup::default().pool("app", &[front.address], &format!("{keys}, {check}")).start();
            let told = backend_of(&checked, 0);
            let error = told["last_check"]["error"].as_str().unwrap_or_default();
            assert!(error.contains(words), "{versions:?}: {told}");
        }
    }
}

#[test]
fn a_request_goes_on_to_a_backend_whose_handshake_succeeds() {
    let secure = Secure::new();
    let broken = speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n", true);
    let keys = secure.keys(NO_CHECK);
    let server = Setup::default().pool("app", &[broken, secure.front.address], &keys).start();
    for _ in 0..4 {
        // Nothing was sent, so it does not matter what a request may be.
        let answer = server.client().call(&Request::new("POST", "/").body(Body::Length(b"hello"))).unwrap();
        assert_eq!((answer.status, answer.backend()), (200, "a"));
    }
    assert!(server.access_lines(4).iter().any(|line| line["attempts"] == 2));
}

#[test]
fn an_address_is_checked_against_addresses_and_told_to_nobody() {
    let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
    let ca = authority.write(dir.path(), "ca").display().to_string();
    for (names, name, error) in [
        (&["127.0.0.1"][..], "", None),
        (&["127.0.0.1"], "server_name: 127.0.0.1, ", None),
        (&["app.example"], "", Some("its certificate is for app.example, not for 127.0.0.1")),
    ] {
        let front = Front::tls(backend.address, server(&authority.sign(names, NOW), ALL_VERSIONS, None));
        let keys = format!("tls: {{{name}ca: {ca}}}, retries: 0, {NO_CHECK}");
        let server = Setup::default().pool("app", &[front.address], &keys).start();
        assert_eq!(server.client().get("/").unwrap().status, if error.is_none() { 200 } else { 502 });
        assert_eq!(server.access_lines(1)[0]["error"].as_str(), error);
        if error.is_none() {
            assert_eq!(front.handshakes()[0].name, None);
        }
    }
}

#[test]
fn a_backend_is_asked_for_by_its_host_name() {
    let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
    let ca = authority.write(dir.path(), "ca").display().to_string();
    let front = Front::tls(backend.address, server(&authority.sign(&["localhost"], NOW), ALL_VERSIONS, None));
    let port = front.address.port();
    let yaml = Setup::default().pool("app", &[front.address], &format!("tls: {{ca: {ca}}}, {NO_CHECK}")).yaml();
    let server = Tollgate::from_yaml(&yaml.replace(&format!("127.0.0.1:{port}"), &format!("LocalHost:{port}")));
    assert!(eventually(PATIENCE, || server.client().get("/").unwrap().status == 200));
    assert_eq!(front.handshakes()[0].name.as_deref(), Some("localhost"));
}

#[test]
fn sessions_are_resumed() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let (authority, backend, dir) = (Authority::new("the test"), Backend::scripted("a"), TempDir::new().unwrap());
        authority.write(dir.path(), "ca");
        let front = Front::tls(backend.address, server(&authority.sign(&[NAME], NOW), versions, None));
        let keys = format!("{}, {NO_CHECK}", tls(dir.path(), ""));
        let server = Setup::default().pool("app", &[front.address], &keys).start();
        let mut client = server.client();
        for _ in 0..4 {
            // Its backend closes after each.
            assert_eq!(client.get("/?answer=close").unwrap().status, 200);
        }
        assert!(eventually(PATIENCE, || front.handshakes().len() == 4));
        let resumed: Vec<_> = front.handshakes().iter().map(|handshake| handshake.resumed).collect();
        assert_eq!(resumed, [false, true, true, true], "{versions:?}");
    }
}

#[test]
fn a_certificate_in_the_file_of_authorities_is_believed_whatever_it_says_of_itself() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let signed = self_signed(dir.path(), NAME);
    let front = Front::tls(backend.address, server(&signed, ALL_VERSIONS, None));
    let own = dir.path().join("own.pem").display().to_string();
    for (name, error) in
        [(NAME, None), ("other.example", Some("its certificate is for app.example, not for other.example"))]
    {
        let keys = format!("tls: {{ca: {own}, server_name: {name}}}, retries: 0, {NO_CHECK}");
        let server = Setup::default().pool("app", &[front.address], &keys).start();
        assert_eq!(server.client().get("/").unwrap().status, if error.is_none() { 200 } else { 502 });
        assert_eq!(server.access_lines(1)[0]["error"].as_str(), error);
    }
}

#[test]
fn the_authorities_of_the_system_are_believed() {
    let secure = Secure::new();
    let yaml = Setup::default()
        .pool("app", &[secure.front.address], &format!("tls: {{server_name: {NAME}}}, retries: 0, {NO_CHECK}"))
        .yaml();
    let ca = secure.dir.path().join("ca.pem").display().to_string();
    let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("SSL_CERT_FILE", &ca)], false);
    assert_eq!(server.client().get("/").unwrap().status, 200);
    Authority::new("another").write(secure.dir.path(), "other");
    let ca = secure.dir.path().join("other.pem").display().to_string();
    let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("SSL_CERT_FILE", &ca)], false);
    assert_eq!(server.client().get("/").unwrap().status, 502);
    assert_eq!(server.access_lines(1)[0]["error"], "its certificate is signed by an unknown authority");
}

#[test]
fn who_is_not_verified_is_warned_of_once_and_may_be_anybody() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let front = Front::tls(backend.address, server(&self_signed(dir.path(), "whoever"), ALL_VERSIONS, None));
    let keys = format!("tls: {{verify: false}}, {NO_CHECK}");
    let server = Setup::default().pool("app", &[front.address], &keys).start();
    for _ in 0..3 {
        assert_eq!(server.client().get("/?answer=close").unwrap().status, 200);
    }
    server.wait_for_event(&["upstreams[0].tls.verify: "], PATIENCE);
    let told = server.process.err.lines();
    let told: Vec<_> = told.iter().filter(|line| line.contains("upstreams[0].tls.verify: ")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains(" WARN "), "{told:?}");
}

#[test]
fn a_reload_that_changes_tls_uses_no_connection_from_before() {
    let secure = Secure::new();
    let setup = secure.setup(NO_CHECK);
    let server = setup.start();
    let mut client = server.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    // Something else changes: the connection is good as before.
    server.rewrite(&secure.setup(&format!("retries: 1, {NO_CHECK}")).yaml());
    server.process.signal("HUP");
    server.wait_for_event(&["configuration reloaded: upstreams changed: app"], PATIENCE);
    assert_eq!(client.get("/").unwrap().status, 200);
    assert_eq!(secure.front.handshakes().len(), 1);
    // Another authority, in the same file: nobody whom it does not know is believed any more.
    let good = std::fs::read(secure.dir.path().join("ca.pem")).unwrap();
    Authority::new("another").write(secure.dir.path(), "ca");
    let count = |server: &Tollgate| {
        server.process.err.lines().iter().filter(|line| line.contains("reloaded: upstreams changed")).count()
    };
    server.process.signal("HUP");
    assert!(eventually(PATIENCE, || count(&server) == 2));
    assert_eq!(client.get("/").unwrap().status, 502);
    std::fs::write(secure.dir.path().join("ca.pem"), good).unwrap();
    server.process.signal("HUP");
    assert!(eventually(PATIENCE, || count(&server) == 3));
    assert_eq!(client.get("/").unwrap().status, 200);
    let last = secure.front.handshakes().pop().unwrap();
    assert!(!last.resumed, "what was agreed on under other rules is not resumed");
    // And plain again.
    let plain = Setup::default().pool("app", &[secure.plain.address], NO_CHECK).yaml();
    server.rewrite(&plain);
    server.process.signal("HUP");
    assert!(eventually(PATIENCE, || count(&server) == 4));
    assert_eq!(client.get("/").unwrap().backend(), "a");
    drop(secure.authority);
}

#[test]
fn check_refuses_what_cannot_work() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new("the test");
    authority.write(dir.path(), "ca");
    let (cert, key) = authority.sign(&["client.example"], NOW).write(dir.path(), "client");
    let (_, other) = authority.sign(&["client.example"], NOW).write(dir.path(), "other");
    authority.sign(&["client.example"], (2001, 2002)).write(dir.path(), "old");
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    let (cert, key, other) = (cert.display().to_string(), key.display().to_string(), other.display().to_string());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (missing, empty) = (path("missing.pem"), path("empty.pem"));
    let tcp = "127.0.0.1:9";
    for (address, keys, said) in [
        (tcp, format!("tls: {{ca: {missing}}}"), format!("tls.ca: {missing}: there is no such file")),
        (tcp, format!("tls: {{ca: {empty}}}"), format!("tls.ca: {empty}: holds no certificate")),
        (tcp, format!("tls: {{cert: {missing}, key: {key}}}"), format!("tls.cert: {missing}: there is no such file")),
        (
            tcp,
            format!("tls: {{cert: {cert}, key: {other}}}"),
            format!("tls.key: {other}: the private key is not that of the certificate in {cert}"),
        ),
        (tcp, format!("tls: {{cert: {cert}}}"), "tls.key: is missing".to_owned()),
        (tcp, format!("tls: {{key: {key}}}"), "tls.cert: is missing".to_owned()),
        (tcp, "tls: {server_name: 'a b'}".to_owned(), "tls.server_name: must be a host name".to_owned()),
        (tcp, "tls: {name: a}".to_owned(), "tls.name: unknown key".to_owned()),
        (tcp, "tls: true".to_owned(), "tls: must be a mapping".to_owned()),
        (
            "unix:/run/app.sock",
            "tls: {}".to_owned(),
            "tls.server_name: is missing, must be a host name or an IP address: unix:/run/app.sock has none".to_owned(),
        ),
        (tcp, "protocol: auto".to_owned(), "protocol: must be ".to_owned()),
        ("unix:app.sock", String::new(), "backends[0].address: must be".to_owned()),
        ("unix:/run/", String::new(), "backends[0].address: must be".to_owned()),
        (&format!("unix:/{}", "x".repeat(107)), String::new(), "backends[0].address: must be".to_owned()),
    ] {
        let finished = checked(dir.path(), address, &keys);
        assert_eq!(finished.code, Some(2), "{address} {keys}: {finished:?}");
        let said = format!("upstreams[0].{said}");
        assert!(finished.all().contains(&said), "{said}: {finished:?}");
    }
    for (address, keys) in [
        (tcp, "tls: null".to_owned()),
        (tcp, "tls: {server_name: null, verify: false, ca: null, cert: null, key: null}".to_owned()),
        (tcp, format!("protocol: http/1.1, tls: {{ca: {}, cert: {cert}, key: {key}}}", path("ca.pem"))),
        ("unix:/run/app.sock", "tls: {verify: false}".to_owned()),
        ("unix:/run/app.sock", String::new()),
    ] {
        let finished = checked(dir.path(), address, &keys);
        assert_eq!(finished.code, Some(0), "{address} {keys}: {finished:?}");
    }
    // One that has expired would be refused by every backend, but not by a start.
    let old = format!("tls: {{cert: {}, key: {}, verify: false}}", path("old-cert.pem"), path("old-key.pem"));
    let finished = checked(dir.path(), tcp, &old);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.all().contains("the certificate expired on 2002-01-01 00:00 UTC"), "{finished:?}");
}

fn checked(dir: &Path, address: &str, keys: &str) -> crate::harness::process::Finished {
    let yaml = dir.join("tollgate.yaml");
    let comma = if keys.is_empty() { "" } else { ", " };
    std::fs::write(
        &yaml,
        format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nadmin: {{address: null}}\ndatabase: null\n\
             upstreams:\n  - {{name: app, backends: [{{address: \"{address}\"}}]{comma}{keys}}}\n"
        ),
    )
    .unwrap();
    run(command().args(["check", "-c"]).arg(&yaml))
}

/// Where nginx is: not on everybody's path.
fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").is_file() { "/usr/sbin/nginx" } else { "nginx" }
}

#[test]
fn nginx_and_openssl_are_understood() {
    let (authority, dir) = (Authority::new("the test"), TempDir::new().unwrap());
    authority.write(dir.path(), "ca");
    let (cert, key) = authority.sign(&[NAME], NOW).write(dir.path(), "server");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let keys = format!("{}, {NO_CHECK}", tls(dir.path(), ""));

    let address = free_address();
    let home = dir.path().display();
    let conf = format!(
        "daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/error.log;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {address} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
         location / {{ return 200 'nginx $ssl_server_name $ssl_session_reused'; }} }} }}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, conf).unwrap();
    let mut nginx = Process::start(Command::new(nginx()).arg("-p").arg(dir.path()).arg("-c").arg(&file));
    assert!(eventually(PATIENCE, || Client::try_connect(address).is_ok()), "{}", nginx.err.text());
    let server = Setup::default().pool("app", &[address], &keys).start();
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), format!("nginx {NAME} ."));
    }
    nginx.kill();

    let address = free_address();
    let mut openssl = Process::start(Command::new("openssl").args([
        "s_server",
        "-quiet",
        "-www",
        "-accept",
        &address.to_string(),
        "-cert",
        &cert,
        "-key",
        &key,
    ]));
    assert!(eventually(PATIENCE, || Client::try_connect(address).is_ok()), "{}", openssl.err.text());
    let server = Setup::default().pool("app", &[address], &keys).start();
    for _ in 0..2 {
        // It answers in HTTP/1.0, without a length, and ends with the connection.
        let answer = server.client().get("/").unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("SSL-Session"), "{}", answer.text());
    }
    openssl.kill();
}

#[test]
fn a_slow_answer_is_waited_for_as_without_tls() {
    let secure = Secure::new();
    let server = secure.setup(&format!("read_timeout: 300ms, {NO_CHECK}")).start();
    let answer = server.client().get("/?fault=hang").unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(server.access_lines(1)[0]["error"], "no answer in time");
    let answer = server.client().get("/?fault=close").unwrap();
    assert_eq!(answer.status, 502);
    assert!(eventually(Duration::from_secs(5), || server.client().get("/").unwrap().status == 200));
}
