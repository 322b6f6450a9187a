//! A real HAProxy, in front of the server or behind it.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::client::Client;
use super::process::Process;
use super::{PATIENCE, eventually};

/// Where a distribution puts it, beside what is on the path.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// A running HAProxy; dropping it kills it.
#[derive(Debug)]
pub(crate) struct HaProxy {
    /// Its own log and what it says are in there.
    #[expect(dead_code, reason = "it ends with this")]
    process: Process,
    _dir: TempDir,
}

impl HaProxy {
    /// Runs with these lines behind timeouts that no test comes to, and waits until it takes connections at `listens`.
    #[track_caller]
    pub(crate) fn start(sections: &str, listens: std::net::SocketAddr) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("haproxy.cfg");
        let defaults =
            "global\n  maxconn 200\ndefaults\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n";
        std::fs::write(&file, format!("{defaults}{sections}\n")).unwrap();
        let mut process = Process::start(Command::new(binary()).arg("-db").arg("-f").arg(&file));
        let takes = || Client::try_connect(listens).is_ok();
        let up = eventually(PATIENCE, || !process.is_running() || takes());
        assert!(up && process.is_running(), "HAProxy does not serve: {}\n{sections}", process.err.text());
        HaProxy { process, _dir: dir }
    }
}

#[track_caller]
fn binary() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    let found = places.map(|place| place.join("haproxy")).find(|file| file.is_file());
    found.expect("haproxy is missing: `make setup-tests` installs it on Debian and Ubuntu")
}
