//! Where the admin API is, and the token for it.
//!
//! The same words as for `run` say it: flags beat variables, which beat the file, which beats the default.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;

use super::environment::{one, token_to_show};
use super::failure::Failure;
use super::trust::AdminTrust;
use crate::admin::{Access, Token};
use crate::config::{self, AdminSettings, InvalidValue, Overrides, parse_admin, parse_target};
use crate::process::ListenAddress;
use crate::upstream::BackendAddress;

/// Where the admin API listens when nobody says where.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Keeps these apart from what a command does.
const HEADING: &str = "Admin API";

/// What the command line says of the admin API. The ids are not those of `run`, whose flags of the same names clap
/// would otherwise take for these.
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    /// Where the admin API is: ADDR, https://ADDR or unix:PATH [default: 127.0.0.1:9901] [env: TOLLGATE_ADMIN]
    #[arg(id = "endpoint", long = "admin", value_name = "ADDR", value_parser = target)]
    #[arg(global = true, help_heading = HEADING)]
    admin: Option<Target>,
    /// A configuration file to take its address and token from
    #[arg(id = "endpoint_file", short = 'c', long = "conf", value_name = "FILE", global = true, help_heading = HEADING)]
    conf: Option<PathBuf>,
    /// A file whose first token opens it, in place of the variable TOLLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    token_file: Option<PathBuf>,
    /// Speak TLS, and believe what the certificates in this file have signed, or these themselves
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    ca: Option<PathBuf>,
}

/// Where the admin API is, and the token for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Where to connect to.
    pub(super) address: AdminPlace,
    /// Whom to believe over TLS; none is plain HTTP.
    pub(super) secure: Option<AdminTrust>,
    /// What opens it; none when nobody says.
    pub(super) token: Option<Token>,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminPlace {
    /// An address of the network.
    Tcp(BackendAddress),
    /// The path of a socket.
    Path(PathBuf),
}

impl fmt::Display for AdminPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminPlace::Tcp(address) => address.fmt(f),
            AdminPlace::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where an argument says that the admin API is.
#[derive(Clone, Debug)]
struct Target {
    place: AdminPlace,
    /// Whether it says `https://`.
    secure: bool,
}

/// Reads `ADDR`, `https://ADDR` or `unix:PATH`.
fn target(text: &str) -> Result<Target, InvalidValue> {
    if text.starts_with("unix:") {
        let place = match parse_admin(text)? {
            ListenAddress::Unix(path) => AdminPlace::Path(path),
            ListenAddress::Tcp(address) => AdminPlace::Tcp(BackendAddress::Socket(address)),
        };
        return Ok(Target { place, secure: false });
    }
    let (secure, address) = text.strip_prefix("https://").map_or((false, text), |rest| (true, rest));
    Ok(Target { place: AdminPlace::Tcp(parse_target(address)?), secure })
}

