//! Where commands of the pages are typed: the addresses and directories that they name stand for ones of the test's
//! own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::client::Client;
use crate::harness::daemon::end_all_of;
use crate::harness::instance::is_ready;
use crate::harness::ports::free_address;
use crate::harness::process::Process;
use crate::harness::server::{clean, command};
use crate::harness::{PATIENCE, eventually};

/// What the pages call their addresses: the proxy, the same with TLS, the admin API, two backends.
const NAMES: [&str; 5] = ["127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:9901", "127.0.0.1:9001", "127.0.0.1:9002"];

/// A directory and addresses, and what runs there. Dropping it ends all of it.
#[derive(Debug)]
pub(super) struct Stage {
    dir: TempDir,
    addresses: [SocketAddr; 5],
    /// Whether the commands start their own server, and one is there.
    own: bool,
    started: bool,
    running: Vec<Process>,
}

impl Stage {
    /// A stage for these commands. Unless one of them starts a server, there is one from the first that needs it on.
    pub(super) fn for_commands(commands: &[&str]) -> Self {
        let starts = |command: &&str| {
            let words: Vec<_> = command.split(' ').skip_while(|word| !word.ends_with("tollgate")).collect();
            matches!(words[..], [_, "run" | "-c", ..]) && !words.contains(&"-u")
        };
        let stage = Stage {
            dir: TempDir::new().unwrap(),
            addresses: std::array::from_fn(|_| free_address()),
            own: commands.iter().any(starts),
            started: false,
            running: Vec::new(),
        };
        let binary = command().get_program().to_owned();
        for place in ["target/release", "run"] {
            std::fs::create_dir_all(stage.path(place)).unwrap();
        }
        std::os::unix::fs::symlink(binary, stage.path("target/release/tollgate")).unwrap();
        stage.configure(commands.iter().any(|command| command.contains(NAMES[1])));
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("tollgate.yaml")
    }

    /// Writes what is `/etc/tollgate/tollgate.yaml` for the pages: the demo's pool, here named `app`, and its limits.
    fn configure(&self, tls: bool) {
        let [http, https, admin, ..] = self.addresses;
        let tls = format!(", {{address: \"{https}\", tls: {{cert: conf/tls/cert.pem, key: conf/tls/key.pem}}}}")
            .repeat(usize::from(tls));
        let backends = [self.addresses[3], self.addresses[4], free_address()];
        let backends: Vec<_> = backends.iter().map(|address| format!("{{address: \"{address}\"}}")).collect();
        let dir = self.dir.path().display();
        let yaml = format!(
            "listeners: [{{address: \"{http}\"}}{tls}]\n\
             admin: {{address: \"{admin}\"}}\n\
             database: {dir}/data/tollgate.db\n\
             pingora: {{threads: 2, pid_file: {dir}/run/tollgate.pid, upgrade_sock: {dir}/run/upgrade.sock, \
             error_log: {dir}/events.log}}\n\
             access_log: {{path: {dir}/access.log}}\n\
             rate_limit: {{default: {{capacity: 100000, rate_per_sec: 10000}}}}\n\
             upstreams: [{{name: app, health_check: {{type: none}}, backends: [{}]}}]\n",
            backends.join(", ")
        );
        std::fs::write(self.file(), yaml).unwrap();
    }

    /// With the addresses and directories of the stage for those that the pages name.
    fn here(&self, text: &str) -> String {
        let mut text = text.replace("0.0.0.0:", "127.0.0.1:");
        for (name, address) in NAMES.iter().zip(&self.addresses) {
            text = text.replace(name, &address.to_string());
        }
        let dir = format!("{}/", self.dir.path().display());
        text = text.replace("/run/tollgate/", &format!("{dir}run/"));
        text.replace("/etc/tollgate/", &dir).replace("/var/log/tollgate/", &dir)
    }

    /// Saves a file that a page gives.
    pub(super) fn save(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), self.here(text)).unwrap();
    }

    fn shell(&self, typed: &str) -> Command {
        let mut shell = clean(Command::new("sh"));
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .args(["-c", typed])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", self.path("target/release").display()))
            .env("TOLLGATE_ADMIN", self.addresses[2].to_string());
        shell
    }

    /// Types a command and returns what it prints; of one that stays, nothing.
    #[track_caller]
    pub(super) fn type_in(&mut self, command: &str, place: &str) -> String {
        let asks = NAMES[..3].iter().any(|name| command.contains(name)) || command.starts_with("tollgate clients");
        let names =
            ["-c /etc/tollgate/", "/run/tollgate/", "/var/log/tollgate/"].iter().any(|name| command.contains(name));
        if !self.own && !self.started && (asks || names) {
            self.start();
        }
        let typed = self.here(command);
        let uncommented = typed.split_once("  #").map_or(&*typed, |(typed, _)| typed).trim_end();
        if let Some(staying) = uncommented.strip_suffix('&') {
            self.stay(staying);
            return String::new();
        }
        let run = self.shell(&typed).stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{place}: `{typed}` (are curl and openssl installed?): {told}");
        self.started |= self.own && self.serves();
        String::from_utf8_lossy(&run.stdout).replace("\r\n", "\n")
    }

    /// Starts a command that stays, and waits until it does its work.
    fn stay(&mut self, typed: &str) {
        self.running.push(Process::start(&mut self.shell(&format!("exec {typed}"))));
        let process = self.running.last_mut().unwrap();
        let listens = typed.split(' ').skip_while(|word| *word != "--listen").nth(1).map(|word| word.parse().unwrap());
        let [_, _, admin, ..] = self.addresses;
        let works = || listens.map_or_else(|| is_ready(admin), |address| Client::try_connect(address).is_ok());
        let (err, in_time) = (process.err.clone(), eventually(PATIENCE, || !process.is_running() || works()));
        assert!(in_time && process.is_running(), "`{typed}` does not work: {}", err.text());
        self.started |= listens.is_none();
    }

    fn serves(&self) -> bool {
        is_ready(self.addresses[2])
    }

    /// Starts a server over three sample backends.
    fn start(&mut self) {
        let yaml = std::fs::read_to_string(self.file()).unwrap();
        let backends = yaml.split_once("backends: ").unwrap().1;
        for (name, address) in ["a", "b", "c"].iter().zip(backends.split('"').skip(1).step_by(2)) {
            self.stay(&format!("tollgate echo --name {name} --listen {address}"));
        }
        let started = self.shell(&format!("tollgate run -d -c {}", self.file().display())).output().unwrap();
        assert!(started.status.success(), "{started:?}");
        self.started = true;
    }

    /// Whether what was started serves still.
    #[track_caller]
    pub(super) fn check(&self, place: &str) {
        let there = !self.started || eventually(PATIENCE, || self.serves());
        let events = std::fs::read_to_string(self.path("events.log")).unwrap_or_default();
        assert!(there, "{place}: nothing serves at the end\n{events}");
    }

    /// The text of the metrics, or of whatever else the admin API has there.
    #[track_caller]
    pub(super) fn admin(&mut self, target: &str) -> String {
        self.type_in(&format!("curl -s http://{}{target}", NAMES[2]), target)
    }

    /// What the program prints.
    #[track_caller]
    pub(super) fn tollgate(&mut self, arguments: &str) -> String {
        self.type_in(&format!("tollgate {arguments}"), arguments)
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        end_all_of(&self.file());
    }
}
