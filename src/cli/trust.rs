//! Whom the command line believes over TLS.
//!
//! An admin API is asked by its address, and most have a certificate that they made themselves. So a certificate that
//! is in the file is believed for whatever name it has: who named it meant this very one.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminTrust {
    /// The first certificate in this file.
    Itself(PathBuf),
    /// Whoever has one that a certificate in this file has signed, and these themselves.
    SignedBy(PathBuf),
}

impl AdminTrust {
    /// What handshakes are done with.
    ///
    /// # Errors
    /// What is wrong with the file, with its name.
    pub(super) fn config(&self) -> Result<ClientConfig, String> {
        let (AdminTrust::Itself(path) | AdminTrust::SignedBy(path)) = self;
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut known = found.map_err(|error| wrong(&error))?;
        let provider = Arc::new(ring::default_provider());
        let mut authorities = None;
        match self {
            AdminTrust::Itself(_) => known.truncate(1),
            AdminTrust::SignedBy(_) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(known.iter().cloned());
                let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
                authorities = Some(built.map_err(|error| wrong(&error))?);
            }
        }
        if known.is_empty() {
            return Err(wrong(&"holds no certificate"));
        }
        let verifier = AdminVerifier { known, authorities, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| wrong(&error))?.dangerous();
        Ok(config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }
}

#[derive(Debug)]
struct AdminVerifier {
    known: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AdminVerifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.authorities {
            _ if self.known.iter().any(|known| known == server) => Ok(ServerCertVerified::assertion()),
            Some(authorities) => authorities.verify_server_cert(server, intermediates, name, ocsp, now),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
