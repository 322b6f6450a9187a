//! One process in the place of another, and nobody notices.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::ALL_VERSIONS;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::daemon::{Daemon, runs};
use crate::harness::http2::{Http2, get, read};
use crate::harness::load::Load;
use crate::harness::ports::free_address;
use crate::harness::process::Process;
use crate::harness::tls::{self, NOW, Tunnel, write_pair};
use crate::harness::{PATIENCE, eventually, now};

/// A limit that nobody runs into.
const UNLIMITED: &str = "rate_limit: {default: {capacity: 1000000000, rate_per_sec: 1000000000}}";

/// Asks the admin API whether all is well, again and again on fresh connections, until `done`; what went wrong.
fn poll(daemon: &Daemon, done: &AtomicBool, polls: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    while !done.load(Ordering::SeqCst) && failures.len() < 20 {
        let target = if polls.load(Ordering::SeqCst).is_multiple_of(2) { "/status" } else { "/readyz" };
        match daemon.ask("GET", target, "") {
            Ok(answer) if answer.status == 200 => drop(polls.fetch_add(1, Ordering::SeqCst)),
            other => failures.push(format!("{other:?}")),
        }
    }
    failures
}

#[test]
fn twenty_upgrades_under_load_lose_no_request_and_give_no_token_twice() {
    const CLIENTS: usize = 64;
    const CAPACITY: u64 = 50;
    const RATE: u64 = 40;
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let limited = format!(r#"{{"client_id":"limited","capacity":{CAPACITY},"rate_per_sec":{RATE}}}"#);
    assert_eq!(daemon.ask("POST", "/clients", &limited).unwrap().status, 201);

    let (done, polls) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = now();
    let kept = Load::start(daemon.address, (CLIENTS / 2, true), "/kept", &[]);
    let fresh = Load::start(daemon.address, (CLIENTS / 2, false), "/fresh", &[]);
    let greedy = Load::start(daemon.address, (4, true), "/greedy", &[("X-Api-Key", "limited")]);
    let mut pids = vec![daemon.pid()];
    let failures = std::thread::scope(|scope| {
        let poller = scope.spawn(|| poll(&daemon, &done, &polls));
        for round in 0..20 {
            kept.wait_for(50);
            fresh.wait_for(50);
            // The command waits until the new one has proved itself; the steps themselves need not.
            if round % 10 == 0 {
                let _ = daemon.upgrade();
            } else {
                daemon.upgrade_by_hand()
            }
            pids.push(daemon.pid());
        }
        done.store(true, Ordering::SeqCst);
        poller.join().unwrap()
    });
    let (kept, fresh, greedy) = (kept.stop(), fresh.stop(), greedy.stop());
    let seconds = (now() - start).as_secs_f64();
    assert_eq!(failures, [""; 0], "the admin API, {} polls", polls.load(Ordering::SeqCst));
    assert!(polls.load(Ordering::SeqCst) > 100);
    for load in [&kept, &fresh, &greedy] {
        assert_eq!(load.failures, [""; 0], "{load:?}");
    }
    assert_eq!((kept.answered(), fresh.answered()), (kept.with(200), fresh.with(200)));
    assert_eq!(greedy.answered(), greedy.with(200) + greedy.with(429));
    // At most what one process would give, and one for each request that the last predecessor still had.
    let most = CAPACITY as f64 + RATE as f64 * seconds + 4.0;
    let allowed = greedy.with(200) as f64;
    // On a busy machine it may not come to ask for all that it could have.
    let asked_for_all = greedy.with(429) > 0;
    assert!(
        allowed <= most && (allowed >= most * 0.7 || !asked_for_all),
        "{allowed} of {most} in {seconds} s; {greedy:?}"
    );

    let (last, old) = pids.split_last().unwrap();
    assert!(old.iter().all(|pid| pid != last));
    assert!(eventually(PATIENCE, || old.iter().all(|pid| !runs(*pid))), "{}", daemon.text("error.log"));
    assert_eq!(daemon.processes(), [*last]);
}

#[test]
fn buckets_and_edits_are_carried_over() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, "rate_limit: {persist_interval: 1m}");
    for (id, capacity) in [("spent", 5), ("edited", 5)] {
        let client = format!(r#"{{"client_id":"{id}","capacity":{capacity},"rate_per_sec":0.001}}"#);
        assert_eq!(daemon.ask("POST", "/clients", &client).unwrap().status, 201);
        (0..5).for_each(|_| assert_eq!(daemon.call(id), 200));
    }
    assert_eq!(daemon.ask("PATCH", "/clients/edited", r#"{"capacity":9}"#).unwrap().status, 200);
    assert_eq!(daemon.ask("POST", "/clients/edited/reset", "").unwrap().status, 200);
    assert_eq!(daemon.call("edited"), 200);
    let minutes = || daemon.ask("GET", "/series", "").unwrap().json();
    assert!(eventually(PATIENCE, || !minutes()["at"].as_array().unwrap().is_empty()));
    let (first, states) = (minutes()["at"][0].clone(), minutes()["backends"][0]["states"][0].clone());
    for _ in 0..2 {
        daemon.upgrade_by_hand();
        // So did the last minutes, for the page.
        let after = minutes();
        assert_eq!((&after["at"][0], &after["backends"][0]["states"][0]), (&first, &states));
        // What was never saved came by memory.
        assert_eq!(daemon.call("spent"), 429);
    }
    let left = (0..20).filter(|_| daemon.call("edited") == 200).count();
    assert_eq!(left, 8);
    // And now it is the last one's to save. Nobody who has handed over comes back when it is told to stop.
    daemon.stop();
    assert!(!daemon.text("error.log").contains("ERROR"), "{}", daemon.text("error.log"));
    assert_eq!(daemon.run(&["-d"]).code, Some(0));
    assert_eq!((daemon.call("spent"), daemon.call("edited")), (429, 429));
}

#[test]
fn a_request_that_the_old_process_has_finishes_there_and_its_tokens_are_known_here() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let client = r#"{"client_id":"c","capacity":3,"rate_per_sec":0.001}"#;
    assert_eq!(daemon.ask("POST", "/clients", client).unwrap().status, 201);
    let old = daemon.pid();
    let mut held = Client::connect(daemon.address);
    held.send(&Request::new("GET", "/?hold=k&bytes=200000").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held("k") == 1));
    // Its header is half there, so this connection stays with the old process and asks after the buckets went over.
    let mut kept = Client::connect(daemon.address);
    kept.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: c\r\n").unwrap();
    let mut later = Client::connect(daemon.address);
    later.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: d\r\n").unwrap();
    assert_eq!(Client::connect(daemon.address).get("/").unwrap().status, 200, "so the halves are there, too");
    daemon.upgrade_by_hand_when(|| {
        // Who is made once the new process has read the clients pays, too.
        let made = daemon.ask("POST", "/clients", &client.replace("\"c\"", "\"d\"")).unwrap();
        assert_eq!(made.status, 201, "{made:?}");
    });
    kept.send(b"\r\n").unwrap();
    later.send(b"\r\n").unwrap();
    assert_eq!(later.read("GET").unwrap().status, 200);
    let answer = kept.read("GET").unwrap();
    assert_eq!((answer.status, answer.closes()), (200, true), "{answer:?}");
    for who in ["c", "d"] {
        let path = format!("/clients/{who}");
        let tokens = || daemon.ask("GET", &path, "").unwrap().json()["tokens"].as_f64().unwrap();
        assert!(eventually(PATIENCE, || tokens() < 2.5), "the successor knows of {who}: {}", tokens());
        assert_eq!((0..5).filter(|_| daemon.call(who) == 200).count(), 2, "{who}");
    }
    assert!(runs(old), "it still has a request");
    backend.release("k");
    let answer = held.read("GET").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 200_000));
    assert!(eventually(PATIENCE, || !runs(old)), "{}", daemon.text("error.log"));
}

