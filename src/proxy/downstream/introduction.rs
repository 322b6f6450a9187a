//! The PROXY protocol: how a load balancer in front says, before anything else, whom a connection is from.
//!
//! The problem: behind a load balancer that passes connections on, all clients have its address; it names the real one
//! in a header of its own ([HAProxy's specification](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt)).
//! Whoever may send that header may be anybody.
//!
//! The rules. The header is expected of everybody or of nobody ([`HeaderVersions`]), as the specification wants it: a
//! listener that guesses can be told lies. Version 1 is one line of at most 107 bytes, which names addresses, or says
//! UNKNOWN with anything behind it. Version 2 is binary; its length is known from its first 16 bytes, so that what
//! stands behind the addresses (TLVs) is skipped without a look. The format allows for 64 KiB; at most [`LONGEST_V2`]
//! are taken, as much as HAProxy takes (nginx: 4 KiB). LOCAL, UNKNOWN, Unix sockets, datagrams and unspecified families
//! leave a connection its own address. Whatever the specification does not have is malformed.
//!
//! Refused: the crate `proxy-header`, which takes `PROXYxTCP4`, a port of `+80` and a line without an end for version
//! 1, and refuses a LOCAL with a family that it does not know; the crate `ppp`, which waits for more where a line of
//! UNKNOWN is whole and has many words. Checksums (CRC32c) are not looked at, as nginx does not: TCP has its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::proxy::gate::settings::HeaderVersions;
use crate::telemetry::IntroductionFault;

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, in bytes.
const LONGEST_V1: usize = 107;
/// The most that is taken behind the first 16 bytes of version 2.
const LONGEST_V2: usize = 16 << 10;

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Introduction {
    /// How many bytes it has.
    pub(in crate::proxy) length: usize,
    /// Whom the connection is from; none when its own address counts.
    pub(in crate::proxy) source: Option<SocketAddr>,
}

/// The header at the start of `bytes`; `None` when it is not whole and what is there is fine.
///
/// # Errors
/// Why it is none.
pub(in crate::proxy) fn read(
    bytes: &[u8],
    expected: HeaderVersions,
) -> Result<Option<Introduction>, IntroductionFault> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(byte, other)| byte == other);
    let (first, second) = (begins(WORD), begins(SIGNATURE));
    match expected {
        _ if bytes.is_empty() => Ok(None),
        HeaderVersions::V1 if second => wrong_version(bytes, SIGNATURE),
        HeaderVersions::V2 if first => wrong_version(bytes, WORD),
        _ if first => line(bytes),
        _ if second => binary(bytes),
        _ => Err(IntroductionFault::Missing),
    }
}

/// A header of the other version, once it is one.
fn wrong_version(bytes: &[u8], start: &[u8]) -> Result<Option<Introduction>, IntroductionFault> {
    if bytes.len() < start.len() { Ok(None) } else { Err(IntroductionFault::Version) }
}

/// Version 1.
fn line(bytes: &[u8]) -> Result<Option<Introduction>, IntroductionFault> {
    let bound = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memchr(b'\n', bound) else {
        return if bound.len() < LONGEST_V1 { Ok(None) } else { Err(IntroductionFault::Malformed) };
    };
    let text = bound[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(&line[WORD.len()..]).ok());
    let source = text.and_then(|text| match text.split_once(' ').unwrap_or((text, "")) {
        ("UNKNOWN", _) => Some(None),
        ("TCP4", rest) => addresses::<Ipv4Addr>(rest).map(Some),
        ("TCP6", rest) => addresses::<Ipv6Addr>(rest).map(Some),
        _ => None,
    });
    source.map(|source| Some(Introduction { length: end + 1, source })).ok_or(IntroductionFault::Malformed)
}

