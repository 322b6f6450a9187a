//! An upgrade that comes to nothing: the old process serves as if nobody had tried.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, runs, signal};
use crate::harness::load::Load;
use crate::harness::ports::free_address;
use crate::harness::process::{Finished, Process};
use crate::harness::{PATIENCE, eventually, now};

const UNLIMITED: &str = "rate_limit: {default: {capacity: 1000000000, rate_per_sec: 1000000000}}";

/// Has `upgrade` fail under load, and makes sure that it cost no request and changed no process.
#[track_caller]
fn fails(daemon: &Daemon, upgrade: impl FnOnce() -> Finished, code: i32, reason: &str) {
    let old = daemon.pid();
    let kept = Load::start(daemon.address, (4, true), "/kept", &[]);
    let fresh = Load::start(daemon.address, (4, false), "/fresh", &[]);
    kept.wait_for(20);
    let failed = upgrade();
    assert_eq!(failed.code, Some(code), "{failed:?}");
    assert!(failed.err.contains(reason), "{reason}: {failed:?}\n{}", daemon.text("error.log"));
    kept.wait_for(20);
    fresh.wait_for(20);
    for load in [kept.stop(), fresh.stop()] {
        assert_eq!((load.failures.as_slice(), load.answered()), (&[] as &[String], load.with(200)), "{load:?}");
    }
    assert_eq!((daemon.pid(), daemon.processes()), (old, vec![old]));
}

/// Has the file ask for a health check that gets no answer, which keeps a successor from being prepared: a successor
/// that is there asks what is returned.
fn stick(daemon: &Daemon, backend: &Backend) -> std::net::TcpListener {
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = daemon.text("tollgate.yaml");
    let file = file.replace(&backend.address.to_string(), &stuck.local_addr().unwrap().to_string());
    let check = "health_check: {type: http, timeout: 60s, interval: 61s}";
    std::fs::write(daemon.file(), file.replace("health_check: {type: none}", check)).unwrap();
    stuck
}

#[test]
fn with_nobody_to_take_over_it_goes_on_and_says_what_to_do() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let load = Load::start(daemon.address, (4, false), "/", &[]);
    daemon.signal(Signal::SIGQUIT);
    daemon.wait_for_event(&["ERROR", "SIGQUIT: nobody to take over at", "tollgate upgrade; still serving"]);
    load.wait_for(50);
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    // And it can still hand over.
    daemon.upgrade_by_hand();
    assert_eq!(daemon.call("nobody"), 200);
}

#[test]
fn a_configuration_or_an_address_that_cannot_be_changes_nothing() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    daemon.configure(&[daemon.address], "limit: 3\nroutes: 7");
    fails(&daemon, || daemon.run(&["upgrade"]), 2, "limit: unknown key, did you mean limits?");

    let taken = std::net::TcpListener::bind(free_address()).unwrap();
    daemon.configure(&[daemon.address, taken.local_addr().unwrap()], UNLIMITED);
    let reason = format!("cannot listen on {}", taken.local_addr().unwrap());
    fails(&daemon, || daemon.run(&["upgrade"]), 1, &reason);
    daemon.wait_for_event(&["SIGQUIT: the successor gave up: cannot listen on", "still serving"]);

    daemon.configure(&[daemon.address], UNLIMITED);
    daemon.upgrade();
}

#[test]
fn a_successor_that_dies_while_it_prepares_changes_nothing() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    // A health check that gets no answer keeps the successor from being prepared.
    let good = daemon.text("tollgate.yaml");
    let stuck = stick(&daemon, &backend);
    let old = daemon.pid();
    let upgrade = || {
        let mut upgrade = Process::start(&mut daemon.command(&["upgrade"]));
        let _asked = stuck.accept().unwrap();
        let successor = daemon.processes().into_iter().find(|pid| *pid != old && !is(*pid, upgrade.id()));
        signal(successor.unwrap(), Signal::SIGKILL);
        upgrade.wait_exit(PATIENCE)
    };
    fails(&daemon, upgrade, 1, "the process in the background ended; pid");
    daemon.wait_for_event(&["SIGQUIT: the successor ended; still serving"]);
    std::fs::write(daemon.file(), good).unwrap();
    daemon.upgrade_by_hand();
}

#[test]
fn a_process_that_dies_before_it_hands_over_is_not_said_to_serve() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow =
        daemon.text("tollgate.yaml").replace(&backend.address.to_string(), &stuck.local_addr().unwrap().to_string());
    let check = "health_check: {type: http, timeout: 60s, interval: 61s}";
    std::fs::write(daemon.file(), slow.replace("health_check: {type: none}", check)).unwrap();
    let old = daemon.pid();
    let mut upgrade = Process::start(&mut daemon.command(&["upgrade"]));
    let asked = stuck.accept().unwrap();
    signal(old, Signal::SIGKILL);
    assert!(eventually(PATIENCE, || !runs(old)));
    drop((asked, stuck));
    let failed = upgrade.wait_exit(PATIENCE);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains(&format!("pid {old} does not hold its pid file any more")), "{failed:?}");
}

fn is(pid: i32, id: u32) -> bool {
    u32::try_from(pid) == Ok(id)
}

