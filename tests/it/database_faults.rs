//! A database that is not as it should be: at the start the server says so and touches nothing, while it runs it goes
//! on serving and recovers by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::instance::Instance;
use crate::harness::process::Process;
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

/// A database with some clients in it, closed in peace.
fn database(clients: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let backend = Backend::scripted("a");
    let mut server = Instance::over(&path, backend.address, "");
    for number in 0..clients {
        server.create(&format!("client{number}"), 10, 0.001);
    }
    server.stop();
    (dir, path)
}

/// Starts over the database; what it says when it ends with exit code 1, and that no file was touched.
#[track_caller]
fn refused(path: &Path) -> String {
    let before = fs::read(path).ok();
    let mut server = Instance::launch(path, "127.0.0.1:1".parse().unwrap(), "");
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains(path.to_str().unwrap()), "it names the file: {finished:?}");
    assert_eq!(fs::read(path).ok(), before, "the file is as it was");
    finished.err
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    fs::write(&path, "listeners: [{address: 0.0.0.0:8080}]\n".repeat(200)).unwrap();
    assert!(refused(&path).contains("no SQLite database"));
    fs::write(&path, "").unwrap();
    let said = refused(&path);
    assert!(said.contains("0 bytes") && said.contains("backup"), "{said}");
    let taken = dir.path().join("directory.db");
    fs::create_dir(&taken).unwrap();
    assert!(refused(&taken).contains("director"));
}

#[test]
fn a_new_database_is_told_and_a_directory_that_was_missing_is_a_warning() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::scripted("a"));
    let said = |path: &Path| {
        let mut server = Instance::over(path, backend.address, "");
        let lines = server.stop().err;
        let line = lines.lines().find(|line| line.contains("is new and has no clients")).map(str::to_owned);
        line.inspect(|line| assert!(line.contains(path.to_str().unwrap()), "{line}"))
    };
    let missing = dir.path().join("mnt/data/tollgate.db");
    let line = said(&missing).unwrap();
    assert!(line.contains("WARN") && line.contains(dir.path().join("mnt").to_str().unwrap()), "{line}");
    assert!(line.contains("mounted"), "{line}");
    assert_eq!(said(&missing), None, "it is no longer new");
    let fresh = dir.path().join("volume");
    fs::create_dir(&fresh).unwrap();
    assert!(said(&fresh.join("tollgate.db")).unwrap().contains("INFO"));
}

#[test]
fn a_corrupt_database_is_refused_and_left_alone() {
    for damage in ["header", "truncated", "page"] {
        let (_dir, path) = database(50);
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "header" => bytes[..100].iter_mut().for_each(|byte| *byte = fastrand::u8(..)),
            "truncated" => bytes.truncate(bytes.len() / 2 + 100),
            _ => bytes[4096..4096 + 2048].iter_mut().for_each(|byte| *byte = fastrand::u8(..)),
        }
        fs::write(&path, bytes).unwrap();
        let said = refused(&path);
        assert!(said.contains("backup"), "{damage}: it says what to do: {said}");
    }
}

#[test]
fn a_read_only_database_is_refused() {
    let (_dir, path) = database(1);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    assert!(refused(&path).contains("read-only"));
}

#[test]
fn a_locked_database_is_refused_after_a_while() {
    let (_dir, path) = database(1);
    let _lock = lock(&path);
    assert!(refused(&path).contains("locked"));
}

#[test]
fn a_missing_directory_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/yet/there/tollgate.db");
    let backend = Backend::scripted("a");
    let server = Instance::over(&path, backend.address, "");
    server.create("alice", 1, 1.0);
    assert!(path.is_file());
}

#[test]
fn a_database_that_is_removed_comes_back_with_all_that_was_answered() {
    let (dir, path) = database(20);
    let backend = Backend::scripted("a");
    let mut server = Instance::over(&path, backend.address, "");
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let refused = server.admin("POST", "/clients", r#"{"client_id":"lost","capacity":1,"rate_per_sec":1}"#);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("tollgate.db"), "{refused:?}");
    assert_eq!(server.call("client1"), 200, "requests go on");
    assert!(server.tokens("client1") < 10.0, "and are limited");
    recovers(&mut server, 21);
}

#[test]
fn a_disk_that_is_full_stops_writes_and_nothing_else() {
    let (_dir, path) = database(20);
    let backend = Backend::scripted("a");
    let mut server = Instance::over(&path, backend.address, "");
    server.stop();
    // No file may grow, as on a full disk. The signal that comes with it is for programs that do not look at errors.
    let mut small = Command::new("sh");
    small.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(command().get_program());
    small.current_dir(std::env::temp_dir()).env("TOLLGATE_LOG", "info");
    server.start_again_as(small);
    server.create("before", 5, 0.001);
    limit_file_size(&server.process, "1");
    let write = || server.admin("POST", "/clients", r#"{"client_id":"lost","capacity":1,"rate_per_sec":1}"#);
    assert!(eventually(PATIENCE, || write().status == 503), "{:?}", write());
    assert_eq!(server.allowed("before", 10), 5, "requests go on, and are limited");
    server.process.err.wait_for(&["tollgate.db"], PATIENCE);
    let failing = server.process.err.lines();
    let about = |lines: &[String]| lines.iter().filter(|line| line.contains("tollgate.db")).count();
    for _ in 0..5 {
        assert_eq!(write().status, 503);
    }
    assert_eq!(about(&server.process.err.lines()), about(&failing), "one line for one change of state");
    let metrics = server.admin("GET", "/metrics", "").text();
    let errors = metrics.lines().find_map(|line| line.strip_prefix("tollgate_persist_errors_total ")).unwrap();
    assert!(errors.parse::<f64>().unwrap() >= 6.0, "{errors}");
    limit_file_size(&server.process, "unlimited");
    recovers(&mut server, 22);
}

#[test]
fn a_lock_held_by_another_stops_writes_until_it_is_gone() {
    let (_dir, path) = database(2);
    let backend = Backend::scripted("a");
    let mut server = Instance::over(&path, backend.address, "");
    let lock = lock(&path);
    let refused = server.admin("DELETE", "/clients/client0", "");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("locked"), "{refused:?}");
    assert_eq!(server.call("client0"), 200);
    drop(lock);
    recovers(&mut server, 3);
}

/// Writes succeed again without a restart, and after one all `clients` are there.
#[track_caller]
fn recovers(server: &mut Instance, clients: usize) {
    let write = || server.admin("PUT", "/clients/after", r#"{"capacity":1,"rate_per_sec":1}"#);
    assert!(eventually(PATIENCE, || matches!(write().status, 200 | 201)), "{:?}", write());
    assert_eq!(server.admin("GET", "/status", "").status, 200);
    server.kill();
    server.start_again();
    assert_eq!(server.admin("GET", "/clients?limit=1", "").json()["total"], clients);
}

/// Holds the database's lock for as long as it lives.
fn lock(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    connection
}

/// How large the files of a process may become, in bytes.
fn limit_file_size(process: &Process, size: &str) {
    let status =
        Command::new("prlimit").args([format!("--pid={}", process.id()), format!("--fsize={size}:unlimited")]).status();
    assert!(status.unwrap().success());
}

#[test]
fn connections_are_refused_while_it_does_not_serve() {
    let (_dir, path) = database(1);
    fs::write(&path, "").unwrap();
    let mut server = Instance::launch(&path, "127.0.0.1:1".parse().unwrap(), "");
    server.process.wait_exit(PATIENCE);
    assert!(Client::try_connect(server.address).is_err() && Client::try_connect(server.admin).is_err());
}
