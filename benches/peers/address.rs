//! Addresses on this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::stop::Fallible;

/// Addresses on 127.0.0.1 on which nobody listens, all different, below the range from which the kernel takes the ports
/// of outgoing connections. At random, so that two runs hardly ever meet.
///
/// # Errors
///
/// When none is found.
pub(crate) fn free<const COUNT: usize>() -> Fallible<[SocketAddr; COUNT]> {
    // Held until all are found, so that none is found twice.
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..32_000)));
        held.extend(TcpListener::bind(address));
        if held.len() == COUNT {
            break;
        }
    }
    let addresses: Vec<_> = held.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    addresses.try_into().map_err(|_| "too few ports from 10000 to 31999 are free".into())
}

/// Whether something there answers a request within a second, whatever the status.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start.starts_with(b"HTTP/1.1 200") || start.starts_with(b"HTTP/1.1 429"))
    };
    ask().unwrap_or(false)
}
