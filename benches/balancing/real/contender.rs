//! The proxies that are loaded, each from a file of its own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::Fallible;
use super::backends::free;

/// A proxy that runs.
pub(crate) struct Contender {
    pub(crate) name: String,
    process: Child,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What stands in the file of a proxy that listens at an address.
type Configured = fn(SocketAddr, &[SocketAddr], &str) -> String;

fn tollgate(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let (line, how) = how.split_once('|').unwrap_or(("", how));
    let backends: Vec<_> = backends.iter().map(|backend| format!("{{address: \"{backend}\"}}")).collect();
    format!(
        "{line}\nlisteners: [{{address: \"{address}\"}}]\nadmin: {{address: null}}\ndatabase: null\naccess_log: {{path: null}}\n\
         rate_limit: {{enabled: false}}\nidentity: {{trusted_proxies: [127.0.0.0/8]}}\nupstreams: [{{name: app, {how}, health_check: {{interval: 200ms}}, \
         backends: [{}]}}]\n",
        backends.join(", ")
    )
}

fn haproxy(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let (balance, server) = how.split_once('|').unwrap_or((how, ""));
    let server = |(place, backend): (usize, &SocketAddr)| {
        format!("  server s{place} {backend} check inter 200ms fall 2 rise 1 {server}\n")
    };
    let servers: String = backends.iter().enumerate().map(server).collect();
    format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  retries 2\n  option redispatch\n  timeout connect 3s\n  timeout queue 1s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  \
         balance {balance}\n{servers}"
    )
}

fn nginx(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let servers: String =
        backends.iter().map(|backend| format!("server {backend} max_fails=1 fail_timeout=1s;")).collect();
    format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null; events {{worker_connections 8192;}}\n\
         http {{access_log off; upstream app {{{how} {servers} keepalive 64;}} server {{listen {address}; \
         location / {{proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";}}}}}}"
    )
}

/// Starts the proxy of this `name`, which is to balance as `how` says.
pub(crate) fn start(name: &str, how: &str, binary: &str, backends: &[SocketAddr]) -> Fallible<Contender> {
    let (directory, address) = (tempfile::tempdir()?, free()?);
    let file = directory.path().join("proxy.yaml");
    let (configured, arguments): (Configured, &[&str]) = match name {
        "tollgate" => (tollgate, &["run", "-c"]),
        "haproxy" => (haproxy, &["-f"]),
        _ => (nginx, &["-p", ".", "-c"]),
    };
    std::fs::write(&file, configured(address, backends, how))?;
    let mut command = Command::new(if name == "tollgate" { binary } else { name });
    command.args(arguments).arg(&file).current_dir(directory.path());
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(Contender { name: format!("{name} {how}"), process, address, _directory: directory })
}
