//! A TLS handshake with a backend, and in which words it fails.

use std::io;
use std::sync::Arc;

use pingora_core::{Error, ErrorType, Result};
use tokio_rustls::TlsConnector;

use super::manner::Protocol;
use super::site::{Site, SiteTls};
use super::stream::{BackendStream, TlsWire, Wire};
use crate::tls::{NO_TLS, refusal};

/// Does a handshake over `wire` with the backend at `site`, by its `tls`.
///
/// # Errors
/// When it fails; the context says why, in words for operators.
pub(super) async fn handshake(wire: Wire, tls: &SiteTls, site: &Site) -> Result<BackendStream> {
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let done = connector.connect(tls.name.clone(), TlsWire::new(wire)).into_fallible().await;
    let stream = match done {
        Ok(stream) => BackendStream::Tls(Box::new(stream)),
        Err((error, wire)) => return Err(failed(error, &wire)),
    };
    if site.protocol() == Protocol::Http2 && stream.negotiated() != Some(Protocol::Http2) {
        let why = "it does not speak HTTP/2: the TLS handshake came to no agreement on h2";
        return Err(Error::explain(ErrorType::TLSHandshakeFailure, why).into_up());
    }
    Ok(stream)
}

fn failed(error: io::Error, wire: &TlsWire) -> Box<Error> {
    let (kind, why) = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner @ rustls::Error::InvalidCertificate(_)) => (ErrorType::InvalidCert, refusal(inner)),
        Some(inner) => match refusal(inner) {
            why if why == NO_TLS => (ErrorType::TLSHandshakeFailure, spoken_to_tls(wire.first()).to_owned()),
            why => (ErrorType::TLSHandshakeFailure, why),
        },
        None => (ErrorType::TLSHandshakeFailure, "it closed the connection during the TLS handshake".to_owned()),
    };
    Error::because(kind, why, error).into_up()
}

/// What a server speaks that answers a TLS handshake with these bytes, which are none of TLS.
fn spoken_to_tls(first: &[u8]) -> &'static str {
    match first {
        [b'H', b'T', b'T', b'P', b'/', ..] => "it answered a TLS handshake in plain HTTP",
        [0, _, _, 4 | 7, ..] => "it answered a TLS handshake in plain HTTP/2",
        _ => NO_TLS,
    }
}
