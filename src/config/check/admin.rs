//! The admin API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::listeners::pair;
use crate::admin::Access;
use crate::config::overrides::Overrides;
use crate::config::problem::{KeyPath, Problem};
use crate::config::report::{Level, Report};
use crate::config::settings::AdminSettings;
use crate::config::shape::AdminKeys;
use crate::config::tokens;
use crate::config::value::AdminAddress;
use crate::config::written::{Section, Written};
use crate::process::{ListenAddress, collide};
use crate::tls::ListenerTls;

/// Where it listens when nobody says where.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// What the file and the command line say of the admin API.
pub(super) struct AdminDraft {
    /// Where it listens, and where that is written; no address when it is off.
    address: Option<ListenAddress>,
    at: KeyPath,
    /// Whether nobody wrote the address.
    is_default: bool,
    /// Who gets in; none when that cannot be known, which was reported.
    access: Option<Access>,
    /// The pair, and where it is written.
    tls: Option<ListenerTls>,
    tls_at: KeyPath,
    warnings: Vec<String>,
    lapsed: Vec<Problem>,
}

/// The admin API of the file. With a token of the environment the file of tokens is not read, and may be missing.
pub(super) fn of_file(top: &mut Level<'_>, key: Written<Section<AdminKeys>>, overrides: &Overrides) -> AdminDraft {
    let (keys, mut at) = top.section("admin", key);
    let is_default = matches!(keys.address, Written::Absent);
    let address = at.or("address", keys.address, Some(DEFAULT.into())).map(|address| located(address, overrides));
    let file = at.take("token_file", keys.token_file).flatten().map(|path| overrides.locate(path));
    let (mut warnings, mut lapsed) = (Vec::new(), Vec::new());
    let tls = at.take("tls", keys.tls).flatten();
    let tls = tls.and_then(|keys| pair(&mut at.below("tls"), keys, (overrides, &mut warnings, &mut lapsed)));
    let tls = tls.map(ListenerTls::from);
    let access = match (&overrides.admin_token, file) {
        (Some(token), _) => Some(Access::Tokens(vec![token.clone()])),
        (None, Some(file)) => of_token_file(&mut at.below("token_file"), &file, &mut warnings),
        (None, None) => Some(Access::Loopback),
    };
    let (tls_at, at) = (at.at.key("tls"), at.at.key("address"));
    AdminDraft { address, at, is_default, access, tls, tls_at, warnings, lapsed }
}

/// A path that means the same wherever the process is by then.
fn located(address: ListenAddress, overrides: &Overrides) -> ListenAddress {
    match address {
        ListenAddress::Unix(path) => ListenAddress::Unix(overrides.locate(path)),
        tcp => tcp,
    }
}

fn of_token_file(Level { report, at }: &mut Level<'_>, file: &Path, warnings: &mut Vec<String>) -> Option<Access> {
    match tokens::read(file) {
        Ok((tokens, warning)) => {
            warnings.extend(warning.map(|warning| format!("{at}: {warning}")));
            Some(Access::Tokens(tokens))
        }
        Err(messages) => {
            messages.into_iter().for_each(|message| report.add(at, message));
            None
        }
    }
}

impl AdminDraft {
    /// Makes it listen where `--admin` or its variable says.
    pub(super) fn move_to(&mut self, report: &mut Report, address: &ListenAddress, overrides: &Overrides) {
        self.at = KeyPath::flag(overrides.name("--admin", "TOLLGATE_ADMIN"));
        self.is_default = false;
        let key = Written::<AdminAddress>::read(&address.to_string().into());
        self.address = report.take(&self.at, key).flatten().map(|address| located(address, overrides));
    }

    /// The settings, none when it is off, with warnings and certificates that are not valid. Reports an address that
    /// one of `listeners` has, one that other machines can reach without a token, and TLS at a path.
    pub(super) fn finish(
        self,
        report: &mut Report,
        listeners: &[(KeyPath, SocketAddr)],
    ) -> (Option<AdminSettings>, Vec<String>, Vec<Problem>) {
        let AdminDraft { address, at, is_default, access, tls, tls_at, mut warnings, lapsed } = self;
        let Some(address) = address else { return (None, warnings, lapsed) };
        let Some(tcp) = address.tcp() else {
            if tls.is_some() {
                report.add(&tls_at, format!("must be null with {address}, which no other machine can reach"));
            }
            if matches!(access, Some(Access::Tokens(_))) {
                let why = "its owner and group may use it, and nobody is asked for a token";
                warnings.push(format!("{at}: {address}: {why}"));
            }
            return (access.map(|_| AdminSettings { address, access: Access::Anyone, tls: None }), warnings, lapsed);
        };
        if let Some((first, taken)) = listeners.iter().find(|(_, listener)| collide(*listener, tcp)) {
            let default = if is_default { ", its default," } else { "" };
            report.add(
                &at,
                format!("must be an address of its own, but {address}{default} is taken by {first} ({taken})"),
            );
        }
        if access == Some(Access::Loopback) && !tcp.ip().to_canonical().is_loopback() {
            report.add(
                &at,
                format!(
                    "must be a loopback address such as {DEFAULT}, or have a token (admin.token_file or \
                     TOLLGATE_ADMIN_TOKEN): {address} can be reached from other machines"
                ),
            );
        }
        (access.map(|access| AdminSettings { address, access, tls }), warnings, lapsed)
    }
}
