//! What the configuration says of the fleet.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// What a node of a fleet is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetSettings {
    /// Where the store is.
    pub store: StoreAddress,
    /// The file that holds the password; goes before one in the address.
    pub password_file: Option<PathBuf>,
    /// How a store over TLS is believed, and believes this node.
    pub tls: StoreTls,
    /// What all keys in the store begin with.
    pub prefix: String,
    /// This node's name; by default one made once and kept in the database.
    pub node: Option<String>,
    /// How far ahead of its need a node holds tokens, at least.
    pub lease: Duration,
    /// The longest that a request waits for the store.
    pub timeout: Duration,
    /// Requests that may wait for the store at once.
    pub max_asks: NonZeroUsize,
    /// What is done while the store is away.
    pub when_unreachable: WhenUnreachable,
}

/// The password in what a password file holds.
pub fn password_in(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n'])
}

/// What is done with requests while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// This node enforces its share of every quota.
    #[default]
    Share,
    /// They are refused.
    Refuse,
    /// They are let in.
    Allow,
}

/// Files for TLS to the store; without an authority, those that the system believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// PEM: the authorities that a store's certificate must come from.
    pub ca: Option<PathBuf>,
    /// PEM: this node's certificate, if the store asks for one.
    pub cert: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
}

/// Where the store is, as an address of the file says it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// One server, or several.
    pub kind: StoreKind,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Who this node says it is.
    pub user: Option<String>,
    /// A password in the address; never shown.
    pub password: Option<String>,
    /// The number of the database.
    pub db: u16,
}

/// One server, or several that stand for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One server.
    Single(HostPort),
    /// Some nodes of a Cluster; it tells of the others.
    Cluster(Vec<HostPort>),
    /// Sentinels, and the name that they watch a primary under.
    Sentinel {
        /// The sentinels.
        nodes: Vec<HostPort>,
        /// The primary's name.
        name: String,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What is wrong with a store's address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreAddressError {
    /// Not a way we know.
    #[error(
        "must begin with redis://, rediss://, redis+cluster://, rediss+cluster://, redis+sentinel:// or \
         rediss+sentinel://"
    )]
    Scheme,
    /// No host, or not one host and port.
    #[error("`{0}` is not HOST or HOST:PORT")]
    Host(String),
    /// A port that is none.
    #[error("`{0}` is not HOST or HOST:PORT: a port is a number from 1 to 65535")]
    Port(String),
    /// Several servers where one is meant.
    #[error("names several servers: for a Cluster write redis+cluster://, for Sentinel redis+sentinel://")]
    Several,
    /// Sentinel without a primary's name.
    #[error("names no primary: write redis+sentinel://HOST,HOST/NAME")]
    Name,
    /// Not a number of a database.
    #[error("`{0}` is not the number of a database")]
    Database(String),
    /// A Cluster has one database.
    #[error("a Cluster has no database but 0")]
    ClusterDatabase,
    /// A user or password with a bad escape.
    #[error("the user or password is not text in UTF-8")]
    Text,
}

impl FromStr for StoreAddress {
    type Err = StoreAddressError;

    fn from_str(text: &str) -> Result<Self, StoreAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(StoreAddressError::Scheme)?;
        let (tls, form) = match scheme.split_once('+').map_or((scheme, ""), |(first, form)| (first, form)) {
            ("redis" | "valkey", form) => (false, form),
            ("rediss" | "valkeys", form) => (true, form),
            _ => return Err(StoreAddressError::Scheme),
        };
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = login.map_or(Ok((None, None)), credentials)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = |port| hosts.split(',').map(|host| host_port(host.trim(), port)).collect::<Result<Vec<_>, _>>();
        let (kind, db) = match form {
            "" => {
                let mut hosts = hosts(6379)?;
                let host = hosts.pop().filter(|_| hosts.is_empty()).ok_or(StoreAddressError::Several)?;
                (StoreKind::Single(host), path)
            }
            "cluster" => (StoreKind::Cluster(hosts(6379)?), path),
            "sentinel" => {
                let (name, db) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(StoreAddressError::Name);
                }
                (StoreKind::Sentinel { nodes: hosts(26379)?, name: name.to_owned() }, db)
            }
            _ => return Err(StoreAddressError::Scheme),
        };
        let db = match db {
            "" => 0,
            number => number.parse().map_err(|_| StoreAddressError::Database(number.to_owned()))?,
        };
        if db != 0 && matches!(kind, StoreKind::Cluster(_)) {
            return Err(StoreAddressError::ClusterDatabase);
        }
        Ok(StoreAddress { kind, tls, user, password, db })
    }
}

