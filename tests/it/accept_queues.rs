//! Backends that are slow to accept: the kernel drops what does not fit into a short queue, and repeats it a second
//! later.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::ports::free_address;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::wire::Wire;
use crate::harness::{PATIENCE, dawdle, eventually};

/// A listener whose queue takes two connections.
fn short_queue() -> TcpListener {
    let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
    // Listening again changes the length of the queue.
    rustix::net::listen(&listener, 1).unwrap();
    listener
}

/// Answers one request after the other, each over a connection of its own, and takes its time.
fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        let mut wire = Wire::new(stream);
        if matches!(wire.head(), Ok(Some(_))) {
            dawdle(Duration::from_millis(5));
            let _ = wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    }
}

#[test]
fn a_short_accept_queue_costs_no_request() {
    let listener = short_queue();
    let address = listener.local_addr().unwrap();
    // It ends with the process.
    std::thread::spawn(move || serve(&listener));
    let server = Setup::default().pool("app", &[address], NO_CHECK).start();
    let ask = || (0..10).map(|_| server.client().get("/").unwrap().status).collect::<Vec<_>>();
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let failed = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!(failed, 0, "of {}: {}", statuses.len(), server.process.err.text());
    assert!(!server.process.err.text().contains("up -> down"), "{}", server.process.err.text());
}

/// Connections that fill the queue of the listener there.
fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    std::iter::from_fn(connect).collect()
}

#[test]
fn connections_that_time_out_together_are_no_row_and_those_one_after_the_other_are() {
    let listener = short_queue();
    let (full, live) = (listener.local_addr().unwrap(), Backend::scripted("live"));
    let _waiting = fill(full);
    let keys = format!("connect_timeout: 900ms, retries: 1, {NO_CHECK}");
    let server = Setup::default().pool("app", &[full, live.address], &keys).start();
    // All of them are sent before any is answered.
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send(&Request::new("GET", "/").encode()).unwrap());
    for client in &mut clients {
        assert_eq!(client.read("GET").unwrap().status, 200);
    }
    let taken_out = || server.process.err.text().contains("up -> down");
    assert!(!taken_out(), "{}", server.process.err.text());
    let attempts: Vec<_> = server.access_lines(100).iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    assert!(attempts.iter().filter(|attempts| **attempts == 2).count() >= 40, "{attempts:?}");
    let mut client = Client::connect(server.address);
    let one_more = || client.get("/").unwrap().status == 200 && taken_out();
    assert!(eventually(PATIENCE, one_more), "{}", server.process.err.text());
}
