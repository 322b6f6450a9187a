//! Header sections that clients do not take: interim answers without end, and trailers behind bodies that nobody reads.
//! Nothing holds a backend back that sends them, so what is held of them has a bound of its own.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::http2::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, SETTINGS, encode};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NAME, NOW, write_pair};
use crate::harness::way::differs;
use crate::harness::wire::Wire;
use crate::harness::{PATIENCE, eventually};
use crate::http2_hostile_backend::{MOST_KIB, OK, begin_anew, listen, most_resident, pattern};

/// How many answers are asked for over one connection.
const STREAMS: usize = 100;
/// `accept-charset` without a value, as HPACK has it in a byte.
const FIELD: u8 = 0x8f;

/// A proxy of one thread, over TLS if it is `secure`, before the backend at `address` and a good one.
fn proxy(address: SocketAddr, keys: &str, secure: bool) -> (Tollgate, Backend, TempDir) {
    let (good, dir) = (Backend::scripted("good"), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let setup = Setup::default()
        .pool("app", &[address], &format!("{keys}retries: 0, read_timeout: 60s, {NO_CHECK}"))
        .pool("good", &[good.address], NO_CHECK)
        .line("routes: [{path: /, upstream: app}, {path: /good, upstream: good}]")
        .line("pingora: {threads: 1}");
    let server = if secure { setup.tls(dir.path()).start() } else { setup.start() };
    (server, good, dir)
}

/// What is resident, from now on, where a hundred ordinary answers have been under way: an allocator keeps pages for
/// each size that it has seen, which says nothing of what is held.
fn warm(server: &Tollgate, good: &Backend) -> usize {
    let mut client = ask_much(server, "/good?hold=w&bytes=500", &[]);
    assert!(eventually(PATIENCE, || good.held("w") == STREAMS as u64));
    good.release("w");
    let ends = std::iter::from_fn(|| Some(client.wait_for(&[DATA]))).filter(|frame| frame.flags & END_STREAM != 0);
    assert_eq!(ends.take(STREAMS).count(), STREAMS);
    begin_anew(server);
    most_resident(server)
}

/// Asks for [`STREAMS`] answers over one connection of which nothing is read, with these settings.
fn ask_much(server: &Tollgate, path: &str, settings: &[u8]) -> Frames {
    let mut client = Frames::connect(server.address);
    client.send(SETTINGS, 0, 0, settings).unwrap();
    let lines = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", NAME)];
    for stream in (1..).step_by(2).take(STREAMS) {
        client.headers(stream, END_STREAM, &lines).unwrap();
    }
    client
}

/// Asserts that no more is held than may be, once the backend has `sent` all, while others are served.
#[track_caller]
fn assert_bounded(server: &Tollgate, sent: impl Fn() -> bool, secure: bool, (before, most): (usize, usize)) {
    let good = || match secure {
        true => crate::harness::http2::Http2::connect(server.address).get("/good").is_ok_and(|got| got.status == 200),
        false => server.client().get("/good").is_ok_and(|got| got.status == 200),
    };
    assert!(eventually(PATIENCE, sent), "not all is sent");
    // What came before it has been looked at by then.
    assert!((0..3).all(|_| good()), "others are not served");
    let grown = most_resident(server).saturating_sub(before);
    assert!(grown < most, "{grown} KiB more");
}

#[test]
fn interim_answers_of_http2_for_clients_of_http1_that_read_nothing() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    const CLIENTS: usize = 8;
    let floods = pattern("103 without end", |peer, stream| {
        let block = encode(&[(":status", "103"), ("x-a", &"y".repeat(1_000))]);
        let mut one = u32::try_from(block.len()).unwrap().to_be_bytes()[1..].to_vec();
        one.extend_from_slice(&[HEADERS, END_HEADERS]);
        one.extend_from_slice(&stream.to_be_bytes());
        one.extend_from_slice(&block);
        let flooded = peer.flood(&one);
        DONE.fetch_add(1, Ordering::SeqCst);
        flooded
    });
    let address = listen(floods, &Arc::new(AtomicBool::new(false)));
    let (server, _good, _dir) = proxy(address, "protocol: h2, ", false);
    assert_eq!(server.client().get("/good").unwrap().status, 200);
    begin_anew(&server);
    let before = most_resident(&server);
    let deaf: Vec<_> = (0..CLIENTS).map(|_| deaf(server.address)).collect();
    assert_bounded(&server, || DONE.load(Ordering::SeqCst) > 0, false, (before, MOST_KIB));
    drop(deaf);
}

