//! Backends that send over HTTP/2 what no backend should: the client has an answer in time, others are served beside
//! it, little is held, and the pool serves again once the backend behaves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, encode};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually, now};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
/// `:status: 200`, as HPACK has it.
pub(crate) const OK: &[u8] = &[0x88];
/// What may come to be held for any of this.
pub(crate) const MOST_KIB: usize = 16 << 10;
/// How much of a flood is sent.
const FLOOD: usize = 12 << 20;
/// How many ask at once.
const CLIENTS: usize = 8;

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One connection as the backend has it.
pub(crate) struct Peer {
    tcp: TcpStream,
    behaves: Arc<AtomicBool>,
}

impl Peer {
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.tcp.write_all(&frame(kind, flags, stream, payload))
    }

    /// The next frame: its kind, flags and stream.
    fn next(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.tcp.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.tcp.read_exact(&mut payload)?;
        Ok((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Sends `bytes` over and over, and takes what comes meanwhile, until it is enough or the connection ends.
    pub(crate) fn flood(&mut self, bytes: &[u8]) -> io::Result<()> {
        let many = bytes.repeat((16_usize << 10).div_ceil(bytes.len()));
        let (mut sent, mut taken) = (0, [0; 16 << 10]);
        while sent < FLOOD && !self.behaves.load(Ordering::SeqCst) {
            self.tcp.write_all(&many)?;
            sent += many.len();
            self.tcp.set_nonblocking(true)?;
            while matches!(self.tcp.read(&mut taken), Ok(1..)) {}
            self.tcp.set_nonblocking(false)?;
        }
        Err(io::ErrorKind::Other.into())
    }

    fn ok(&mut self, stream: u32) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS, stream, OK)?;
        self.send(DATA, END_STREAM, stream, b"ok")
    }
}

/// What is done with a request, on its stream.
pub(crate) type Answer = fn(&mut Peer, u32) -> io::Result<()>;

/// How a backend differs from one that keeps the rules.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    name: &'static str,
    /// Its SETTINGS.
    settings: &'static [u8],
    /// Whether it answers SETTINGS, and PING.
    acknowledges: (bool, bool),
    answer: Answer,
    /// What clients may get.
    statuses: &'static [u16],
}

pub(crate) const fn pattern(name: &'static str, answer: Answer) -> Pattern {
    Pattern { name, settings: &[], acknowledges: (true, true), answer, statuses: &[502, 503, 504] }
}

/// Listens; follows the pattern unless it `behaves`.
pub(crate) fn listen(pattern: Pattern, behaves: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, behaves) = (listener.local_addr().unwrap(), Arc::clone(behaves));
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let behaves = Arc::clone(&behaves);
            std::thread::spawn(move || serve(Peer { tcp: tcp.unwrap(), behaves }, pattern));
        }
    });
    address
}

