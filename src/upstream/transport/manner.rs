//! How the backends of a pool are spoken to.

use super::proxy_header::ProxyProtocol;
use crate::tls::Originator;

/// What is spoken to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: over TLS it is agreed on by ALPN, without it is known beforehand.
    Http2,
    /// What is agreed on by ALPN, HTTP/2 before HTTP/1.1.
    Auto,
}

impl Protocol {
    /// As the configuration and the admin API name it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
            Protocol::Auto => "auto",
        }
    }

    /// What is asked for by ALPN, the dearest first.
    pub(super) fn asked(self) -> &'static [&'static [u8]] {
        match self {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Auto => &[b"h2", b"http/1.1"],
        }
    }
}

/// How the backends of a pool are spoken to. Connections that were made in one manner are never used in another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// What is spoken to them.
    pub protocol: Protocol,
    /// What handshakes with them are done with; none where they are spoken to without TLS.
    pub tls: Option<Originator>,
    /// In which version they are told, before all else, whose connections are; none where they are not.
    pub proxy_protocol: Option<ProxyProtocol>,
}
