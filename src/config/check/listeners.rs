//! Where to listen, and with which certificates.

use std::net::SocketAddr;

use serde_yaml::Value;

use super::lists::sections;
use crate::client::Networks;
use crate::clock::{Clock, SystemClock};
use crate::config::overrides::Overrides;
use crate::config::problem::{KeyPath, Problem};
use crate::config::report::{Level, Report};
use crate::config::settings::ListenerSettings;
use crate::config::shape::{AcmeKeys, ListenerKeys, PairKeys, TlsKeys};
use crate::config::source;
use crate::config::value::{ClientCerts, Listen};
use crate::config::written::{List, Section, Written};
use crate::process::collide;
use crate::proxy::{Identity, ListenerRules};
use crate::tls::{AcmeListener, AcmeSettings, ClientCertificates, Flaw, ListenerTls, Pair, PairFiles, TicketKeys};
use crate::upstream::{PoolSettings, Protocol};

/// Where certificates come from when nobody says where.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

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

    /// Warns of those that let nobody in, since no proxy is trusted, and of certificates that nobody is asked for.
    pub(super) fn warn_of_strangers(&mut self, identity: &Identity) {
        let closed = self.list.iter().filter(|(_, listener)| {
            listener.rules.proxy_protocol.is_some() && identity.trusted_proxies == Networks::default()
        });
        let told = closed.map(|(at, listener)| {
            let key = at.parent().unwrap_or_default().key("proxy_protocol");
            format!("{key}: nobody may connect to {}, since identity.trusted_proxies is empty", listener.address)
        });
        self.warnings.extend(told);
        let asks =
            |(_, listener): &(_, ListenerSettings)| listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        if identity.client_certificates && !self.list.iter().any(asks) {
            let why = "is of no use, since no listener has `tls.client_ca`";
            self.warnings.push(format!("identity.client_certificates: {why}"));
        }
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

impl Listeners {
    /// Warns where backends speak HTTP/2 by prior knowledge, as those of gRPC do, and no client can speak it here.
    pub(super) fn warn_of_http1_alone(&mut self, pools: &[PoolSettings]) {
        if self.list.iter().any(|(_, listener)| listener.tls.is_some() || listener.rules.h2c) {
            return;
        }
        let alone = pools.iter().enumerate().filter(|(_, pool)| pool.manner.protocol == Protocol::Http2);
        self.warnings.extend(alone.map(|(index, _)| {
            let message = "is h2, but no listener speaks HTTP/2 (none has tls, or h2c: true): clients of HTTP/1.1 are served, \
                           those of gRPC are not";
            format!("upstreams[{index}].protocol: {message}")
        }));
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
        let has_tls = !matches!(keys.tls, Written::Absent | Written::Given(None));
        let tls = at.take("tls", keys.tls).flatten();
        let tls = tls.and_then(|keys| self::tls(&mut at.below("tls"), keys, (overrides, &mut found)));
        let rules = ListenerRules {
            proxy_protocol: at.or("proxy_protocol", keys.proxy_protocol, None),
            h2c: at.or("h2c", keys.h2c, false),
            redirect_to_https: at.or("redirect_to_https", keys.redirect_to_https, None),
        };
        if has_tls && rules.h2c {
            at.add("h2c", "must be false on a listener with `tls`, where clients ask for HTTP/2 by ALPN");
        }
        if has_tls && rules.redirect_to_https.is_some() {
            at.add("redirect_to_https", "must be null on a listener with `tls`, which is HTTPS already");
        }
        found.list.extend(address.map(|address| (at.at.key("address"), ListenerSettings { address, tls, rules })));
    }
    found.apart(top.report)
}

/// The listeners of `--listen`, which are plain.
pub(super) fn of_flags(report: &mut Report, overrides: &Overrides) -> Listeners {
    let at = KeyPath::flag(overrides.name("--listen", "TOLLGATE_LISTEN"));
    let keys = overrides.listen.iter().map(|address| Written::<Listen>::read(&Value::from(address.to_string())));
    let list = keys.filter_map(|key| Some((at.clone(), report.take(&at, key)?.into()))).collect();
    Listeners { list, ..Listeners::default() }.apart(report)
}

/// What a listener presents, loaded.
fn tls(at: &mut Level<'_>, keys: TlsKeys, (overrides, found): (&Overrides, &mut Listeners)) -> Option<ListenerTls> {
    let TlsKeys { cert, key, pairs, acme, ticket_keys, client_ca, client_certs } = keys;
    let (named, acme) = (!matches!(acme, Written::Absent), at.take("acme", acme));
    let has_acme = named && !matches!(acme, Some(None));
    let acme = acme.flatten().and_then(|keys| self::acme(&mut at.below("acme"), keys)).map(AcmeListener::from);
    let others = [("cert", matches!(cert, Written::Absent)), ("key", matches!(key, Written::Absent))];
    let others = others.into_iter().chain([("pairs", matches!(pairs, Written::Absent))]);
    let pairs = match pairs {
        _ if has_acme => {
            others.filter(|(_, absent)| !absent).for_each(|(name, _)| {
                at.add(name, "must not stand beside `acme`, which brings a certificate of its own");
            });
            Vec::new()
        }
        Written::Absent => vec![pair(at, PairKeys { cert, key }, (overrides, &mut found.warnings, &mut found.lapsed))],
        pairs => {
            for (name, key) in [("cert", cert), ("key", key)] {
                if !matches!(key, Written::Absent) {
                    at.add(name, "must not stand beside `pairs`, of which it is the short form");
                }
            }
            let list = sections(at, "pairs", pairs, true).into_iter().flatten();
            let load = |(path, keys): (KeyPath, Option<PairKeys>)| {
                pair(
                    &mut Level { report: at.report, at: path },
                    keys?,
                    (overrides, &mut found.warnings, &mut found.lapsed),
                )
            };
            list.map(load).collect()
        }
    };
    let ticket_keys = at.or("ticket_keys", ticket_keys, None).map(|path| overrides.locate(path));
    let open = ticket_keys.as_deref().and_then(source::open_to_all);
    found.warnings.extend(open.map(|why| format!("{}: {why}", at.at.key("ticket_keys"))));
    let ticket_keys = ticket_keys.map(|path| TicketKeys::load(&path).map_err(|why| at.add("ticket_keys", why)));
    let required = at.or("client_certs", client_certs, ClientCerts::Optional) == ClientCerts::Required;
    let client_ca = at.or("client_ca", client_ca, None).map(|path| overrides.locate(path));
    if client_ca.is_none() && required {
        at.add("client_certs", "must be optional without `client_ca`, which says whose certificates get in");
    }
    if client_ca.is_some() && ticket_keys.is_some() {
        let key = at.at.key("ticket_keys");
        found.warnings.push(format!("{key}: is of no use with `client_ca`, where there are no tickets"));
    }
    let clients =
        client_ca.map(|path| ClientCertificates::load(&path, required).map_err(|why| at.add("client_ca", why)));
    let enough = |pairs: &Vec<Pair>| acme.is_some() || !pairs.is_empty();
    let pairs = pairs.into_iter().collect::<Option<Vec<_>>>().filter(enough)?;
    Some(ListenerTls { pairs, acme, ticket_keys: ticket_keys.transpose().ok()?, clients: clients.transpose().ok()? })
}

/// What is asked of a certificate authority.
fn acme(at: &mut Level<'_>, keys: AcmeKeys) -> Option<AcmeSettings> {
    let domains = at.need("domains", keys.domains).map(|list| {
        let path = at.at.key("domains");
        let mut all = Vec::new();
        for (index, item) in list.into_iter().enumerate() {
            match at.report.take(&path.item(index), item) {
                Some(domain) if all.contains(&domain) => {
                    at.report.add(&path.item(index), format!("{domain} stands here twice, must be written once"));
                }
                domain => all.extend(domain),
            }
        }
        all
    });
    let path = at.at.key("contact");
    let contact = at.take("contact", keys.contact).unwrap_or_default().into_iter().enumerate();
    let contact = contact.filter_map(|(index, item)| at.report.take(&path.item(index), item)).collect();
    let directory = at.or("directory", keys.directory, LETS_ENCRYPT.to_owned());
    Some(AcmeSettings { domains: domains?, contact, directory })
}

/// A pair, loaded; with what is not wise about it, and whether it is valid now.
pub(super) fn pair(
    at: &mut Level<'_>,
    keys: PairKeys,
    (overrides, warnings, lapsed): (&Overrides, &mut Vec<String>, &mut Vec<Problem>),
) -> Option<Pair> {
    let cert = at.need("cert", keys.cert);
    let key = at.need("key", keys.key);
    let now = SystemClock.wall();
    match Pair::load(&PairFiles { cert: overrides.locate(cert?), key: overrides.locate(key?) }, now) {
        Ok((pair, unwise)) => {
            let said = |flaw: Flaw| format!("{}: {}", at.at.key(flaw.part.name()), flaw.message);
            warnings.extend(unwise.into_iter().map(said));
            let lapse = pair.lapse(now).map(|flaw| at.report.problem(&at.at.key(flaw.part.name()), flaw.message));
            lapsed.extend(lapse);
            Some(pair)
        }
        Err(flaws) => {
            flaws.into_iter().for_each(|flaw| at.add(flaw.part.name(), flaw.message));
            None
        }
    }
}
