//! A load of kept connections, each of which may begin with a header of the PROXY protocol. No load generator sends
//! one.
//!
//! The benchmark starts itself once more. Each connection has a thread, which sends a request, waits for its answer,
//! and sends the next one; with and without the header by the same code, so that what differs is the proxy's doing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::load::Place;
use crate::parse::{self, MARK, Measured};
use crate::process::Launch;
use crate::stop::{Fallible, Stop, now};

/// The first argument of the process that is the load.
pub(crate) const ARGUMENT: &str = "--introduced";

/// How the header begins: version 2, TCP over IPv4, twelve bytes, and three of the client's address.
const HEADER: [u8; 19] = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02";
/// The end of an answer.
const BODY: &[u8] = b"hello world\n";

/// Asks over `connections` connections at a time, which are `introduced` or not.
///
/// # Errors
///
/// When the load fails, or says what cannot be read.
pub(crate) fn run(
    stop: &Stop,
    place: &Place,
    (address, introduced): (SocketAddr, bool),
    connections: usize,
    seconds: u64,
) -> Fallible<Measured> {
    let said = place.directory.join("introduced.out");
    Launch::new(std::env::current_exe()?, &place.cores, place.directory.join("introduced.err"))
        .args([ARGUMENT.to_owned(), address.to_string(), connections.to_string(), seconds.to_string()])
        .args(introduced.then_some("introduced"))
        .stdout(&said)
        .finish(stop, Duration::from_secs(seconds + 30))?;
    let said = std::fs::read_to_string(&said)?;
    parse::measured(&said).ok_or_else(|| format!("the load said what cannot be read:\n{said}").into())
}

/// The process that is the load: address, connections and seconds are its arguments, and one more where there is to be
/// a header.
///
/// # Errors
///
/// When an argument is wrong.
pub(crate) fn load(arguments: &[String]) -> Fallible<()> {
    let [address, connections, seconds, introduced @ ..] = arguments else {
        return Err("address, connections and seconds are needed".into());
    };
    let (address, connections): (SocketAddr, u8) = (address.parse()?, connections.parse()?);
    let (started, seconds) = (now(), Duration::from_secs(seconds.parse()?));
    let ask_on = |number| {
        let number = (!introduced.is_empty()).then_some(number);
        std::thread::spawn(move || {
            let mut times = Vec::new();
            let outcome = ask_until(address, number, started + seconds, &mut times);
            (times, outcome)
        })
    };
    let threads: Vec<_> = (0..connections).map(ask_on).collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (its, outcome) = thread.join().map_err(|_| "a thread of the load failed")?;
        times.extend(its);
        failed += u64::from(outcome.inspect_err(|error| eprintln!("a connection: {error}")).is_err());
    }
    let measured = Measured::of(times, started.elapsed().as_secs_f64(), 0, failed);
    println!("{MARK}{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Asks over one connection, from the client of that number; the times in µs.
fn ask_until(address: SocketAddr, number: Option<u8>, end: Instant, times: &mut Vec<f64>) -> Fallible<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    if let Some(number) = number {
        // The rest of the client's address, its other end's, and both ports.
        stream.write_all(&[&HEADER[..], &[number, 192, 0, 2, 255, 4, 0, 0, 80]].concat())?;
    }
    let (mut answer, mut length) = ([0; 4096], 0);
    while now() < end {
        let started = now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        while !answer[..length].ends_with(BODY) {
            match stream.read(&mut answer[length..])? {
                0 => return Err("closed, or too long an answer".into()),
                read => length += read,
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err("another answer".into());
        }
        length = 0;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}
