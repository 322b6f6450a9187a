//! Reading the two files: certificates from one, a private key from the other.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// No chain and no key is as large.
const LARGEST: u64 = 1 << 20;

/// The certificates in the text of a file, in its order, at least one.
///
/// # Errors
/// What is wrong with the file, without its name.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let sections = sections(text)?;
    let has_key = sections.iter().any(|(kind, _)| is_key(*kind));
    let certificates: Vec<_> =
        sections.into_iter().filter_map(|(kind, der)| CertificateDer::from_pem(kind, der)).collect();
    match certificates.is_empty() {
        false => Ok(certificates),
        true if has_key => Err("holds a private key and no certificate; are `cert` and `key` swapped?".to_owned()),
        true => Err(format!("holds no certificate, must be PEM with a section BEGIN CERTIFICATE{}", der_hint(text))),
    }
}

/// The first private key in the text of a file.
///
/// # Errors
/// What is wrong with the file, without its name.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if is_encrypted(text) {
        return Err(
            "the private key is encrypted, and nobody is there to type its password; `openssl pkey` writes it \
                    without one"
                .to_owned(),
        );
    }
    let sections = sections(text)?;
    let has_certificate = sections.iter().any(|(kind, _)| *kind == SectionKind::Certificate);
    let key = sections.into_iter().find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    key.ok_or_else(|| match has_certificate {
        true => "holds a certificate and no private key; are `cert` and `key` swapped?".to_owned(),
        false => format!("holds no private key, must be PEM with a section BEGIN PRIVATE KEY{}", der_hint(text)),
    })
}

/// What is in the file at `path`.
///
/// # Errors
/// Why it cannot be read, without its name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let reason = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "the file may not be read (permission denied)".to_owned(),
        ErrorKind::IsADirectory => "this is a directory, not a file".to_owned(),
        _ => format!("the file cannot be read: {error}"),
    };
    let mut bytes = Vec::new();
    // A pipe that nobody writes to would be waited for without end.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err("this is a directory, not a file".to_owned()),
        Ok(metadata) if !metadata.is_file() => return Err("this is not a regular file".to_owned()),
        Ok(_) => {}
        Err(error) => return Err(reason(error)),
    }
    // It may have become another one since.
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    opened.and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(reason)?;
    if bytes.len() as u64 > LARGEST {
        return Err("the file is larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

/// Every PEM section of a known kind. A file that ends within the first line of one is what a full disk leaves of a
/// longer chain.
pub(super) fn sections(text: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let (mut rest, mut found) = (text, Vec::new());
    loop {
        match pem::from_buf(&mut rest) {
            Ok(Some(section)) => found.push(section),
            Ok(None) if ends_within_a_line(text) => {
                return Err("is damaged PEM: it ends within the first line of a section".to_owned());
            }
            Ok(None) => return Ok(found),
            // The library's own words show bytes of the file, which may be those of a key.
            Err(pem::Error::MissingSectionEnd { .. }) => {
                return Err("is damaged PEM: a section has no END line".to_owned());
            }
            Err(_) => return Err("is damaged PEM: a section is not Base64, or its first line is broken".to_owned()),
        }
    }
}

fn ends_within_a_line(text: &[u8]) -> bool {
    let last = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    last.starts_with(b"-") && !last.starts_with(b"-----END ")
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// Whether a key in the text needs a password: PKCS #8's own form, or OpenSSL's old header.
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

fn der_hint(text: &[u8]) -> &'static str {
    // Both a certificate and a key are an ASN.1 sequence.
    if text.first() == Some(&0x30) { "; this looks like DER, which `openssl` turns into PEM" } else { "" }
}
