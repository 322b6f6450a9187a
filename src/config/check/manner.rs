//! How the backends of a pool are spoken to.

use crate::clock::{Clock, SystemClock};
use crate::config::overrides::Overrides;
use crate::config::problem::Problem;
use crate::config::report::Level;
use crate::config::shape::BackendTlsKeys;
use crate::config::value::{Choice, OrNone};
use crate::config::written::{Section, Written};
use crate::tls::{Flaw, Origination, Originator, PairFiles, SystemRoots};
use crate::upstream::{BackendAddress, BackendSettings, Manner, Protocol, ProxyProtocol};

/// What is allowed and worth a word.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    pub(super) warnings: Vec<String>,
    /// Certificates that are not valid now.
    pub(super) lapsed: Vec<Problem>,
}

/// What files are read with, and where to say what they are found to be.
pub(super) type Files<'f> = (&'f SystemRoots, &'f Overrides, &'f mut Doubts);

/// The keys `protocol`, `tls` and `proxy_protocol` of a pool.
pub(super) type MannerKeys =
    (Written<Choice<Protocol>>, Written<OrNone<Section<BackendTlsKeys>>>, Written<OrNone<Choice<ProxyProtocol>>>);

/// What the keys of a pool with these `backends` say of it.
pub(super) fn manner(
    at: &mut Level<'_>,
    (protocol, tls, proxy_protocol): MannerKeys,
    backends: &[BackendSettings],
    files: Files<'_>,
) -> Manner {
    let protocol = at.or("protocol", protocol, Protocol::default());
    let has_tls = matches!(&tls, Written::Given(Some(_)) | Written::Wrong(_));
    if protocol == Protocol::Auto && !has_tls {
        at.add("protocol", "must be http/1.1 or h2 where there is no tls: auto is agreed on in a TLS handshake");
    }
    let proxy_protocol = at.take("proxy_protocol", proxy_protocol).flatten();
    if protocol != Protocol::Http1 && proxy_protocol.is_some() {
        let name = protocol.name();
        at.add("proxy_protocol", format!("must be null with protocol: {name}, whose connections serve many clients"));
    }
    let tls = at.take("tls", tls).flatten().and_then(|keys| originator(&mut at.below("tls"), keys, backends, files));
    Manner { protocol, tls, proxy_protocol }
}

fn originator(
    at: &mut Level<'_>,
    keys: BackendTlsKeys,
    backends: &[BackendSettings],
    (system, overrides, doubts): Files<'_>,
) -> Option<Originator> {
    let before = at.report.problems.len();
    let server_name = at.take("server_name", keys.server_name).flatten();
    let verify = at.or("verify", keys.verify, true);
    let file = |path: Option<_>| path.map(|path| overrides.locate(path));
    let ca = file(at.take("ca", keys.ca).flatten());
    let (cert, key) = (file(at.take("cert", keys.cert).flatten()), file(at.take("key", keys.key).flatten()));
    if at.report.problems.len() == before {
        // One that is wrong is not missing.
        match (&cert, &key) {
            (Some(_), None) => {
                at.add("key", "is missing, must be the path of a PEM file: cert is of no use without it")
            }
            (None, Some(_)) => {
                at.add("cert", "is missing, must be the path of a PEM file: key is of no use without it")
            }
            _ => {}
        }
    }
    let nameless = backends.iter().find(|backend| matches!(backend.address, BackendAddress::Unix(_)));
    if let (true, None, Some(backend)) = (verify, &server_name, nameless) {
        let message = "is missing, must be a host name or an IP address";
        at.add(
            "server_name",
            format!("{message}: {} has none that its certificate could be checked for", backend.address),
        );
    }
    if !verify {
        let told = "false means that nobody checks whose certificates backends show: anybody in between can read and \
                    change everything";
        doubts.warnings.push(format!("{}: {told}", at.at.key("verify")));
    }
    let now = SystemClock.wall();
    let pair = cert.zip(key).map(|(cert, key)| PairFiles { cert, key });
    match Originator::load(Origination { server_name, verify, ca, pair }, system, now) {
        Ok((originator, unwise)) => {
            let said = |flaw: Flaw| format!("{}: {}", at.at.key(flaw.part.name()), flaw.message);
            doubts.warnings.extend(unwise.into_iter().map(said));
            let lapse = originator.lapse(now);
            doubts.lapsed.extend(lapse.map(|flaw| at.report.problem(&at.at.key(flaw.part.name()), flaw.message)));
            Some(originator)
        }
        Err(flaws) => {
            flaws.into_iter().for_each(|flaw| at.add(flaw.part.name(), flaw.message));
            None
        }
    }
}
