//! What a transport does its handshakes with: whom it believes, and who it says it is.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::files;
use super::verifier::{Credulous, Verifier};
use super::{Flaw, Pair, PairFiles, Part};

/// How many sessions are kept for one server, to be resumed by its next connections. A ticket of TLS 1.3 is used once,
/// and a server gives two or four with each handshake.
const SESSIONS: usize = 32;

/// What is said of TLS to servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origination {
    /// The name that their certificates must have, and that they are asked for. Without one it is where they are.
    pub server_name: Option<ServerName<'static>>,
    /// Whether their certificates are checked at all.
    pub verify: bool,
    /// The file with the authorities that are believed; without one, those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to servers that ask for one.
    pub pair: Option<PairFiles>,
}

/// The authorities that this machine believes, read when they are first needed.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Result<Arc<RootCertStore>, String>>);

/// What handshakes with servers are done with. A clone is another handle to the same.
///
/// Two are equal when the same was said of them and the files held the same.
#[derive(Clone)]
pub struct Originator {
    said: Origination,
    roots: Arc<RootCertStore>,
    pair: Option<Pair>,
    config: Arc<ClientConfig>,
}

impl SystemRoots {
    fn get(&self) -> Result<Arc<RootCertStore>, String> {
        self.0.get_or_init(Self::load).clone()
    }

    fn load() -> Result<Arc<RootCertStore>, String> {
        let found = rustls_native_certs::load_native_certs();
        let found = found.map_err(|error| format!("the system's authorities cannot be read: {error}"))?;
        let mut roots = RootCertStore::empty();
        // What a system has beside them, such as one of version 1, has never been of use.
        roots.add_parsable_certificates(found);
        match roots.is_empty() {
            true => {
                Err("this system knows no authorities (on Debian they are in the package ca-certificates)".to_owned())
            }
            false => Ok(Arc::new(roots)),
        }
    }
}

impl Originator {
    /// Loads what `said` names and checks it as of `now`. With it comes what is allowed and yet not wise. Blocks on the
    /// files, so it is for the start and for threads of its own.
    ///
    /// # Errors
    /// Everything that is wrong, at least one thing.
    pub fn load(
        said: Origination,
        system: &SystemRoots,
        now: SystemTime,
    ) -> Result<(Originator, Vec<Flaw>), Vec<Flaw>> {
        let (mut flaws, mut unwise) = (Vec::new(), Vec::new());
        let pair = said.pair.as_ref().and_then(|files| match Pair::load(files, now) {
            Ok((pair, found)) => {
                unwise = found;
                Some(pair)
            }
            Err(found) => {
                flaws.extend(found);
                None
            }
        });
        let believed = Believed::of(&said, system).map_err(|message| flaws.push(Flaw { part: Part::Ca, message })).ok();
        let (Some(believed), true) = (believed, flaws.is_empty()) else { return Err(flaws) };
        let (roots, known) = (believed.roots, believed.known);
        let config = config(&said, (Arc::clone(&roots), known), pair.as_ref().map(Pair::certified));
        let config =
            config.map_err(|error| vec![Flaw { part: Part::Ca, message: format!("TLS cannot be set up: {error}") }])?;
        Ok((Originator { said, roots, pair, config: Arc::new(config) }, unwise))
    }

    /// What was said of it.
    pub fn said(&self) -> &Origination {
        &self.said
    }

    /// Why the certificate that it shows is not valid at `now`; none when it is, or when it shows none.
    pub fn lapse(&self, now: SystemTime) -> Option<Flaw> {
        self.pair.as_ref()?.lapse(now)
    }

    /// What to do handshakes with one server with, which is asked for `protocols` by ALPN. Its sessions are kept apart
    /// from those of others: tickets are of no use to anybody else.
    pub fn for_server(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Arc::new(config)
    }
}

impl PartialEq for Originator {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said && self.roots.roots == other.roots.roots && self.pair == other.pair
    }
}

impl Eq for Originator {}

impl fmt::Debug for Originator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originator").field("said", &self.said).finish_non_exhaustive()
    }
}

/// Whose word counts.
struct Believed {
    roots: Arc<RootCertStore>,
    /// The certificates that were named one by one.
    known: Vec<rustls::pki_types::CertificateDer<'static>>,
}

impl Believed {
    fn of(said: &Origination, system: &SystemRoots) -> Result<Self, String> {
        let Some(path) = &said.ca else {
            let roots = if said.verify { system.get()? } else { Arc::new(RootCertStore::empty()) };
            return Ok(Believed { roots, known: Vec::new() });
        };
        let wrong = |why: &str| format!("{}: {why}", path.display());
        let known = files::read(path).and_then(|text| files::certificates(&text)).map_err(|why| wrong(&why))?;
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(&known) {
            let why = format!("certificate {number} is damaged, or none of X.509");
            roots.add(certificate.clone()).map_err(|_| wrong(&why))?;
        }
        Ok(Believed { roots: Arc::new(roots), known })
    }
}

fn config(
    said: &Origination,
    (roots, known): (Arc<RootCertStore>, Vec<rustls::pki_types::CertificateDer<'static>>),
    pair: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous();
    let builder = match said.verify {
        true => builder.with_custom_certificate_verifier(Arc::new(Verifier::new(roots, known, provider)?)),
        false => builder.with_custom_certificate_verifier(Arc::new(Credulous::new(&provider))),
    };
    Ok(match pair {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&pair)))),
        None => builder.with_no_client_auth(),
    })
}
