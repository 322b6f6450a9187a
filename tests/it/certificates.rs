//! Several certificates of one listener, chosen by name, and renewed ones that are taken up by themselves.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::ALL_VERSIONS;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::load::Load;
use crate::harness::process::run;
use crate::harness::server::{LISTEN, Tollgate, command};
use crate::harness::setup::NO_CHECK;
use crate::harness::tls::{self, NOW, Tunnel, write_pair, write_pair_for};
use crate::harness::{PATIENCE, eventually, now};

/// A file whose listener has this `tls`.
fn yaml(backend: SocketAddr, tls: &str) -> String {
    format!(
        "listeners: [{{address: {LISTEN}, tls: {tls}}}]\nrate_limit: {{enabled: false}}\n\
         upstreams: [{{name: app, backends: [{{address: \"{backend}\"}}], {NO_CHECK}}}]\n"
    )
}

/// Pairs of these stems in `dir`.
fn pairs(dir: &Path, stems: &[&str]) -> String {
    let pair = |stem: &&str| format!("{{cert: {0}/{stem}.pem, key: {0}/{stem}.key}}", dir.display());
    format!("{{pairs: [{}]}}", stems.iter().map(pair).collect::<Vec<_>>().join(", "))
}

/// The subject of the certificate that openssl is shown when it asks for `name`, or for none.
fn subject(server: SocketAddr, name: Option<&str>) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &server.to_string(), "-brief", "-verify_quiet"]);
    match name {
        Some(name) => openssl.args(["-servername", name]),
        None => openssl.arg("-noservername"),
    };
    let finished = crate::harness::process::run_with_input(&mut openssl, "");
    let all = finished.all();
    let line = all.lines().find_map(|line| line.strip_prefix("Peer certificate: ")).unwrap_or_else(|| panic!("{all}"));
    line.trim_start_matches("CN = ").trim_start_matches("CN=").to_owned()
}

/// The certificate that a new client is shown.
fn shown(server: &Tollgate) -> CertificateDer<'static> {
    tls::handshake(server.address, &tls::config(ALL_VERSIONS, &["http/1.1"])).unwrap().0.certificate
}

