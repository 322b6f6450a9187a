//! Daemons of a test, in a directory of their own, which end with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::{Client, Request, Response};
use super::instance::ask;
use super::ports::free_address;
use super::process::{self, Finished};
use super::server::{clean, command};
use super::way::with_way;
use super::{PATIENCE, eventually};

/// A configuration whose processes run in the background; dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    backend: SocketAddr,
    dir: TempDir,
}

impl Daemon {
    /// A configuration in front of `backend`, with further lines; nothing runs yet.
    #[track_caller]
    pub(crate) fn configured(backend: SocketAddr, more: &str) -> Self {
        let daemon = Daemon { address: free_address(), admin: free_address(), backend, dir: TempDir::new().unwrap() };
        daemon.configure(&[daemon.address], more);
        daemon
    }

    /// The same, running.
    #[track_caller]
    pub(crate) fn start(backend: SocketAddr, more: &str) -> Self {
        let daemon = Self::configured(backend, more);
        let started = daemon.run(&["run", "-d"]);
        assert_eq!(started.code, Some(0), "{started:?}");
        daemon
    }

    /// Writes the configuration anew, with these listeners and lines.
    #[track_caller]
    pub(crate) fn configure(&self, listeners: &[SocketAddr], more: &str) {
        let listeners: Vec<_> = listeners.iter().map(|address| format!("{{address: \"{address}\"}}")).collect();
        self.configure_listeners(&listeners, more);
    }

    /// The same, with these listeners as they stand in the file.
    #[track_caller]
    pub(crate) fn configure_listeners(&self, listeners: &[String], more: &str) {
        let pingora =
            if more.contains("pingora:") { String::new() } else { format!("pingora: {}\n", Self::pingora("")) };
        let log = if more.contains("access_log:") { "" } else { "access_log: {path: access.log}\n" };
        let yaml = format!(
            "listeners: [{}]\nadmin: {{address: \"{}\"}}\ndatabase: data/tollgate.db\n{pingora}\
             {log}upstreams:\n  - {{name: app, backends: [{{address: \"{}\"}}], \
             health_check: {{type: none}}}}\n{more}\n",
            listeners.join(", "),
            self.admin,
            self.backend
        );
        std::fs::write(self.file(), with_way(&yaml)).unwrap();
    }

    /// The keys of `pingora` that a process in this directory needs, and `more`.
    pub(crate) fn pingora(more: &str) -> String {
        format!("{{threads: 2, pid_file: run/a.pid, upgrade_sock: run/a.sock, error_log: error.log{more}}}")
    }

    /// The configuration's file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("tollgate.yaml")
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of a file in its directory; nothing when there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The command with its file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.with_file(command(), arguments)
    }

    /// The same of another binary.
    pub(crate) fn command_of(&self, binary: &Path, arguments: &[&str]) -> Command {
        self.with_file(clean(Command::new(binary)), arguments)
    }

    fn with_file(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.current_dir(self.dir.path()).args(arguments).arg("-c").arg(self.file());
        command
    }

    /// Runs the command to its end, and to the end of what it has opened.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        process::run(&mut self.command(arguments))
    }

    /// Upgrades with the command, and returns the old and the new process id.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> (i32, i32) {
        let old = self.pid();
        let upgraded = self.run(&["upgrade"]);
        assert_eq!(upgraded.code, Some(0), "{upgraded:?}\n{}", self.text("error.log"));
        let new = self.pid();
        assert_eq!(upgraded.out, format!("upgraded: pid {old} -> {new}\n"), "{upgraded:?}");
        (old, new)
    }

    /// Upgrades by hand, in two steps, until the new one serves.
    #[track_caller]
    pub(crate) fn upgrade_by_hand(&self) {
        self.upgrade_by_hand_when(|| ());
    }

    /// The same, where `ready` is called once the new process waits for the old one.
    #[track_caller]
    pub(crate) fn upgrade_by_hand_when(&self, ready: impl FnOnce()) {
        let old = self.pid();
        let started = self.run(&["-d", "-u"]);
        assert_eq!(started.code, Some(0), "{started:?}");
        ready();
        signal(old, Signal::SIGQUIT);
        assert!(eventually(PATIENCE, || self.try_pid().is_some_and(|pid| pid != old)), "{}", self.text("error.log"));
    }

    /// The process id in the pid file.
    #[track_caller]
    pub(crate) fn pid(&self) -> i32 {
        self.try_pid().unwrap_or_else(|| panic!("no pid file: {}", self.text("error.log")))
    }

    fn try_pid(&self) -> Option<i32> {
        self.text("run/a.pid").trim().parse().ok()
    }

    /// Sends the running process a signal.
    #[track_caller]
    pub(crate) fn signal(&self, name: Signal) {
        signal(self.pid(), name);
    }

    /// Stops it, and waits until it is gone, and whoever it took over from.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGTERM);
        assert!(eventually(PATIENCE, || self.processes().is_empty()), "{}", self.text("error.log"));
    }

    /// Waits for a line in the error log that holds all of `words`.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, words: &[&str]) {
        let holds = |line: &str| words.iter().all(|word| line.contains(word));
        let there = eventually(PATIENCE, || self.text("error.log").lines().any(holds));
        assert!(there, "no event with {words:?}:\n{}", self.text("error.log"));
    }

    /// Asks the admin API.
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> std::io::Result<Response> {
        ask(&mut Client::try_connect(self.admin)?, method, target, body)
    }

    /// The status of a request with this key.
    #[track_caller]
    pub(crate) fn call(&self, key: &str) -> u16 {
        let headers = [("X-Api-Key", key)];
        Client::connect(self.address).call(&Request::new("GET", "/").headers(&headers)).unwrap().status
    }

    /// The processes that were started with its file.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_of(&self.file())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end_all_of(&self.file());
    }
}

/// The processes that were started with this file.
fn processes_of(file: &Path) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| runs(*pid) && is_of(*pid, file)).collect()
}

/// Kills the processes that were started with this file.
pub(crate) fn end_all_of(file: &Path) {
    // A process may start another one meanwhile.
    eventually(PATIENCE, || {
        let left = processes_of(file);
        for pid in &left {
            // One that has ended meanwhile is as good.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        left.is_empty()
    });
}

/// Sends a signal to a process that a test has started.
#[track_caller]
pub(crate) fn signal(pid: i32, name: Signal) {
    kill(Pid::from_raw(pid), name).unwrap_or_else(|error| panic!("{name} to {pid}: {error}"));
}

/// Whether a process runs; one that has ended and that nobody has waited for does not.
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Whether `file` is an argument of a process.
fn is_of(pid: i32, file: &Path) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| argument == file.as_os_str().as_encoded_bytes())
}
