//! Two servers in one process do not share anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tollgate::config::{self, Overrides};
use tollgate::server::{Server, ServerError, Stop, StopHandle};
use tollgate::upstream::Pool;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::{PATIENCE, eventually};

/// A server of this process, on a thread of its own.
struct InProcess {
    address: SocketAddr,
    pools: Vec<Arc<Pool>>,
    stop: StopHandle,
    thread: JoinHandle<Result<(), ServerError>>,
}

impl InProcess {
    fn start(backends: &[&Backend], extra: &str) -> Self {
        let addresses: Vec<_> = backends.iter().map(|backend| format!("{{address: {}}}", backend.address)).collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tollgate.yaml");
        let yaml = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\naccess_log: {{path: {}}}\nupstreams:\n  - name: app\n    \
             backends: [{}]\n    {extra}\n",
            directory.path().join("access.log").display(),
            addresses.join(", "),
        );
        std::fs::write(&file, yaml).unwrap();
        let mut config = config::load(Some(&file), &Overrides::default()).unwrap();
        // The file cannot ask for any free port; the library can.
        config.listeners = vec!["127.0.0.1:0".parse().unwrap()];
        let server = Server::bind(config).unwrap();
        let (address, pools, stop) = (server.addresses()[0], server.pools().to_vec(), StopHandle::new());
        let handle = stop.clone();
        let thread = std::thread::spawn(move || {
            let _directory = directory;
            server.run(Stop::Handle(handle), None)
        });
        let server = InProcess { address, pools, stop, thread };
        assert!(eventually(PATIENCE, || Client::try_connect(address).is_ok()), "it does not listen");
        server
    }

    fn backend_of_next_answer(&self) -> String {
        Client::connect(self.address).get("/").unwrap().backend().to_owned()
    }

    fn stop(self) {
        self.stop.stop();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn two_servers_in_one_process_share_nothing() {
    let (mut a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let checks = "health_check: {interval: 100ms, unhealthy_threshold: 1}";
    let (first, second) = (InProcess::start(&[&a], checks), InProcess::start(&[&b], checks));
    for _ in 0..10 {
        assert_eq!((first.backend_of_next_answer().as_str(), second.backend_of_next_answer().as_str()), ("a", "b"));
    }
    // Pools of one name, each with a health of its own.
    a.kill();
    let status = |server: &InProcess| Client::connect(server.address).get("/").unwrap().status;
    assert!(eventually(PATIENCE, || status(&first) == 503 && !first.pools[0].backends()[0].is_ready()));
    assert_eq!(status(&second), 200);
    // One stops, the other does not notice.
    first.stop();
    for _ in 0..10 {
        assert_eq!(second.backend_of_next_answer(), "b");
    }
    second.stop();
}

#[test]
fn every_counter_is_zero_after_a_storm_of_aborts_errors_and_retries() {
    let mut backends = [Backend::scripted("a"), Backend::scripted("b")];
    let extra = "balance: least_connections\n    retries: 1\n    read_timeout: 300ms\n    health_check: {type: none}";
    let server = InProcess::start(&[&backends[0], &backends[1]], extra);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let address = server.address;
            scope.spawn(move || {
                for round in 0..40 {
                    let Ok(mut client) = Client::try_connect(address) else { continue };
                    let request = match (number + round) % 4 {
                        0 => "GET /?delay_ms=50 HTTP/1.1\r\nHost: a\r\n\r\n",
                        1 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart",
                        2 => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
                        _ => "GET /?bytes=500000 HTTP/1.1\r\nHost: a\r\n\r\n",
                    };
                    let _ = client.send(request.as_bytes());
                    if round % 3 == 0 {
                        let _ = client.read("GET");
                    }
                    // Otherwise the client leaves in the middle.
                }
            });
        }
        for _ in 0..3 {
            backends[0].kill();
            backends[0].restart();
        }
    });
    let in_flight = || server.pools[0].backends().iter().map(|backend| backend.in_flight()).sum::<usize>();
    assert!(eventually(PATIENCE, || in_flight() == 0), "{} requests are still counted", in_flight());
    server.stop();
}
