//! In the background: the command returns when the server listens, or says why it does not.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, runs, signal};
use crate::harness::process::{Process, run};
use crate::harness::{PATIENCE, eventually, now};

/// As long as a start may take when there is nothing to wait for, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn the_command_returns_when_it_listens_and_holds_on_to_nothing() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    // `run` reads both outputs to their ends, which come only when nobody has them open any more.
    let start = now();
    let started = daemon.run(&["run", "-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    assert!(Client::connect(daemon.address).get("/").is_ok_and(|answer| answer.status == 200));
    assert!(now() - start < SOON && started.out.is_empty(), "{started:?}");
    let pid = daemon.pid();
    assert_eq!(daemon.processes(), [pid]);
    // A session of its own, in a directory that nobody wants to unmount, with nothing to read.
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd").to_str(), Some("/"));
    assert_eq!(link("fd/0").to_str(), Some("/dev/null"));
    for output in ["fd/1", "fd/2"] {
        assert_eq!(link(output), daemon.path("error.log").canonicalize().unwrap());
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
    let mode = std::fs::metadata(daemon.path("error.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    signal(pid, Signal::SIGTERM);
    assert!(eventually(PATIENCE, || !runs(pid)), "{}", daemon.text("error.log"));
    assert!(!daemon.path("run/a.pid").exists(), "the pid file goes with its process");
    daemon.wait_for_event(&["drained"]);
}

#[test]
fn a_start_that_fails_ends_with_the_reason_and_its_exit_code() {
    let backend = Backend::scripted("a");
    type Case = (&'static str, fn(&Daemon), i32, &'static str);
    let cases: [Case; 6] = [
        ("", |daemon| drop(std::fs::write(daemon.file(), "listeners: []\n")), 2, "listeners: must be a list"),
        ("pingora: {user: nobody-of-that-name}", |_| {}, 2, "pingora.user: must be the name of a user of this machine"),
        ("", |daemon| drop(std::fs::write(daemon.path("data"), "")), 1, "data"),
        ("", |daemon| drop(std::fs::create_dir(daemon.path("error.log"))), 1, "error.log cannot be opened"),
        ("", |daemon| drop(std::fs::write(daemon.path("run"), "")), 1, "pingora.pid_file: "),
        ("rate_limit: {default: {capacity: 0, rate_per_sec: 1}}", |_| {}, 2, "rate_limit.default.capacity"),
    ];
    for (more, spoil, code, reason) in cases {
        let daemon = Daemon::configured(backend.address, more);
        spoil(&daemon);
        let start = now();
        let failed = daemon.run(&["-d"]);
        assert_eq!(failed.code, Some(code), "{failed:?}");
        assert!(failed.err.contains(reason) && now() - start < SOON, "{reason}: {failed:?}");
        assert!(daemon.processes().is_empty());
    }
    let running = Daemon::start(backend.address, "");
    let second = Daemon::configured(backend.address, "");
    second.configure(&[running.address], "");
    let failed = second.run(&["-d"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let reason = format!("cannot listen on {}", running.address);
    assert!(failed.err.contains(&reason) && failed.err.contains(&format!("pid {}", running.pid())), "{failed:?}");
}

#[test]
fn a_stale_pid_file_does_no_harm_and_a_live_one_is_refused() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    std::fs::create_dir(daemon.path("run")).unwrap();
    let dead = run(std::process::Command::new("sh").args(["-c", "echo $$"])).out;
    for stale in [dead.as_str(), "1\n", &format!("{}\n", std::process::id()), ""] {
        std::fs::write(daemon.path("run/a.pid"), stale).unwrap();
        let started = daemon.run(&["-d"]);
        assert_eq!(started.code, Some(0), "{stale:?}: {started:?}");
        daemon.stop();
    }
    let started = daemon.run(&["-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    for arguments in [&["-d"][..], &["run"]] {
        let pid = daemon.pid();
        let refused = daemon.run(arguments);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let reason = format!(
            "tollgate already runs with this pid file, {} (pid {pid}); to replace it: tollgate upgrade",
            daemon.path("run/a.pid").display()
        );
        assert!(refused.err.contains(&reason), "{refused:?}");
        assert_eq!((daemon.pid(), daemon.call("nobody")), (pid, 200), "the one that runs goes on");
    }
    daemon.signal(Signal::SIGKILL);
    assert!(eventually(PATIENCE, || daemon.processes().is_empty()));
    let again = daemon.run(&["-d"]);
    assert_eq!(again.code, Some(0), "what a killed process left: {again:?}");
}

#[test]
fn access_lines_on_standard_output_move_with_the_error_log() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "access_log: {path: \"-\"}");
    assert_eq!(daemon.run(&["run", "-d"]).code, Some(0));
    let lines = |log: &str| daemon.text(log).lines().filter(|line| line.starts_with('{')).count();
    assert_eq!(daemon.call("c"), 200);
    assert!(eventually(PATIENCE, || lines("error.log") == 1));
    std::fs::rename(daemon.path("error.log"), daemon.path("error.log.1")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    assert!(eventually(PATIENCE, || daemon.path("error.log").exists()));
    daemon.wait_for_event(&["access log on standard output: reopened"]);
    assert_eq!(daemon.call("c"), 200);
    assert!(eventually(PATIENCE, || lines("error.log") == 1), "{}", daemon.text("error.log"));
    assert_eq!(lines("error.log.1"), 1);
}

#[test]
fn threads_live_in_the_daemon_and_sigusr1_reopens_both_logs() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "rate_limit: {persist_interval: 50ms, refill_interval: 50ms}");
    let made = daemon.ask("POST", "/clients", r#"{"client_id":"c","capacity":9,"rate_per_sec":0.001}"#).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    (0..4).for_each(|_| assert_eq!(daemon.call("c"), 200));
    assert!(eventually(PATIENCE, || daemon.text("access.log").lines().count() == 4), "the access log's writer");
    for log in ["access.log", "error.log"] {
        std::fs::rename(daemon.path(log), daemon.path(&format!("{log}.1"))).unwrap();
    }
    daemon.signal(Signal::SIGUSR1);
    assert!(eventually(PATIENCE, || daemon.path("access.log").exists() && daemon.path("error.log").exists()));
    assert_eq!(daemon.call("c"), 200);
    assert!(eventually(PATIENCE, || daemon.text("access.log").lines().count() == 1));
    assert_eq!(daemon.text("access.log.1").lines().count(), 4);
    daemon.signal(Signal::SIGQUIT);
    daemon.wait_for_event(&["SIGQUIT: handing over"]);
    assert!(!daemon.text("error.log.1").contains("SIGQUIT"), "events go to the new file");
    // The buckets are saved by the ticker, since a killed process saves nothing any more.
    let saved = || {
        let database = rusqlite::Connection::open(daemon.path("data/tollgate.db")).unwrap();
        database.query_row("SELECT count(*) FROM buckets WHERE tokens = 4", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert!(eventually(PATIENCE, || saved() == 1), "the ticker");
}

#[test]
fn relative_paths_mean_the_same_after_a_reload() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    let yaml = daemon.text("tollgate.yaml").replace("admin: {", "admin: {token_file: tokens, ");
    std::fs::write(daemon.file(), &yaml).unwrap();
    std::fs::write(daemon.path("tokens"), "ops 0123456789abcdef\n").unwrap();
    assert_eq!(daemon.run(&["-d"]).code, Some(0));
    std::fs::write(daemon.file(), yaml.replace("access.log", "other.log")).unwrap();
    // It works in `/` by now.
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_event(&["configuration reloaded: access_log changed"]);
    assert_eq!(daemon.call("nobody"), 200);
    assert!(eventually(PATIENCE, || daemon.text("other.log").lines().count() == 1));
    std::fs::write(daemon.file(), yaml.replace("run/a.pid", "run/b.pid")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_event(&["configuration not reloaded: pingora.pid_file: cannot change while tollgate runs"]);
}

#[test]
fn what_would_be_lost_is_said_before() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "pingora: {pid_file: run/a.pid, daemon: true}");
    let file = daemon.text("tollgate.yaml").replace("access_log: {path: access.log}\n", "");
    std::fs::write(daemon.file(), file).unwrap();
    let started = daemon.run(&["run"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    for warning in ["pingora.error_log: is not set", "access_log.path: is \"-\""] {
        assert!(started.err.contains(warning), "{started:?}");
    }
    assert_eq!(daemon.call("nobody"), 200);
}

#[test]
fn ctrl_c_on_the_command_ends_the_daemon_that_is_not_ready_yet() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    // One that waits for a predecessor waits for long.
    let mut starter = Process::start(daemon.command(&["upgrade"]).args(["--test"]));
    assert_eq!(starter.wait_exit(PATIENCE).code, Some(0), "only checks");
    // A health check that gets no answer keeps the start waiting.
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stuck.local_addr().unwrap();
    let yaml = daemon.text("tollgate.yaml").replace(&backend.address.to_string(), &address.to_string());
    let check = "health_check: {type: http, timeout: 60s, interval: 61s}";
    std::fs::write(daemon.file(), yaml.replace("health_check: {type: none}", check)).unwrap();
    let mut starter = Process::start(&mut daemon.command(&["-d"]));
    let _asked = stuck.accept().unwrap();
    assert!(starter.is_running() && daemon.processes().len() == 2);
    starter.signal("INT");
    let finished = starter.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains("SIGINT: stopped before it was ready"), "{finished:?}");
    assert!(daemon.processes().is_empty());
}

#[test]
fn root_becomes_the_user_and_leaves_it_what_it_needs() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("not root, so nobody else can be become");
    }
    let backend = Backend::scripted("a");
    let pingora = Daemon::pingora(", user: nobody");
    let daemon = Daemon::configured(backend.address, &format!("pingora: {pingora}"));
    // Where the user may look, and nobody may write.
    std::fs::set_permissions(daemon.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = daemon.run(&["-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let ids = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((ids("Uid:"), ids("Gid:")), (vec![nobody.uid.as_raw(); 4], vec![nobody.gid.as_raw(); 4]));
    assert_eq!(daemon.call("nobody"), 200);
    let (old, new) = daemon.upgrade();
    assert!(old != new && daemon.call("nobody") == 200);
    daemon.stop();
    assert!(!daemon.path("run/a.pid").exists());
    let again = daemon.run(&["-d"]);
    assert_eq!(again.code, Some(0), "over its own files: {again:?}");
}
