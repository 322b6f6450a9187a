//! The admin API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::admin::Access;
use crate::config::overrides::Overrides;
use crate::config::problem::KeyPath;
use crate::config::report::{Level, Report};
use crate::config::settings::AdminSettings;
use crate::config::shape::AdminKeys;
use crate::config::tokens;
use crate::config::value::Listen;
use crate::config::written::{Section, Written};
use crate::process::collide;

/// Where it listens when nobody says where.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// What the file and the command line say of the admin API.
pub(super) struct AdminDraft {
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
pub(super) fn of_file(top: &mut Level<'_>, key: Written<Section<AdminKeys>>, overrides: &Overrides) -> AdminDraft {
    let (keys, mut at) = top.section("admin", key);
    let is_default = matches!(keys.address, Written::Absent);
    let address = at.or("address", keys.address, Some(DEFAULT));
    let file = at.take("token_file", keys.token_file).flatten().map(|path| overrides.locate(path));
    let mut warnings = Vec::new();
    let access = match (&overrides.admin_token, file) {
        (Some(token), _) => Some(Access::Tokens(vec![token.clone()])),
        (None, Some(file)) => of_token_file(&mut at.below("token_file"), &file, &mut warnings),
        (None, None) => Some(Access::Loopback),
    };
    AdminDraft { address, at: at.at.key("address"), is_default, access, warnings }
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
    /// Makes it listen where `--admin` says.
    pub(super) fn move_to(&mut self, report: &mut Report, address: SocketAddr) {
        self.at = KeyPath::flag("--admin");
        self.is_default = false;
        let key = Written::<Listen>::read(&address.to_string().into());
        self.address = report.take(&self.at, key);
    }

    /// The settings, none when it is off, and warnings. Reports an address that one of `listeners` has, and one that
    /// other machines can reach without a token.
    pub(super) fn finish(
        self,
        report: &mut Report,
        listeners: &[(KeyPath, SocketAddr)],
    ) -> (Option<AdminSettings>, Vec<String>) {
        let AdminDraft { address, at, is_default, access, warnings } = self;
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