fn serve(mut peer: Peer, pattern: Pattern) -> io::Result<()> {
    peer.tcp.set_nodelay(true)?;
    peer.tcp.set_write_timeout(Some(Duration::from_secs(2)))?;
    peer.tcp.read_exact(&mut [0; 24])?;
    let behaved = peer.behaves.load(Ordering::SeqCst);
    peer.send(SETTINGS, 0, 0, if behaved { &[] } else { pattern.settings })?;
    loop {
        let (kind, flags, stream, payload) = peer.next()?;
        let behaves = peer.behaves.load(Ordering::SeqCst);
        if behaves && !behaved {
            // It is another one from now on.
            return Ok(());
        }
        match kind {
            SETTINGS if flags & ACK == 0 && (behaves || pattern.acknowledges.0) => peer.send(SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 && (behaves || pattern.acknowledges.1) => peer.send(PING, ACK, 0, &payload)?,
            HEADERS if behaves => peer.ok(stream)?,
            HEADERS => (pattern.answer)(&mut peer, stream)?,
            _ => {}
        }
    }
}

/// The memory that the server has held at most since it was told to begin anew, in KiB.
pub(crate) fn most_resident(server: &Tollgate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn begin_anew(server: &Tollgate) {
    std::fs::write(format!("/proc/{}/clear_refs", server.process.id()), "5").unwrap();
}

fn hold(patterns: &[Pattern]) {
    for pattern in patterns {
        holds(*pattern);
    }
}

fn holds(pattern: Pattern) {
    let name = pattern.name;
    let behaves = Arc::new(AtomicBool::new(true));
    let (address, good) = (listen(pattern, &behaves), Backend::scripted("good"));
    let keys = format!("protocol: h2, read_timeout: 1s, connect_timeout: 1s, {NO_CHECK}");
    let server = Setup::default()
        .pool("app", &[address], &keys)
        .pool("good", &[good.address], NO_CHECK)
        .line("routes: [{path: /, upstream: app}, {path: /good, upstream: good}]")
        .line("pingora: {threads: 1}")
        .start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    let ask = |client: &mut Client| client.send(&Request::new("POST", "/").body(Body::Length(&[b'x'; 9_000])).encode());
    for client in &mut clients {
        ask(client).unwrap();
        assert_eq!(client.read("POST").unwrap().text(), "ok", "{name}: at first");
    }
    let mut other = server.client();
    assert_eq!(other.get("/good").unwrap().status, 200);
    behaves.store(false, Ordering::SeqCst);
    begin_anew(&server);
    let (before, began) = (most_resident(&server), now());
    for _ in 0..2 {
        for client in &mut clients {
            ask(client).unwrap();
        }
        let asked = now();
        assert_eq!(other.get("/good").unwrap().status, 200, "{name}: beside it");
        assert!(now() - asked < Duration::from_secs(5), "{name}: another waited {:?}", now() - asked);
        for client in &mut clients {
            match client.read("POST") {
                Ok(answer) => assert!(pattern.statuses.contains(&answer.status), "{name}: {answer:?}"),
                // It had begun with an answer, whose end it cannot give.
                Err(_) => assert!(pattern.statuses.contains(&0), "{name}: no answer"),
            }
            *client = server.client();
        }
    }
    assert!(now() - began < PATIENCE, "{name}: it took {:?}", now() - began);
    let grown = most_resident(&server).saturating_sub(before);
    eprintln!("{name}: {grown} KiB in {:?}", now() - began);
    assert!(grown < MOST_KIB, "{name}: {grown} KiB more");
    behaves.store(true, Ordering::SeqCst);
    let again = || server.client().call(&Request::new("POST", "/")).is_ok_and(|answer| answer.status == 200);
    assert!(eventually(PATIENCE, again), "{name}: it does not serve again");
}

#[test]
fn floods_of_frames_that_say_nothing() {
    hold(&[
        pattern("SETTINGS", |peer, _| peer.flood(&frame(SETTINGS, 0, 0, &[]))),
        pattern("PING", |peer, _| peer.flood(&frame(PING, 0, 0, b"whatever"))),
        pattern("PRIORITY", |peer, stream| peer.flood(&frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]))),
        pattern("unknown frames", |peer, stream| peer.flood(&frame(77, 0xff, stream, b"whatever"))),
        Pattern {
            statuses: &[0, 502, 503, 504],
            ..pattern("empty DATA", |peer, stream| {
                peer.send(HEADERS, END_HEADERS, stream, OK)?;
                peer.flood(&frame(DATA, 0, stream, &[]))
            })
        },
        Pattern {
            statuses: &[0, 502, 503, 504],
            ..pattern("DATA of one byte", |peer, stream| {
                peer.send(HEADERS, END_HEADERS, stream, OK)?;
                peer.flood(&frame(DATA, 0, stream, b"x"))
            })
        },
    ]);
}

#[test]
fn header_sections_without_measure() {
    hold(&[
        pattern("CONTINUATION without end", |peer, stream| {
            peer.send(HEADERS, 0, stream, OK)?;
            peer.flood(&frame(CONTINUATION, 0, stream, &encode(&[("x-a", "y")])))
        }),
        pattern("indexed repeats", |peer, stream| {
            // A field of 4,000 bytes goes into the table, and is then named with a byte, over and over.
            let mut block = vec![0x88, 0x40];
            block.extend_from_slice(&encode(&[("x-a", &"y".repeat(3_900))])[1..]);
            block.extend_from_slice(&[0xbe; 10_000]);
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }),
        pattern("small fields", |peer, stream| {
            let block = [OK, &[0x90; 16_000]].concat();
            peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }),
        pattern("a section over the limit", |peer, stream| {
            peer.send(HEADERS, 0, stream, &[OK, &encode(&[("x-a", &"y".repeat(15_000))])].concat())?;
            for _ in 0..8 {
                peer.send(CONTINUATION, 0, stream, &encode(&[("x-a", &"y".repeat(15_000))]))?;
            }
            peer.send(CONTINUATION, END_HEADERS, stream, &[])
        }),
        pattern("103 of small fields", |peer, stream| {
            let block = [&encode(&[(":status", "103")])[..], &[0x90; 1_500]].concat();
            peer.flood(&frame(HEADERS, END_HEADERS, stream, &block))
        }),
        pattern("103 without end", |peer, stream| {
            peer.flood(&frame(HEADERS, END_HEADERS, stream, &encode(&[(":status", "103"), ("x-a", "y")])))
        }),
        pattern("trailers without END_STREAM", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, OK)?;
            peer.send(HEADERS, END_HEADERS, stream, &encode(&[("x-sum", "1")]))
        })
        .or_broken(),
    ]);
}

