//! Where connections of one kind lead to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::manner::{Manner, Protocol};
use super::proxy_header::ProxyProtocol;
use crate::upstream::{ConnectAddress, IdleClosing};

/// A backend of one pool as connections know it: where it is, how it is spoken to, and what is known of when it closes
/// them. Two connections can stand for each other when they lead to the same one.
#[derive(Debug)]
pub struct Site {
    address: ConnectAddress,
    closing: IdleClosing,
    manner: Arc<Manner>,
    tls: Option<SiteTls>,
    /// Whether HTTP/1.1 was agreed on when it was last asked, where it may choose.
    chose_http1: AtomicBool,
}

/// What handshakes with one backend are done with.
pub(super) struct SiteTls {
    pub(super) config: Arc<ClientConfig>,
    /// The name that its certificate must have.
    pub(super) name: ServerName<'static>,
}

impl Site {
    /// That of a backend at `address` of which nothing is known yet, and which is spoken to in this `manner`. `host` is
    /// the name that led there, if one did.
    pub fn new(address: ConnectAddress, manner: Arc<Manner>, host: Option<&str>) -> Self {
        let name = server_name(&address, &manner, host);
        let tls = manner
            .tls
            .as_ref()
            .zip(name)
            .map(|(originator, name)| SiteTls { config: originator.for_server(manner.protocol.asked()), name });
        Site { address, closing: IdleClosing::default(), manner, tls, chose_http1: AtomicBool::new(false) }
    }

    /// Where it is.
    pub fn address(&self) -> &ConnectAddress {
        &self.address
    }

    /// What is known of when it closes idle connections.
    pub fn closing(&self) -> &IdleClosing {
        &self.closing
    }

    /// What is to be spoken there. What was agreed on, a connection [knows](super::BackendStream::negotiated).
    pub fn protocol(&self) -> Protocol {
        self.manner.protocol
    }

    /// Whether it has chosen HTTP/1.1, where it may choose.
    pub(super) fn chose_http1(&self) -> bool {
        self.chose_http1.load(Ordering::Relaxed)
    }

    /// Takes note of what it has chosen.
    pub(super) fn set_chose_http1(&self, chose: bool) {
        self.chose_http1.store(chose, Ordering::Relaxed);
    }

    /// Whether a backend that is led to by `host` and spoken to in this `manner` is spoken to as this one is.
    pub(in crate::upstream) fn is_spoken_to(&self, manner: &Arc<Manner>, host: Option<&str>) -> bool {
        let name = || server_name(&self.address, manner, host);
        Arc::ptr_eq(&self.manner, manner) && self.tls.as_ref().is_none_or(|tls| Some(&tls.name) == name().as_ref())
    }

    /// In which version it is told whose connections are, if it is told.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.manner.proxy_protocol
    }

    /// Whether nothing is done with a new connection before it has its first request.
    pub(super) fn is_bare(&self) -> bool {
        self.tls.is_none() && self.manner.proxy_protocol.is_none()
    }

    /// What handshakes are done with.
    pub(super) fn tls(&self) -> Option<&SiteTls> {
        self.tls.as_ref()
    }
}

impl fmt::Debug for SiteTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name that the certificate of a backend must have; none where there is no TLS.
fn server_name(address: &ConnectAddress, manner: &Manner, host: Option<&str>) -> Option<ServerName<'static>> {
    let said = &manner.tls.as_ref()?.said().server_name;
    let of_host = || ServerName::try_from(host?.trim_end_matches('.').to_owned()).ok();
    let of_address = || match address {
        ConnectAddress::Tcp(address) => address.ip().to_canonical(),
        // Asked for only where nobody looks at the certificate: an IP address is never told to the backend.
        ConnectAddress::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    said.clone().or_else(of_host).or_else(|| Some(ServerName::IpAddress(of_address().into())))
}
