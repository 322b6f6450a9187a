//! The admin API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::admin::Access;
use crate::config::AdminSettings;
use crate::config::address::{Listen, collide};
use crate::config::key::{Key, Section};
use crate::config::overrides::Overrides;
use crate::config::problem::{KeyPath, Report};
use crate::config::{raw, tokens};

/// Where it listens when nobody says where.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// What the file and the command line say of the admin API.
pub(super) struct Admin {
    /// Where it listens, and where that is written; no address when it is off.
    address: Option<SocketAddr>,
    at: KeyPath,
    /// Whether nobody wrote the address.
    is_default: bool,
    /// Who gets in; none when that cannot be known, which was reported.
    access: Option<Access>,
    warnings: Vec<String>,
}

/// The admin API of the file. With a token of the environment the file of tokens is not read, and may be missing.
pub(super) fn of_file(
    report: &mut Report,
    at: &KeyPath,
    key: Key<Section<raw::Admin>>,
    overrides: &Overrides,
) -> Admin {
    let raw = report.take(at, key).unwrap_or_default();
    let is_default = matches!(raw.address, Key::Absent);
    let address_at = at.key("address");
    let address = report.take(&address_at, raw.address).unwrap_or(Some(DEFAULT));
    let file = report.take(&at.key("token_file"), raw.token_file).flatten();
    let file = file.map(|path| overrides.locate(path));
    let mut warnings = Vec::new();
    let access = match (&overrides.admin_token, file) {
        (Some(token), _) => Some(Access::Tokens(vec![token.clone()])),
        (None, Some(file)) => of_token_file(report, &at.key("token_file"), file, &mut warnings),
        (None, None) => Some(Access::Loopback),
    };
    Admin { address, at: address_at, is_default, access, warnings }
}

fn of_token_file(report: &mut Report, at: &KeyPath, file: PathBuf, warnings: &mut Vec<String>) -> Option<Access> {
    match tokens::read(&file) {
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

impl Admin {
    /// Makes it listen where `--admin` says.
    pub(super) fn move_to(&mut self, report: &mut Report, address: SocketAddr) {
        self.at = KeyPath::flag("--admin");
        self.is_default = false;
        let key = Key::<Listen>::read(&address.to_string().into());
        self.address = report.take(&self.at, key);
    }

    /// The settings, none when it is off, and warnings. Reports an address that one of `listeners` has, and one that
    /// other machines can reach without a token.
    pub(super) fn finish(
        self,
        report: &mut Report,
        listeners: &[(KeyPath, SocketAddr)],
    ) -> (Option<AdminSettings>, Vec<String>) {
        let Admin { address, at, is_default, access, warnings } = self;
        let Some(address) = address else { return (None, warnings) };
        if let Some((first, taken)) = listeners.iter().find(|(_, listener)| collide(*listener, address)) {
            let default = if is_default { ", its default," } else { "" };
            report.add(
                &at,
                format!("must be an address of its own, but {address}{default} is taken by {first} ({taken})"),
            );
        }
        if access == Some(Access::Loopback) && !address.ip().to_canonical().is_loopback() {
            report.add(
                &at,
                format!(
                    "must be a loopback address such as {DEFAULT}, or have a token (admin.token_file or \
                     TOLLGATE_ADMIN_TOKEN): {address} can be reached from other machines"
                ),
            );
        }
        (access.map(|access| AdminSettings { address, access }), warnings)
    }
}
