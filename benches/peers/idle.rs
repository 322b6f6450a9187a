//! What idle connections hold in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::contender::Running;
use crate::figures::Round;
use crate::stop::{Fallible, Stop};

/// How long a proxy has to take its last connections, and to give back what it needed for the moment only.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// Opens `count` connections, with a request each or without, and tells what the proxy's memory has grown by.
///
/// # Errors
///
/// When a connection is refused or closed, an answer is not the backend's, or a signal came.
pub(crate) fn round(stop: &Stop, proxy: &Running, count: usize, spoken: bool) -> Fallible<Round> {
    let before = proxy.process.resident()?;
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = TcpStream::connect(proxy.plain)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        if spoken {
            speak(&mut stream).map_err(|error| format!("connection {number} of {count}: {error}"))?;
        }
        open.push(stream);
        if number % 100 == 0 {
            stop.pause(Duration::ZERO)?;
        }
    }
    stop.pause(SETTLE)?;
    let resident = proxy.process.resident()?;
    for (number, stream) in open.iter_mut().enumerate() {
        stream.set_nonblocking(true)?;
        if !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
            return Err(format!("connection {number} of {count} was closed").into());
        }
    }
    Ok(Round::Idle { bytes: resident.saturating_sub(before) as f64 / count as f64, resident })
}

fn speak(stream: &mut TcpStream) -> Fallible<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"hello world\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err("closed before the end of the answer".into());
        }
        answer.extend_from_slice(&piece[..count]);
    }
    Ok(())
}
