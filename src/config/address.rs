//! Where to listen, and where backends are.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::key::Leaf;
use crate::upstream::BackendAddress;

/// An address to listen on: an IP address and a port, since a name could mean another address at each start.
#[derive(Debug)]
pub(super) struct Listen;

impl Leaf for Listen {
    type Checked = SocketAddr;

    fn wanted() -> String {
        "an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"".to_owned()
    }

    fn read(value: &Value) -> Option<SocketAddr> {
        value.as_str()?.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    }

    fn hint(refused: &Value) -> Option<String> {
        hint(refused, "to listen takes an IP address, not a host name; 0.0.0.0 stands for all of them")
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["0.0.0.0:8080", "[::]:8080"]})
    }
}

/// Where the admin API listens; null switches it off.
#[derive(Debug)]
pub(super) struct AdminAddress;

impl Leaf for AdminAddress {
    type Checked = Option<SocketAddr>;

    fn wanted() -> String {
        "an IP address and a port, such as 127.0.0.1:9901, or null for no admin API".to_owned()
    }

    fn read(value: &Value) -> Option<Option<SocketAddr>> {
        if value.is_null() { Some(None) } else { Listen::read(value).map(Some) }
    }

    fn hint(refused: &Value) -> Option<String> {
        Listen::hint(refused)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "pattern": ":[0-9]{1,5}$", "examples": ["127.0.0.1:9901"]})
    }
}

/// The address of a backend, or its name.
#[derive(Debug)]
pub(super) struct Target;

impl Leaf for Target {
    type Checked = BackendAddress;

    fn wanted() -> String {
        "an IP address or a host name, and a port, such as 127.0.0.1:9001 or app.internal:80".to_owned()
    }

    fn read(value: &Value) -> Option<BackendAddress> {
        let text = value.as_str()?;
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(BackendAddress::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let name = BackendAddress::Name { host: host.to_ascii_lowercase(), port: read_port(port)? };
        is_host_name(host).then_some(name)
    }

    fn hint(refused: &Value) -> Option<String> {
        hint(refused, "the host is neither an IP address nor a host name")
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["127.0.0.1:9001", "app.internal:80"]})
    }
}

/// What is wrong with an address that was refused; `of_host` when it is nothing but the host.
fn hint(refused: &Value, of_host: &str) -> Option<String> {
    let text = refused.as_str()?;
    if let Some((scheme, _)) = text.split_once("://") {
        return Some(format!("leave out {scheme}://"));
    }
    let hint = match text.rsplit_once(':') {
        _ if text.parse::<Ipv6Addr>().is_ok() => "an IPv6 address stands in brackets, before the port",
        None => "the port is missing",
        Some((_, port)) if read_port(port).is_none() => "a port is a number from 1 to 65535",
        Some(("", _)) => "the address is missing",
        Some(_) => of_host,
    };
    Some(hint.to_owned())
}

/// A port, in digits alone; 0 is none.
fn read_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0 && !text.starts_with('+'))
}

/// Whether `host` can be looked up: labels of letters, digits, `-` and `_`. A name that ends in a number is a mistyped
/// IPv4 address, so it is none.
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = || name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !last_is_number()
}

/// Whether one process cannot listen on both: they are the same, or one of them stands for every address.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| match a {
        IpAddr::V4(a) => a.is_unspecified() && b.is_ipv4(),
        // On Linux `[::]` takes the IPv4 addresses too.
        IpAddr::V6(a) => a.is_unspecified(),
    };
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port() && (a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip))
}
