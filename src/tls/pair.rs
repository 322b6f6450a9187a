//! A certificate with its private key, loaded and checked.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::InconsistentKeys;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::files;
use super::{Flaw, Part};

/// A certificate that ends sooner than this is worth a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Where a pair is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairFiles {
    /// The certificate, followed by those that lead to a root, in PEM.
    pub cert: PathBuf,
    /// Its private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

/// A certificate and its private key, which belong together. Whether it is valid now says [`lapse`](Pair::lapse): one
/// that is not is served all the same, as a client that checks refuses it by itself, and a listener that is gone helps
/// nobody (nginx, HAProxy and Envoy serve it, too).
///
/// Two are equal when they come from the same files and hold the same certificates. The key needs no comparing: a
/// certificate has only one. A clone is another handle.
#[derive(Clone)]
pub struct Pair {
    files: PairFiles,
    certified: Arc<CertifiedKey>,
    leaf: LeafCertificate,
    /// Of both files.
    digest: Option<[u8; 32]>,
}

/// What two files held when they were read, or why they could not be.
pub(super) struct PairTexts {
    cert: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
}

impl PairTexts {
    /// Reads both. Blocks.
    pub(super) fn read(files: &PairFiles) -> Self {
        PairTexts { cert: files::read(&files.cert), key: files::read(&files.key) }
    }

    /// What tells them from others; none when one could not be read.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let [cert, key] = [&self.cert, &self.key].map(|text| text.as_ref().ok().map(Sha256::digest));
        Some(Sha256::new().chain_update(cert?).chain_update(key?).finalize().into())
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug)]
struct LeafCertificate {
    begins: ASN1Time,
    ends: ASN1Time,
    subject: Arc<str>,
    /// The names that it is for, in lower case.
    names: Arc<[String]>,
    /// Whether nobody else has signed it.
    is_self_made: bool,
}

impl Pair {
    /// Loads the pair in `files` and checks it as of `now`. With it comes what is allowed and yet not wise. Blocks on
    /// the files, so it is for the start and for threads of its own.
    ///
    /// # Errors
    /// Everything that is wrong, at least one thing.
    pub fn load(files: &PairFiles, now: SystemTime) -> Result<(Pair, Vec<Flaw>), Vec<Flaw>> {
        Pair::of(files, &PairTexts::read(files), now)
    }

    /// The same of what was read of the files.
    pub(super) fn of(files: &PairFiles, texts: &PairTexts, now: SystemTime) -> Result<(Pair, Vec<Flaw>), Vec<Flaw>> {
        let mut flaws = Vec::new();
        let cert = texts.cert.as_deref().map_err(String::clone);
        let chain = cert.and_then(files::certificates).map_err(|why| flaw(files, Part::Cert, &why));
        let key = texts.key.as_deref().map_err(String::clone);
        let key = key.and_then(files::private_key).map_err(|why| flaw(files, Part::Key, &why));
        let (chain, key) = (keep(chain, &mut flaws), keep(key, &mut flaws));
        let leaf = chain.as_ref().and_then(|chain| {
            let leaf = LeafCertificate::of(&chain[0]).map_err(|why| flaw(files, Part::Cert, &why));
            keep(leaf, &mut flaws)
        });
        let certified = chain.zip(key).and_then(|(chain, key)| keep(join(files, chain, &key), &mut flaws));
        let (Some(leaf), Some(certified), true) = (leaf, certified, flaws.is_empty()) else {
            return Err(flaws);
        };
        let warnings = warnings(files, &certified.cert, &leaf, now);
        let digest = texts.digest();
        Ok((Pair { files: files.clone(), certified: Arc::new(certified), leaf, digest }, warnings))
    }

    /// Why its certificate is not valid at `now`; none when it is.
    pub fn lapse(&self, now: SystemTime) -> Option<Flaw> {
        self.leaf.lapse(now).map(|why| flaw(&self.files, Part::Cert, &why))
    }

    /// Where it was loaded from.
    pub fn files(&self) -> &PairFiles {
        &self.files
    }

    /// When its certificate ends.
    pub fn ends(&self) -> SystemTime {
        instant(self.leaf.ends)
    }

    /// The same in the place of `other`: presented until what is in those files changes.
    pub(super) fn in_place_of(self, other: &Pair) -> Self {
        Pair { files: other.files.clone(), digest: other.digest, ..self }
    }

    /// Whether nobody but its holder has signed it.
    pub(super) fn is_self_made(&self) -> bool {
        self.leaf.is_self_made
    }

    /// When to ask for another one: once two thirds of its life are over, and at once when it was made by its own
    /// holder.
    pub(super) fn renewal(&self) -> SystemTime {
        let (begins, ends) = (instant(self.leaf.begins), self.ends());
        if self.leaf.is_self_made {
            return begins;
        }
        begins + ends.duration_since(begins).unwrap_or_default() * 2 / 3
    }

