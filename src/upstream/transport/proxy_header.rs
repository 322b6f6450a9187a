//! What a backend is told, before anything else, of the client whose connection it is: the PROXY protocol
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! A backend takes it for the whole connection, so such a connection serves that client alone: its address and port.
//! Told is who tollgate takes the client for (what a trusted proxy said, if one did), as `X-Real-IP` does it over HTTP;
//! its port is known only where it is the other end of the client's connection, and 0 elsewhere. A check is nobody's
//! connection, and says so: `UNKNOWN` in version 1, `LOCAL` in version 2.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// In a line of text.
    V1,
    /// In binary.
    V2,
}

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEnds {
    /// The client's.
    pub client: SocketAddr,
    /// The one here.
    pub here: SocketAddr,
}

impl ProxyProtocol {
    /// What is sent of the connection with these `ends`, or of one of our own.
    pub(super) fn header(self, ends: Option<&ClientEnds>) -> Vec<u8> {
        let ends = ends.map(ClientEnds::of_one_family);
        match self {
            ProxyProtocol::V1 => ends.map_or(v1::Addresses::Unknown, v1::Addresses::from).to_string().into_bytes(),
            ProxyProtocol::V2 => {
                let header = match ends {
                    Some(ends) => {
                        let said = v2::Version::Two | v2::Command::Proxy;
                        v2::Builder::with_addresses(said, v2::Protocol::Stream, ends)
                    }
                    None => {
                        let said = v2::Version::Two | v2::Command::Local;
                        v2::Builder::with_addresses(said, v2::Protocol::Unspecified, v2::Addresses::Unspecified)
                    }
                };
                header.build().expect("two addresses are no longer than a header can be")
            }
        }
    }
}

impl ClientEnds {
    /// Both as addresses of the same family: of two different ones, IPv4 is written as IPv6.
    fn of_one_family(&self) -> (SocketAddr, SocketAddr) {
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().into(),
            address => address,
        };
        let ips = (self.client.ip().to_canonical(), self.here.ip().to_canonical());
        let (client, here) = if ips.0.is_ipv4() == ips.1.is_ipv4() { ips } else { (mapped(ips.0), mapped(ips.1)) };
        (SocketAddr::new(client, self.client.port()), SocketAddr::new(here, self.here.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: ProxyProtocol, client: &str, here: &str) -> Vec<u8> {
        version.header(Some(&ClientEnds { client: client.parse().unwrap(), here: here.parse().unwrap() }))
    }

    #[test]
    fn version_1_is_a_line() {
        for (client, here, line) in [
            ("192.0.2.1:56324", "10.0.0.1:443", "PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n"),
            ("[2001:db8::1]:5", "[::1]:80", "PROXY TCP6 2001:db8::1 ::1 5 80\r\n"),
            ("[::ffff:192.0.2.1]:5", "10.0.0.1:80", "PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n"),
            ("192.0.2.1:0", "[::1]:80", "PROXY TCP6 ::ffff:192.0.2.1 ::1 0 80\r\n"),
        ] {
            assert_eq!(String::from_utf8(header(ProxyProtocol::V1, client, here)).unwrap(), line);
        }
        assert_eq!(ProxyProtocol::V1.header(None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_what_the_specification_draws() {
        const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        let expected = [SIGNATURE, &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb]].concat();
        assert_eq!(header(ProxyProtocol::V2, "192.0.2.1:56324", "10.0.0.1:443"), expected);
        let v6 = header(ProxyProtocol::V2, "[2001:db8::1]:5", "[::1]:80");
        assert_eq!((&v6[12..16], v6.len()), (&[0x21, 0x21, 0, 36][..], 52));
        assert_eq!(v6[48..], [0, 5, 0, 80]);
        assert_eq!(ProxyProtocol::V2.header(None), [SIGNATURE, &[0x20, 0, 0, 0]].concat());
    }
}