fn written(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn each_name_gets_its_certificate_and_a_reload_changes_them() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair_for(dir.path(), "first", &["first.example"]);
    write_pair_for(dir.path(), "wild", &["*.a.example", "a.example"]);
    write_pair_for(dir.path(), "exact", &["b.a.example"]);
    let server = Tollgate::from_yaml(&yaml(backend.address, &pairs(dir.path(), &["first", "wild", "exact"])));
    for (name, expected) in [
        (None, "first.example"),
        (Some("unknown.example"), "first.example"),
        (Some("a.example"), "*.a.example"),
        (Some("c.a.example"), "*.a.example"),
        (Some("B.A.example"), "b.a.example"),
        (Some("d.c.a.example"), "first.example"),
    ] {
        assert_eq!(subject(server.address, name), expected, "{name:?}");
    }
    // Two real clients that check the name: over HTTP/2 and HTTP/1.1.
    for (name, stem) in [("c.a.example", "wild"), ("b.a.example", "exact")] {
        for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let port = server.address.port();
            let finished = run(Command::new("curl")
                .args(["-sS", option, "-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
                .args(["--resolve", &format!("{name}:{port}:127.0.0.1"), "--cacert"])
                .arg(dir.path().join(format!("{stem}.pem")))
                .arg(format!("https://{name}:{port}/")));
            assert_eq!(finished.out, format!("200 {version}"), "{finished:?}");
        }
    }
    let expiries = || {
        let text = server.ask("GET", "/metrics", "").text();
        let lines = text.lines().filter(|line| line.starts_with("tollgate_certificate_expiry_timestamp_seconds{"));
        lines
            .map(|line| line.split("subject=\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(expiries(), BTreeSet::from(["CN=first.example", "CN=*.a.example", "CN=b.a.example"].map(str::to_owned)));
    write_pair_for(dir.path(), "new", &["unknown.example"]);
    server.rewrite(&yaml(backend.address, &pairs(dir.path(), &["first", "new"])));
    let answer = server.ask("POST", "/config/reload", "");
    assert!(answer.text().contains("certificates changed: 127.0.0.1:"), "{answer:?}");
    assert_eq!(subject(server.address, Some("unknown.example")), "unknown.example");
    assert_eq!(subject(server.address, Some("b.a.example")), "first.example");
    assert_eq!(expiries().len(), 2);
}

#[test]
fn check_names_every_pair_that_is_wrong_or_not_valid_now() {
    let dir = TempDir::new().unwrap();
    write_pair_for(dir.path(), "good", &["a.example"]);
    write_pair_for(dir.path(), "bad", &["b.example"]);
    fs::write(dir.path().join("bad.key"), "").unwrap();
    write_pair(dir.path(), (2001, 2002));
    fs::copy(dir.path().join("key.pem"), dir.path().join("cert.key")).unwrap();
    let file = dir.path().join("tollgate.yaml");
    let check = |tls: &str| {
        fs::write(&file, yaml("127.0.0.1:9".parse().unwrap(), tls).replace(LISTEN, "127.0.0.1:1")).unwrap();
        run(command().args(["check", "-c"]).arg(&file))
    };
    assert_eq!(check(&pairs(dir.path(), &["good"])).code, Some(0));
    let wrong = check(&pairs(dir.path(), &["good", "bad", "missing"]));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let said = wrong.all();
    for path in
        ["listeners[0].tls.pairs[1].key: ", "listeners[0].tls.pairs[2].cert: ", "listeners[0].tls.pairs[2].key: "]
    {
        assert!(said.contains(path), "{path}: {said}");
    }
    let lapsed = check(&pairs(dir.path(), &["good", "cert"]));
    assert_eq!(lapsed.code, Some(2), "{lapsed:?}");
    assert!(
        lapsed.out.starts_with("listeners[0].tls.pairs[1].cert: ") && lapsed.out.contains("expired on"),
        "{lapsed:?}"
    );
    let both = check(&pairs(dir.path(), &["good"]).replace("{pairs:", "{cert: a.pem, pairs:"));
    assert!(both.all().contains("listeners[0].tls.cert: must not stand beside `pairs`"), "{both:?}");
    assert!(check("{pairs: []}").all().contains("listeners[0].tls.pairs: must be a list with at least one item"));
}

/// Waits until the certificate is shown; how long that took.
#[track_caller]
fn taken_up(server: &Tollgate, certificate: &CertificateDer<'static>) -> Duration {
    let start = now();
    assert!(eventually(PATIENCE, || shown(server) == *certificate), "{}", server.process.err.text());
    now() - start
}

#[test]
fn what_acme_clients_swap_is_taken_up_within_ten_seconds() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let [one, two, live] = ["one", "two", "live"].map(|name| dir.path().join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    write_pair_for(&one, "a", &["a.example"]);
    write_pair_for(&two, "a", &["a.example"]);
    // As acmetool has it: a link to the directory.
    symlink("one", &live).unwrap();
    let server = Tollgate::from_yaml(&yaml(backend.address, &pairs(&live, &["a"])));
    let tunnel = Tunnel::to(server.address, &tls::config(ALL_VERSIONS, &["http/1.1"]));
    let mut kept = Client::connect(tunnel.address);
    assert_eq!(kept.get("/").unwrap().status, 200);
    let loads = [true, false].map(|kept| Load::start(tunnel.address, (2, kept), "/", &[]));
    let [first, second] = [&one, &two].map(|place| written(&place.join("a.pem")));
    assert_eq!(shown(&server), first);
    symlink("two", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &live).unwrap();
    assert!(taken_up(&server, &second) < Duration::from_secs(10));
    server.wait_for_event(&["INFO", "a.pem was renewed and is served"], PATIENCE);
    // As lego does it: in place, certificate first; until the key is there, too, the old one stays.
    let (cert, key) = (fs::read(one.join("a.pem")).unwrap(), fs::read(one.join("a.key")).unwrap());
    fs::write(two.join("a.pem"), &cert).unwrap();
    let end = now() + Duration::from_secs(5);
    assert!(!eventually(Duration::from_secs(5), || shown(&server) != second) && now() >= end, "half of it counts");
    fs::write(two.join("a.key"), &key).unwrap();
    assert!(taken_up(&server, &first) < Duration::from_secs(10));
    assert_eq!(kept.get("/").unwrap().status, 200, "the connection of before goes on");
    for outcome in loads.map(Load::stop) {
        assert!(outcome.failures.is_empty() && outcome.with(200) == outcome.answered(), "{outcome:?}");
    }
    assert!(!server.process.err.text().contains(" WARN "), "{}", server.process.err.text());
    // What was taken up by itself is nothing new to a reload.
    assert!(server.ask("POST", "/config/reload", "").text().contains(r#""changed":[]"#));
}

#[test]
fn what_stays_half_swapped_is_told() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let tls = format!("{{cert: {0}/cert.pem, key: {0}/key.pem}}", dir.path().display());
    let server = Tollgate::from_yaml(&yaml(backend.address, &tls));
    let (before, start) = (shown(&server), now());
    fs::write(dir.path().join("cert.pem"), "").unwrap();
    let words = ["WARN", "a changed pair cannot be taken up", "holds no certificate", "is served on"];
    server.wait_for_event(&words, Duration::from_secs(60));
    let took = now() - start;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(50), "{took:?}");
    assert_eq!(shown(&server), before);
}