/// The first of the two addresses that a line names.
fn addresses<A: FromStr + Into<IpAddr>>(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ');
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, _) = (address()?, address()?);
    let mut port = || {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        word.parse::<u16>().ok()
    };
    let (port, _) = (port()?, port()?);
    words.next().is_none().then(|| SocketAddr::new(source.into(), port))
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Option<Introduction>, IntroductionFault> {
    let Some([.., command, family, high, low]) = bytes.first_chunk::<16>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if !matches!(command, 0x20 | 0x21) || length > LONGEST_V2 {
        return Err(IntroductionFault::Malformed);
    }
    let end = 16 + length;
    let Some(block) = bytes.get(16..end) else { return Ok(None) };
    let source = match (command, family) {
        // LOCAL: whatever it says of a family counts for nothing.
        (0x20, _) => Some(None),
        (_, 0x11) => block.first_chunk::<12>().map(|[a, b, c, d, _, _, _, _, high, low, _, _]| {
            Some(SocketAddr::new([*a, *b, *c, *d].into(), u16::from_be_bytes([*high, *low])))
        }),
        (_, 0x21) => block.first_chunk::<36>().map(|block| {
            let address: [u8; 16] = block.first_chunk().copied().unwrap_or_default();
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([block[32], block[33]])))
        }),
        (_, 0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32) => Some(None),
        _ => None,
    };
    source.map(|source| Some(Introduction { length: end, source })).ok_or(IntroductionFault::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(bytes: &[u8]) -> Option<SocketAddr> {
        let read = read(bytes, HeaderVersions::Any).unwrap().unwrap();
        assert_eq!(read.length, bytes.len(), "{}", bytes.escape_ascii());
        read.source
    }

    fn fault(bytes: &[u8], expected: HeaderVersions) -> IntroductionFault {
        read(bytes, expected).unwrap_err()
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    /// The addresses of IPv4 and of IPv6 in version 2.
    fn blocks() -> (Vec<u8>, Vec<u8>) {
        let v4 = [&[192, 0, 2, 7, 10, 0, 0, 1][..], &[0x12, 0x67, 0, 80]].concat();
        let v6 = ["2001:db8::7", "::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        (v4, [&v6[0][..], &v6[1], &[0x12, 0x67, 0, 80]].concat())
    }

    #[test]
    fn addresses_are_read_in_both_versions() {
        let (v4, v6) = blocks();
        let tlvs = [&v4[..], &[2, 0, 3, b'a', b'.', b'b', 4, 0, 2, 0, 0]].concat();
        for bytes in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n"[..], &v2(0x21, 0x11, &v4), &v2(0x21, 0x11, &tlvs)] {
            assert_eq!(source(bytes), Some("192.0.2.7:4711".parse().unwrap()));
        }
        for bytes in [&b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n"[..], &v2(0x21, 0x21, &v6)] {
            assert_eq!(source(bytes), Some("[2001:db8::7]:4711".parse().unwrap()));
        }
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255 \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1 2\r\n";
        assert!(longest.len() <= LONGEST_V1 && source(longest.as_bytes()).is_some());
    }

    #[test]
    fn some_leave_a_connection_its_own_address() {
        let (v4, _) = blocks();
        let unix = [0; 216];
        let binary = [
            v2(0x20, 0, &[]),
            v2(0x20, 0x11, &[]),
            v2(0x20, 0xff, &v4),
            v2(0x21, 0, &[]),
            v2(0x21, 0x12, &v4),
            v2(0x21, 0x31, &unix),
            v2(0x21, 0x32, &unix),
        ];
        let lines = [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN a b c d e f g\r\n",
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ];
        for bytes in lines.into_iter().chain(binary.iter().map(Vec::as_slice)) {
            assert_eq!(source(bytes), None, "{}", bytes.escape_ascii());
        }
        assert_eq!(lines[2].len(), LONGEST_V1);
    }

    #[test]
    fn what_is_none_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80 \r\n",
            "PROXY TCP4  192.0.2.7 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 +80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1  80\r\n",
            "PROXY TCP4 192.0.2.07 10.0.0.1 1 80\r\n",
            "PROXY TCP4 ::1 ::1 4711 80\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 4711 80\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 4711 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY udp4 192.0.2.7 10.0.0.1 4711 80\r\n",
            "PROXY \r\n",
            "PROXY \n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)),
        ] {
            assert_eq!(fault(line.as_bytes(), HeaderVersions::Any), IntroductionFault::Malformed, "{line:?}");
        }
        let (v4, v6) = blocks();
        for bytes in [
            v2(0x21, 0x11, &v4[..11]),
            v2(0x21, 0x21, &v6[..35]),
            v2(0x21, 0x41, &v6),
            v2(0x21, 0x13, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x11, 0x11, &v4),
            v2(0x21, 0x11, &[0; LONGEST_V2 + 1]),
        ] {
            assert_eq!(fault(&bytes, HeaderVersions::Any), IntroductionFault::Malformed, "{}", bytes.escape_ascii());
        }
        for other in ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "PROXYTCP4", "proxy TCP4", "\x16\x03\x01", "\r\n\r\nG"] {
            for expected in [HeaderVersions::V1, HeaderVersions::V2, HeaderVersions::Any] {
                assert_eq!(fault(other.as_bytes(), expected), IntroductionFault::Missing, "{other:?}");
            }
        }
    }

    #[test]
    fn only_the_version_that_is_expected_counts() {
        let (line, binary) = (&b"PROXY UNKNOWN\r\n"[..], v2(0x20, 0, &[]));
        assert!(read(line, HeaderVersions::V1).is_ok() && read(&binary, HeaderVersions::V2).is_ok());
        assert_eq!(fault(line, HeaderVersions::V2), IntroductionFault::Version);
        assert_eq!(fault(&binary, HeaderVersions::V1), IntroductionFault::Version);
        assert_eq!(read(b"PROX", HeaderVersions::V2), Ok(None), "it may become a POST");
    }

    proptest! {
        /// Whatever comes gets an answer, and the same one however it is cut.
        #[test]
        fn any_bytes_are_read_the_same_in_pieces(
            start in prop::sample::select(vec![
                b"".to_vec(),
                b"PROXY ".to_vec(),
                b"PROXY TCP4 1.2.3.4 ".to_vec(),
                SIGNATURE.to_vec(),
                v2(0x21, 0x11, &[7; 12]),
                v2(0x21, 0x21, &[7; 40]),
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
            flipped in any::<prop::sample::Index>(),
            bit in 0..16_u32,
        ) {
            let mut bytes = [start, rest].concat();
            // Half of them as they are.
            if let Some(mask) = 1_u8.checked_shl(bit).filter(|_| !bytes.is_empty()) {
                let place = flipped.index(bytes.len());
                bytes[place] ^= mask;
            }
            crate::proxy::fuzzing::introduction(&bytes);
        }
    }
}
