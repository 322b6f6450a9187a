//! Certificates of clients: who has signed them, and what a client is known by that shows one.
//!
//! The file names the authorities whose certificates are believed, and may hold lists of those that were revoked (CRLs,
//! PEM sections `X509 CRL`). A reload reads it again: an authority that is gone, and a certificate that is in a list,
//! does not get in any more from the next handshake on. There are no tickets where clients are asked, since rustls does
//! not verify a client again that resumes a session.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files;
use super::pair::alternative;

/// Which clients get in by their certificates. A clone is another handle; two are equal when the same was said and the
/// same was in their files.
#[derive(Clone)]
pub struct ClientCertificates {
    path: PathBuf,
    required: bool,
    digest: [u8; 32],
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificates {
    /// Believes the authorities in the file at `path`. Whoever shows no certificate gets in unless it is `required`.
    /// Blocks.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path, required: bool) -> Result<Self, String> {
        let said = |why: String| format!("{}: {why}", path.display());
        let text = files::read(path).map_err(said)?;
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(files::certificates(&text).map_err(said)?) {
            roots
                .add(certificate)
                .map_err(|error| said(format!("certificate {number} is none of an authority: {error}")))?;
        }
        let sections = files::sections(&text).map_err(said)?.into_iter();
        let revoked = sections.filter_map(|(kind, der)| CertificateRevocationListDer::from_pem(kind, der));
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
        // Of authorities without a list nothing is known, which is no reason to refuse what they have signed.
        let builder = builder.with_crls(revoked).only_check_end_entity_revocation().allow_unknown_revocation_status();
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| said(error.to_string()))?;
        Ok(ClientCertificates { path: path.to_owned(), required, digest: Sha256::digest(&text).into(), verifier })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

impl PartialEq for ClientCertificates {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.required, self.digest) == (&other.path, other.required, other.digest)
    }
}

impl Eq for ClientCertificates {}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("path", &self.path)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// What a client is known by that has shown a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownNames {
    /// Its SHA-256 fingerprint, in hexadecimal digits.
    pub fingerprint: String,
    /// Its alternative names: of hosts, of people, of services (URIs), addresses. The subject is none: nobody says
    /// what its parts mean.
    pub names: Vec<String>,
}

impl ShownNames {
    /// Those of the certificate in these bytes.
    pub fn of(der: &[u8]) -> Self {
        let fingerprint = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        let parsed = X509Certificate::from_der(der).ok();
        let names = parsed.as_ref().and_then(|(_, parsed)| parsed.subject_alternative_name().ok().flatten());
        let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
        let names = names.iter().filter(|name| {
            use GeneralName::{DNSName, IPAddress, RFC822Name, URI};
            matches!(name, DNSName(_) | RFC822Name(_) | URI(_) | IPAddress(_))
        });
        ShownNames { fingerprint, names: names.map(alternative).filter(|name| !name.is_empty()).collect() }
    }
}