#[test]
fn listeners_come_and_go_with_the_configuration() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let (first, second) = (daemon.address, free_address());
    daemon.configure(&[first, second], UNLIMITED);
    daemon.upgrade_by_hand();
    let answers = |address| Client::try_connect(address).is_ok_and(|mut client| client.get("/").is_ok());
    assert!(eventually(PATIENCE, || answers(first) && answers(second)));
    daemon.configure(&[second], UNLIMITED);
    daemon.upgrade_by_hand();
    assert!(eventually(PATIENCE, || answers(second)));
    // The last one who has it closes it once it is not needed for a way back.
    assert!(eventually(PATIENCE, || Client::try_connect(first).is_err()), "{}", daemon.text("error.log"));
    assert!(answers(second));
}

#[test]
fn tls_listeners_go_over_and_http_2_streams_end_whole() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    write_pair(&daemon.path(""), NOW);
    let plain = format!("{{address: \"{}\"}}]\nadmin", daemon.address);
    let secure = format!("{{address: \"{}\", tls: {{cert: cert.pem, key: key.pem}}}}]\nadmin", daemon.address);
    std::fs::write(daemon.file(), daemon.text("tollgate.yaml").replace(&plain, &secure)).unwrap();
    let started = daemon.run(&["-d"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let tunnel = Tunnel::to(daemon.address, &tls::config(ALL_VERSIONS, &[]));
    let mut multiplexed = Http2::connect(daemon.address);
    assert_eq!(multiplexed.get("/").unwrap().status, 200);
    let held: Vec<_> = (0..5).map(|_| multiplexed.open(get("/?hold=k&bytes=10000"), true).unwrap().0).collect();
    assert!(eventually(PATIENCE, || backend.held("k") == 5));
    let load = Load::start(tunnel.address, (4, false), "/", &[]);
    for _ in 0..3 {
        load.wait_for(20);
        daemon.upgrade_by_hand();
    }
    backend.release("k");
    for answer in held {
        let answer = multiplexed.runtime.block_on(read(answer)).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 10_000));
    }
    assert_eq!(Http2::connect(daemon.address).get("/").unwrap().status, 200);
    let load = load.stop();
    assert_eq!((load.failures.as_slice(), load.answered()), (&[] as &[String], load.with(200)), "{load:?}");
}

