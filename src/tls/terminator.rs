//! What a listener does its handshakes with.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions};

use super::acme::ACME_PROTOCOL;
use super::presented::Presented;
use super::{AcmeListener, ClientCertificates, Pair, TicketKeys, TicketRing, TicketSecret};

/// What is agreed on by ALPN, the dearest first. A client that names only others gets the alert
/// `no_application_protocol` (RFC 7301 section 3.2), as nginx does it: whoever meant another service must not be served
/// by this one.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
/// How many sessions of TLS 1.2 are kept for clients that take no tickets; what rustls keeps.
const SESSIONS: usize = 256;

/// What a listener presents, and whom it asks for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The pairs, at least one, chosen by the name that a client asks for; the first is for everybody else.
    pub pairs: Vec<Pair>,
    /// What is asked of a certificate authority for its pair; none is of one's own making.
    pub acme: Option<AcmeListener>,
    /// The keys of tickets, where they are not those of the process.
    pub ticket_keys: Option<TicketKeys>,
    /// Whom it asks for certificates; none asks nobody.
    pub clients: Option<ClientCertificates>,
}

impl From<Pair> for ListenerTls {
    /// That pair for everybody.
    fn from(pair: Pair) -> Self {
        ListenerTls { pairs: vec![pair], acme: None, ticket_keys: None, clients: None }
    }
}

/// One listener's TLS. Shared by its connections; what is set takes effect on the next handshake.
pub struct Terminator {
    present: ArcSwap<Handshakes>,
    ring: Arc<TicketRing>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// What handshakes are done with now.
struct Handshakes {
    tls: ListenerTls,
    config: Arc<ServerConfig>,
}

impl Terminator {
    /// Does handshakes as `tls` says; tickets are sealed by `ring` where nothing else is said.
    ///
    /// # Errors
    /// When rustls cannot do them.
    pub fn new(tls: ListenerTls, ring: &Arc<TicketRing>) -> Result<Self, rustls::Error> {
        let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
        let config = config(&tls, ring, &sessions)?;
        let present = ArcSwap::from_pointee(Handshakes { tls, config });
        Ok(Terminator { present, ring: Arc::clone(ring), sessions })
    }

    /// What to do a handshake with: what counts in this moment.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.present.load().config)
    }

    /// What the next handshake goes by.
    pub fn tls(&self) -> ListenerTls {
        self.present.load().tls.clone()
    }

    /// Goes by `tls` from the next handshake on. Connections stay, and sessions can still be resumed where the keys of
    /// tickets are the same.
    pub fn set(&self, tls: ListenerTls) {
        if let Ok(config) = config(&tls, &self.ring, &self.sessions) {
            self.present.store(Arc::new(Handshakes { tls, config }));
        }
    }

    /// Presents `pair` in place of those from the same files; whether there are such.
    pub fn renew(&self, pair: &Pair) -> bool {
        let is_of = |old: &Pair| old.files() == pair.files();
        let before = self.present.rcu(|now| {
            let mut tls = now.tls.clone();
            tls.pairs.iter_mut().filter(|old| is_of(old)).for_each(|old| *old = pair.clone());
            match config(&tls, &self.ring, &self.sessions) {
                Ok(config) => Arc::new(Handshakes { tls, config }),
                Err(_) => Arc::clone(now),
            }
        });
        before.tls.pairs.iter().any(is_of)
    }
}

/// What rustls is told. It fails only where its provider lacks what both versions of TLS need.
fn config(
    tls: &ListenerTls,
    ring: &Arc<TicketRing>,
    sessions: &Arc<dyn StoresServerSessions>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match &tls.clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let challenges = tls.acme.as_ref().and_then(|acme| acme.challenges.clone());
    let protocols = PROTOCOLS.iter().copied().chain(challenges.is_some().then_some(ACME_PROTOCOL));
    let protocols = protocols.map(|name| name.to_vec()).collect();
    let presented = Presented::new(tls.pairs.clone()).proving(challenges);
    let mut config = builder.with_cert_resolver(Arc::new(presented));
    config.alpn_protocols = protocols;
    match (&tls.clients, &tls.ticket_keys) {
        // Who resumes a session is not verified again.
        (Some(_), _) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        (None, Some(keys)) => config.ticketer = Arc::new(keys.clone()),
        (None, None) => config.ticketer = Arc::clone(ring) as _,
    }
    if tls.clients.is_none() {
        config.session_storage = Arc::clone(sessions);
    }
    Ok(Arc::new(config))
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator").field("tls", &self.present.load().tls).finish_non_exhaustive()
    }
}

/// Which listeners speak TLS, by the address that they listen on. Which ones do is fixed; what they present is not.
#[derive(Debug, Default)]
pub struct TlsListeners {
    terminators: HashMap<SocketAddr, Terminator>,
    ring: Arc<TicketRing>,
}

impl TlsListeners {
    /// The listeners at these addresses, each with what it presents. Tickets that were sealed with the `inherited` keys
    /// are opened.
    ///
    /// # Errors
    /// When the system has no random numbers for the keys of tickets.
    pub fn new(
        listeners: impl IntoIterator<Item = (SocketAddr, ListenerTls)>,
        inherited: &[TicketSecret],
        now: Instant,
    ) -> Result<Self, rustls::Error> {
        let ring = Arc::new(TicketRing::new(inherited, now)?);
        let terminators = listeners.into_iter().map(|(address, tls)| Ok((address, Terminator::new(tls, &ring)?)));
        Ok(TlsListeners { terminators: terminators.collect::<Result<_, rustls::Error>>()?, ring })
    }

    /// Whether all listeners are plain.
    pub fn is_empty(&self) -> bool {
        self.terminators.is_empty()
    }

    /// The TLS of the listener at exactly `address`; none when it is plain, or when there is no such listener. The
    /// handle to have it present something else.
    pub fn at(&self, address: SocketAddr) -> Option<&Terminator> {
        self.terminators.get(&address)
    }

    /// Those that speak TLS, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Terminator)> {
        let mut all: Vec<_> = self.terminators.iter().map(|(address, terminator)| (*address, terminator)).collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        all.into_iter()
    }

    /// The keys of tickets that the process makes.
    pub fn tickets(&self) -> &TicketRing {
        &self.ring
    }

    /// Says of each pair that is not valid at `now` why, with its listener.
    pub fn lapsed(&self, now: SystemTime) -> Vec<String> {
        let lapses = self.iter().flat_map(|(address, terminator)| {
            let flaws = terminator.tls().pairs.into_iter().filter_map(move |pair| pair.lapse(now));
            flaws.map(move |flaw| format!("listener {address}: {}; it is served all the same", flaw.message))
        });
        lapses.collect()
    }
}

#[cfg(test)]
mod tests;
