//! The binary before this one makes room for this one, and comes back in its place, under load; with what is in memory,
//! and with what is in the database.
//!
//! Needs that binary: `make test-upgrade` builds it and runs this. Plain `cargo test` leaves it out.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::backend::Backend;
use crate::harness::daemon::{Daemon, signal};
use crate::harness::load::Load;
use crate::harness::process;
use crate::harness::{PATIENCE, eventually, now};

/// What a client gets that is to spend it all, and an anonymous caller.
const TOKENS: u32 = 30;
const LIMIT: &str = "rate_limit: {default: {capacity: 30, rate_per_sec: 0.0001}}";

/// The binary before, by its path in `TOLLGATE_BEFORE`.
fn before() -> PathBuf {
    PathBuf::from(std::env::var_os("TOLLGATE_BEFORE").expect("make test-upgrade says where the binary before is"))
}

fn this() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tollgate"))
}

/// A server of the binary before, with the clients of these tests.
fn started(backend: &Backend) -> Daemon {
    let daemon = Daemon::configured(backend.address, LIMIT);
    start(&daemon, &before());
    for client in [
        format!(r#"{{"client_id":"spender","capacity":{TOKENS},"rate_per_sec":0.0001}}"#),
        r#"{"client_id":"greedy","capacity":50,"rate_per_sec":40}"#.to_owned(),
        r#"{"client_id":"free","capacity":1,"rate_per_sec":1,"mode":"unlimited"}"#.to_owned(),
    ] {
        assert_eq!(daemon.ask("POST", "/clients", &client).unwrap().status, 201);
    }
    daemon
}

fn start(daemon: &Daemon, binary: &Path) {
    let started = process::run(&mut daemon.command_of(binary, &["run", "-d"]));
    assert_eq!(started.code, Some(0), "{started:?}\n{}", daemon.text("error.log"));
}

/// `binary` takes over from what runs.
fn take_over(daemon: &Daemon, binary: &Path) {
    let old = daemon.pid();
    let started = process::run(&mut daemon.command_of(binary, &["-d", "-u"]));
    assert_eq!(started.code, Some(0), "{started:?}\n{}", daemon.text("error.log"));
    signal(old, Signal::SIGQUIT);
    assert!(eventually(PATIENCE, || daemon.text("run/a.pid").trim().parse().is_ok_and(|pid: i32| pid != old)));
}

/// Takes a token of the client and one of an anonymous caller: whether both were there, which is as it was with both.
fn spend(daemon: &Daemon) -> bool {
    let statuses = (daemon.call("spender"), daemon.call("nobody's"));
    assert!(matches!(statuses, (200, 200) | (429, 429)), "{statuses:?}");
    statuses.0 == 200
}

#[test]
#[ignore = "needs the binary before this one: make test-upgrade"]
fn each_takes_over_from_the_other_under_load() {
    let backend = Backend::scripted("a");
    let daemon = started(&backend);
    let start = now();
    let free = [("X-Api-Key", "free")];
    let kept = Load::start(daemon.address, (16, true), "/kept", &free);
    let fresh = Load::start(daemon.address, (16, false), "/fresh", &free);
    let greedy = Load::start(daemon.address, (4, true), "/greedy", &[("X-Api-Key", "greedy")]);
    let mut spent = 0;
    for binary in [this(), before(), this(), before(), this()] {
        (0..4).for_each(|_| spent += u32::from(spend(&daemon)));
        take_over(&daemon, &binary);
        kept.wait_for(50);
        fresh.wait_for(50);
    }
    spent += (0..=TOKENS).map(|_| u32::from(spend(&daemon))).sum::<u32>();
    assert_eq!(spent, TOKENS, "what was spent was known to each");
    let (kept, fresh, greedy) = (kept.stop(), fresh.stop(), greedy.stop());
    let seconds = (now() - start).as_secs_f64();
    for load in [&kept, &fresh, &greedy] {
        assert_eq!(load.failures, [""; 0], "{load:?}");
    }
    assert_eq!((kept.answered(), fresh.answered()), (kept.with(200), fresh.with(200)));
    assert_eq!(greedy.answered(), greedy.with(200) + greedy.with(429));
    let most = 50.0 + 40.0 * seconds + 4.0;
    let allowed = greedy.with(200) as f64;
    assert!(allowed <= most && allowed >= most * 0.6, "{allowed} of {most} in {seconds} s");
    assert!(!daemon.text("error.log").contains("ERROR"), "{}", daemon.text("error.log"));
}

#[test]
#[ignore = "needs the binary before this one: make test-upgrade"]
fn each_reads_the_database_of_the_other() {
    let backend = Backend::scripted("a");
    let daemon = started(&backend);
    let mut spent = 0;
    for binary in [this(), before(), this(), before()] {
        (0..4).for_each(|_| spent += u32::from(spend(&daemon)));
        daemon.stop();
        start(&daemon, &binary);
        // Whoever serves can write, and what it writes is no hindrance to the other.
        assert_eq!(daemon.ask("PATCH", "/clients/spender", r#"{"note":"edited"}"#).unwrap().status, 200);
    }
    spent += (0..=TOKENS).map(|_| u32::from(spend(&daemon))).sum::<u32>();
    assert_eq!(spent, TOKENS, "what was spent was in the file");
    daemon.stop();
    start(&daemon, &this());
    assert!(!spend(&daemon));
    // A client that is made anew by the same name has a new bucket.
    assert_eq!(daemon.ask("DELETE", "/clients/spender", "").unwrap().status, 204);
    let client = r#"{"client_id":"spender","capacity":3,"rate_per_sec":0.0001}"#;
    assert_eq!(daemon.ask("POST", "/clients", client).unwrap().status, 201);
    assert_eq!((0..5).filter(|_| daemon.call("spender") == 200).count(), 3);
    daemon.stop();
    start(&daemon, &before());
    assert_eq!((daemon.call("spender"), daemon.call("nobody's")), (429, 429));
    assert!(!daemon.text("error.log").contains("ERROR"), "{}", daemon.text("error.log"));
}
