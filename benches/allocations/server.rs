//! The real server, in this process.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use tempfile::TempDir;
use tollgate::config::{self, Overrides};
use tollgate::server::{Server, ServerError, Stop, StopHandle};

use crate::cases::Settings;

/// The name in the certificate, and in every request.
pub(crate) const NAME: &str = "bench.example";

/// A certificate and its key, in files.
pub(crate) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// A fresh one, which is its own root.
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
        let files = [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())];
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file can be written");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        }
        Certificate { directory }
    }

    /// Where the certificate is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }
}

/// A server that is measured.
pub(crate) struct Measured {
    /// Its listener without TLS.
    pub(crate) plain: SocketAddr,
    /// Its listener with TLS.
    pub(crate) tls: SocketAddr,
    stop: StopHandle,
    thread: JoinHandle<Result<(), ServerError>>,
    _directory: TempDir,
}

impl Measured {
    /// Runs one on free ports in front of `backend`, with one thread.
    pub(crate) fn start(settings: Settings, backend: SocketAddr, certificate: &Certificate) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("access.log");
        let (limits, log) = match settings {
            Settings::Limits => (plenty(), "null".to_owned()),
            Settings::Bare => ("{enabled: false}".to_owned(), "null".to_owned()),
            Settings::Log => (plenty(), log.display().to_string()),
            Settings::Refusing => ("{default: {capacity: 1, rate_per_sec: 0.000001}}".to_owned(), "null".to_owned()),
        };
        let (certificate, key) = (certificate.path(), certificate.directory.path().join("key.pem"));
        let (certificate, key) = (certificate.display(), key.display());
        let file = directory.path().join("tollgate.yaml");
        // One server after the other in one process needs threads that steal; see the setting's documentation.
        let text = format!(
            "listeners:\n  - {{address: 127.0.0.1:1}}\n  - {{address: 127.0.0.1:2, tls: {{cert: {certificate}, key: {key}}}}}\n\
             pingora: {{threads: 1, work_stealing: true}}\nadmin: {{address: null}}\ndatabase: null\naccess_log: {{path: {log}, format: json}}\n\
             rate_limit: {limits}\n\
             upstreams: [{{name: app, health_check: {{type: none}}, backends: [{{address: \"{backend}\"}}]}}]\n"
        );
        std::fs::write(&file, text).expect("a file can be written");
        let mut config =
            config::load(Some(&file), &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
        // The file cannot ask for any free port; the library can.
        for listener in &mut config.listeners {
            listener.address.set_port(0);
        }
        let server = Server::bind(config).expect("ports are free");
        let (addresses, stop) = (server.addresses(), StopHandle::new());
        let handle = stop.clone();
        let thread = std::thread::spawn(move || server.run(Stop::Handle(handle), None));
        Measured { plain: addresses[0], tls: addresses[1], stop, thread, _directory: directory }
    }

    /// Stops it and waits for it.
    pub(crate) fn stop(self) {
        self.stop.stop();
        self.thread.join().expect("it does not panic").expect("it ends as asked");
    }
}

fn plenty() -> String {
    "{default: {capacity: 1000000000, rate_per_sec: 1000000000}}".to_owned()
}
