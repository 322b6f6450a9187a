//! Backends in processes of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Request};
use super::ports::free_address;
use super::process::Process;
use super::{PATIENCE, eventually, scripted, server};

/// A backend; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    kind: Kind,
    process: Process,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Echo,
    Scripted,
    /// On all addresses of this machine.
    Everywhere,
}

impl Backend {
    /// `tollgate echo`.
    #[track_caller]
    pub(crate) fn echo(name: &str) -> Self {
        Self::new(Kind::Echo, name)
    }

    /// The scripted backend.
    #[track_caller]
    pub(crate) fn scripted(name: &str) -> Self {
        Self::new(Kind::Scripted, name)
    }

    /// The scripted backend on all addresses of this machine.
    #[track_caller]
    pub(crate) fn scripted_everywhere(name: &str) -> Self {
        Self::new(Kind::Everywhere, name)
    }

    #[track_caller]
    fn new(kind: Kind, name: &str) -> Self {
        // A port may be taken between finding it free and listening on it; the third time it is no accident.
        let mut refused = String::new();
        for _ in 0..3 {
            let address = free_address();
            match try_start(kind, name, address) {
                Ok(process) => return Backend { name: name.to_owned(), address, kind, process },
                Err(why) if why.contains("in use") => refused = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no free port: {refused}");
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its address.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = start(self.kind, &self.name, self.address);
    }

    /// Asks a scripted backend past the proxy.
    #[track_caller]
    pub(crate) fn control(&self, command: &str) -> Value {
        Client::connect(self.address).get(&format!("/-/{command}")).unwrap().json()
    }

    /// How often a scripted backend has seen `METHOD /path`.
    #[track_caller]
    pub(crate) fn count(&self, request: &str) -> usize {
        self.seen().iter().filter(|seen| *seen == request).count()
    }

    /// Every request that a scripted backend has seen, as `METHOD /path`.
    #[track_caller]
    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = self.control("seen");
        seen.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    }

    /// How many requests a scripted backend holds under this key.
    #[track_caller]
    pub(crate) fn held(&self, key: &str) -> u64 {
        self.control(&format!("held={key}")).as_u64().unwrap()
    }

    /// Lets a scripted backend answer what it holds under this key, now and from now on.
    #[track_caller]
    pub(crate) fn release(&self, key: &str) {
        self.control(&format!("release={key}"));
    }
}

/// Three scripted backends a, b, c.
#[track_caller]
pub(crate) fn three_scripted() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::scripted)
}

/// Three echo backends a, b, c.
#[track_caller]
pub(crate) fn three_echoes() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::echo)
}

/// How often the backends have seen `METHOD /path` in all.
#[track_caller]
pub(crate) fn count_all(backends: &[Backend], request: &str) -> usize {
    backends.iter().map(|backend| backend.count(request)).sum()
}

fn scripted_command(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "backend_process", "--nocapture"]);
    command.env(scripted::SPEC, format!("{name} {address}"));
    command
}

#[track_caller]
fn start(kind: Kind, name: &str, address: SocketAddr) -> Process {
    try_start(kind, name, address).unwrap_or_else(|why| panic!("{why}"))
}

fn try_start(kind: Kind, name: &str, address: SocketAddr) -> Result<Process, String> {
    let mut command = match kind {
        Kind::Echo => {
            let mut command = server::command();
            command.args(["echo", "--listen", &address.to_string(), "--name", name]);
            command
        }
        Kind::Scripted => scripted_command(name, address),
        Kind::Everywhere => scripted_command(name, (Ipv4Addr::UNSPECIFIED, address.port()).into()),
    };
    let mut process = Process::start(&mut command);
    let is_up = |limit: Duration| {
        let Ok(mut client) = Client::try_connect(address) else { return false };
        client.set_timeout(limit);
        client.call(&Request::new("GET", "/health")).is_ok_and(|response| response.status == 200)
    };
    let up = eventually(PATIENCE, || is_up(PATIENCE) || !process.is_running());
    if up && process.is_running() {
        return Ok(process);
    }
    process.kill();
    Err(format!("backend {name} on {address} does not answer: {}", process.err.text()))
}
