//! An upgrade that would lose what the running process has: its environment, its database, its clients. It is refused,
//! in words, and the running process goes on as it was.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::daemon::Daemon;
use crate::harness::process::{Finished, run};
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

const TOKEN: &str = "secret-0123456789abcdef";

/// Makes sure that an upgrade came to nothing, for this reason, and that the process goes on.
#[track_caller]
fn refused(daemon: &Daemon, old: i32, upgrade: &Finished, reason: &str) {
    assert_eq!((upgrade.code, upgrade.out.as_str()), (Some(1), ""), "{upgrade:?}");
    assert!(upgrade.err.contains(reason), "{reason}: {upgrade:?}\n{}", daemon.text("error.log"));
    assert!(upgrade.err.contains(&format!("pid {old} goes on serving")), "{upgrade:?}");
    serves_alone(daemon, old);
}

#[track_caller]
fn serves_alone(daemon: &Daemon, pid: i32) {
    assert!(eventually(PATIENCE, || daemon.processes() == [pid]), "{:?}", daemon.processes());
    assert_eq!((daemon.pid(), daemon.call("nobody")), (pid, 200));
}

/// Runs a command to its end, which is an upgrade; what it said on standard error.
#[track_caller]
fn upgraded(daemon: &Daemon, command: &mut Command) -> String {
    let old = daemon.pid();
    let upgraded = run(command);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}\n{}", daemon.text("error.log"));
    assert_eq!(upgraded.out, format!("upgraded: pid {old} -> {}\n", daemon.pid()), "{upgraded:?}");
    upgraded.err
}

/// Who gets in without a token, and with it.
fn statuses(daemon: &Daemon) -> (u16, u16) {
    let bearer = format!("Bearer {TOKEN}");
    let ask = |headers: &[(&str, &str)]| {
        let request = Request::new("GET", "/clients").headers(headers);
        Client::connect(daemon.admin).call(&request).unwrap().status
    };
    (ask(&[]), ask(&[("Authorization", &bearer)]))
}

#[test]
fn without_the_variables_of_the_running_process() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    let variables = [("TOLLGATE_ADMIN_TOKEN", TOKEN), ("TOLLGATE_BALANCE", "least_time")];
    let started = run(daemon.command(&["run", "-d"]).envs(variables));
    assert_eq!(started.code, Some(0), "{started:?}");
    let old = daemon.pid();
    let said = format!(
        "the running process (pid {old}) was started with TOLLGATE_ADMIN_TOKEN and TOLLGATE_BALANCE, and this one without"
    );
    refused(&daemon, old, &daemon.run(&["upgrade"]), &said);
    // By hand it is the same.
    assert_eq!(daemon.run(&["-d", "-u"]).code, Some(0));
    daemon.signal(Signal::SIGQUIT);
    daemon.wait_for_event(&["SIGQUIT: the successor gave up", &said, "still serving"]);
    serves_alone(&daemon, old);
    // One that is blank counts as nothing wherever there may be nothing.
    let mut half = daemon.command(&["upgrade"]);
    let said = format!("(pid {old}) was started with TOLLGATE_ADMIN_TOKEN, and this one without");
    refused(&daemon, old, &run(half.env("TOLLGATE_BALANCE", "")), &said);
    assert_eq!(statuses(&daemon), (401, 200));

    let _ =
        upgraded(&daemon, daemon.command(&["upgrade"]).env("TOLLGATE_BALANCE", "").env("TOLLGATE_ADMIN_TOKEN", TOKEN));
    assert_eq!(statuses(&daemon), (401, 200));
    // The variable that was set to nothing is not missed any more, and a file with tokens does for the other one.
    std::fs::write(daemon.path("tokens"), format!("{TOKEN}\n")).unwrap();
    let file = daemon.text("tollgate.yaml").replacen("admin: {", "admin: {token_file: tokens, ", 1);
    std::fs::write(daemon.file(), file).unwrap();
    let _ = upgraded(&daemon, &mut daemon.command(&["upgrade"]));
    assert_eq!(statuses(&daemon), (401, 200));
    assert!(!daemon.text("error.log").contains(TOKEN));
}

