//! What the command line says instead of the file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{AdminAddress, BackendPeer, BackendWeight, Choice, DatabasePath, Listen, Peer, ValueKind};
use super::written::Written;
use crate::admin::Token;
use crate::fleet::StoreAddress;
use crate::fleet::settings::StoreAddressError;
use crate::process::ListenAddress;
use crate::upstream::{BackendAddress, Balance};

/// Arguments (or their environment twins) that take the place of keys of the file. Empty, they change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`: in place of all listeners.
    pub listen: Vec<SocketAddr>,
    /// `--backend`: one pool named `default`, in place of all upstreams and of the routes to them.
    pub backends: Vec<BackendOverride>,
    /// `--balance`: the rule of every pool.
    pub balance: Option<Balance>,
    /// `--admin`: where the admin API listens. Switches it on, too.
    pub admin: Option<ListenAddress>,
    /// `TOLLGATE_ADMIN_TOKEN`: the one token of the admin API, in place of those in a file.
    pub admin_token: Option<Token>,
    /// `--database`: the SQLite file.
    pub database: Option<PathBuf>,
    /// `TOLLGATE_FLEET`: the store of the fleet, which it makes this node join.
    pub fleet: Option<StoreAddress>,
    /// From where relative paths count, absolute; none is the present directory, whatever it is when a path is used. A
    /// daemon leaves the directory in which it was started, and a file that is read again later must mean the same.
    pub directory: Option<PathBuf>,
    /// The variables among these, which messages then name in place of the flags.
    pub variables: Vec<&'static str>,
}

impl Overrides {
    /// What an argument is called: `flag`, or its twin `variable` where that has it.
    pub(super) fn name(&self, flag: &'static str, variable: &'static str) -> &'static str {
        if self.variables.contains(&variable) { variable } else { flag }
    }

    /// `path`, counted from where relative paths count from.
    pub(super) fn locate(&self, path: PathBuf) -> PathBuf {
        match &self.directory {
            // An absolute path takes the place of the whole.
            Some(directory) => directory.join(path),
            None => path,
        }
    }
}

/// A backend as an argument: `ADDR` or `ADDR=WEIGHT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOverride {
    /// Where it is.
    pub address: BackendAddress,
    /// Its share of the requests relative to the others, 1 to 65,535. Default 1.
    pub weight: NonZeroU32,
}

/// Why an argument was refused, in the words that the file would get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

/// Reads an address to listen on.
///
/// # Errors
/// When it is not an IP address and a port from 1.
pub fn parse_listen(text: &str) -> Result<SocketAddr, InvalidValue> {
    parse::<Listen>(text)
}

/// Reads where the admin API is to listen.
///
/// # Errors
/// When it is neither an IP address and a port from 1, nor `unix:` and a path.
pub fn parse_admin(text: &str) -> Result<ListenAddress, InvalidValue> {
    let wrong = || InvalidValue(format!("must be {}, not {text:?}", AdminAddress::WANTED));
    parse::<AdminAddress>(text)?.ok_or_else(wrong)
}

/// Reads an address to connect to.
///
/// # Errors
/// When it is not an IP address or a host name, and a port from 1.
pub fn parse_target(text: &str) -> Result<BackendAddress, InvalidValue> {
    parse::<Peer>(text)
}

/// Reads the path of the database.
///
/// # Errors
/// When it cannot be that of a file.
pub fn parse_database(text: &str) -> Result<PathBuf, InvalidValue> {
    // As text in any case: a file may be called 1.
    let wrong = || InvalidValue(format!("must be the path of a file, not {text:?}"));
    DatabasePath::read(&text.into()).flatten().ok_or_else(wrong)
}

/// Reads where the fleet's store is.
///
/// # Errors
/// When it is no such address. The message shows nothing of a password.
pub fn parse_fleet(text: &str) -> Result<StoreAddress, InvalidValue> {
    text.parse().map_err(|error: StoreAddressError| InvalidValue(error.to_string()))
}

impl FromStr for BackendOverride {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (address, weight) = match text.split_once('=') {
            Some((address, weight)) => {
                (address, parse::<BackendWeight>(weight).map_err(|error| error.of("the weight"))?)
            }
            None => (text, NonZeroU32::MIN),
        };
        Ok(BackendOverride { address: parse::<BackendPeer>(address)?, weight })
    }
}

impl FromStr for Balance {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse::<Choice<Balance>>(text)
    }
}

impl InvalidValue {
    pub(super) fn new(message: impl Into<String>) -> Self {
        InvalidValue(message.into())
    }

    fn of(self, part: &str) -> Self {
        InvalidValue(format!("{part} {}", self.0))
    }
}

fn parse<T: ValueKind>(text: &str) -> Result<T::Checked, InvalidValue> {
    match Written::<T>::read_text(text) {
        Written::Given(value) => Ok(value),
        Written::Wrong(message) => Err(InvalidValue(message)),
        Written::Absent | Written::Told => Err(InvalidValue(format!("must be {}", T::wanted()))),
    }
}
