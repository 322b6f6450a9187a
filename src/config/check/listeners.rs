//! Where to listen, and with which certificates.

use std::net::SocketAddr;

use serde_yaml::Value;

use super::sections;
use crate::clock::{Clock, SystemClock};
use crate::config::address::{Listen, collide};
use crate::config::key::{Key, List, Section};
use crate::config::overrides::Overrides;
use crate::config::problem::{KeyPath, Problem, Report};
use crate::config::{ListenerSettings, raw};
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
    report: &mut Report,
    at: &KeyPath,
    key: Key<List<Section<raw::Listener>>>,
    (needed, overrides): (bool, &Overrides),
) -> Listeners {
    let mut found = Listeners::default();
    for (at, raw) in sections(report, at, key, needed).into_iter().flatten() {
        let Some(raw) = raw else { continue };
        let address_at = at.key("address");
        let address = report.need(&address_at, raw.address);
        let tls_at = at.key("tls");
        let tls = report.take(&tls_at, raw.tls).and_then(|raw| pair(report, &tls_at, raw, (overrides, &mut found)));
        found.list.extend(address.map(|address| (address_at, ListenerSettings { address, tls })));
    }
    found.apart(report)
}

/// The listeners of `--listen`, which are plain.
pub(super) fn of_flags(report: &mut Report, flags: &[SocketAddr]) -> Listeners {
    let at = KeyPath::flag("--listen");
    let keys = flags.iter().map(|address| Key::<Listen>::read(&Value::from(address.to_string())));
    let list = keys.filter_map(|key| Some((at.clone(), report.take(&at, key)?.into()))).collect();
    Listeners { list, ..Listeners::default() }.apart(report)
}

fn pair(
    report: &mut Report,
    at: &KeyPath,
    raw: raw::Tls,
    (overrides, found): (&Overrides, &mut Listeners),
) -> Option<Pair> {
    let cert = report.need(&at.key("cert"), raw.cert);
    let key = report.need(&at.key("key"), raw.key);
    let now = SystemClock.wall();
    match Pair::load(&PairFiles { cert: overrides.locate(cert?), key: overrides.locate(key?) }, now) {
        Ok((pair, unwise)) => {
            let said = |flaw: Flaw| format!("{}: {}", at.key(flaw.part.name()), flaw.message);
            found.warnings.extend(unwise.into_iter().map(said));
            let lapse = pair.lapse(now).map(|flaw| report.problem(&at.key(flaw.part.name()), flaw.message));
            found.lapsed.extend(lapse);
            Some(pair)
        }
        Err(flaws) => {
            flaws.into_iter().for_each(|flaw| report.add(&at.key(flaw.part.name()), flaw.message));
            None
        }
    }
}