#[test]
fn a_process_in_the_foreground_is_replaced_too() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    let mut foreground = Process::start(&mut daemon.command(&["run"]));
    assert!(eventually(PATIENCE, || Client::try_connect(daemon.address).is_ok()), "{}", foreground.err.text());
    let (old, new) = daemon.upgrade();
    assert_eq!(u32::try_from(old).ok(), Some(foreground.id()));
    assert_eq!(foreground.wait_exit(PATIENCE).code, Some(0));
    assert_eq!((daemon.processes(), daemon.call("nobody")), (vec![new], 200));
}

#[test]
fn while_it_hands_over_it_says_so_and_the_service_is_ready_throughout() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::start(backend.address, UNLIMITED);
    let ask = |client: &mut Client, target: &str| client.call(&Request::new("GET", target).host("localhost"));
    // These are half there when the process hands over, so they are answered by the old one after that.
    let mut halves = ["/status", "/readyz"].map(|target| {
        let mut client = Client::connect(daemon.admin);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n").as_bytes()).unwrap();
        client
    });
    assert_eq!(ask(&mut Client::connect(daemon.admin), "/readyz").unwrap().status, 200);
    daemon.upgrade_by_hand();
    halves.iter_mut().for_each(|client| client.send(b"\r\n").unwrap());
    let [status, ready] = halves.map(|mut client| client.read("GET"));
    if let (Ok(status), Ok(ready)) = (status, ready) {
        assert_eq!((&status.json()["state"], ready.status), (&"handing_over".into(), 200), "{ready:?}");
    }
    assert_eq!(ask(&mut Client::connect(daemon.admin), "/readyz").unwrap().status, 200);
    assert_eq!(daemon.ask("GET", "/status", "").unwrap().json()["state"], "ready");
}

