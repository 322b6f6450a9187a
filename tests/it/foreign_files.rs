//! What `pid_file` and `upgrade_sock` lead to and is none of ours stays as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::PATIENCE;
use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::process::{Process, run};

type Make = fn(&Path);

fn letter(path: &Path) {
    fs::write(path, "dear diary\n").unwrap();
}

fn link(path: &Path) {
    letter(&path.with_file_name("elsewhere"));
    symlink("elsewhere", path).unwrap();
}

const THINGS: [(Make, &str); 5] = [
    (letter, "a file"),
    (link, "a symbolic link"),
    (|path| symlink("/dev/null", path).unwrap(), "a symbolic link"),
    (|path| mkfifo(path, Mode::S_IRWXU).unwrap(), "a pipe"),
    (|path| fs::create_dir(path).unwrap(), "a directory"),
];

/// Runs `arguments` with each thing at `path`; it is to be refused in the name of `key`, and left.
fn each_is_refused(daemon: &Daemon, path: &Path, key: &str, arguments: &[&str]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (make, what) in THINGS {
        make(path);
        let before = fs::symlink_metadata(path).unwrap();
        let ended = run(&mut daemon.command(arguments));
        let said = format!("{key}: {}: there is {what}", path.display());
        assert!(ended.code == Some(1) && ended.err.contains(&said), "{said}: {ended:?}");
        assert!(ended.err.contains("; must be "), "it says what is allowed: {ended:?}");
        let after = fs::symlink_metadata(path).unwrap();
        assert_eq!((before.file_type(), before.len()), (after.file_type(), after.len()), "{what}");
        if what == "a file" {
            assert_eq!(fs::read_to_string(path).unwrap(), "dear diary\n");
        }
        drop(fs::remove_file(path).or_else(|_| fs::remove_dir(path)));
    }
    assert_eq!(fs::read_to_string(path.with_file_name("elsewhere")).unwrap(), "dear diary\n");
}

#[test]
fn a_pid_file_that_is_none_is_refused_and_left() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    let path = daemon.path("run/a.pid");
    each_is_refused(&daemon, &path, "pingora.pid_file", &["run"]);
    each_is_refused(&daemon, &path, "pingora.pid_file", &["run", "-d"]);
    // What a dead process has left is no hindrance.
    for left in ["4194304\n", ""] {
        fs::write(&path, left).unwrap();
        let mut server = Process::start(&mut daemon.command(&["run"]));
        server.err.wait("it serves", PATIENCE, |lines| lines.iter().any(|line| line.contains("listening on")));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.id()));
        server.kill();
    }
}

#[test]
fn an_upgrade_socket_that_is_none_is_refused_and_left() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "");
    let pid = daemon.pid();
    let path = daemon.path("run/a.sock");
    each_is_refused(&daemon, &path, "pingora.upgrade_sock", &["run", "-u"]);
    let lock = daemon.path("run/a.sock.lock");
    drop(fs::remove_file(&lock));
    mkfifo(&lock, Mode::S_IRWXU).unwrap();
    let upgraded = run(&mut daemon.command(&["upgrade"]));
    assert!(upgraded.code == Some(1) && upgraded.err.contains("a.sock.lock: there is a pipe"), "{upgraded:?}");
    fs::remove_file(&lock).unwrap();
    assert_eq!(daemon.pid(), pid, "the old one serves on");
    assert_eq!(Client::connect(daemon.address).get("/").unwrap().status, 200);
    // A socket that nobody listens at is what an earlier one left.
    drop(UnixListener::bind(&path).unwrap());
    daemon.upgrade();
}
