//! `tollgate backup`: a copy of the database while it is written to, and a proxy that starts from it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rusqlite::Connection;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::instance::{Instance, ask};
use crate::harness::process::{Finished, run};
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

fn backup(server: &Instance, to: &Path) -> Finished {
    run(command().args(["backup", "-c"]).arg(server.file()).arg(to))
}

/// How many clients a copy has, which must be sound and one file.
fn clients_in(copy: &Path) -> usize {
    assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    let beside = std::fs::read_dir(copy.parent().unwrap()).unwrap();
    let beside: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 1, "nothing is left beside it: {beside:?}");
    let opened = Connection::open(copy).unwrap();
    let sound: String = opened.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    opened.query_row("SELECT count(*) FROM clients", [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
}

#[test]
fn under_writes_it_is_of_one_moment_and_has_all_that_was_answered() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (server, stop, made) = (&server, &stop, &made);
            scope.spawn(move || {
                let mut client = Client::connect(server.admin);
                for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let body = format!(r#"{{"client_id":"{name}{number}","capacity":5,"rate_per_sec":1}}"#);
                    assert_eq!(ask(&mut client, "POST", "/clients", &body).unwrap().status, 201);
                    made.fetch_add(1, Ordering::Relaxed);
                    server.call(&format!("{name}{number}"));
                }
            });
        }
        for _ in 0..5 {
            let before = made.load(Ordering::Relaxed);
            assert!(eventually(PATIENCE, || made.load(Ordering::Relaxed) > before));
            let dir = tempfile::tempdir().unwrap();
            let (copy, answered) = (dir.path().join("copy.db"), made.load(Ordering::Relaxed));
            let finished = backup(&server, &copy);
            assert_eq!((finished.code, &*finished.err), (Some(0), ""), "quiet where no terminal is: {finished:?}");
            let copied = clients_in(&copy);
            // Two may be made and not yet counted here.
            let most = made.load(Ordering::Relaxed) + 2;
            assert!((answered..=most).contains(&copied), "{answered} to {most}: {copied}");
            assert!(finished.out.contains(&format!("{copied} clients")), "{finished:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_proxy_that_starts_from_it_has_the_same_clients_and_buckets() {
    let backend = Backend::scripted("a");
    let mut server = Instance::start(backend.address, "");
    server.create("alice", 10, 0.000_001);
    server.create("bob", 3, 0.000_001);
    assert_eq!(server.admin("PATCH", "/clients/bob", r#"{"capacity":4}"#).status, 200);
    assert_eq!(server.allowed("alice", 7), 7);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("tollgate.db");
    // Buckets are saved every second; bob's, which has a token less than it may, may be so before alice's.
    let saved = || {
        drop(std::fs::remove_file(&copy));
        assert_eq!(backup(&server, &copy).code, Some(0));
        let opened = Connection::open(&copy).unwrap();
        opened
            .query_row("SELECT count(*) FROM buckets WHERE capacity = 10 AND tokens = 3", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
            == 1
    };
    assert!(eventually(PATIENCE, saved));
    let of = |server: &Instance, path: &str| server.admin("GET", path, "").text();
    let before = ["/clients/bob", "/clients/bob/history", "/clients/alice/history"].map(|path| of(&server, path));
    server.stop();
    drop(server);
    let restored = Instance::over(&copy, backend.address, "");
    assert_eq!(
        ["/clients/bob", "/clients/bob/history", "/clients/alice/history"].map(|path| of(&restored, path)),
        before
    );
    assert!((3.0..3.1).contains(&restored.tokens("alice")), "{}", restored.tokens("alice"));
    assert_eq!(restored.allowed("alice", 10), 3, "what was spent stays spent");
}

#[test]
fn it_overwrites_nothing_and_says_what_is_wrong() {
    let backend = Backend::scripted("a");
    let server = Instance::start(backend.address, "");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("kept"), "mine").unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
    for name in ["kept", "link"] {
        let finished = backup(&server, &path(name));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.err.contains("something is there already, and a backup overwrites nothing"), "{finished:?}");
    }
    assert_eq!(std::fs::read_to_string(path("kept")).unwrap(), "mine");
    let finished = backup(&server, &path("no/such/place.db"));
    assert!(finished.code == Some(1) && finished.err.contains("there is no directory"), "{finished:?}");
    let finished = backup(&server, Path::new("-"));
    assert!(finished.code == Some(2) && finished.err.contains("FILE: must be the path of a file"), "{finished:?}");
    for (database, said) in [
        ("missing.db", "missing.db: there is no database; --database PATH or --conf FILE says where it is"),
        ("kept", "is no SQLite database"),
    ] {
        let finished = run(command().args(["backup", "--database"]).arg(path(database)).arg(path("copy")));
        assert!(finished.code == Some(1) && finished.err.contains(said), "{finished:?}");
    }
    assert!(!path("copy").exists());
}
