//! gRPC between a client and a server of grpcio, the library in C that Python, Ruby and others share, with the proxy
//! between them. `grpc` has the same with one in Rust, and what only that can do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::ports::free_address;
use crate::harness::process::{Process, run, tell_skipped};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NAME, NOW};
use crate::harness::{PATIENCE, eventually};

/// Where `make setup-tests` installs it.
const PYTHON: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/grpcio/bin/python");
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpcio/");

/// Whether it is there. Where it is not, that is told.
fn is_installed() -> bool {
    let found = Path::new(PYTHON).exists();
    if !found {
        tell_skipped("grpcio");
    }
    found
}

fn python(script: &str) -> Command {
    let mut python = Command::new(PYTHON);
    python.arg(format!("{HERE}{script}.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// A server of grpcio; dropping it kills it.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// In TLS where there is a certificate with its key.
    fn start(pair: &[&Path]) -> Self {
        let process = Process::start(python("server").args(pair));
        let lines = process.out.wait("a server of grpcio", PATIENCE, |lines| !lines.is_empty());
        let port = lines[0].strip_prefix("listening ").unwrap().parse().unwrap();
        Server { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// How often it has said this.
    fn said(&self, words: &str) -> usize {
        self.process.out.lines().iter().filter(|line| line.starts_with(words)).count()
    }

    #[track_caller]
    fn assert_over(&self) {
        let over = || self.said("begun ") == self.said("over ");
        assert!(eventually(PATIENCE, over), "calls go on: {}", self.process.out.text());
    }
}

/// Has a client of grpcio make the calls of this case.
#[track_caller]
fn ask(case: &str, target: SocketAddr, ca: &str, words: &[&str]) {
    let finished = run(python("client").args([case, &target.to_string(), ca]).args(words));
    assert_eq!(finished.code, Some(0), "{case}: {}", finished.all());
}

/// The proxy before a server of grpcio, over TLS on both sides, or on none.
struct Between {
    server: Server,
    proxy: Tollgate,
    dir: TempDir,
    secure: bool,
}

impl Between {
    fn start(secure: bool, keys: &str, lines: &[&str]) -> Self {
        let (authority, dir) = (Authority::new("the test"), TempDir::new().unwrap());
        let ca = authority.write(dir.path(), "ca").display().to_string();
        let signed = authority.sign(&[NAME], NOW);
        let (cert, key) = signed.write(dir.path(), "server");
        let server = if secure { Server::start(&[&cert, &key]) } else { Server::start(&[]) };
        let spoken = if secure {
            format!("protocol: auto, tls: {{ca: {ca}, server_name: {NAME}}}")
        } else {
            "protocol: h2".into()
        };
        std::fs::copy(&cert, dir.path().join("cert.pem")).unwrap();
        std::fs::copy(&key, dir.path().join("key.pem")).unwrap();
        let pool = Setup::default().pool("app", &[server.address], &format!("{spoken}, {keys}"));
        let pool = pool.pool("dead", &[free_address()], NO_CHECK);
        let pool = pool.pool("slow", &[server.address], &format!("{spoken}, read_timeout: 60s, {NO_CHECK}"));
        let setup = lines.iter().fold(pool, |setup, line| setup.line(line));
        let setup = setup.line(
            "routes: [{path: /test.Tested, upstream: app}, {path: /test.Tested/Hang, upstream: slow}, \
             {path: /test.Dead, upstream: dead}]",
        );
        // What no call of gRPC is to notice.
        let setup = setup.line("limits: {max_body: 1KiB, body_timeout: 1s, keepalive_timeout: 1s}");
        let proxy = match secure {
            true => setup.tls(dir.path()).start(),
            false => Tollgate::from_yaml(&setup.yaml().replace("$LISTEN", "$LISTEN, h2c: true")),
        };
        Between { server, proxy, dir, secure }
    }

    #[track_caller]
    fn ask(&self, case: &str) {
        let ca = self.dir.path().join("ca.pem").display().to_string();
        ask(case, self.proxy.address, if self.secure { &ca } else { "-" }, &[]);
    }
}

#[test]
fn calls_and_their_failures_pass_with_all_that_they_say() {
    if !is_installed() {
        return;
    }
    for secure in [true, false] {
        let between = Between::start(secure, NO_CHECK, &[]);
        between.ask("calls");
        between.server.assert_over();
        let lines = between.proxy.access_lines(5);
        let statuses: Vec<_> = lines.iter().map(|line| line["grpc_status"].as_u64()).collect();
        assert_eq!(statuses, [0, 0, 0, 5, 12].map(Some), "{lines:?}");
    }
}

#[test]
fn streams_pass_in_both_directions() {
    if !is_installed() {
        return;
    }
    for secure in [true, false] {
        let between = Between::start(secure, NO_CHECK, &[]);
        between.ask("streams");
        between.server.assert_over();
    }
}

#[test]
fn whoever_gives_up_is_heard_by_the_other() {
    if !is_installed() {
        return;
    }
    let between = Between::start(true, NO_CHECK, &[]);
    between.ask("ends");
    between.server.assert_over();
    assert!(between.server.said("over Hang") >= 1, "{}", between.server.process.out.text());
}

#[test]
fn a_stream_may_be_quiet_for_longer_than_any_timeout() {
    if !is_installed() {
        return;
    }
    let keys = format!("read_timeout: 1s, write_timeout: 1s, idle_timeout: 1s, {NO_CHECK}");
    let between = Between::start(true, &keys, &[]);
    between.ask("quiet");
    between.server.assert_over();
}

#[test]
fn refusals_are_statuses_that_the_client_understands() {
    if !is_installed() {
        return;
    }
    let keys = format!("read_timeout: 5s, {NO_CHECK}");
    let lines =
        ["identity: {unknown_api_key: reject}", "rate_limit: {default: {capacity: 100, rate_per_sec: 0.000001}}"];
    let between = Between::start(false, &keys, &lines);
    for client in [
        r#"{"client_id":"poor","capacity":1,"rate_per_sec":0.01,"api_key":"poor-key"}"#,
        r#"{"client_id":"banned","capacity":1,"rate_per_sec":1,"mode":"blocked","api_key":"banned-key"}"#,
    ] {
        assert_eq!(between.proxy.ask("POST", "/clients", client).status, 201);
    }
    // It costs its one token.
    let mut client = between.proxy.client();
    let poor = [("X-Api-Key", "poor-key")];
    let request = crate::harness::client::Request::new("GET", "/nowhere").headers(&poor);
    assert_eq!(client.call(&request).unwrap().status, 404);
    between.ask("refused");
    assert_eq!(between.server.said("begun"), 0);
}

#[test]
fn a_call_costs_one_token_however_long_it_is() {
    if !is_installed() {
        return;
    }
    let lines = ["rate_limit: {default: {capacity: 1, rate_per_sec: 0.000001}}"];
    let between = Between::start(true, NO_CHECK, &lines);
    let team = r#"{"client_id":"team","capacity":10,"rate_per_sec":0.000001,"api_key":"team-key"}"#;
    assert_eq!(between.proxy.ask("POST", "/clients", team).status, 201);
    between.ask("pays");
    let told = between.proxy.ask("GET", "/clients/team", "").json();
    assert_eq!((told["tokens"].as_f64().unwrap().floor(), &told["allowed"]), (8.0, &2.into()), "{told}");
    let lines = between.proxy.access_lines(2);
    let tokens: Vec<_> = lines.iter().map(|line| line["tokens"].as_f64().unwrap().floor()).collect();
    assert_eq!(tokens, [9.0, 8.0], "{lines:?}");
}

#[test]
fn its_health_service_is_what_checks_ask() {
    if !is_installed() {
        return;
    }
    let between = Between::start(true, "health_check: {type: grpc, service: a.B, interval: 200ms, timeout: 5s}", &[]);
    let ca = between.dir.path().join("ca.pem").display().to_string();
    let set = |status: &str| ask("check", between.server.address, &ca, &["a.B", status]);
    let state = || -> (Value, String) {
        let found = between.proxy.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0].clone();
        (found["state"].clone(), found["last_check"].to_string())
    };
    // A service of which it knows nothing.
    assert!(eventually(PATIENCE, || state().0 == "down"), "{:?}", state());
    for (status, expected) in [("SERVING", "up"), ("NOT_SERVING", "down"), ("SERVING", "up")] {
        set(status);
        assert!(eventually(PATIENCE, || state().0 == expected), "{status}: {:?}", state());
        assert!(status == "SERVING" || state().1.contains("answered NOT_SERVING"), "{:?}", state());
    }
}
