//! Sessions of TLS, which clients resume: with the next process, and with the next node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::daemon::Daemon;
use crate::harness::process::{run, run_with_input};
use crate::harness::server::{LISTEN, Tollgate, command};
use crate::harness::setup::NO_CHECK;
use crate::harness::tls::{NAME, NOW, write_pair};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// A real client that keeps its session in a file.
struct Openssl {
    version: &'static str,
    session: PathBuf,
}

impl Openssl {
    fn new(version: &'static str, dir: &Path) -> Self {
        Openssl { version, session: dir.join(format!("session{version}")) }
    }

    /// Asks for a page; whether the handshake was a short one.
    #[track_caller]
    fn resumes(&self, address: SocketAddr) -> bool {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &address.to_string(), "-servername", NAME, self.version, "-ign_eof"]);
        if self.session.exists() {
            openssl.arg("-sess_in").arg(&self.session);
        }
        openssl.arg("-sess_out").arg(&self.session);
        // To the end of the answer, since tickets of TLS 1.3 come behind the handshake.
        let request = "GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n";
        let finished = run_with_input(&mut openssl, request);
        assert!(finished.out.contains("HTTP/1.1 200 "), "{finished:?}");
        let (new, reused) = (finished.out.contains("\nNew, TLSv1"), finished.out.contains("\nReused, TLSv1"));
        assert!(new != reused, "{finished:?}");
        reused
    }
}

/// A listener with a pair in `dir` and further keys of `tls`.
fn listener(address: &str, dir: &Path, keys: &str) -> String {
    let dir = dir.display();
    format!("{{address: \"{address}\", tls: {{cert: {dir}/cert.pem, key: {dir}/key.pem{keys}}}}}")
}

#[test]
fn sessions_survive_upgrades() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let daemon = Daemon::configured(backend.address, "");
    let more = "rate_limit: {enabled: false}";
    daemon.configure_listeners(&[listener(&daemon.address.to_string(), dir.path(), "")], more);
    let started = daemon.run(&["run", "-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let clients = VERSIONS.map(|version| Openssl::new(version, dir.path()));
    for client in &clients {
        assert!(!client.resumes(daemon.address), "{}", client.version);
        assert!(client.resumes(daemon.address), "{}", client.version);
    }
    for round in 1..=2 {
        daemon.upgrade();
        for client in &clients {
            assert!(client.resumes(daemon.address), "{} after upgrade {round}", client.version);
        }
    }
    // What is in memory alone is gone with the process.
    daemon.stop();
    let started = daemon.run(&["run", "-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    for client in &clients {
        assert!(!client.resumes(daemon.address), "{} after a restart", client.version);
    }
}

/// A server with these keys of tickets in `keys`.
fn node(backend: SocketAddr, dir: &Path, keys: &str) -> Tollgate {
    Tollgate::from_yaml(&yaml(backend, dir, keys))
}

fn yaml(backend: SocketAddr, dir: &Path, keys: &str) -> String {
    let keys = format!(", ticket_keys: {}/{keys}", dir.display());
    format!(
        "listeners: [{}]\nrate_limit: {{enabled: false}}\n\
         upstreams: [{{name: app, backends: [{{address: \"{backend}\"}}], {NO_CHECK}}}]\n",
        listener(LISTEN, dir, &keys)
    )
}

fn new_key() -> String {
    let finished = run(Command::new("openssl").args(["rand", "-base64", "48"]));
    assert_eq!(finished.out.lines().count(), 1, "{finished:?}");
    finished.out
}

#[test]
fn nodes_with_the_same_keys_resume_each_others_sessions_and_a_reload_renews_them() {
    let (backend, dir) = (Backend::scripted("a"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let (first, second) = (new_key(), new_key());
    std::fs::write(dir.path().join("keys"), &first).unwrap();
    let nodes = [(); 2].map(|()| node(backend.address, dir.path(), "keys"));
    for version in VERSIONS {
        let client = Openssl::new(version, dir.path());
        assert!(!client.resumes(nodes[0].address), "{version}");
        assert!(client.resumes(nodes[1].address) && client.resumes(nodes[0].address), "{version}");
    }
    // A new key that seals, before the old one, and then the new one alone.
    let client = Openssl::new(VERSIONS[1], dir.path());
    for (keys, resumed) in [(format!("{second}{first}"), true), (second, true), (new_key(), false)] {
        std::fs::write(dir.path().join("keys"), keys).unwrap();
        let answer = nodes[1].ask("POST", "/config/reload", "");
        assert!(answer.text().contains("listeners changed"), "{answer:?}");
        assert_eq!(client.resumes(nodes[1].address), resumed);
    }
    std::fs::write(dir.path().join("keys"), "short\n").unwrap();
    let refused = nodes[1].ask("POST", "/config/reload", "");
    assert!(refused.status == 422 && refused.text().contains("listeners[0].tls.ticket_keys"), "{refused:?}");
    let file = dir.path().join("tollgate.yaml");
    std::fs::write(&file, yaml(backend.address, dir.path(), "keys").replace(LISTEN, "127.0.0.1:1")).unwrap();
    let checked = run(command().args(["check", "-c"]).arg(&file));
    assert!(checked.code == Some(2) && checked.out.contains("listeners[0].tls.ticket_keys: "), "{checked:?}");
}
