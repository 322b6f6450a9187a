//! Certificates that listeners get from an authority by themselves, over ACME.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::ALL_VERSIONS;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::daemon::Daemon;
use crate::harness::pebble::Pebble;
use crate::harness::ports::free_address;
use crate::harness::process::run;
use crate::harness::relay;
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::NO_CHECK;
use crate::harness::tls::{self, write_pair_for};
use crate::harness::{PATIENCE, eventually, now};

/// What an authority gives when nobody asks for less.
const LONG: u64 = 90 * 24 * 60 * 60;
/// Long enough for whoever asks too often to do so.
const WHILE: Duration = Duration::from_secs(5);

/// A `tls` that gets a certificate for these names.
pub(crate) fn acme(directory: &str, names: &str) -> String {
    format!("{{acme: {{domains: [{names}], contact: [\"mailto:ops@a.example\"], directory: \"{directory}\"}}}}")
}

/// A server with these listeners, which believes the authority's own certificate.
#[track_caller]
fn server(listeners: &[String], (backend, database): (&Backend, &str), ca: &Path) -> Tollgate {
    let yaml = format!(
        "listeners: [{}]\ndatabase: {database}\n\
         upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n",
        listeners.join(", "),
        backend.address
    );
    Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("SSL_CERT_FILE", ca.to_str().unwrap())], false)
}

/// What curl is answered that asks for `name` and believes `root` alone.
#[track_caller]
pub(crate) fn asked(name: &str, at: SocketAddr, root: &Path) -> String {
    let finished = run(Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
        .arg(root)
        .args(["--resolve", &format!("{name}:{}:{}", at.port(), at.ip()), &format!("https://{name}:{}/", at.port())]));
    format!("{}{}", finished.out, finished.err)
}

pub(crate) fn shown(at: SocketAddr) -> CertificateDer<'static> {
    tls::handshake(at, &tls::config(ALL_VERSIONS, &["http/1.1"])).unwrap().0.certificate
}

#[track_caller]
pub(crate) fn got(server: &Tollgate, pebble: &Pebble, names: &str) {
    let words = format!("ACME: a certificate for {names} was got from {}", pebble.directory);
    let there = eventually(PATIENCE, || server.process.err.text().contains(&words));
    assert!(there, "{}\n{}", server.process.err.text(), pebble.told());
}

#[track_caller]
fn stop(mut server: Tollgate) {
    server.process.signal("TERM");
    server.process.wait_exit(PATIENCE);
}

