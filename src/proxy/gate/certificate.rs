//! The certificate that a client has shown, as far as somebody may be known by it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::client::{Client, Directory, KeyDigest};
use crate::tls::ShownNames;

/// What a client is known by that has shown a certificate: its fingerprint, and the names in it. Found out once for a
/// connection; a request costs a look-up for each of them.
#[derive(Clone, Debug)]
pub struct ShownCertificate {
    /// The fingerprint first.
    credentials: Vec<KeyDigest>,
}

impl ShownCertificate {
    /// The certificate in these bytes, which was verified.
    pub fn of(der: &[u8]) -> Self {
        let ShownNames { fingerprint, names } = ShownNames::of(der);
        let names = names.iter().map(|name| format!("cert-san:{name}"));
        let credentials = std::iter::once(format!("cert:{fingerprint}")).chain(names);
        ShownCertificate { credentials: credentials.map(|name| KeyDigest::of(name.as_bytes())).collect() }
    }

    /// One that is known by these credentials, the one that counts first in front.
    pub(in crate::proxy) fn known_by(credentials: Vec<KeyDigest>) -> Self {
        ShownCertificate { credentials }
    }

    /// The client that is known by it at `now`.
    pub(in crate::proxy) fn client<'d>(&self, directory: &'d Directory, now: SystemTime) -> Option<&'d Arc<Client>> {
        self.credentials.iter().find_map(|credential| directory.by_key(credential, now))
    }
}
