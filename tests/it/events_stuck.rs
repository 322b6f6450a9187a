//! A standard error that nobody reads: lines are lost and counted, and nothing waits for it.

use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::instance::{ask, is_ready};
use crate::harness::ports::free_address;
use crate::harness::process::{Output, Process};
use crate::harness::server::command;
use crate::harness::setup::{QUICK_TCP, UNLIMITED};
use crate::harness::{PATIENCE, eventually, now};

/// What a stop may take: a second for the access log, one for the event log, one for last words, on a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// A server that nobody listens to.
struct Deaf {
    address: SocketAddr,
    admin: SocketAddr,
    process: Process,
    unread: PipeReader,
    dir: TempDir,
}

impl Deaf {
    fn start(backends: &[SocketAddr], variables: &[(&str, &str)]) -> Self {
        let (address, admin, dir) = (free_address(), free_address(), TempDir::new().unwrap());
        let backends: Vec<_> = backends.iter().map(|address| format!("{{address: \"{address}\"}}")).collect();
        let yaml = format!(
            "listeners: [{{address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\ndatabase: tollgate.db\n{UNLIMITED}\
             access_log: {{path: null}}\nupstreams: [{{name: app, backends: [{}], {QUICK_TCP}}}]\n",
            backends.join(", ")
        );
        std::fs::write(dir.path().join("tollgate.yaml"), yaml).unwrap();
        let (process, unread) = Process::start_deaf(Self::command(&dir).envs(variables.iter().copied()));
        let mut server = Deaf { address, admin, process, unread, dir };
        let serves = eventually(PATIENCE, || !server.process.is_running() || is_ready(admin));
        assert!(serves && server.process.is_running(), "it does not serve");
        server
    }

    fn command(dir: &TempDir) -> Command {
        let mut command = command();
        command.current_dir(dir.path()).args(["run", "-c", "tollgate.yaml"]);
        command
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> String {
        let answer = ask(&mut Client::connect(self.admin), method, target, body).unwrap();
        assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}");
        String::from_utf8(answer.body).unwrap()
    }

    /// How many event lines were lost.
    fn lost(&self) -> u64 {
        let metrics = self.ask("GET", "/metrics", "");
        let line = metrics.lines().find_map(|line| line.strip_prefix("tollgate_event_log_dropped_total "));
        line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    }
}

#[test]
fn a_backend_that_goes_down_holds_up_neither_the_admin_api_nor_requests_nor_a_stop() {
    let (mut goes, stays) = (Backend::scripted("goes"), Backend::scripted("stays"));
    let mut server = Deaf::start(&[goes.address, stays.address], &[]);
    goes.kill();
    let address = server.address;
    // Not asked for what the log is asked for, which a fault of it would hide: it goes down by itself.
    let down = || server.ask("GET", "/upstreams", "").contains("\"down\"");
    assert!(eventually(PATIENCE, down), "{}", server.ask("GET", "/upstreams", ""));
    for _ in 0..3 {
        assert!(server.ask("GET", "/upstreams", "").contains("\"down\""));
        server.ask("GET", "/healthz", "");
        server.ask("GET", "/readyz", "");
        assert_eq!(Client::connect(address).get("/").unwrap().status, 200);
    }
    // Requests that log: each broken one is told, until repeats are summed up.
    for number in 0..20 {
        let mut client = Client::connect(address);
        let answer = client.call_again(&Request::new("POST", &format!("/{number}?fault=close"))).unwrap();
        assert_eq!(answer.status, 502);
    }
    let start = now();
    server.process.signal("TERM");
    let finished = server.process.wait_exit(SOON);
    assert_eq!(finished.code, Some(0), "after {:?}", now() - start);
}

#[test]
fn what_is_lost_is_counted_and_told_once_somebody_reads() {
    let backend = Backend::scripted("a");
    let mut server = Deaf::start(&[backend.address], &[]);
    let note = "x".repeat(100);
    server.ask("POST", "/clients", r#"{"client_id":"c","capacity":1,"rate_per_sec":1}"#);
    assert_eq!(server.lost(), 0, "there is room for some lines");
    // Each edit is an event.
    let mut client = Client::connect(server.admin);
    let full = eventually(8 * PATIENCE, || {
        for number in 0..2000 {
            let body = format!(r#"{{"note":"{number}{note}"}}"#);
            assert_eq!(ask(&mut client, "PATCH", "/clients/c", &body).unwrap().status, 200);
        }
        server.lost() > 0
    });
    assert!(full, "memory for event lines is bounded");
    let (output, unread) = (Output::default(), server.unread.try_clone().unwrap());
    output.follow(unread);
    let told = |lines: &[String]| lines.iter().any(|line| line.contains("event log: writes again, "));
    let lines = output.wait("what was lost", 2 * PATIENCE, told);
    let whole = |line: &String| line.starts_with("20") || line.starts_with("..");
    assert!(lines.iter().all(whole), "no line is torn");
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(SOON).code, Some(0));
}

#[test]
fn it_ends_in_time_with_its_exit_code_when_it_cannot_start() {
    let backend = Backend::scripted("a");
    let server = Deaf::start(&[backend.address], &[]);
    // The same addresses a second time: it says so, to nobody, and ends with 1.
    let (mut second, mut unread) = Process::start_deaf(&mut Deaf::command(&server.dir));
    assert_eq!(second.wait_exit(SOON).code, Some(1));
    let mut some = [0; 10];
    unread.read_exact(&mut some).unwrap();
    assert_eq!(some, [b'.'; 10]);
    std::fs::write(server.dir.path().join("tollgate.yaml"), "listeners: []\n").unwrap();
    let (mut wrong, _unread) = Process::start_deaf(&mut Deaf::command(&server.dir));
    assert_eq!(wrong.wait_exit(SOON).code, Some(2));
}