#[test]
fn a_plain_listener_proves_the_names_and_what_is_got_outlives_a_restart() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let [plain, secure, other] = [(); 3].map(|()| free_address());
    let pebble = Pebble::start(plain, free_address(), LONG);
    write_pair_for(dir.path(), "own", &["own.example"]);
    let own = dir.path().join("own");
    let listeners = [
        format!("{{address: \"{plain}\", redirect_to_https: 443}}"),
        format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example, B.example")),
        format!("{{address: \"{other}\", tls: {{cert: {0}.pem, key: {0}.key}}}}", own.display()),
    ];
    let database = dir.path().join("data/tollgate.db");
    fs::create_dir(dir.path().join("data")).unwrap();
    let run = || server(&listeners, (&backend, database.to_str().unwrap()), &pebble.ca());
    let server = run();
    got(&server, &pebble, "a.example, b.example");
    assert!(pebble.told().contains("/.well-known/acme-challenge/"), "{}", pebble.told());
    let root = pebble.root();
    assert_eq!(
        (asked("a.example", secure, &root), asked("b.example", secure, &root)),
        ("200 2".into(), "200 2".into())
    );
    assert_eq!(asked("own.example", other, &own.with_extension("pem")), "200 2", "it keeps its own");
    let kept: Vec<_> = fs::read_dir(dir.path().join("data/acme")).unwrap().map(Result::unwrap).collect();
    assert_eq!(kept.len(), 3, "an account, a pair and a lock: {kept:?}");
    for file in kept {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let text = server.ask("GET", "/metrics", "").text();
    let start = format!("tollgate_certificate_expiry_timestamp_seconds{{listener=\"{secure}\"");
    let ends: u64 = text.lines().find_map(|line| line.strip_prefix(&start)?.rsplit(' ').next()?.parse().ok()).unwrap();
    let day = 24 * 60 * 60;
    let days = (ends - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()) / day;
    assert!((88..=90).contains(&days), "{days}");
    assert!(server.ask("POST", "/config/reload", "").text().contains(r#""changed":[]"#), "it is nothing of the file's");
    let (before, orders) = (shown(secure), pebble.orders());
    assert_eq!(orders, 1);
    // Another process over the same files, beside it: it asks for nothing.
    let third = free_address();
    let beside = listeners[1].replace(&secure.to_string(), &third.to_string());
    let second = self::server(&[beside], (&backend, database.to_str().unwrap()), &pebble.ca());
    assert!(shown(third) == before && asked("a.example", third, &root) == "200 2");
    stop(second);
    stop(server);
    let server = run();
    assert!(shown(secure) == before, "at once");
    assert!(!eventually(WHILE, || pebble.orders() != orders), "{}", server.process.err.text());
}

#[test]
fn a_tls_listener_alone_proves_the_name_and_memory_does() {
    let (backend, secure) = (Backend::scripted("a"), free_address());
    let pebble = Pebble::start(free_address(), secure, LONG);
    let listener = format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example"));
    let server = server(&[listener], (&backend, "null"), &pebble.ca());
    server.wait_for_event(&["WARN", "ACME: without a database, certificates are kept in memory"], PATIENCE);
    got(&server, &pebble, "a.example");
    assert_eq!(asked("a.example", secure, &pebble.root()), "200 2");
    let nobody = tls::handshake(secure, &tls::config(ALL_VERSIONS, &["acme-tls/1"]));
    assert!(nobody.is_err(), "nothing is asked any more");
}

#[test]
fn it_is_renewed_when_two_thirds_of_its_life_are_over() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let secure = free_address();
    let pebble = Pebble::start(free_address(), secure, 30);
    let listener = format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example"));
    let database = dir.path().join("tollgate.db");
    let server = server(&[listener], (&backend, database.to_str().unwrap()), &pebble.ca());
    got(&server, &pebble, "a.example");
    let (first, start, root) = (shown(secure), now(), pebble.root());
    assert!(eventually(Duration::from_secs(60), || shown(secure) != first), "{}", server.process.err.text());
    let took = now() - start;
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(asked("a.example", secure, &root), "200 2");
    // The second one is renewed as well, before this if the machine is slow.
    let orders = pebble.orders();
    assert!((2..=3).contains(&orders), "{orders}: {}", pebble.told());
    let accounts = fs::read_dir(dir.path().join("acme")).unwrap();
    let is_account = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("account-");
    assert_eq!(accounts.filter(|file| is_account(&file.as_ref().unwrap().file_name())).count(), 1);
    assert_eq!(pebble.accounts(), 1, "one account for both");
}

#[test]
fn an_upgrade_amid_an_order_takes_nothing_away() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    let [plain, secure] = [(); 2].map(|()| free_address());
    // What proves the name is on its way for longer than an upgrade takes.
    let far = relay::to(plain, Duration::from_secs(4));
    let pebble = Pebble::start(far, free_address(), LONG);
    let listeners = [
        format!("{{address: \"{plain}\"}}"),
        format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example")),
    ];
    daemon.configure_listeners(&listeners, "");
    let ca = pebble.ca();
    let run = |arguments: &[&str]| {
        let finished = run(daemon.command(arguments).env("SSL_CERT_FILE", &ca));
        assert_eq!(finished.code, Some(0), "{finished:?}\n{}", daemon.text("error.log"));
    };
    run(&["run", "-d"]);
    assert!(eventually(PATIENCE, || pebble.orders() == 1), "{}", pebble.told());
    run(&["upgrade"]);
    let got = || daemon.text("error.log").contains("ACME: a certificate for a.example was got");
    assert!(!got(), "the order has ended too early for this test");
    let at_all = tls::handshake(secure, &tls::config(ALL_VERSIONS, &["http/1.1"]));
    assert!(at_all.is_ok(), "its own one meanwhile");
    assert!(eventually(3 * PATIENCE, got), "{}\n{}", daemon.text("error.log"), pebble.told());
    let root = pebble.root();
    let serves = eventually(PATIENCE, || asked("a.example", secure, &root) == "200 2");
    assert!(serves, "{}", daemon.text("error.log"));
}

