//! Certificates that change while clients are connected.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ALL_VERSIONS, ClientConfig};
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::load::Load;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{self, NOW, Tunnel, write_pair};
use crate::harness::{PATIENCE, eventually};

fn config() -> Arc<ClientConfig> {
    tls::config(ALL_VERSIONS, &["http/1.1"])
}

/// The certificate in `dir`.
fn written(dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()
}

/// The certificate that a new client is shown.
fn shown(server: &Tollgate) -> CertificateDer<'static> {
    tls::handshake(server.address, &config()).unwrap().0.certificate
}

#[test]
fn another_certificate_is_for_new_handshakes_and_closes_no_connection() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
    let tunnel = Tunnel::to(server.address, &config());
    let mut kept = Client::connect(tunnel.address);
    assert_eq!(kept.get("/").unwrap().status, 200);
    let loads = [true, false].map(|kept| Load::start(tunnel.address, (3, kept), "/", &[]));
    for round in 0..10 {
        let old = written(dir.path());
        assert_eq!(shown(&server), old);
        write_pair(dir.path(), NOW);
        if round % 5 == 0 {
            server.process.signal("HUP");
            assert!(eventually(PATIENCE, || shown(&server) == written(dir.path())), "SIGHUP changes nothing");
        } else {
            let answer = server.ask("POST", "/config/reload", "");
            // It may have been taken up by itself meanwhile.
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(shown(&server), written(dir.path()));
        loads[0].wait_for(3);
    }
    assert_eq!(kept.get("/").unwrap().status, 200, "the connection of before goes on");
    for outcome in loads.map(Load::stop) {
        assert!(outcome.failures.is_empty() && outcome.with(200) == outcome.answered(), "{outcome:?}");
    }
    assert!(server.ask("POST", "/config/reload", "").text().contains(r#""changed":[]"#));
}

#[test]
fn a_bad_pair_is_refused_and_the_old_one_stays() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    write_pair(dir.path(), NOW);
    let good = [&cert, &key].map(|path| std::fs::read(path).unwrap());
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
    let before = shown(&server);
    let refused = |what: &str, field: &str| {
        let answer = server.ask("POST", "/config/reload", "");
        assert_eq!(answer.status, 422, "{what}: {answer:?}");
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        assert!(errors.iter().any(|error| error["field"].as_str().unwrap().starts_with(field)), "{what}: {errors:?}");
        assert_eq!(shown(&server), before, "{what}");
    };
    let restore = || [(&cert, &good[0]), (&key, &good[1])].map(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    write_pair(dir.path(), NOW);
    std::fs::write(&key, &good[1]).unwrap();
    refused("the key of another", "listeners[0].tls");
    restore();
    std::fs::write(&cert, "no PEM").unwrap();
    refused("no PEM", "listeners[0].tls.cert");
    restore();
    std::fs::remove_file(&key).unwrap();
    refused("no key", "listeners[0].tls.key");
    restore();
    server.rewrite(&Setup::app(&backend, NO_CHECK).yaml());
    refused("no TLS any more", "listeners[0].tls");
    server.rewrite(&Setup::app(&backend, NO_CHECK).tls(dir.path()).yaml());
    write_pair(dir.path(), NOW);
    assert_eq!(server.ask("POST", "/config/reload", "").status, 200, "a good one is as welcome as ever");
    assert_eq!(shown(&server), written(dir.path()));
}

#[test]
fn one_that_has_expired_is_served_with_a_warning_and_told_in_metrics() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    for years in [(2020, 2021), (2098, 2099)] {
        write_pair(dir.path(), years);
        let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
        assert_eq!(shown(&server), written(dir.path()), "a restart takes no listener away");
        let warns = |times: usize| {
            let told = || server.process.err.lines().iter().filter(|line| is_warning(line)).count() == times;
            assert!(eventually(PATIENCE, told), "{}", server.process.err.text());
        };
        let is_expiry = |line: &&str| line.starts_with("tollgate_certificate_expiry_timestamp_seconds{");
        let expiry = || {
            let text = server.ask("GET", "/metrics", "").text();
            let line = text.lines().find(is_expiry).unwrap_or_else(|| panic!("{text}")).to_owned();
            assert!(line.contains("listener=\"") && line.contains("subject=\"CN="), "{line}");
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        warns(1);
        let before = expiry();
        write_pair(dir.path(), (2020, years.1 + 1));
        assert_eq!(server.ask("POST", "/config/reload", "").status, 200);
        assert_eq!(shown(&server), written(dir.path()));
        assert_eq!((expiry() - before) / (24 * 60 * 60), 365);
    }
}

fn is_warning(line: &str) -> bool {
    line.contains(" WARN ") && line.contains("listeners[0].tls.cert") && line.contains("it is served all the same")
}
