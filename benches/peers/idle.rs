//! What idle connections hold in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::connect;
use crate::contender::Running;
use crate::figures::Round;
use crate::stop::{Fallible, Stop};

/// How long a proxy has to take its last connections, and to give back what it needed for the moment only.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// Opens `count` connections, each `spoken` on by a request or not, and over TLS with a certificate or not; tells what
/// the proxy's memory has grown by.
///
/// # Errors
///
/// When a connection is refused or closed, an answer is not the backend's, or a signal came.
pub(crate) fn round(
    stop: &Stop,
    proxy: &Running,
    count: usize,
    (spoken, certificate): (bool, Option<&Path>),
) -> Fallible<Round> {
    let config = certificate.map(connect::config).transpose()?;
    let before = proxy.process.resident()?;
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        let at = if config.is_some() { proxy.tls } else { proxy.plain };
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let outcome = match &config {
            Some(config) => agree(&mut stream, config),
            None if spoken => speak(&mut stream),
            None => Ok(()),
        };
        outcome.map_err(|error| format!("connection {number} of {count}: {error}"))?;
        open.push(stream);
        if number % 100 == 0 {
            stop.pause(Duration::ZERO)?;
        }
    }
    stop.pause(SETTLE)?;
    let resident = proxy.process.resident()?;
    for (number, stream) in open.iter_mut().enumerate() {
        stream.set_nonblocking(true)?;
        // What comes over TLS unasked is for the next time.
        let closed = match stream.read(&mut [0; 4096]) {
            Ok(bytes) => bytes == 0 || config.is_none(),
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if closed {
            return Err(format!("connection {number} of {count} was closed").into());
        }
    }
    Ok(Round::Idle { bytes: resident.saturating_sub(before) as f64 / count as f64, resident })
}

/// A handshake. What is needed to say anything afterwards is let go of: nothing is to be said.
fn agree(stream: &mut TcpStream, config: &Arc<ClientConfig>) -> Fallible<()> {
    let mut connection = connect::client(config)?;
    while connection.is_handshaking() {
        connection.complete_io(stream)?;
    }
    Ok(())
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