#[test]
fn a_name_more_takes_no_certificate_away() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let secure = free_address();
    let pebble = Pebble::start(free_address(), secure, LONG);
    let database = dir.path().join("tollgate.db");
    let listener = |names: &str| [format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, names))];
    let run = |names: &str| server(&listener(names), (&backend, database.to_str().unwrap()), &pebble.ca());
    let first = run("a.example, b.example");
    got(&first, &pebble, "a.example, b.example");
    let (root, certificate) = (pebble.root(), shown(secure));
    stop(first);
    let turned = run("b.example, a.example");
    assert_eq!(shown(secure), certificate, "the order of the names is of no matter");
    stop(turned);
    // From an authority that is not there.
    let nobody = format!("https://{}/dir", free_address());
    let names = "c.example, b.example, a.example";
    let listeners = [format!("{{address: \"{secure}\", tls: {}}}", acme(&nobody, names))];
    let third = server(&listeners, (&backend, database.to_str().unwrap()), &pebble.ca());
    let line = third.wait_for_event(&["WARN", "ACME: no certificate for c.example"], PATIENCE);
    // The authority has the names in an order of its own.
    let served = ["a.example, b.example", "b.example, a.example"]
        .map(|names| format!("the certificate for {names} that ends on "));
    assert!(served.iter().any(|words| line.contains(words)), "{line}");
    assert_eq!((shown(secure), asked("a.example", secure, &root)), (certificate.clone(), "200 2".into()));
    stop(third);
    let fourth = run(names);
    got(&fourth, &pebble, names);
    assert_ne!(shown(secure), certificate);
    assert_eq!(asked("c.example", secure, &root), "200 2");
    stop(fourth);
}

#[test]
fn what_is_no_authority_is_told() {
    let (backend, secure) = (Backend::scripted("a"), free_address());
    // Pebble's own address has a directory, and nothing else at that path.
    let pebble = Pebble::start(free_address(), free_address(), LONG);
    let directory = pebble.directory.replace("/dir", "/nothing");
    let listeners = [format!("{{address: \"{secure}\", tls: {}}}", acme(&directory, "a.example"))];
    let server = server(&listeners, (&backend, "$DIR/tollgate.db"), &pebble.ca());
    let line = server.wait_for_event(&["WARN", "ACME: no certificate for a.example"], PATIENCE);
    assert!(line.contains(&format!("what answers at {directory} is no ACME directory")), "{line}");
}

#[test]
fn one_process_asks_at_a_time() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    let secure = free_address();
    let pebble = Pebble::start(free_address(), secure, LONG);
    let listener = format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example"));
    let database = dir.path().join("tollgate.db");
    fs::create_dir(dir.path().join("acme")).unwrap();
    let lock = File::create(dir.path().join("acme/lock")).unwrap();
    lock.lock().unwrap();
    let server = server(&[listener], (&backend, database.to_str().unwrap()), &pebble.ca());
    assert!(!eventually(WHILE, || pebble.orders() > 0), "another one asks");
    drop(lock);
    got(&server, &pebble, "a.example");
}

#[test]
fn without_an_authority_a_self_made_certificate_is_served_and_the_failure_told() {
    let (backend, secure) = (Backend::scripted("a"), free_address());
    let directory = format!("https://{}/dir", free_address());
    let tls = acme(&directory, "a.example");
    let listeners = [format!("{{address: {LISTEN}}}"), format!("{{address: \"{secure}\", tls: {tls}}}")];
    let server = server(&listeners, (&backend, "$DIR/tollgate.db"), Path::new("/dev/null"));
    let words = format!("ACME: no certificate for a.example from {directory} by HTTP-01: ");
    let line = server.wait_for_event(&["WARN", &words], PATIENCE);
    assert!(line.contains("tried again in 60 s, a self-made certificate, which no client believes"), "{line}");
    let refused = asked("a.example", secure, Path::new("/etc/ssl/certs/ca-certificates.crt"));
    assert!(refused.starts_with("000") && refused.contains("self"), "{refused}");
    let finished = run(Command::new("curl")
        .args(["-sSk", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg(format!("https://{secure}/")));
    assert_eq!(finished.out, "200");
    let failures = || server.process.err.text().matches("ACME: no certificate").count();
    assert!(!eventually(WHILE, || failures() != 1), "{}", server.process.err.text());
}

#[test]
fn what_the_authority_finds_wrong_is_told() {
    let (backend, secure, nobody) = (Backend::scripted("a"), free_address(), free_address());
    let pebble = Pebble::start(nobody, nobody, LONG);
    let tls = acme(&pebble.directory, "a.example");
    let listeners = [format!("{{address: {LISTEN}}}"), format!("{{address: \"{secure}\", tls: {tls}}}")];
    let server = server(&listeners, (&backend, "$DIR/tollgate.db"), &pebble.ca());
    let line = server.wait_for_event(&["WARN", "ACME: no certificate for a.example"], PATIENCE);
    let words = "by HTTP-01: the authority says: ";
    assert!(line.contains(words) && line.contains("a.example:") && line.contains("refused"), "{line}");
    // An account was opened all the same, and is not opened again.
    let accounts = fs::read_dir(server.path("acme")).unwrap();
    assert!(accounts.map(|file| file.unwrap().file_name()).any(|name| name.to_string_lossy().starts_with("account-")));
}