/// `USER`, `USER:PASSWORD` or `:PASSWORD`, with escapes.
fn credentials(login: &str) -> Result<(Option<String>, Option<String>), StoreAddressError> {
    let text = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(Some(text.into_owned()).filter(|text| !text.is_empty())),
        Err(_) => Err(StoreAddressError::Text),
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    Ok((text(user)?, text(password)?))
}

fn host_port(text: &str, default: u16) -> Result<HostPort, StoreAddressError> {
    let wrong = || StoreAddressError::Host(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().ok().filter(|port| *port != 0);
            port.ok_or_else(|| StoreAddressError::Port(text.to_owned()))?
        }
        None if port.is_empty() => default,
        None => return Err(wrong()),
    };
    let strange = |c: char| c.is_whitespace() || c.is_control() || "?#/@".contains(c);
    if host.is_empty() || host.contains(strange) {
        return Err(wrong());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

impl fmt::Display for StoreAddress {
    /// As it was written, without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.kind {
            StoreKind::Single(_) => "",
            StoreKind::Cluster(_) => "+cluster",
            StoreKind::Sentinel { .. } => "+sentinel",
        };
        write!(f, "redis{}{form}://", if self.tls { "s" } else { "" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        let join = |nodes: &[HostPort]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.kind {
            StoreKind::Single(host) => write!(f, "{host}")?,
            StoreKind::Cluster(nodes) => f.write_str(&join(nodes))?,
            StoreKind::Sentinel { nodes, name } => write!(f, "{}/{name}", join(nodes))?,
        }
        if self.db != 0 { write!(f, "/{}", self.db) } else { Ok(()) }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("redis://10.0.0.5", "redis://10.0.0.5:6379"),
            ("redis://edge:p%40ss@10.0.0.5:7000/3", "redis://edge@10.0.0.5:7000/3"),
            ("rediss://:secret@[::1]:7000/0", "rediss://[::1]:7000"),
            ("redis+cluster://a,b:7001,c", "redis+cluster://a:6379,b:7001,c:6379"),
            ("rediss+sentinel://u@a,b:1/main/2", "rediss+sentinel://u@a:26379,b:1/main/2"),
        ] {
            let address: StoreAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let address: StoreAddress = "redis://edge:p%40ss@h".parse().unwrap();
        assert_eq!((address.user.as_deref(), address.password.as_deref()), (Some("edge"), Some("p@ss")));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, error) in [
            ("10.0.0.5:6379", StoreAddressError::Scheme),
            ("http://a", StoreAddressError::Scheme),
            ("redis+ring://a", StoreAddressError::Scheme),
            ("redis://", StoreAddressError::Host(String::new())),
            ("redis://a:0", StoreAddressError::Port("a:0".to_owned())),
            ("redis://a:99999", StoreAddressError::Port("a:99999".to_owned())),
            ("redis://a:b", StoreAddressError::Port("a:b".to_owned())),
            ("redis://a,b", StoreAddressError::Several),
            ("redis://a/x", StoreAddressError::Database("x".to_owned())),
            ("redis+sentinel://a,b", StoreAddressError::Name),
            ("redis+cluster://a/1", StoreAddressError::ClusterDatabase),
            ("redis://%ff@a", StoreAddressError::Text),
        ] {
            assert_eq!(text.parse::<StoreAddress>(), Err(error), "{text}");
        }
    }
}
