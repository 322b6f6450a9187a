//! The server under test: the real binary on a free port, with what it writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, Response};
use super::instance::{ask, is_ready};
use super::ports::free_address;
use super::process::{Finished, Process};
use super::way::with_way;
use super::{PATIENCE, eventually};

/// Stands for the listener's address in arguments and files.
pub(crate) const LISTEN: &str = "$LISTEN";

/// Stands for the admin API's address.
pub(crate) const ADMIN: &str = "$ADMIN";

/// The binary: what `TOLLGATE_TEST_BINARY` names, for a build of another profile, or what was built with the tests.
fn binary() -> PathBuf {
    std::env::var_os("TOLLGATE_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tollgate").into(), PathBuf::from)
}

/// The binary with a clean environment, in a directory where a stray file does no harm.
pub(crate) fn command() -> Command {
    clean(Command::new(binary()))
}

/// The same, with at most so many open files.
fn command_with_files(files: u32) -> Command {
    let mut command = clean(Command::new("sh"));
    command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &files.to_string()]).arg(binary());
    command
}

/// A command without what the environment says to tollgate, in a directory where a stray file does no harm.
pub(crate) fn clean(mut command: Command) -> Command {
    for name in std::env::vars_os().map(|(name, _)| name) {
        let text = name.to_string_lossy();
        if text.starts_with("TOLLGATE_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.current_dir(std::env::temp_dir()).env("TOLLGATE_LOG", "info");
    command
}

/// A running `tollgate run`; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Tollgate {
    pub(crate) address: SocketAddr,
    /// Where its admin API listens, unless the test's own lines or arguments say something else.
    pub(crate) admin: SocketAddr,
    pub(crate) process: Process,
    dir: TempDir,
    unread: Option<ChildStdout>,
}

impl Tollgate {
    /// Runs with a configuration file in which [`LISTEN`] stands for the listener's address, [`ADMIN`] for the admin
    /// API's and
    /// `$DIR` for a directory of its own.
    #[track_caller]
    pub(crate) fn from_yaml(yaml: &str) -> Self {
        Self::start(yaml, &["run", "-c", "$FILE"], &[], false)
    }

    /// The same, with a standard output that nobody reads.
    #[track_caller]
    pub(crate) fn with_stuck_output(yaml: &str) -> Self {
        Self::start(yaml, &["run", "-c", "$FILE"], &[], true)
    }

    /// The same, with at most so many open files.
    #[track_caller]
    pub(crate) fn with_few_files(yaml: &str, files: u32) -> Self {
        Self::start_with(|| command_with_files(files), yaml, &["run", "-c", "$FILE"], &[], false)
    }

    /// Runs with these arguments and variables; the same words stand for the same in both.
    #[track_caller]
    pub(crate) fn from_args(args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start("", args, variables, false)
    }

    /// Runs with a file, arguments and variables; `$FILE` stands for the file's path in the arguments.
    #[track_caller]
    pub(crate) fn start(yaml: &str, args: &[&str], variables: &[(&str, &str)], stuck: bool) -> Self {
        Self::start_with(command, yaml, args, variables, stuck)
    }

    #[track_caller]
    fn start_with(
        command: impl Fn() -> Command,
        yaml: &str,
        args: &[&str],
        variables: &[(&str, &str)],
        stuck: bool,
    ) -> Self {
        // A port may be taken between finding it free and listening on it; the third time it is no accident.
        let mut refused = String::new();
        for _ in 0..3 {
            match Self::try_start(command(), yaml, args, variables, stuck) {
                Ok(server) => return server,
                Err(Finished { code: Some(1), err, .. }) if err.contains("in use") => refused = err,
                Err(finished) => panic!("tollgate {args:?} ended instead of listening: {finished:?}\n{yaml}"),
            }
        }
        panic!("no free port: {refused}");
    }

    #[track_caller]
    fn try_start(
        command: Command,
        yaml: &str,
        args: &[&str],
        variables: &[(&str, &str)],
        stuck: bool,
    ) -> Result<Self, Finished> {
        let (mut server, started) = Self::launch_with(command, yaml, args, variables, stuck);
        let (address, admin) = (server.address, server.admin);
        // The admin API's word is its own, whoever else took one of the two ports meanwhile.
        let tells = yaml.contains(ADMIN) || !yaml.contains("admin:");
        let ready = || if tells { is_ready(admin) } else { Client::try_connect(address).is_ok() };
        let serves = eventually(PATIENCE, || !server.process.is_running() || ready());
        if !server.process.is_running() {
            return Err(server.process.wait_exit(PATIENCE));
        }
        assert!(serves, "{started} does not serve on {address}: {}", server.process.err.text());
        Ok(server)
    }

    /// Starts without waiting for anything.
    #[track_caller]
    pub(crate) fn launch(yaml: &str, args: &[&str], variables: &[(&str, &str)], stuck: bool) -> (Self, String) {
        Self::launch_with(command(), yaml, args, variables, stuck)
    }

    #[track_caller]
    fn launch_with(
        mut command: Command,
        yaml: &str,
        args: &[&str],
        variables: &[(&str, &str)],
        stuck: bool,
    ) -> (Self, String) {
        let (address, admin) = (free_address(), free_address());
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("tollgate.yaml");
        let fill = |text: &str| {
            let dir = dir.path().to_str().unwrap();
            let text = text.replace(LISTEN, &address.to_string()).replace(ADMIN, &admin.to_string());
            text.replace("$FILE", file.to_str().unwrap()).replace("$DIR", dir)
        };
        std::fs::write(&file, with_way(&fill(yaml))).unwrap();
        command.current_dir(dir.path());
        // No two servers on one port or one database, whatever the test does not care to say.
        let own = [("admin:", "TOLLGATE_ADMIN", ADMIN), ("database:", "TOLLGATE_DATABASE", "$DIR/tollgate.db")];
        let own = own.iter().filter(|(key, ..)| !yaml.contains(key)).map(|(_, name, value)| (*name, *value));
        let variables = own.chain(variables.iter().copied()).map(|(name, value)| (name, fill(value)));
        command.args(args.iter().map(|arg| fill(arg))).envs(variables);
        let started = format!("{command:?}");
        let (process, unread) = if stuck {
            let (process, unread) = Process::start_unread(&mut command);
            (process, Some(unread))
        } else {
            (Process::start(&mut command), None)
        };
        (Tollgate { address, admin, process, dir, unread }, started)
    }

    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Writes its configuration file anew, in which the same words stand for the same as before.
    #[track_caller]
    pub(crate) fn rewrite(&self, yaml: &str) {
        let dir = self.dir.path().to_str().unwrap();
        let text = yaml.replace(LISTEN, &self.address.to_string()).replace(ADMIN, &self.admin.to_string());
        std::fs::write(self.path("tollgate.yaml"), with_way(&text.replace("$DIR", dir))).unwrap();
    }

    /// Asks its admin API.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> Response {
        ask(&mut Client::connect(self.admin), method, target, body).unwrap()
    }

    /// A path in its own directory, which is `$DIR` in the file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Begins to read a standard output that nobody read so far.
    pub(crate) fn unstick(&mut self) {
        self.process.out.follow(self.unread.take().expect("started with a stuck output"));
    }

    /// Closes a standard output that nobody read.
    pub(crate) fn close_output(&mut self) {
        self.unread = None;
    }

    /// Waits for an event that holds all of `words`, and returns its line.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, words: &[&str], limit: Duration) -> String {
        self.process.err.wait_for(words, limit)
    }

    /// Waits for `count` lines in the access log on standard output and returns them all, parsed.
    #[track_caller]
    pub(crate) fn access_lines(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} access lines");
        let lines = self.process.out.wait(&what, PATIENCE, |lines| lines.len() >= count);
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Whether it is alive and answers on a fresh connection, whatever the answer.
    pub(crate) fn answers(&mut self) -> bool {
        self.process.is_running() && Client::try_connect(self.address).is_ok_and(|mut c| c.get("/alive").is_ok())
    }
}
