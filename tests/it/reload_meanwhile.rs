//! Reloads that a stop overtakes.

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::daemon::Daemon;
use crate::harness::process::Process;
use crate::harness::{PATIENCE, eventually};

/// A pool of this backend, whose check lasts until `check` is released there.
fn slow(backend: &Backend) -> String {
    format!(
        "  - {{name: slow, backends: [{{address: \"{}\"}}], health_check: {{type: http, path: \"/?hold=check\", \
         interval: 1h, timeout: 1m}}}}\nroutes: [{{path: /, upstream: app}}]",
        backend.address
    )
}

#[test]
fn a_stop_refuses_reloads_and_says_so() {
    let backend = Backend::scripted("a");
    let daemon = Daemon::configured(backend.address, "");
    let mut process = Process::start(&mut daemon.command(&["run"]));
    assert!(eventually(PATIENCE, || Client::try_connect(daemon.address).is_ok()), "{}", process.err.text());
    // This one keeps the process alive while it drains.
    let mut held = Client::connect(daemon.address);
    held.send(&Request::new("GET", "/?hold=request").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.held("request") == 1));
    daemon.configure(&[daemon.address], &slow(&backend));
    let refused = |answer: Response| {
        let told = answer.text().contains("the old one stays in force: the server is draining");
        assert!(answer.status == 503 && told && answer.json().get("errors").is_none(), "{answer:?}");
    };
    std::thread::scope(|scope| {
        let overtaken = scope.spawn(|| daemon.ask("POST", "/config/reload", "").unwrap());
        assert!(eventually(PATIENCE, || backend.held("check") == 1));
        process.signal("TERM");
        assert!(eventually(PATIENCE, || daemon.ask("GET", "/readyz", "").is_ok_and(|answer| answer.status == 503)));
        backend.release("check");
        refused(overtaken.join().unwrap());
    });
    refused(daemon.ask("POST", "/config/reload", "").unwrap());
    let pools = daemon.ask("GET", "/upstreams", "").unwrap().text();
    assert!(!pools.contains("slow"), "{pools}");
    backend.release("request");
    assert_eq!(held.read("GET").unwrap().status, 200);
    assert_eq!(process.wait_exit(PATIENCE).code, Some(0));
}