    /// The same, for people.
    pub(super) fn end(&self) -> String {
        date(self.leaf.ends)
    }

    /// Whom it is for: the subject's name (RFC 4514), else the first of the alternative names.
    pub fn subject(&self) -> &str {
        &self.leaf.subject
    }

    /// The names of hosts that it is for, in lower case; some of them for all names of one label below theirs (`*.`).
    pub fn names(&self) -> &[String] {
        &self.leaf.names
    }

    /// What tells the contents of its files from others.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.certified.cert == other.certified.cert
    }
}

impl Eq for Pair {}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("files", &self.files).field("ends", &self.ends()).finish_non_exhaustive()
    }
}

fn flaw(files: &PairFiles, part: Part, why: &str) -> Flaw {
    let path = match part {
        Part::Cert => &files.cert,
        Part::Key | Part::Ca => &files.key,
    };
    Flaw { part, message: format!("{}: {why}", path.display()) }
}

fn keep<T>(found: Result<T, Flaw>, flaws: &mut Vec<Flaw>) -> Option<T> {
    found.map_err(|flaw| flaws.push(flaw)).ok()
}

impl LeafCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| "the certificate is damaged, or none of X.509".to_owned())?;
        let (begins, ends) = (parsed.validity().not_before, parsed.validity().not_after);
        let mut subject = parsed.subject().to_string();
        let alternatives = parsed.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
        let alternatives = alternatives.map(Vec::as_slice).unwrap_or_default();
        if subject.is_empty() {
            subject = alternatives.first().map(alternative).unwrap_or_default();
        }
        let names = alternatives.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let is_self_made = parsed.issuer() == parsed.subject();
        Ok(LeafCertificate { begins, ends, subject: subject.into(), names: names.collect(), is_self_made })
    }

    /// Why it is not valid at `now`; none when it is.
    fn lapse(&self, now: SystemTime) -> Option<String> {
        if now < instant(self.begins) {
            return Some(format!("the certificate is not valid before {}", date(self.begins)));
        }
        (now > instant(self.ends)).then(|| format!("the certificate expired on {}", date(self.ends)))
    }
}

/// An alternative name as people write it.
pub(super) fn alternative(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from);
            v4().or_else(v6).map_or_else(String::new, |address| address.to_string())
        }
        other => other.to_string(),
    }
}

fn instant(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let instant = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    instant.unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(super) fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (month, day) = (u8::from(time.month()), time.day());
    format!("{:04}-{month:02}-{day:02} {:02}:{:02} UTC", time.year(), time.hour(), time.minute())
}

/// The chain with its key, if they belong together.
fn join(
    files: &PairFiles,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Flaw> {
    let signing = any_supported_type(key).map_err(|_| {
        let why = "the private key is damaged, or of a kind that is not served (RSA from 2048 bits, ECDSA P-256 and \
                   P-384, Ed25519)";
        flaw(files, Part::Key, why)
    })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let newer = newer(files).map(|part| format!("; {} is the newer file", part.name())).unwrap_or_default();
            let why = format!("the private key is not that of the certificate in {}{newer}", files.cert.display());
            Err(flaw(files, Part::Key, &why))
        }
        Err(_) => Err(flaw(files, Part::Cert, "the certificate cannot be served; it must be of X.509 version 3")),
    }
}

/// What is not wise about a pair that is right; not that it is no longer valid, which is more than that.
fn warnings(files: &PairFiles, chain: &[CertificateDer<'_>], leaf: &LeafCertificate, now: SystemTime) -> Vec<Flaw> {
    let mut found = Vec::new();
    if instant(leaf.ends).duration_since(now).is_ok_and(|left| left < SOON) {
        found.push(flaw(files, Part::Cert, &format!("the certificate ends soon, on {}", date(leaf.ends))));
    }
    for (number, certificate) in (1..).zip(chain).skip(1) {
        let lapse = match LeafCertificate::of(certificate) {
            Ok(other) => other.lapse(now),
            Err(damaged) => Some(damaged),
        };
        if let Some(why) = lapse {
            found.push(flaw(files, Part::Cert, &format!("certificate {number} of the chain: {why}")));
        }
    }
    let mode = mode(&files.key);
    if mode & 0o004 != 0 {
        let (key, why) = (files.key.display(), "is open to every user of this machine");
        found.push(Flaw {
            part: Part::Key,
            message: format!("{key} {why} (mode {mode:03o}); `chmod 600 {key}` closes it"),
        });
    }
    found
}

/// Which of the two files was written later.
fn newer(files: &PairFiles) -> Option<Part> {
    let [cert, key] = [&files.cert, &files.key].map(|path| std::fs::metadata(path).and_then(|it| it.modified()).ok());
    match cert?.cmp(&key?) {
        Ordering::Greater => Some(Part::Cert),
        Ordering::Less => Some(Part::Key),
        Ordering::Equal => None,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777)
}

#[cfg(test)]
mod tests;