/// A client that has asked, whose kernel takes little, and that reads nothing.
fn deaf(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 4 << 10).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&Request::new("GET", "/").encode()).unwrap();
    stream
}

/// Listens for HTTP/1.1, has each request answered by these bytes, and counts those that are.
fn answering(bytes: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answered, bytes) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default(), Arc::new(bytes));
    let count = Arc::clone(&answered);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (count, bytes) = (Arc::clone(&count), Arc::clone(&bytes));
            std::thread::spawn(move || -> io::Result<()> {
                let mut wire = Wire::new(stream?);
                while wire.head()?.is_some() {
                    let sent = wire.send(&bytes);
                    count.fetch_add(1, Ordering::SeqCst);
                    sent?;
                }
                Ok(())
            });
        }
    });
    (address, answered)
}

/// As many interim answers as there may be, and header and trailers as large as they may be.
fn much_of_http1() -> Vec<u8> {
    let many: String = (0..200).map(|number| format!("x-{number}: {}\r\n", "y".repeat(60))).collect();
    let large: String = (0..15).map(|number| format!("x-large-{number}: {}\r\n", "y".repeat(4_000))).collect();
    let trailers: String = (0..100).map(|number| format!("x-end-{number}: {}\r\n", "y".repeat(100))).collect();
    let mut all = format!("HTTP/1.1 103 Early Hints\r\n{many}\r\n").repeat(60);
    all.push_str(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{large}\r\n"));
    all.push_str(&format!("1\r\nx\r\n0\r\n{trailers}\r\n"));
    all.into_bytes()
}

#[test]
fn sections_of_http1_for_a_client_of_http2_that_reads_nothing() {
    if differs() {
        return;
    }
    let (address, answered) = answering(much_of_http1());
    let (server, good, _dir) = proxy(address, "", true);
    let before = warm(&server, &good);
    let client = ask_much(&server, "/", &[]);
    // Up to 64 KiB of each header are read before it is looked at, here of a hundred at once, besides what is kept.
    assert_bounded(&server, || answered.load(Ordering::SeqCst) >= STREAMS, true, (before, 24 << 10));
    drop(client);
}

#[test]
fn interim_answers_of_http1_reach_a_client_that_reads_slowly() {
    let (address, _) = answering(much_of_http1());
    let (server, _good, _dir) = proxy(address, "", false);
    let mut client = Client::connect(server.address);
    client.send(&Request::new("GET", "/").encode()).unwrap();
    let mut interim = Vec::new();
    crate::harness::dawdle(std::time::Duration::from_millis(300));
    let answer = client.read_all("GET", &mut interim).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "x"), "{answer:?}");
    // What it was too slow for was dropped, whole.
    assert!(interim.iter().all(|one| one.first.contains("103")) && !interim.is_empty(), "{}", interim.len());
}

#[test]
fn trailers_of_http2_for_clients_that_take_no_data_or_read_nothing() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let bombs = pattern("large trailers", |peer, stream| {
        peer.send(HEADERS, END_HEADERS, stream, OK)?;
        peer.send(DATA, 0, stream, b"x")?;
        let sent = peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &[FIELD; 1_000]);
        DONE.fetch_add(1, Ordering::SeqCst);
        sent
    });
    let address = listen(bombs, &Arc::new(AtomicBool::new(false)));
    // No window for data; and windows as ever.
    for settings in [&[0, 4, 0, 0, 0, 0][..], &[]] {
        DONE.store(0, Ordering::SeqCst);
        let (server, good, _dir) = proxy(address, "protocol: h2, ", true);
        let before = warm(&server, &good);
        let client = ask_much(&server, "/", settings);
        assert_bounded(&server, || DONE.load(Ordering::SeqCst) >= STREAMS, true, (before, MOST_KIB));
        drop(client);
    }
}
