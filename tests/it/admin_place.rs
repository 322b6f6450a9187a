//! The admin API over TLS, and at the path of a Unix socket: asked by curl and by the command line.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::ports::free_address;
use crate::harness::process::{Finished, run};
use crate::harness::server::{clean, command};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, eventually};

const TOKEN: &str = "0123456789abcdef";

fn curl(args: &[&str]) -> Finished {
    let mut curl = clean(Command::new("curl"));
    run(curl.args(["-s", "-S", "--max-time", "20"]).args(args))
}

fn tollgate(args: &[&str]) -> Finished {
    run(command().args(args))
}

#[test]
fn it_is_asked_over_tls_and_a_new_certificate_counts_from_a_reload() {
    let (backend, dir, other) = (Backend::scripted("a"), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (cert, _) = write_pair(dir.path(), NOW);
    let (stranger, _) = write_pair(other.path(), NOW);
    let (admin, path) = (free_address(), dir.path().display());
    let keys = format!("tls: {{cert: {path}/cert.pem, key: {path}/key.pem}}, token_file: {path}/tokens");
    std::fs::write(dir.path().join("tokens"), format!("ops {TOKEN}\n")).unwrap();
    std::fs::set_permissions(dir.path().join("tokens"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("admin: {{address: \"{admin}\", {keys}}}");
    let server = Setup::default().pool("app", &[backend.address], NO_CHECK).line(&line).start();
    let (file, ca) = (server.path("tollgate.yaml"), cert.to_str().unwrap());
    let (file, bearer) = (file.to_str().unwrap(), format!("Authorization: Bearer {TOKEN}"));
    let url = |path: &str| format!("https://test.example:{}{path}", admin.port());
    let connect = format!("test.example:{}:{admin}", admin.port());
    let asked = |ca: &str, path: &str| curl(&["--cacert", ca, "--connect-to", &connect, "-H", &bearer, &url(path)]);
    let status = asked(ca, "/status");
    assert!(status.out.contains(&format!(r#""admin":"{admin}""#)), "{status:?}");
    assert_ne!(asked(stranger.to_str().unwrap(), "/status").code, Some(0), "curl checks");
    // HTTP/2 is not offered, and plain HTTP is none.
    assert!(
        curl(&[
            "--http2",
            "-k",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version}",
            &url("/healthz"),
            "--connect-to",
            &connect
        ])
        .out
        .starts_with('1')
    );
    assert_ne!(curl(&[&format!("http://{admin}/healthz")]).code, Some(0));
    // The command line believes the certificate of the file, or those that it is told.
    for args in [
        &["clients", "list", "--json", "-c", file][..],
        &["healthcheck", "-c", file],
        &["healthcheck", "--admin", &format!("https://{admin}"), "--ca", ca],
    ] {
        let finished = tollgate(args);
        assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""), "{args:?}: {finished:?}");
    }
    let doubtful =
        tollgate(&["healthcheck", "--admin", &format!("https://{admin}"), "--ca", stranger.to_str().unwrap()]);
    assert!(doubtful.code == Some(1) && doubtful.err.contains("TLS with 127.0.0.1:"), "{doubtful:?}");
    write_pair(dir.path(), NOW);
    // What runs presents the old one until it is told; then the new one counts.
    assert_ne!(asked(ca, "/healthz").code, Some(0));
    server.process.signal("HUP");
    server.wait_for_event(&["configuration reloaded", "admin certificate changed"], PATIENCE);
    assert_eq!(asked(ca, "/healthz").code, Some(0));
    assert!(asked(ca, "/metrics").out.contains(&format!("listener=\"{admin}\"")));
}

/// A daemon whose admin API is at a path; dropping it ends it.
struct AtPath {
    dir: TempDir,
    file: PathBuf,
}

impl AtPath {
    fn configured(backend: &Backend) -> Self {
        let dir = TempDir::new().unwrap();
        let (file, path) = (dir.path().join("tollgate.yaml"), dir.path().display());
        let text = format!(
            "listeners: [{{address: \"{}\"}}]\nadmin: {{address: 'unix:{path}/run/admin.sock'}}\n\
             database: {path}/data.db\naccess_log: {{path: null}}\n\
             pingora: {{pid_file: {path}/a.pid, upgrade_sock: {path}/a.sock}}\n\
             upstreams: [{{name: app, backends: [{{address: \"{}\"}}], health_check: {{type: none}}}}]\n",
            free_address(),
            backend.address
        );
        std::fs::write(&file, text).unwrap();
        AtPath { dir, file }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/admin.sock")
    }

    fn run(&self, args: &[&str]) -> Finished {
        tollgate(&[args, &["-c", self.file.to_str().unwrap()]].concat())
    }

    fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.dir.path().join("a.pid")).ok()?.trim().parse().ok()
    }

    fn end(&self) {
        let Some(pid) = self.pid() else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        assert!(eventually(PATIENCE, || !Path::new(&format!("/proc/{pid}")).exists() || self.pid() != Some(pid)));
    }

    fn ask(&self, path: &str) -> Finished {
        curl(&["--unix-socket", self.socket().to_str().unwrap(), &format!("http://anything{path}")])
    }
}

impl Drop for AtPath {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn it_is_asked_at_a_path_which_an_upgrade_takes_over_and_a_stop_takes_away() {
    let backend = Backend::scripted("a");
    let daemon = AtPath::configured(&backend);
    let started = daemon.run(&["run", "-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let created = curl(&[
        "--unix-socket",
        daemon.socket().to_str().unwrap(),
        "-d",
        r#"{"client_id":"user1","capacity":5,"rate_per_sec":1}"#,
        "http://localhost/clients",
    ]);
    assert!(created.out.contains(r#""client_id":"user1""#), "{created:?}");
    assert!(
        daemon.ask("/clients/user1/history").out.contains(r#""by":"socket""#),
        "{:?}",
        daemon.ask("/clients/user1/history")
    );
    let told = format!(r#""admin":"unix:{}""#, daemon.socket().display());
    assert!(daemon.ask("/status").out.contains(&told), "{:?}", daemon.ask("/status"));
    assert!(daemon.run(&["clients", "list"]).out.contains("user1"));
    let by_flag = tollgate(&["clients", "list", "--admin", &format!("unix:{}", daemon.socket().display())]);
    assert!(by_flag.out.contains("user1"), "{by_flag:?}");
    assert_eq!(daemon.run(&["healthcheck"]).code, Some(0));
    let (first, before) = (daemon.pid(), inode(&daemon.socket()));
    let upgraded = daemon.run(&["upgrade"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
    assert_ne!(daemon.pid(), first);
    assert_eq!(inode(&daemon.socket()), before, "it is the same socket");
    assert!(eventually(PATIENCE, || !Path::new(&format!("/proc/{}", first.unwrap())).exists()));
    assert!(daemon.ask("/status").out.contains(&told), "the end of the old one takes nothing away");
    daemon.end();
    assert!(eventually(PATIENCE, || !daemon.socket().exists()));
    // What a crash has left is replaced.
    assert_eq!(daemon.run(&["run", "-d"]).code, Some(0));
    let pid = daemon.pid().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(eventually(PATIENCE, || !Path::new(&format!("/proc/{pid}")).exists()));
    assert!(daemon.socket().exists());
    let again = daemon.run(&["run", "-d"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(daemon.ask("/readyz").out.contains("ready"));
    daemon.end();
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().ino()
}

#[test]
fn what_is_there_and_not_its_own_stays() {
    let backend = Backend::scripted("a");
    let daemon = AtPath::configured(&backend);
    std::fs::create_dir(daemon.dir.path().join("run")).unwrap();
    let live = UnixListener::bind(daemon.socket()).unwrap();
    let refused = daemon.run(&["run"]);
    assert!(refused.code == Some(1) && refused.err.contains("another process listens there"), "{refused:?}");
    assert!(std::fs::symlink_metadata(daemon.socket()).unwrap().file_type().is_socket());
    drop(live);
    std::fs::remove_file(daemon.socket()).unwrap();
    std::fs::write(daemon.socket(), "mine").unwrap();
    let refused = daemon.run(&["run"]);
    assert!(refused.code == Some(1) && refused.err.contains("there is a file, which is left as it is"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(daemon.socket()).unwrap(), "mine");
}

#[test]
fn a_path_takes_no_tls_and_tells_of_tokens_that_nobody_is_asked_for() {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    let (file, path) = (dir.path().join("a.yaml"), dir.path().display());
    let check = |admin: &str| {
        let start = "listeners: [{address: 127.0.0.1:1}]\nupstreams: [{name: a, backends: [{address: 127.0.0.1:2}]}]\n";
        std::fs::write(&file, format!("{start}admin: {{address: 'unix:{path}/s', {admin}}}\n")).unwrap();
        tollgate(&["check", "-c", file.to_str().unwrap()])
    };
    let refused = check(&format!("tls: {{cert: {path}/cert.pem, key: {path}/key.pem}}"));
    assert!(
        refused.code == Some(2) && refused.out.contains("admin.tls: must be null with unix:")
            || refused.err.contains("admin.tls: must be null with unix:"),
        "{refused:?}"
    );
    assert_eq!(check("tls: null").code, Some(0));
    std::fs::write(dir.path().join("tokens"), format!("{TOKEN}\n")).unwrap();
    let told = check(&format!("token_file: {path}/tokens"));
    assert!(told.code == Some(0) && told.err.contains("nobody is asked for a token"), "{told:?}");
}
