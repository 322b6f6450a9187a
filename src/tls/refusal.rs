//! Why a handshake with a server came to nothing, in words for operators: the same for the same cause.

use rustls::AlertDescription as Alert;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};
use x509_parser::prelude::ASN1Time;

use super::pair::date;

/// What `error`, which ended a handshake with a server or what followed it, says of that server.
pub fn refusal(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => distrust(why),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => NO_TLS.to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::Tls12NotOffered,
        ) => TOO_OLD.to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

/// What a server speaks that says something else.
pub const NO_TLS: &str = "it answered something that is not TLS";
const TOO_OLD: &str = "it speaks neither TLS 1.2 nor TLS 1.3";

/// Why its certificate is not believed.
fn distrust(why: &CertificateError) -> String {
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}", told(*not_after))
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}", told(*not_before))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::UnknownIssuer => "its certificate is signed by an unknown authority".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no name (a common name is none)".to_owned() } else { names.join(", ") };
            format!("its certificate is for {names}, not for {}", expected.to_str())
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        other => format!("its certificate is not accepted: {other}"),
    }
}

fn told(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    time.map_or_else(|| "an unknown day".to_owned(), date)
}

/// The name in `DnsName("a.example")` or `IpAddress(10.0.0.1)`, as the library shows it.
fn bare(shown: &str) -> &str {
    let inner = shown.split_once('(').map_or(shown, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

/// What it said to end the connection.
fn alerted(alert: Alert) -> String {
    let name = name(alert);
    match alert {
        Alert::CertificateRequired => "it requires a client certificate".to_owned(),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => format!("it refused the client certificate ({name})"),
        // So say servers of TLS 1.2 that a certificate is missing.
        Alert::HandshakeFailure => format!(
            "it refused the TLS handshake ({name}): it may require a client certificate, or has no cipher suite in common"
        ),
        Alert::NoApplicationProtocol => format!("it does not speak the protocol that it was asked for ({name})"),
        Alert::ProtocolVersion => TOO_OLD.to_owned(),
        Alert::UnrecognisedName => format!("it does not know the server name that it was asked for ({name})"),
        _ => format!("it ended the TLS connection ({name})"),
    }
}

/// The alert as RFC 8446 section 6 names it.
fn name(alert: Alert) -> String {
    let shown = alert.as_str().map_or_else(|| format!("alert {}", u8::from(alert)), str::to_owned);
    let mut name = String::new();
    let mut before = false;
    for character in shown.chars() {
        if character.is_ascii_uppercase() && before {
            name.push('_');
        }
        before = character.is_ascii_lowercase();
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_words_of_its_own() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (now, then) = (time(2_000_000_000), time(1_000_000_000));
        let name = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: "app.example".try_into().unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        let certificate = |why: CertificateError| Error::InvalidCertificate(why);
        for (error, words) in [
            (
                certificate(CertificateError::ExpiredContext { time: now, not_after: then }),
                "its certificate expired on 2001-09-09 01:46 UTC",
            ),
            (
                certificate(CertificateError::NotValidYetContext { time: then, not_before: now }),
                "its certificate is not valid before 2033-05-18 03:33 UTC",
            ),
            (certificate(CertificateError::UnknownIssuer), "its certificate is signed by an unknown authority"),
            (
                certificate(name(&["DnsName(\"a.example\")", "IpAddress(10.0.0.1)"])),
                "its certificate is for a.example, 10.0.0.1, not for app.example",
            ),
            (certificate(name(&[])), "its certificate is for no name (a common name is none), not for app.example"),
            (Error::AlertReceived(Alert::CertificateRequired), "it requires a client certificate"),
            (Error::AlertReceived(Alert::UnknownCA), "it refused the client certificate (unknown_ca)"),
            (
                Error::AlertReceived(Alert::HandshakeFailure),
                "it refused the TLS handshake (handshake_failure): it may require a client certificate, or has no \
                 cipher suite in common",
            ),
            (Error::AlertReceived(Alert::InternalError), "it ended the TLS connection (internal_error)"),
            (
                Error::AlertReceived(Alert::NoApplicationProtocol),
                "it does not speak the protocol that it was asked for (no_application_protocol)",
            ),
            (Error::AlertReceived(Alert::ProtocolVersion), TOO_OLD),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), NO_TLS),
        ] {
            assert_eq!(refusal(&error), words);
        }
    }
}
