//! A backend that writes header and body apart, with Nagle's algorithm on: its body waits for the acknowledgement of
//! its header, which a kernel puts off by 40 ms unless it is told not to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::client::Request;
use crate::harness::now;
use crate::harness::ports::free_address;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::way::differs;

/// Far from what a request takes, and far from what a kernel puts an acknowledgement off.
const PUT_OFF: Duration = Duration::from_millis(25);
const ASKED: usize = 21;

/// A backend that answers each request by these writes.
fn backend(writes: &'static [&'static [u8]]) -> SocketAddr {
    let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
    let address = listener.local_addr().unwrap();
    // They end with the process, or with the proxy.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || answer(stream, writes).ok());
        }
    });
    address
}

fn answer(mut stream: TcpStream, writes: &[&[u8]]) -> std::io::Result<()> {
    let (mut asked, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => asked.extend_from_slice(&part[..read]),
        }
        if asked.ends_with(b"\r\n\r\n") {
            asked.clear();
            for write in writes {
                stream.write_all(write)?;
            }
        }
    }
}

/// How long the middle one of some requests over one connection takes.
fn median(writes: &'static [&'static [u8]]) -> Duration {
    let server = Setup::default().pool("app", &[backend(writes)], NO_CHECK).line("pingora: {threads: 1}").start();
    let mut client = server.client();
    let mut times: Vec<_> = (0..ASKED)
        .map(|_| {
            let start = now();
            client.send(&Request::new("GET", "/").encode()).unwrap();
            assert_eq!(client.read("GET").unwrap().text(), "hello");
            now() - start
        })
        .collect();
    times.sort_unstable();
    times[ASKED / 2]
}

#[test]
fn a_body_that_comes_apart_from_its_header_comes_at_once() {
    if differs() {
        return;
    }
    let median = median(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"]);
    assert!(median < PUT_OFF, "{median:?}");
}

#[test]
fn one_in_chunks_does_so_too() {
    if differs() {
        return;
    }
    let median = median(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"]);
    assert!(median < PUT_OFF, "{median:?}");
}
