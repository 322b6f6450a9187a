//! Where to listen, where backends are, and whole networks.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use rustls::pki_types::{DnsName, ServerName};
use serde_yaml::Value;

use super::kind::ValueKind;
use crate::client::network;
use crate::process::ListenAddress;
use crate::upstream::{BackendAddress, LONGEST_UNIX_PATH, UnixPath};

/// What stands before the path of a socket.
const UNIX: &str = "unix:";

/// An address to listen on: an IP address and a port, since a name could mean another address at each start.
#[derive(Debug)]
pub(in crate::config) struct Listen;

impl ValueKind for Listen {
    type Checked = SocketAddr;
    const WANTED: &str = "an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"";
    const SCHEMA: &str = r#"{"type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["0.0.0.0:8080", "[::]:8080"]}"#;

    fn read(value: &Value) -> Option<SocketAddr> {
        value.as_str()?.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    }

    fn hint(refused: &Value) -> Option<String> {
        hint(refused, "to listen takes an IP address, not a host name; 0.0.0.0 stands for all of them")
    }
}

/// Where the admin API listens; null switches it off.
#[derive(Debug)]
pub(in crate::config) struct AdminAddress;

impl ValueKind for AdminAddress {
    type Checked = Option<ListenAddress>;
    const WANTED: &str = "an IP address and a port, such as 127.0.0.1:9901, or unix: and the path of a socket of at most \
                          107 bytes, or null for no admin API";
    const SCHEMA: &str = r#"{"type": ["string", "null"], "pattern": "^unix:.|:[0-9]{1,5}$",
        "examples": ["127.0.0.1:9901", "unix:/run/tollgate/admin.sock"]}"#;

    fn read(value: &Value) -> Option<Option<ListenAddress>> {
        let path = |path: &str| {
            let fits = (1..=LONGEST_UNIX_PATH).contains(&path.len()) && !path.ends_with('/') && !path.contains('\0');
            fits.then(|| ListenAddress::Unix(path.into()))
        };
        match value {
            Value::Null => Some(None),
            Value::String(text) if text.starts_with(UNIX) => path(&text[UNIX.len()..]).map(Some),
            _ => Listen::read(value).map(|address| Some(address.into())),
        }
    }

    fn hint(refused: &Value) -> Option<String> {
        let path = refused.as_str().is_some_and(|text| text.starts_with(UNIX));
        if path { None } else { Listen::hint(refused) }
    }
}

/// An address to connect to over TCP, or a name.
#[derive(Debug)]
pub(in crate::config) struct Peer;

impl ValueKind for Peer {
    type Checked = BackendAddress;
    const WANTED: &str = "an IP address or a host name, and a port, such as 127.0.0.1:9001 or app.internal:80";
    const SCHEMA: &str =
        r#"{"type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["127.0.0.1:9001", "app.internal:80"]}"#;

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
}

/// Where a backend is.
#[derive(Debug)]
pub(in crate::config) struct BackendPeer;

impl ValueKind for BackendPeer {
    type Checked = BackendAddress;
    const WANTED: &str = "an IP address or a host name, and a port, such as 127.0.0.1:9001 or app.internal:80, or the \
                          path of a socket, such as unix:/run/app.sock";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "(:[0-9]{1,5}|^unix:/.+)$",
        "examples": ["127.0.0.1:9001", "app.internal:80", "unix:/run/app.sock"]}"#;

    fn read(value: &Value) -> Option<BackendAddress> {
        let path = || UnixPath::of(value.as_str()?).map(BackendAddress::Unix);
        Peer::read(value).or_else(path)
    }

    fn hint(refused: &Value) -> Option<String> {
        let Some(path) = refused.as_str().and_then(|text| text.strip_prefix("unix:")) else {
            return Peer::hint(refused);
        };
        Some(match path {
            _ if !path.starts_with('/') => "the path of a socket begins with /".to_owned(),
            _ if path.len() > LONGEST_UNIX_PATH => format!("a path has at most {LONGEST_UNIX_PATH} bytes"),
            _ => "a path is of visible ASCII without \" and \\, and does not end with /".to_owned(),
        })
    }
}

/// The name that a certificate must have.
#[derive(Debug)]
pub(in crate::config) struct CertificateName;

impl ValueKind for CertificateName {
    type Checked = ServerName<'static>;
    const WANTED: &str = "a host name or an IP address, such as app.internal";
    const SCHEMA: &str = r#"{"type": "string", "minLength": 1, "examples": ["app.internal"]}"#;

    fn read(value: &Value) -> Option<ServerName<'static>> {
        let text = value.as_str()?;
        let is_one = text.parse::<IpAddr>().is_ok() || is_host_name(text);
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        is_one.then(|| ServerName::try_from(name).ok()).flatten()
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

/// Whether `host` can be looked up. A name that ends in a number is a mistyped IPv4 address, so it is none.
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    DnsName::try_from(name).is_ok() && !name.ends_with('.')
}

/// An address or a network.
#[derive(Debug)]
pub(in crate::config) struct Network;

impl ValueKind for Network {
    type Checked = IpNet;
    const WANTED: &str = "an IP address or a network, such as 10.0.0.1, 10.0.0.0/8 or \"2001:db8::/32\"";
    const SCHEMA: &str =
        r#"{"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "examples": ["10.0.0.0/8"]}"#;

    fn read(value: &Value) -> Option<IpNet> {
        network(value.as_str()?)
    }
}
