//! Where connections to a backend go.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// The longest path of a Unix socket, in bytes: what fits into `sockaddr_un` before its closing zero.
pub const LONGEST_UNIX_PATH: usize = 107;

/// Where connections to a backend go. A clone costs no memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixPath),
}

/// The path of a Unix socket: absolute, short enough, and of visible ASCII, so that it can stand in every log as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixPath(Arc<str>);

impl UnixPath {
    /// The path in `unix:/run/app.sock`; none where it is none.
    pub fn of(text: &str) -> Option<Self> {
        let path = text.strip_prefix(UNIX).filter(|path| path.starts_with('/') && !path.ends_with('/'))?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        (path.len() <= LONGEST_UNIX_PATH && path.bytes().all(is_plain)).then(|| UnixPath(path.into()))
    }

    /// The path itself.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl ConnectAddress {
    /// As Pingora knows it.
    pub(super) fn to_pingora(&self) -> PingoraAddress {
        match self {
            ConnectAddress::Tcp(address) => (*address).into(),
            ConnectAddress::Unix(path) => {
                let address = std::os::unix::net::SocketAddr::from_pathname(path.path());
                address.expect("the path was found to be one that fits").into()
            }
        }
    }

    /// What Pingora knows as this; none for a socket without a path.
    pub(super) fn of_pingora(address: &PingoraAddress) -> Option<Self> {
        match address {
            PingoraAddress::Inet(address) => Some(ConnectAddress::Tcp(*address)),
            PingoraAddress::Unix(address) => {
                Some(ConnectAddress::Unix(UnixPath(address.as_pathname()?.to_str()?.into())))
            }
        }
    }

    /// The IP address and port, where it has them.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ConnectAddress::Tcp(address) => Some(*address),
            ConnectAddress::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ConnectAddress {
    fn from(address: SocketAddr) -> Self {
        ConnectAddress::Tcp(address)
    }
}

impl From<&ConnectAddress> for ConnectAddress {
    fn from(address: &ConnectAddress) -> Self {
        address.clone()
    }
}

impl FromStr for ConnectAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let unix = || UnixPath::of(text).map(ConnectAddress::Unix);
        text.parse().ok().map(ConnectAddress::Tcp).or_else(unix).ok_or(())
    }
}

impl fmt::Display for ConnectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectAddress::Tcp(address) => address.fmt(f),
            ConnectAddress::Unix(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{UNIX}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_was_written_as() {
        let longest = format!("unix:/{}", "x".repeat(106));
        for text in ["10.0.0.1:80", "[2001:db8::1]:443", "unix:/run/app.sock", &longest] {
            let address: ConnectAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(ConnectAddress::of_pingora(&address.to_pingora()), Some(address), "{text}");
        }
        for text in [
            "",
            "unix:",
            "unix:run/app.sock",
            "unix:/run/",
            "unix:/a b",
            "/run/app.sock",
            "10.0.0.1",
            &format!("{longest}x"),
        ] {
            assert_eq!(text.parse::<ConnectAddress>(), Err(()), "{text}");
        }
    }
}
