//! WebSocket messages, and the backend that sends them back. No load generator has them, and no nginx is their backend;
//! so the benchmark starts itself once more for each of the two.
//!
//! Each connection sends a message, waits until it has come back, and sends the next one. The backend has a thread for
//! each connection. Asked for anything but a WebSocket, it answers as nginx does, but in two writes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::load::Place;
use crate::parse::{self, MARK, Measured};
use crate::process::Launch;
use crate::stop::{Fallible, Stop, now};

/// The first argument of the process that is the load.
pub(crate) const ARGUMENT: &str = "--messages";
/// The first argument of the process that is the backend.
pub(crate) const BACKEND: &str = "--messages-backend";

/// The length of a message.
const LENGTH: u8 = 64;
/// How a frame begins that is a whole message of bytes.
const BINARY: u8 = 0x82;
/// Beside the length: what follows is masked.
const MASKED: u8 = 0x80;

/// Sends messages over `connections` connections at a time.
///
/// # Errors
///
/// When the load fails, or says what cannot be read.
pub(crate) fn run(
    stop: &Stop,
    place: &Place,
    address: SocketAddr,
    connections: usize,
    seconds: u64,
) -> Fallible<Measured> {
    let said = place.directory.join("messages.out");
    Launch::new(std::env::current_exe()?, &place.cores, place.directory.join("messages.err"))
        .args([ARGUMENT.to_owned(), address.to_string(), connections.to_string(), seconds.to_string()])
        .stdout(&said)
        .finish(stop, Duration::from_secs(seconds + 30))?;
    let said = std::fs::read_to_string(&said)?;
    parse::measured(&said).ok_or_else(|| format!("the load of messages said what cannot be read:\n{said}").into())
}

/// The process that is the load: address, connections and seconds are its arguments.
///
/// # Errors
///
/// When an argument is wrong.
pub(crate) fn load(arguments: &[String]) -> Fallible<()> {
    let [address, connections, seconds] = arguments else {
        return Err("address, connections and seconds are needed".into());
    };
    let (address, connections): (SocketAddr, usize) = (address.parse()?, connections.parse()?);
    let (started, seconds) = (now(), Duration::from_secs(seconds.parse()?));
    let talk_on = |_| std::thread::spawn(move || talk_until(address, started + seconds));
    let threads: Vec<_> = (0..connections).map(talk_on).collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (its, outcome) = thread.join().map_err(|_| "a thread of the load failed")?;
        times.extend(its);
        failed += u64::from(outcome.is_err());
    }
    let measured = Measured::of(times, started.elapsed().as_secs_f64(), 0, failed);
    println!("{MARK}{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Talks over one connection: the times in µs, and how it ended.
fn talk_until(address: SocketAddr, end: Instant) -> (Vec<f64>, Fallible<()>) {
    let mut times = Vec::new();
    let outcome = talk(address, end, &mut times);
    (times, outcome)
}

fn talk(address: SocketAddr, end: Instant, times: &mut Vec<f64>) -> Fallible<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(
        b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut reader = BufReader::new(stream.try_clone()?);
    if !head(&mut reader)?.starts_with("HTTP/1.1 101") {
        return Err("no WebSocket".into());
    }
    // Masked with zeros, which is a mask like any other.
    let sent: Vec<u8> = [BINARY, MASKED | LENGTH, 0, 0, 0, 0].into_iter().chain([b'x'; LENGTH as usize]).collect();
    let mut came = [0; LENGTH as usize + 2];
    while now() < end {
        let started = now();
        stream.write_all(&sent)?;
        reader.read_exact(&mut came)?;
        if came[..2] != [BINARY, LENGTH] {
            return Err("another message".into());
        }
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}

/// The process that is the backend: its address is the argument. Ends with the process that started it.
///
/// # Errors
///
/// When it cannot listen.
pub(crate) fn serve(arguments: &[String]) -> Fallible<()> {
    let [address] = arguments else { return Err("an address is needed".into()) };
    for stream in TcpListener::bind(address.parse::<SocketAddr>()?)?.incoming() {
        let stream = stream?;
        // How it ends is its client's doing.
        std::thread::spawn(move || answer(&stream).is_ok());
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> Fallible<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let asked = head(&mut reader)?.to_ascii_lowercase();
        if asked.contains("\r\nupgrade: websocket\r\n") {
            break;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n")?;
        stream.write_all(b"hello world\n")?;
    }
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    let mut frame = [0; LENGTH as usize + 6];
    loop {
        reader.read_exact(&mut frame)?;
        // Unmasked on its way back.
        (frame[4], frame[5]) = (BINARY, LENGTH);
        stream.write_all(&frame[4..])?;
    }
}

/// The next header section, whole.
fn head(reader: &mut impl BufRead) -> Fallible<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err("closed".into());
        }
    }
    Ok(head)
}
