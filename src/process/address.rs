//! Where a socket listens: at an address of the network, or at a path.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What a path is written behind.
const UNIX: &str = "unix:";

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// At an IP address and a port.
    Tcp(SocketAddr),
    /// At a path, for processes of this machine. Written `unix:PATH`.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The IP address and the port, if it has them.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        ListenAddress::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some(path) if !path.is_empty() => Ok(ListenAddress::Unix(path.into())),
            _ => text.parse().map(ListenAddress::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/a b.sock", "unix:a.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "127.0.0.1", "unix"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
