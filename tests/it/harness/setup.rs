//! Configuration files, put together.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::backend::Backend;
use super::server::{LISTEN, Tollgate};

/// A configuration file in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    tls: String,
    pools: String,
    rest: String,
}

impl Setup {
    /// One pool `app` of these backends; `keys` are the pool's other keys as one YAML flow mapping's inside, such as
    /// `retries: 1, balance: random`.
    pub(crate) fn app(backends: &[Backend], keys: &str) -> Self {
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        Setup::default().pool("app", &addresses, keys)
    }

    /// One more pool of backends with weight 1.
    pub(crate) fn pool(self, name: &str, addresses: &[SocketAddr], keys: &str) -> Self {
        let weighted: Vec<_> = addresses.iter().map(|address| (*address, 1)).collect();
        self.weighted_pool(name, &weighted, keys)
    }

    /// One more pool.
    pub(crate) fn weighted_pool(mut self, name: &str, backends: &[(SocketAddr, u32)], keys: &str) -> Self {
        let backends: Vec<_> =
            backends.iter().map(|(address, weight)| format!("{{address: \"{address}\", weight: {weight}}}")).collect();
        let comma = if keys.is_empty() { "" } else { ", " };
        let _ = writeln!(self.pools, "  - {{name: {name}, backends: [{}]{comma}{keys}}}", backends.join(", "));
        self
    }

    /// Speaks TLS, with `cert.pem` and `key.pem` in `dir`.
    pub(crate) fn tls(mut self, dir: &Path) -> Self {
        let dir = dir.display();
        self.tls = format!(", tls: {{cert: {dir}/cert.pem, key: {dir}/key.pem}}");
        self
    }

    /// One more top-level line.
    pub(crate) fn line(mut self, line: &str) -> Self {
        let _ = writeln!(self.rest, "{line}");
        self
    }

    /// The file. It limits no rates, unless a line of it says what to do with them.
    pub(crate) fn yaml(&self) -> String {
        let unlimited = if self.rest.contains("rate_limit:") { "" } else { UNLIMITED };
        let Setup { tls, pools, rest } = self;
        format!("listeners: [{{address: {LISTEN}{tls}}}]\nupstreams:\n{pools}{rest}{unlimited}")
    }

    /// Runs it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&self) -> Tollgate {
        Tollgate::from_yaml(&self.yaml())
    }
}

/// No limits on rates, which by default are low enough for a test to run into.
pub(crate) const UNLIMITED: &str = "rate_limit: {enabled: false}\n";

/// Checks often and believes each result, so that a test sees a change soon.
pub(crate) const QUICK_TCP: &str =
    "health_check: {type: tcp, interval: 200ms, timeout: 200ms, healthy_threshold: 1, unhealthy_threshold: 1}";

/// The same over HTTP, on the path that scripted backends and `tollgate echo` answer.
pub(crate) const QUICK_HTTP: &str = "health_check: {type: http, path: /health, interval: 200ms, timeout: 200ms, \
                                     healthy_threshold: 1, unhealthy_threshold: 1}";

/// No checks.
pub(crate) const NO_CHECK: &str = "health_check: {type: none}";
