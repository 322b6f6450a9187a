//! Where to listen, and with which certificates.

use std::net::SocketAddr;

use serde_yaml::Value;

use super::lists::sections;
use crate::clock::{Clock, SystemClock};
use crate::config::overrides::Overrides;
use crate::config::problem::{KeyPath, Problem};
use crate::config::report::{Level, Report};
use crate::config::settings::ListenerSettings;
use crate::config::shape::{ListenerKeys, TlsKeys};
use crate::config::value::Listen;
use crate::config::written::{List, Section, Written};
use crate::process::collide;
use crate::tls::{Flaw, Pair, PairFiles};

/// What the file or the command line says of the listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Each with the path of its address.
    pub(super) list: Vec<(KeyPath, ListenerSettings)>,
    pub(super) warnings: Vec<String>,
    /// Certificates that are not valid now.
    pub(super) lapsed: Vec<Problem>,
}

impl Listeners {
    /// The addresses, and where they are written.
    pub(super) fn addresses(&self) -> Vec<(KeyPath, SocketAddr)> {
        self.list.iter().map(|(at, listener)| (at.clone(), listener.address)).collect()
    }

    /// The same, after reporting those that cannot be listened on beside an earlier one.
    fn apart(self, report: &mut Report) -> Self {
        for (index, (at, ListenerSettings { address, .. })) in self.list.iter().enumerate() {
            let mut earlier = self.list[..index].iter().map(|(at, listener)| (at, listener.address));
            if let Some((first, taken)) = earlier.find(|(_, earlier)| collide(*earlier, *address)) {
                report.add(at, format!("must be an address of its own, but {address} is taken by {first} ({taken})"));
            }
        }
        self
    }
}

/// The listeners of the file, their certificates loaded.
pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<List<Section<ListenerKeys>>>,
    (needed, overrides): (bool, &Overrides),
) -> Listeners {
    let mut found = Listeners::default();
    for (at, keys) in sections(top, "listeners", key, needed).into_iter().flatten() {
        let Some(keys) = keys else { continue };
        let mut at = Level { report: top.report, at };
        let address = at.need("address", keys.address);
        let tls = at.take("tls", keys.tls);
        let tls = tls.and_then(|keys| pair(&mut at.below("tls"), keys, (overrides, &mut found)));
        found.list.extend(address.map(|address| (at.at.key("address"), ListenerSettings { address, tls })));
    }
    found.apart(top.report)
}

/// The listeners of `--listen`, which are plain.
pub(super) fn of_flags(report: &mut Report, flags: &[SocketAddr]) -> Listeners {
    let at = KeyPath::flag("--listen");
    let keys = flags.iter().map(|address| Written::<Listen>::read(&Value::from(address.to_string())));
    let list = keys.filter_map(|key| Some((at.clone(), report.take(&at, key)?.into()))).collect();
    Listeners { list, ..Listeners::default() }.apart(report)
}

fn pair(at: &mut Level<'_>, keys: TlsKeys, (overrides, found): (&Overrides, &mut Listeners)) -> Option<Pair> {
    let cert = at.need("cert", keys.cert);
    let key = at.need("key", keys.key);
    let now = SystemClock.wall();
    match Pair::load(&PairFiles { cert: overrides.locate(cert?), key: overrides.locate(key?) }, now) {
        Ok((pair, unwise)) => {
            let said = |flaw: Flaw| format!("{}: {}", at.at.key(flaw.part.name()), flaw.message);
            found.warnings.extend(unwise.into_iter().map(said));
            let lapse = pair.lapse(now).map(|flaw| at.report.problem(&at.at.key(flaw.part.name()), flaw.message));
            found.lapsed.extend(lapse);
            Some(pair)
        }
        Err(flaws) => {
            flaws.into_iter().for_each(|flaw| at.add(flaw.part.name(), flaw.message));
            None
        }
    }
}