#[test]
fn resets_and_goodbyes() {
    hold(&[
        pattern("REFUSED_STREAM", |peer, stream| peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 7])),
        pattern("CANCEL", |peer, stream| peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 8])),
        pattern("an unknown reset", |peer, stream| peer.send(RST_STREAM, 0, stream, &[0xff; 4])),
        pattern("GOAWAY before all", |peer, _| peer.send(GOAWAY, 0, 0, &[0; 8])),
        pattern("GOAWAY over and over", |peer, _| peer.flood(&frame(GOAWAY, 0, 0, &[0; 8]))),
        pattern("a frame that breaks off", |peer, stream| {
            peer.tcp.write_all(&frame(HEADERS, END_HEADERS, stream, &[0x88; 100])[..50])?;
            Err(io::ErrorKind::Other.into())
        }),
        pattern("a body that breaks off", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, OK)?;
            peer.tcp.write_all(&frame(DATA, 0, stream, &[b'x'; 1_000])[..500])?;
            Err(io::ErrorKind::Other.into())
        })
        .or_broken(),
    ]);
}

impl Pattern {
    /// The client may have the beginning of an answer.
    const fn or_broken(self) -> Self {
        Pattern { statuses: &[0, 502, 503, 504], ..self }
    }
}

#[test]
fn windows_that_are_none() {
    hold(&[
        pattern("a window that overflows", |peer, stream| {
            peer.send(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])?;
            peer.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])
        }),
        pattern("an update of nothing", |peer, stream| peer.send(WINDOW_UPDATE, 0, stream, &[0; 4])),
        Pattern { settings: &[0, 4, 0, 0, 0, 0], ..pattern("no window", |_, _| Ok(())) },
        Pattern { settings: &[0, 4, 0x7f, 0xff, 0xff, 0xff], ..pattern("a window without end", |_, _| Ok(())) },
        Pattern { settings: &[0, 4, 0xff, 0xff, 0xff, 0xff], ..pattern("a window over the most", |_, _| Ok(())) },
        pattern("DATA beyond the window", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, OK)?;
            peer.flood(&frame(DATA, 0, stream, &[b'x'; 16_000]))
        })
        .or_broken(),
        pattern("more than its length", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, &[OK, &encode(&[("content-length", "5")])].concat())?;
            peer.send(DATA, END_STREAM, stream, b"hello and more")
        })
        .or_broken(),
        pattern("less than its length", |peer, stream| {
            peer.send(HEADERS, END_HEADERS, stream, &[OK, &encode(&[("content-length", "50")])].concat())?;
            peer.send(DATA, END_STREAM, stream, b"hello")
        })
        .or_broken(),
    ]);
}

#[test]
fn streams_that_nobody_opened_and_promises() {
    hold(&[
        pattern("a stream that nobody opened", |peer, _| peer.send(DATA, END_STREAM, 1_001, b"x")),
        pattern("a stream of its own", |peer, _| peer.send(HEADERS, END_HEADERS, 2, OK)),
        pattern("a promise", |peer, stream| {
            peer.send(PUSH_PROMISE, END_HEADERS, stream, &[&[0, 0, 0, 2][..], &[0x82, 0x86, 0x84]].concat())
        }),
        Pattern { settings: &[0, 3, 0, 0, 0, 0], ..pattern("no streams", |_, _| Ok(())) },
        pattern("no streams from now on", |peer, _| peer.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])),
        Pattern { acknowledges: (false, true), ..pattern("SETTINGS not acknowledged", |_, _| Ok(())) },
        Pattern { acknowledges: (true, false), ..pattern("PING not answered", |_, _| Ok(())) },
    ]);
}

#[test]
fn a_connection_that_hangs_takes_no_others_with_it() {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    let behaves = Arc::new(AtomicBool::new(false));
    let hangs = pattern("a connection that hangs", |peer, _| {
        // Others that are made from now on are served. This one is open as long as the other side wants it to be.
        peer.behaves.store(true, Ordering::SeqCst);
        while peer.tcp.read(&mut [0; 1_000])? > 0 {}
        CLOSED.store(true, Ordering::SeqCst);
        Ok(())
    });
    let address = listen(hangs, &behaves);
    let keys = format!("protocol: h2, read_timeout: 500ms, retries: 0, {NO_CHECK}");
    let server = Setup::default().pool("app", &[address], &keys).line("pingora: {threads: 1}").start();
    let post = || server.client().call(&Request::new("POST", "/")).unwrap().status;
    assert_eq!((post(), post()), (504, 200));
    assert!(eventually(PATIENCE, || CLOSED.load(Ordering::SeqCst)), "it is not closed");
}
