//! The pairs of a listener, of which each client gets the one for the name that it asks for.
//!
//! A name in a certificate goes before a wildcard, which stands for one label (RFC 9525 section 6.3). Who asks for no
//! name, or for one that no certificate has, gets the first pair, as with nginx and HAProxy: the client that cares
//! refuses it by itself. Of several pairs for one name the first counts whose key the client can do with, so that one
//! of ECDSA and one of RSA stand side by side.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::acme::ACME_PROTOCOL;
use super::{Challenges, Pair};

/// Pairs, found by name.
pub(super) struct Presented {
    pairs: Vec<Pair>,
    /// Where the pairs of a name are, the names of wildcards with their `*.`.
    by_name: HashMap<String, Vec<usize>>,
    /// Where all of them are.
    all: Vec<usize>,
    /// What proves to an authority who is here.
    challenges: Option<Arc<Challenges>>,
}

impl Presented {
    /// These, of which the first is for everybody else.
    pub(super) fn new(pairs: Vec<Pair>) -> Self {
        let mut by_name = HashMap::<_, Vec<_>>::new();
        for (index, pair) in pairs.iter().enumerate() {
            for name in pair.names() {
                by_name.entry(name.trim_end_matches('.').to_owned()).or_default().push(index);
            }
        }
        Presented { all: (0..pairs.len()).collect(), pairs, by_name, challenges: None }
    }

    /// The same, that proves to authorities who is here.
    pub(super) fn proving(self, challenges: Option<Arc<Challenges>>) -> Self {
        Presented { challenges, ..self }
    }

    /// Where the pairs for `name` are.
    fn named(&self, name: &str) -> &[usize] {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let below = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(below).unwrap_or(&self.all)
    }

    /// The pair for a client that asks for `name`, or for none, and can do with what `fits`.
    fn choose(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<&Pair> {
        let found = name.map_or(&self.all[..], |name| self.named(name));
        let mut pairs = found.iter().filter_map(|index| self.pairs.get(*index));
        pairs.clone().find(|pair| fits(&pair.certified())).or_else(|| pairs.next())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = |challenges: &Arc<Challenges>| {
            // Nothing else beside it (RFC 8737 section 3).
            hello.alpn()?.eq([ACME_PROTOCOL]).then(|| Arc::clone(challenges))
        };
        if let Some(challenges) = self.challenges.as_ref().and_then(asks) {
            return challenges.certificate(hello.server_name()?);
        }
        let fits = |certified: &CertifiedKey| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), fits).map(Pair::certified)
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("pairs", &self.pairs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
    use rustls::SignatureScheme;
    use tempfile::TempDir;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::tls::PairFiles;

    /// A pair for these names; all of them are told apart by their first.
    fn pair(dir: &TempDir, key: &KeyPair, names: &[&str]) -> Pair {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cert = CertificateParams::new(names).unwrap().self_signed(key).unwrap();
        let files = PairFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        Pair::load(&files, SystemClock.wall()).unwrap().0
    }

    #[test]
    fn a_name_goes_before_a_wildcard_of_one_label_and_the_first_is_for_the_others() {
        let (dir, key) = (TempDir::new().unwrap(), KeyPair::generate().unwrap());
        let sets =
            [&["first.example", "192.0.2.7"][..], &["*.a.example"], &["B.a.example", "b.example"], &["b.example"]];
        let presented = Presented::new(sets.map(|names| pair(&dir, &key, names)).into());
        let chosen = |name| presented.choose(name, |_| true).unwrap().names()[0].clone();
        for (name, expected) in [
            (None, "first.example"),
            (Some("first.example"), "first.example"),
            (Some("unknown.example"), "first.example"),
            (Some("c.a.example"), "*.a.example"),
            (Some("C.A.example."), "*.a.example"),
            (Some("b.a.example"), "b.a.example"),
            (Some("d.c.a.example"), "first.example"),
            (Some("a.example"), "first.example"),
            (Some("b.example"), "b.a.example"),
            (Some("example"), "first.example"),
            (Some(""), "first.example"),
        ] {
            assert_eq!(chosen(name), expected, "{name:?}");
        }
    }

    #[test]
    fn of_several_for_a_name_the_first_counts_that_the_client_can_do_with() {
        let (dir, names) = (TempDir::new().unwrap(), ["a.example"]);
        let [ecdsa, ed25519] = [KeyPair::generate().unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap()];
        let presented = Presented::new(vec![pair(&dir, &ecdsa, &names), pair(&dir, &ed25519, &names)]);
        let with = |schemes: &[SignatureScheme], name| {
            let chosen = presented.choose(name, |certified| certified.key.choose_scheme(schemes).is_some()).unwrap();
            presented.pairs.iter().position(|pair| Arc::ptr_eq(&pair.certified(), &chosen.certified())).unwrap()
        };
        let (both, one) =
            ([SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256], [SignatureScheme::ED25519]);
        assert_eq!((with(&both, Some("a.example")), with(&one, Some("a.example")), with(&one, None)), (0, 1, 1));
        assert_eq!(with(&[SignatureScheme::RSA_PSS_SHA256], None), 0, "there is none");
    }
}