#[test]
fn systemd_is_told_who_counts() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    let socket = std::os::unix::net::UnixDatagram::bind(daemon.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |word: &str| {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = socket.recv(&mut piece).unwrap_or_else(|error| panic!("{word}: {error} after {all:?}"));
            let text = String::from_utf8_lossy(&piece[..length]).into_owned();
            let found = text.contains(word);
            all.push(text);
            if found {
                return all.concat();
            }
        }
    };
    let notified = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command.env("NOTIFY_SOCKET", daemon.path("notify"));
        command
    };
    let mut foreground = Process::start(&mut notified(&["run"]));
    assert!(told("READY=1").contains(&format!("MAINPID={}\n", foreground.id())));
    let mut upgrade = Process::start(&mut notified(&["upgrade"]));
    let all = told("READY=1");
    assert!(!all.contains("STOPPING=1"), "the service goes on: {all}");
    let new = daemon.pid();
    assert!(all.contains(&format!("MAINPID={new}\n")) && u32::try_from(new).ok() != Some(foreground.id()), "{all}");
    assert_eq!(upgrade.wait_exit(PATIENCE).code, Some(0));
    assert_eq!(foreground.wait_exit(PATIENCE).code, Some(0));
    daemon.signal(Signal::SIGTERM);
    let all = told("STOPPING=1");
    assert!(!all.contains("READY=1"), "{all}");
    assert!(eventually(Duration::from_secs(10), || !runs(new)));
}

#[test]
fn a_reload_that_ends_after_the_upgrade_does_not_claim_the_service_back() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, UNLIMITED);
    let socket = std::os::unix::net::UnixDatagram::bind(daemon.path("notify")).unwrap();
    let notified = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command.env("NOTIFY_SOCKET", daemon.path("notify"));
        command
    };
    let mut foreground = Process::start(&mut notified(&["run"]));
    assert!(eventually(PATIENCE, || Client::try_connect(daemon.address).is_ok()), "{}", foreground.err.text());
    // It lasts as long as the check of a backend that does not answer.
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let good = daemon.text("tollgate.yaml");
    let slow = good.replace(&backend.address.to_string(), &stuck.local_addr().unwrap().to_string());
    let check = "health_check: {type: http, timeout: 60s, interval: 61s}";
    std::fs::write(daemon.file(), slow.replace("health_check: {type: none}", check)).unwrap();
    foreground.signal("HUP");
    let asked = stuck.accept().unwrap();
    std::fs::write(daemon.file(), good).unwrap();
    let (old, mut upgrade) = (foreground.id(), Process::start(&mut notified(&["upgrade"])));
    assert!(eventually(PATIENCE, || foreground.err.text().contains("the successor serves")), "{}", upgrade.err.text());
    drop((asked, stuck));
    assert!(eventually(PATIENCE, || foreground.err.text().contains("configuration not reloaded")), "it is over");
    assert_eq!((upgrade.wait_exit(PATIENCE).code, foreground.wait_exit(PATIENCE).code), (Some(0), Some(0)));
    socket.set_nonblocking(true).unwrap();
    let mut piece = [0; 4096];
    let told = std::iter::from_fn(|| socket.recv(&mut piece).ok().map(|n| String::from_utf8_lossy(&piece[..n]).into()));
    let told: Vec<String> = told.collect();
    let main: Vec<_> = told.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("MAINPID=")).collect();
    assert_eq!(main, [format!("MAINPID={old}"), format!("MAINPID={}", daemon.pid())], "{told:?}");
}
