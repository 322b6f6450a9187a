//! Plain requests that go past Pingora's request loop: connections to backends and their reuse, and what is said over
//! one.

mod exchange;
mod reuse;

use crate::harness::client::{Client, Request};
use crate::harness::played::{Played, Taken};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy with one thread, so that whatever came before a request was noticed before it, in front of one backend.
fn start(keys: &str) -> (Played, Tollgate) {
    start_with(keys, "pingora: {threads: 1}")
}

fn start_with(keys: &str, line: &str) -> (Played, Tollgate) {
    let backend = Played::new();
    let keys = format!("{NO_CHECK}{keys}");
    let server = Setup::default().pool("app", &[backend.address], &keys).line(line).start();
    (backend, server)
}

/// Sends GET and lets `backend` read it.
fn ask(client: &mut Client, backend: &mut Taken) {
    client.send(&Request::new("GET", "/").encode()).unwrap();
    backend.request();
}

/// One exchange after which the proxy keeps the connection to its backend.
fn kept(client: &mut Client, backend: &Played) -> Taken {
    client.send(&Request::new("GET", "/first").encode()).unwrap();
    let (mut taken, _) = backend.take_request();
    taken.send(OK);
    assert_eq!(client.read("GET").unwrap().text(), "ok");
    taken
}