#[test]
fn a_successor_that_dies_soon_after_it_serves_is_rolled_back() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "rate_limit: {persist_interval: 50ms}");
    let client = r#"{"client_id":"c","capacity":3,"rate_per_sec":0.001}"#;
    assert_eq!(daemon.ask("POST", "/clients", client).unwrap().status, 201);
    assert_eq!(daemon.call("c"), 200);
    let old = daemon.pid();
    let mut upgrade = Process::start(&mut daemon.command(&["upgrade"]));
    assert!(eventually(PATIENCE, || daemon.pid() != old), "{}", upgrade.err.text());
    let new = daemon.pid();
    assert!(runs(old) && daemon.ask("GET", "/readyz", "").is_ok_and(|answer| answer.status == 200));
    signal(new, Signal::SIGKILL);
    let failed = upgrade.wait_exit(PATIENCE);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains(&format!("pid {old} goes on serving")), "{failed:?}");
    daemon.wait_for_event(&["ERROR", "SIGQUIT: the successor ended; still serving"]);
    assert!(eventually(PATIENCE, || daemon.pid() == old), "it puts its pid file back");
    let status =
        daemon.ask("GET", "/status", "").unwrap_or_else(|e| panic!("{e}: {}", daemon.text("error.log"))).json();
    assert_eq!(status["state"], "ready", "{}", daemon.text("error.log"));
    assert_eq!((daemon.call("c"), daemon.call("c"), daemon.call("c")), (200, 200, 429));
    // It saves again.
    daemon.signal(Signal::SIGTERM);
    assert!(eventually(PATIENCE, || !runs(old)));
    assert!(!daemon.path("run/a.pid").exists());
    assert_eq!(daemon.run(&["-d"]).code, Some(0));
    assert_eq!(daemon.call("c"), 429);
    daemon.upgrade_by_hand();
    assert_eq!(daemon.call("c"), 429);
}

#[test]
fn strangers_at_the_socket_do_no_harm() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let old = daemon.pid();
    assert_eq!(daemon.run(&["-d", "-u"]).code, Some(0));
    let other = daemon.run(&["-d", "-u"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.err.contains("another upgrade is under way"), "{other:?}");
    drop(UnixStream::connect(daemon.path("run/a.sock")).unwrap());
    let mut stranger = UnixStream::connect(daemon.path("run/a.sock")).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    daemon.wait_for_event(&["somebody came who is no predecessor"]);
    daemon.signal(Signal::SIGQUIT);
    assert!(eventually(PATIENCE, || daemon.pid() != old), "{}", daemon.text("error.log"));
    assert_eq!(daemon.call("nobody"), 200);
    assert!(!daemon.path("run/a.sock").exists());

    // Somebody who takes the call and then says nothing sensible, or nothing.
    let old = daemon.pid();
    let listener = UnixListener::bind(daemon.path("run/a.sock")).unwrap();
    daemon.signal(Signal::SIGQUIT);
    let (mut stranger, _) = listener.accept().unwrap();
    stranger.write_all(&[0xff; 100]).unwrap();
    daemon.wait_for_event(&["the other process sent a message of a wrong length; still serving"]);
    assert_eq!((daemon.pid(), daemon.call("nobody")), (old, 200));
}

#[test]
fn a_successor_that_nobody_comes_to_gives_up() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    let nothing = daemon.run(&["upgrade"]);
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.err.contains("nothing to upgrade: no running process holds the pid file"), "{nothing:?}");
    let start = now();
    let mut waiting = Process::start(&mut daemon.command(&["run", "-u"]));
    let finished = waiting.wait_exit(Duration::from_secs(45));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains("send SIGQUIT to the one that is to be replaced"), "{finished:?}");
    assert!(now() - start > Duration::from_secs(20));
    assert!(!daemon.path("run/a.sock").exists() && Client::try_connect(daemon.address).is_err());
}

#[test]
fn a_stop_while_it_hands_over_is_a_stop() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let old = daemon.pid();
    daemon.signal(Signal::SIGQUIT);
    daemon.wait_for_event(&["SIGQUIT: handing over at"]);
    let start = now();
    daemon.signal(Signal::SIGTERM);
    assert!(eventually(PATIENCE, || !runs(old)), "{}", daemon.text("error.log"));
    assert!(now() - start < Duration::from_secs(4), "it does not wait for a successor");
    daemon.wait_for_event(&["buckets saved"]);
}

#[test]
fn whoever_interrupts_the_command_does_not_stop_the_service() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    // While the successor is not there yet: the old one goes on.
    let good = daemon.text("tollgate.yaml");
    let stuck = stick(&daemon, &backend);
    let interrupted = || {
        let mut upgrade = Process::start(&mut daemon.command(&["upgrade"]));
        let _asked = stuck.accept().unwrap();
        upgrade.signal("INT");
        upgrade.wait_exit(PATIENCE)
    };
    fails(&daemon, interrupted, 1, "SIGINT: stopped before it was ready; pid");
    // While it serves already: it goes on, and the old one leaves.
    std::fs::write(daemon.file(), good).unwrap();
    let old = daemon.pid();
    let load = Load::start(daemon.address, (4, false), "/", &[]);
    let mut upgrade = Process::start(&mut daemon.command(&["upgrade"]));
    assert!(eventually(PATIENCE, || upgrade.err.text().contains("took over from pid")), "{}", upgrade.err.text());
    upgrade.signal("TERM");
    let finished = upgrade.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains("SIGTERM: not waiting any longer; pid"), "{finished:?}");
    assert!(eventually(PATIENCE, || !runs(old)));
    let outcome = load.stop();
    assert!(outcome.failures.is_empty() && outcome.answered() == outcome.with(200), "{outcome:?}");
    assert_eq!((daemon.processes().len(), daemon.call("nobody")), (1, 200));
}
