//! A backend that closes idle connections: when it does is learned and told, and no request that may not be repeated is
//! on its way at that moment.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Client, Request};
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, dawdle, eventually, now};

/// Older than this, a connection's requests are lost: the backend is about to close it.
const DEAF: Duration = Duration::from_millis(1200);
/// When it closes it.
const CLOSES: Duration = Duration::from_millis(1300);
const REQUESTS: usize = 50;

/// A backend that closes idle connections. `GET /together` is answered once all of them are there. What a POST came
/// over is not kept, and its answer says whether it was the first request there.
fn backend() -> SocketAddr {
    let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
    let (address, together) = (listener.local_addr().unwrap(), Arc::new(Barrier::new(REQUESTS)));
    // They end with the process, or with the proxy.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let together = Arc::clone(&together);
            std::thread::spawn(move || serve(stream, &together).ok());
        }
    });
    address
}

fn serve(mut stream: TcpStream, together: &Barrier) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = true;
    loop {
        let idle = now();
        stream.set_read_timeout(Some(if first { PATIENCE } else { CLOSES }))?;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut part = [0; 4096];
            match stream.read(&mut part)? {
                0 => return Ok(()),
                read => asked.extend_from_slice(&part[..read]),
            }
        }
        if !first && idle.elapsed() > DEAF {
            return Err(ErrorKind::TimedOut.into());
        }
        if asked.starts_with(b"GET /together") {
            together.wait();
        }
        let (body, connection) = match (asked.starts_with(b"POST"), first) {
            (false, _) => ("asked", "keep-alive"),
            (true, true) => ("first", "close"),
            (true, false) => ("again", "close"),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes())?;
        first = false;
    }
}

fn start(backend: SocketAddr) -> Tollgate {
    Setup::default().pool("app", &[backend], NO_CHECK).line("pingora: {threads: 1}").start()
}

fn closes_after(server: &Tollgate) -> Value {
    server.ask("GET", "/upstreams", "").json()["items"][0]["backends"][0]["idle_closes_after_ms"].clone()
}

#[test]
fn when_a_backend_closes_idle_connections_is_learned_and_no_post_is_lost() {
    let server = start(backend());
    assert_eq!(closes_after(&server), Value::Null);
    let learned = eventually(PATIENCE, || {
        server.client().get("/").unwrap();
        // Until the connection over which that went is closed.
        dawdle(CLOSES + Duration::from_millis(100));
        closes_after(&server) != Value::Null
    });
    assert!(learned);
    let learned = closes_after(&server).as_u64().unwrap();
    assert!((1250..1800).contains(&learned), "{learned}");
    let asks = || {
        let mut client = server.client();
        client.send(&Request::new("GET", "/together").encode()).unwrap();
        client
    };
    let mut clients: Vec<_> = std::iter::repeat_with(asks).take(REQUESTS).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().status, 200));
    // From connections that are young enough to ones that are closed.
    let start = now();
    let mut first = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        let age = Duration::from_millis(400 + 20 * n as u64);
        dawdle((start + age).saturating_duration_since(now()));
        let answer = client.call(&Request::new("POST", "/")).unwrap();
        assert_eq!(answer.status, 200, "at {age:?}: {}", server.access_lines(1).last().unwrap());
        first += usize::from(answer.text() == "first");
        if age >= DEAF - Duration::from_millis(200) {
            assert_eq!(answer.text(), "first", "at {age:?}");
        }
    }
    assert!(first < REQUESTS, "young connections are used");
}

#[test]
fn what_closes_right_after_its_answers_teaches_nothing() {
    let address = {
        let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        address
    };
    let server = start(address);
    let mut client = Client::connect(server.address);
    for _ in 0..200 {
        assert_eq!(client.get("/").unwrap().status, 200);
        dawdle(Duration::from_millis(5));
    }
    assert_eq!(closes_after(&server), Value::Null);
}
