//! Servers of the test's own process, for what cannot be configured from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tollgate::client::Directory;
use tollgate::config::{self, Overrides};
use tollgate::server::{Server, ServerError, Stop, StopHandle};
use tollgate::telemetry::Tally;
use tollgate::upstream::{Pool, Pools};

use super::backend::Backend;
use super::client::Client;
use super::{PATIENCE, eventually};

/// A server of this process, on a thread of its own.
pub(crate) struct InProcess {
    pub(crate) address: SocketAddr,
    pub(crate) pools: Vec<Arc<Pool>>,
    /// The same, as the metrics want them.
    pub(crate) all_pools: Arc<Pools>,
    /// Where it looks clients up.
    pub(crate) directory: Arc<ArcSwap<Directory>>,
    /// What it counts beside the pools.
    pub(crate) tally: Arc<Tally>,
    stop: StopHandle,
    thread: JoinHandle<Result<(), ServerError>>,
}

impl InProcess {
    /// Runs, without an admin API and with nothing kept, in front of `backends`; `extra` is the pool's further lines,
    /// `limit` a line of the file's top.
    #[track_caller]
    pub(crate) fn start(backends: &[&Backend], extra: &str, limit: &str) -> Self {
        let addresses: Vec<_> = backends.iter().map(|backend| format!("{{address: {}}}", backend.address)).collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tollgate.yaml");
        let yaml = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nadmin: {{address: null}}\ndatabase: null\naccess_log: {{path: {}}}\nupstreams:\n  - name: app\n    \
             backends: [{}]\n    {extra}\n{limit}\n",
            directory.path().join("access.log").display(),
            addresses.join(", "),
        );
        std::fs::write(&file, yaml).unwrap();
        let mut config = config::load(Some(&file), &Overrides::default()).unwrap();
        // Pingora keeps the runtimes of threads that do not steal in a static, by thread, also when the thread has
        // ended and another one has its number. So a server in a process that had one before needs threads that do.
        config.pingora.work_stealing = true;
        // The file cannot ask for any free port; the library can.
        config.listeners = vec!["127.0.0.1:0".parse::<SocketAddr>().unwrap().into()];
        let server = Server::bind(config).unwrap();
        let (clients, tally) = (server.directory(), server.tally());
        let (address, pools, stop) = (server.addresses()[0], server.pools(), StopHandle::new());
        let handle = stop.clone();
        let thread = std::thread::spawn(move || {
            let _directory = directory;
            server.run(Stop::Handle(handle), None)
        });
        let (pools, all_pools) = (pools.all().to_vec(), pools);
        let server = InProcess { address, pools, all_pools, directory: clients, tally, stop, thread };
        assert!(eventually(PATIENCE, || Client::try_connect(address).is_ok()), "it does not listen");
        server
    }

    /// The name of the backend that answers the next request.
    pub(crate) fn backend_of_next_answer(&self) -> String {
        Client::connect(self.address).get("/").unwrap().backend().to_owned()
    }

    /// Stops it and waits for it.
    pub(crate) fn stop(self) {
        self.stop.stop();
        self.thread.join().unwrap().unwrap();
    }
}
