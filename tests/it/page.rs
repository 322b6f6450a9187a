//! The page, used by an operator in a real browser (`page/operator.js`) while requests flow: clients are made, limited,
//! edited and rolled back, a backend is drained, the binary is upgraded, the admin API is lost and comes back; and a
//! viewer looks on.
//!
//! `TOLLGATE_TEST_SHOTS=DIR` keeps what it looked like.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::browser;
use crate::harness::client::{Client, Request, Response};
use crate::harness::daemon::Daemon;
use crate::harness::load::Load;
use crate::harness::{eventually, now};

/// Where `make setup-tests` installs what drives the browser.
const PLACE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/page");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/page/operator.js");
const TOKEN: &str = "an-operators-token";
const VIEWER: &str = "the-token-of-a-viewer";
/// The longest that a stop may take with the page open: what is under way ends, and nothing else is waited for.
const STOP: Duration = Duration::from_secs(5);

/// What the operator needs from outside the browser.
struct Stage {
    daemon: Daemon,
    backends: [Backend; 2],
    loads: Vec<Load>,
    /// What the second backend had got when it was asked last.
    before: usize,
}

impl Stage {
    fn new() -> Self {
        let backends = [Backend::scripted("a"), Backend::scripted("b")];
        let daemon = Daemon::configured(backends[0].address, "");
        let [a, b] = [&backends[0], &backends[1]].map(|backend| backend.address);
        let yaml = format!(
            "listeners: [{{address: \"{}\"}}]\nadmin: {{address: \"{}\", token_file: tokens}}\n\
             database: data/tollgate.db\npingora: {}\naccess_log: {{path: null}}\nupstreams:\n  - {{name: app, \
             backends: [{{address: \"{a}\"}}, {{address: \"{b}\"}}], health_check: {{type: none}}}}\n\
             rate_limit: {{default: {{capacity: 5, rate_per_sec: 1}}}}\n",
            daemon.address,
            daemon.admin,
            Daemon::pingora(", grace_period_seconds: 60"),
        );
        std::fs::write(daemon.file(), yaml).unwrap();
        std::fs::write(daemon.path("tokens"), format!("operator {TOKEN}\nviewer eve {VIEWER}\n")).unwrap();
        Stage { daemon, backends, loads: Vec::new(), before: 0 }
    }

    fn start(&self) {
        let started = self.daemon.run(&["run", "-d"]);
        assert_eq!(started.code, Some(0), "{started:?}");
    }

    fn ask(&self, target: &str) -> Value {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str())];
        let answer: Response =
            Client::connect(self.daemon.admin).call(&Request::new("GET", target).headers(&headers)).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// What `wanted` comes to.
    fn act(&mut self, wanted: &str) -> String {
        let (what, of) = wanted.split_once(' ').unwrap_or((wanted, ""));
        match what {
            "load" => {
                let headers = [("X-Api-Key", of)];
                let headers = if of == "-" { &[][..] } else { &headers };
                self.loads.push(Load::start(self.daemon.address, (1, true), "/?delay_ms=5", headers));
            }
            "allowed" => return self.ask(&format!("/clients/{of}"))["allowed"].to_string(),
            "limit" => {
                let client = self.ask(&format!("/clients/{of}"));
                return format!("{} {}", client["capacity"], client["rate_per_sec"]);
            }
            "backend" => return self.backends[1].address.to_string(),
            "idle" => {
                let (got, others) = (self.backends[1].count("GET /"), self.backends[0].count("GET /"));
                assert!(eventually(STOP, || self.backends[0].count("GET /") > others + 20), "no traffic");
                let idle = self.backends[1].count("GET /") == got;
                self.before = got;
                return if idle { "yes" } else { "no" }.to_owned();
            }
            "upgrade" => drop(self.daemon.upgrade()),
            "stop" => {
                self.loads.drain(..).for_each(|load| drop(load.stop()));
                let begin = now();
                self.daemon.stop();
                let took = now() - begin;
                assert!(took < STOP, "the stop took {took:?} with the page open");
            }
            "start" => self.start(),
            other => panic!("nobody can {other}"),
        }
        "done".to_owned()
    }
}

/// A process that is killed when it is dropped.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The browser, if all that drives it is installed; else that is told past the capture of the test's own output.
fn browser() -> Option<std::path::PathBuf> {
    let found = browser::find().filter(|_| Path::new(PLACE).join("pinned").exists());
    if found.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "the page is not tested: there is no Chromium or no playwright-core; `make setup-tests` installs them"
        );
    }
    found
}

#[test]
fn an_operator_finds_everything_on_the_page() {
    let Some(chromium) = browser() else { return };
    let mut stage = Stage::new();
    stage.start();
    let mut command = Command::new("node");
    command.arg(SCRIPT).arg(format!("http://{}/", stage.daemon.admin)).args([TOKEN, VIEWER, PLACE]).arg(chromium);
    command.args(std::env::var_os("TOLLGATE_TEST_SHOTS"));
    let operator = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut operator = Operator(operator.expect("there is node where playwright-core could be installed"));
    let (mut answers, lines) = (operator.0.stdin.take().unwrap(), BufReader::new(operator.0.stdout.take().unwrap()));
    let (mut wrong, mut ended) = (Vec::new(), false);
    for line in lines.lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("want", wanted)) => writeln!(answers, "{}", stage.act(wanted)).unwrap(),
            Some(("wrong", what)) => wrong.push(what.to_owned()),
            _ => ended |= line == "end",
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ended, "the operator went away");
}