#[test]
fn with_fewer_open_files_it_is_warned_of() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "");
    let old = daemon.pid();
    let limits = std::fs::read_to_string(format!("/proc/{old}/limits")).unwrap();
    let theirs = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let theirs = theirs.split_whitespace().next().unwrap();
    assert_ne!(theirs, "200", "the test needs more");
    let upgrade = daemon.command(&["upgrade"]);
    let mut with_files = Command::new("sh");
    with_files.args(["-c", r#"ulimit -n 200 && exec "$0" "$@""#]).arg(upgrade.get_program()).args(upgrade.get_args());
    let variables = upgrade.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)));
    for (name, value) in variables {
        match value {
            Some(value) => with_files.env(name, value),
            None => with_files.env_remove(name),
        };
    }
    let said = upgraded(&daemon, with_files.current_dir(upgrade.get_current_dir().unwrap()));
    let warning = format!("this process may have 200 files open, and the running one (pid {old}) {theirs}");
    assert!(said.contains(&warning), "{warning}: {said}");
    assert_eq!(daemon.call("nobody"), 200);
}

/// Has everything in the file but the database be absolute, and a client made in the database.
fn started_with_a_relative_database(backend: &Backend) -> Daemon {
    let daemon = Daemon::configured(backend.address, "");
    let mut file = daemon.text("tollgate.yaml");
    for name in ["run/a.pid", "run/a.sock", "error.log", "access.log"] {
        file = file.replace(&format!(": {name}"), &format!(": {}", daemon.path(name).display()));
    }
    std::fs::write(daemon.file(), file).unwrap();
    assert_eq!(daemon.run(&["run", "-d"]).code, Some(0));
    let client = r#"{"client_id":"c","capacity":1,"rate_per_sec":1,"mode":"blocked"}"#;
    assert_eq!(daemon.ask("POST", "/clients", client).unwrap().status, 201);
    assert_eq!(daemon.call("c"), 403);
    daemon
}

#[test]
fn in_another_directory_where_there_is_no_database() {
    let backend = Backend::scripted("a");
    let daemon = started_with_a_relative_database(&backend);
    let (old, elsewhere) = (daemon.pid(), tempfile::TempDir::new().unwrap());
    let from = |directory: &std::path::Path, arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command.current_dir(directory);
        command
    };
    let new = elsewhere.path().canonicalize().unwrap().join("data/tollgate.db");
    let said = format!("there is no database {}, and the running process (pid {old}) has", new.display());
    refused(&daemon, old, &run(&mut from(elsewhere.path(), &["upgrade"])), &said);
    assert_eq!(run(&mut from(elsewhere.path(), &["-d", "-u"])).code, Some(0));
    daemon.signal(Signal::SIGQUIT);
    daemon.wait_for_event(&["SIGQUIT: the successor gave up", &said, "still serving"]);
    serves_alone(&daemon, old);
    assert!(!new.exists() && daemon.call("c") == 403);

    let _ = daemon.upgrade();
    assert_eq!(daemon.call("c"), 403);
    // A copy that was made before is another database, and as good as any.
    let copy = new.to_str().unwrap();
    std::fs::create_dir(new.parent().unwrap()).unwrap();
    let copied = run(command().args(["backup", "--database"]).arg(daemon.path("data/tollgate.db")).arg(copy));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let said = upgraded(&daemon, &mut from(elsewhere.path(), &["upgrade"]));
    assert!(said.contains("has another database") && said.contains("clients and their buckets stay there"), "{said}");
    assert_eq!(daemon.call("c"), 403);
}

#[test]
fn with_clients_that_no_database_keeps() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "rate_limit: {default: {capacity: 5, rate_per_sec: 0.001}}");
    let file = daemon.text("tollgate.yaml").replace("database: data/tollgate.db", "database: null");
    std::fs::write(daemon.file(), file).unwrap();
    assert_eq!(daemon.run(&["run", "-d"]).code, Some(0));
    // Without clients there is nothing to lose; what is left of buckets goes over.
    assert_eq!(daemon.call("nobody"), 200);
    let (_, old) = daemon.upgrade();
    let client = r#"{"client_id":"c","capacity":1,"rate_per_sec":1,"mode":"blocked"}"#;
    assert_eq!(daemon.ask("POST", "/clients", client).unwrap().status, 201);
    let said = "its clients (1) are in memory alone (database: null) and would be lost: export them";
    refused(&daemon, old, &daemon.run(&["upgrade"]), said);
    daemon.wait_for_event(&["ERROR", "SIGQUIT: its clients (1) are in memory alone", "still serving"]);
    assert_eq!(daemon.call("c"), 403);
    assert_eq!(daemon.ask("DELETE", "/clients/c", "").unwrap().status, 204);
    let _ = daemon.upgrade();
    // Two so far, of five.
    assert_eq!([(); 4].map(|()| daemon.call("nobody")), [200, 200, 200, 429]);
}
