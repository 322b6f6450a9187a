//! A real certificate authority that speaks ACME: Let's Encrypt's Pebble, with a name server for which every name is
//! this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::authority::Authority;
use super::client::Client;
use super::ports::free_address;
use super::process::{Process, run};
use super::tls::NOW;
use super::{PATIENCE, eventually};

/// A running Pebble; dropping it kills it. It proves names for itself each time, and refuses one nonce in a hundred: where it
/// is five, as ever, some order in a thousand meets three in a row, upon which the client tries it again after a minute.
#[derive(Debug)]
pub(crate) struct Pebble {
    process: Process,
    /// The address of its directory.
    pub(crate) directory: String,
    management: SocketAddr,
    dir: TempDir,
    _names: Process,
}

impl Pebble {
    /// Looks for names at these ports, HTTP-01 at the first, TLS-ALPN-01 at the second; its certificates are valid for
    /// so many seconds.
    #[track_caller]
    pub(crate) fn start(http: SocketAddr, tls: SocketAddr, seconds: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let (listens, management, names, control) = (free_address(), free_address(), free_address(), free_address());
        let authority = Authority::new("of Pebble's own certificate");
        authority.write(dir.path(), "ca");
        let (cert, key) = authority.sign(&["127.0.0.1"], NOW).write(dir.path(), "pebble");
        let config = serde_json::json!({"pebble": {
            "listenAddress": listens, "managementListenAddress": management, "certificate": cert, "privateKey": key,
            "httpPort": http.port(), "tlsPort": tls.port(), "certificateValidityPeriod": seconds,
        }});
        let file = dir.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let resolver = start("pebble-challtestsrv", |command| {
            command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
            command.args(["-dns01", &names.to_string(), "-management", &control.to_string()]);
        });
        let mut process = start("pebble", |command| {
            command.arg("-config").arg(&file).args(["-strict", "-dnsserver", &names.to_string()]);
            command.env_remove("PEBBLE_VA_ALWAYS_VALID").envs([
                ("PEBBLE_VA_NOSLEEP", "1"),
                ("PEBBLE_AUTHZREUSE", "0"),
                ("PEBBLE_WFE_NONCEREJECT", "1"),
            ]);
        });
        let serves = |address: SocketAddr| Client::try_connect(address).is_ok();
        let up = || [listens, management, control].into_iter().all(serves);
        let up = eventually(PATIENCE, || !process.is_running() || up());
        assert!(up && process.is_running(), "Pebble does not serve: {}{}", process.out.text(), process.err.text());
        Pebble { process, directory: format!("https://{listens}/dir"), management, dir, _names: resolver }
    }

    /// The file with the authority that has signed Pebble's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A file with the root of what Pebble signs.
    #[track_caller]
    pub(crate) fn root(&self) -> PathBuf {
        let file = self.dir.path().join("root.pem");
        let url = format!("https://{}/roots/0", self.management);
        let got = run(Command::new("curl").args(["-sSf", "--cacert"]).arg(self.ca()).arg("-o").arg(&file).arg(url));
        assert_eq!(got.code, Some(0), "{got:?}");
        file
    }

    /// How many orders there were. A call whose nonce was refused is sent again, and is none.
    pub(crate) fn orders(&self) -> usize {
        self.told().matches("Added order ").count()
    }

    /// How many accounts there were.
    pub(crate) fn accounts(&self) -> usize {
        self.told().matches(" accounts in memory").count()
    }

    /// What it has written.
    pub(crate) fn told(&self) -> String {
        format!("{}{}", self.process.out.text(), self.process.err.text())
    }
}

#[track_caller]
fn start(name: &str, prepare: impl Fn(&mut Command)) -> Process {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|place| Path::is_file(&place.join(name)));
    assert!(found, "{name} is missing: `make setup-tests` installs it on Debian and Ubuntu");
    let mut command = Command::new(name);
    prepare(&mut command);
    Process::start(&mut command)
}