impl EndpointArgs {
    /// Puts flags, variables and the file together.
    ///
    /// # Errors
    /// Names the variable or the file that is wrong. No message shows a token.
    pub(super) fn resolve(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Endpoint, Failure> {
        let given = match &self.admin {
            Some(given) => Some(given.clone()),
            None => one("TOLLGATE_ADMIN", &variable, target)?,
        };
        let token = match &self.token_file {
            Some(file) => Some(first_token(file)?),
            None => token_to_show(&variable)?,
        };
        let admin = match &self.conf {
            Some(file) => {
                let overrides = Overrides { admin_token: token.clone(), ..Overrides::default() };
                config::load(Some(file), &overrides)?.admin
            }
            None => None,
        };
        let (place, secure) = match (given, &admin, &self.conf) {
            (Some(Target { place, secure }), ..) => (place, secure),
            (None, Some(admin), _) => (of_address(&admin.address), false),
            (None, None, None) => (AdminPlace::Tcp(BackendAddress::Socket(DEFAULT)), false),
            (None, None, Some(file)) => {
                let message = format!("{}: admin.address is null, so there is no admin API to ask", file.display());
                return Err(Failure::Usage(message));
            }
        };
        let own = admin.as_ref().and_then(|admin| Some(admin.tls.as_ref()?.pairs.first()?.files().cert.clone()));
        let secure = match (&self.ca, own) {
            _ if matches!(place, AdminPlace::Path(_)) => None,
            (Some(ca), _) => Some(AdminTrust::SignedBy(ca.clone())),
            (None, Some(cert)) => Some(AdminTrust::Itself(cert)),
            (None, None) if secure => {
                let message = "https:// needs --ca FILE, or --conf FILE with admin.tls, to know whom to believe";
                return Err(Failure::Usage(message.to_owned()));
            }
            (None, None) => None,
        };
        Ok(Endpoint { address: place, secure, token: token.or(admin.and_then(of_file)) })
    }
}

fn of_file(admin: AdminSettings) -> Option<Token> {
    match admin.access {
        Access::Tokens(tokens) => Some(first(tokens)),
        Access::Loopback | Access::Anyone => None,
    }
}

/// Where something that listens there can be reached from this machine.
fn of_address(address: &ListenAddress) -> AdminPlace {
    match address {
        ListenAddress::Tcp(address) => AdminPlace::Tcp(BackendAddress::Socket(reachable(*address))),
        ListenAddress::Unix(path) => AdminPlace::Path(path.clone()),
    }
}

fn first_token(file: &Path) -> Result<Token, Failure> {
    let tokens = config::read_tokens(file).map_err(|messages| Failure::Usage(messages.join("\n")))?;
    Ok(first(tokens))
}

/// The first token that may change something, or else the first.
fn first(mut tokens: Vec<Token>) -> Token {
    tokens.swap_remove(tokens.iter().position(|token| !token.viewer).unwrap_or(0))
}

/// Where something that listens on `address` can be reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        endpoint: EndpointArgs,
    }

    const SECRETS: [&str; 3] = ["flag-token-0123456", "variable-token-0123", "file-token-0123456"];

    fn resolve(args: &[&str], variables: &[(&str, &str)]) -> Result<(String, Option<String>), String> {
        let line = Line::try_parse_from(["x"].iter().chain(args)).map_err(|error| error.to_string())?;
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(*value));
        let endpoint = line.endpoint.resolve(variable).map_err(|failure| failure.to_string())?;
        Ok((endpoint.address.to_string(), endpoint.token.map(|token| token.secret)))
    }

    #[test]
    fn flags_beat_variables_which_beat_the_file_which_beats_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let [flag, variable, file] = SECRETS;
        std::fs::write(path("flag"), format!("viewer v {variable}\na {flag}\nb {file}\n")).unwrap();
        std::fs::write(path("file"), file).unwrap();
        let start = "listeners: [{address: 0.0.0.0:1}]\nupstreams: [{name: a, backends: [{address: a:1}]}]\n";
        std::fs::write(path("conf"), format!("{start}admin: {{address: '[::]:7', token_file: {}}}\n", path("file")))
            .unwrap();
        std::fs::write(path("off"), format!("{start}admin: {{address: null}}\n")).unwrap();
        let secret = |text: &str| Some(text.to_owned());

        assert_eq!(resolve(&[], &[]), Ok(("127.0.0.1:9901".to_owned(), None)));
        assert_eq!(resolve(&["-c", &path("conf")], &[]), Ok(("[::1]:7".to_owned(), secret(file))));
        let variables = [("TOLLGATE_ADMIN", "10.0.0.1:5"), ("TOLLGATE_ADMIN_TOKEN", variable)];
        assert_eq!(resolve(&["-c", &path("conf")], &variables), Ok(("10.0.0.1:5".to_owned(), secret(variable))));
        let all = ["-c", &path("conf"), "--admin", "edge.internal:6", "--token-file", &path("flag")];
        assert_eq!(resolve(&all, &variables), Ok(("edge.internal:6".to_owned(), secret(flag))));
        assert_eq!(resolve(&["--admin", "localhost:1", "-c", &path("off")], &[]), Ok(("localhost:1".to_owned(), None)));
        assert!(resolve(&["-c", &path("off")], &[]).unwrap_err().ends_with("there is no admin API to ask"));
        let socket = resolve(&["--admin", "unix:/run/a.sock"], &[]).unwrap().0;
        assert_eq!(socket, "unix:/run/a.sock");
        std::fs::write(path("socket"), format!("{start}admin: {{address: 'unix:/run/b.sock'}}\n")).unwrap();
        assert_eq!(resolve(&["-c", &path("socket")], &[]), Ok(("unix:/run/b.sock".to_owned(), None)));
        assert!(resolve(&["--admin", "https://a:1"], &[]).unwrap_err().contains("needs --ca FILE"));
        assert_eq!(resolve(&["--admin", "https://a:1", "--ca", "x"], &[]).unwrap().0, "a:1");
        assert!(resolve(&["--token-file", &path("none")], &[]).unwrap_err().ends_with("none: there is no such file"));
        assert!(resolve(&["--admin", "http://a:1"], &[]).unwrap_err().contains("leave out http://"));
        let wrong = resolve(&[], &[("TOLLGATE_ADMIN", "here")]).unwrap_err();
        assert!(wrong.starts_with("TOLLGATE_ADMIN: must be an IP address or a host name, and a port"), "{wrong}");
    }
}
