//! What a listener does its handshakes with.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Pair;

/// What is agreed on by ALPN, the dearest first. A client that names only others gets the alert
/// `no_application_protocol` (RFC 7301 section 3.2), as nginx does it: whoever meant another service must not be served
/// by this one.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// One listener's TLS. Shared by its connections; a new pair takes effect on the next handshake.
pub struct Terminator {
    config: Arc<ServerConfig>,
    present: Arc<Present>,
}

/// The pair of the moment.
struct Present {
    pair: ArcSwap<Pair>,
}

impl Terminator {
    /// Serves with `pair`.
    ///
    /// # Errors
    /// When the system has no random numbers for the keys of tickets.
    pub fn new(pair: Pair) -> Result<Self, rustls::Error> {
        let present = Arc::new(Present { pair: ArcSwap::from_pointee(pair) });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&present) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Terminator { config: Arc::new(config), present })
    }

    /// What to do a handshake with. It presents the pair of the moment in which the client says hello.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The pair that the next handshake gets.
    pub fn pair(&self) -> Arc<Pair> {
        self.present.pair.load_full()
    }

    /// Serves with `pair` from the next handshake on. Connections stay, and sessions can still be resumed.
    pub fn set(&self, pair: Pair) {
        self.present.pair.store(Arc::new(pair));
    }
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator").field("pair", &self.present.pair.load()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.load().certified())
    }
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").finish_non_exhaustive()
    }
}

/// Which listeners speak TLS, by the address that they listen on. Which ones do is fixed; their pairs are not.
#[derive(Debug, Default)]
pub struct TlsListeners {
    terminators: HashMap<SocketAddr, Terminator>,
}

impl TlsListeners {
    /// The listeners at these addresses, each with its pair.
    ///
    /// # Errors
    /// When the system has no random numbers for the keys of tickets.
    pub fn new(pairs: impl IntoIterator<Item = (SocketAddr, Pair)>) -> Result<Self, rustls::Error> {
        let terminators = pairs.into_iter().map(|(address, pair)| Ok((address, Terminator::new(pair)?)));
        Ok(TlsListeners { terminators: terminators.collect::<Result<_, rustls::Error>>()? })
    }

    /// Whether all listeners are plain.
    pub fn is_empty(&self) -> bool {
        self.terminators.is_empty()
    }

    /// The TLS of the listener at exactly `address`; none when it is plain, or when there is no such listener. The
    /// handle to give it another pair.
    pub fn at(&self, address: SocketAddr) -> Option<&Terminator> {
        self.terminators.get(&address)
    }

    /// Those that speak TLS, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Terminator)> {
        let mut all: Vec<_> = self.terminators.iter().map(|(address, terminator)| (*address, terminator)).collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        all.into_iter()
    }

    /// Says of each pair that is not valid at `now` why, with its listener.
    pub fn lapsed(&self, now: SystemTime) -> Vec<String> {
        let lapse = |(address, terminator): (SocketAddr, &Terminator)| {
            let flaw = terminator.pair().lapse(now)?;
            Some(format!("listener {address}: {}; it is served all the same", flaw.message))
        };
        self.iter().filter_map(lapse).collect()
    }
}

#[cfg(test)]
mod tests;
