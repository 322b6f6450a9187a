//! Numbers and addresses as text, without the formatting machinery, which would cost a line of the access log more than
//! all else, and a request's header as much as the rest of it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::BufMut;

/// Appends a whole number.
pub(crate) fn put_number(number: u64, out: &mut impl BufMut) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number of thousandths as a number with three decimals.
pub(crate) fn put_thousandths(thousandths: u64, out: &mut Vec<u8>) {
    put_number(thousandths / 1000, out);
    out.push(b'.');
    put_three_digits((thousandths % 1000) as u16, out);
}

/// Appends a number below 1000 with its leading zeros.
pub(crate) fn put_three_digits(number: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8));
}

/// Appends an address, an IPv4-mapped one as IPv4.
pub(crate) fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            put_number(first.into(), out);
            for octet in rest {
                out.push(b'.');
                put_number(octet.into(), out);
            }
        }
        IpAddr::V6(address) => write!(out, "{address}").expect("a Vec takes every write"),
    }
}

/// Appends an address with its port.
pub(crate) fn put_socket_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(address) => {
            put_address(IpAddr::V4(*address.ip()), out);
            out.push(b':');
            put_number(address.port().into(), out);
        }
        SocketAddr::V6(address) => write!(out, "{address}").expect("a Vec takes every write"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before ".to_vec();
        put(&mut out);
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    proptest! {
        #[test]
        fn is_what_formatting_gives(
            number in prop_oneof![Just(0), Just(9), Just(10), Just(u64::MAX), any::<u64>(), 0_u64..2_000],
            address in any::<IpAddr>(),
            port in any::<u16>(),
        ) {
            prop_assert_eq!(text(|out| put_number(number, out)), number.to_string());
            let expected = format!("{}.{:03}", number / 1000, number % 1000);
            prop_assert_eq!(text(|out| put_thousandths(number, out)), expected);
            prop_assert_eq!(text(|out| put_address(address, out)), address.to_canonical().to_string());
            let socket = SocketAddr::new(address, port);
            prop_assert_eq!(text(|out| put_socket_address(socket, out)), socket.to_string());
        }
    }

    #[test]
    fn addresses_are_written_as_ever() {
        for address in ["0.0.0.0", "192.0.2.7", "255.255.255.255", "2001:db8::7", "::"] {
            assert_eq!(text(|out| put_address(address.parse().unwrap(), out)), address);
        }
    }

    #[test]
    fn a_mapped_address_is_written_as_ipv4() {
        assert_eq!(text(|out| put_address("::ffff:192.0.2.1".parse().unwrap(), out)), "192.0.2.1");
    }
}
