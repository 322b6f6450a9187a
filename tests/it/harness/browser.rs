//! A real browser: Chromium, without a window.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, tell_skipped};
use super::tls::NAME;

/// A browser with one page; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Opens the page at `path` of the TLS listener at `address`, whatever its certificate. `None`, which is told,
    /// where there is no browser.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Option<Self> {
        let Some(chromium) = find() else {
            tell_skipped("Chromium");
            return None;
        };
        let profile = TempDir::new().unwrap();
        let mut command = Command::new(chromium);
        // No sandbox, which root may not have.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND"));
        command.arg(format!("https://{NAME}:{}{path}", address.port()));
        Some(Browser { process: Process::start(&mut command), _profile: profile })
    }
}

/// Where it is, if it is.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().flat_map(|name| places.iter().map(move |place| place.join(name))).find(|file| Path::is_file(file))
}
