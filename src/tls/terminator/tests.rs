use std::io::{Read, Write};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConnection, SignatureScheme};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::tls::PairFiles;

fn pair(dir: &Path) -> Pair {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["test.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = PairFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    Pair::load(&files, SystemClock.wall()).unwrap().0
}

/// Believes every certificate.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn client(version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(&[version]).unwrap().dangerous();
    Arc::new(config.with_custom_certificate_verifier(Arc::new(Credulous)).with_no_client_auth())
}

/// The certificate that a handshake presented, and how it went.
fn handshake(terminator: &Terminator, client: &Arc<ClientConfig>) -> (CertificateDer<'static>, HandshakeKind) {
    let mut client = ClientConnection::new(Arc::clone(client), "test.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(terminator.config()).unwrap();
    server.writer().write_all(b"x").unwrap();
    let mut bytes = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        for to_server in [true, false] {
            bytes.clear();
            if to_server { client.write_tls(&mut bytes) } else { server.write_tls(&mut bytes) }.unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                if to_server { server.read_tls(&mut rest) } else { client.read_tls(&mut rest) }.unwrap();
                if to_server { server.process_new_packets() } else { client.process_new_packets() }.unwrap();
            }
        }
    }
    let mut byte = [0];
    client.reader().read_exact(&mut byte).unwrap();
    (client.peer_certificates().unwrap()[0].clone(), client.handshake_kind().unwrap())
}

#[test]
fn another_pair_counts_from_the_next_handshake_on_and_sessions_are_still_resumed() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (first, second) = (pair(one.path()), pair(two.path()));
    for version in rustls::ALL_VERSIONS {
        let terminator = Terminator::new(first.clone().into(), &ring()).unwrap();
        let known = client(version);
        assert_eq!(handshake(&terminator, &known), (first.certified().cert[0].clone(), HandshakeKind::Full));
        terminator.set(second.clone().into());
        assert_eq!(terminator.tls().pairs, std::slice::from_ref(&second));
        let (_, kind) = handshake(&terminator, &known);
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
        let (presented, kind) = handshake(&terminator, &client(version));
        assert_eq!((presented, kind), (second.certified().cert[0].clone(), HandshakeKind::Full), "{version:?}");
    }
}

fn ring() -> Arc<TicketRing> {
    Arc::new(TicketRing::new(&[], SystemClock.now()).unwrap())
}

#[test]
fn sessions_are_resumed_by_whoever_has_the_keys() {
    let dir = TempDir::new().unwrap();
    let pair = pair(dir.path());
    for version in rustls::ALL_VERSIONS {
        let kind_at = |terminator: &Terminator, client| handshake(terminator, client).1;
        let old = ring();
        let known = client(version);
        assert_eq!(kind_at(&Terminator::new(pair.clone().into(), &old).unwrap(), &known), HandshakeKind::Full);
        let now = SystemClock.now();
        let successor = Arc::new(TicketRing::new(&old.secrets(now), now).unwrap());
        let successor = Terminator::new(pair.clone().into(), &successor).unwrap();
        assert_eq!(kind_at(&successor, &known), HandshakeKind::Resumed, "{version:?}");
        let stranger = Terminator::new(pair.clone().into(), &ring()).unwrap();
        assert_eq!(kind_at(&stranger, &known), HandshakeKind::Full, "{version:?}");
        // Of a file: two nodes, and one of them after its keys were renewed.
        let path = dir.path().join("keys");
        let keys = |bytes: &[[u8; 32]]| {
            let lines = bytes.iter().map(|key| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key));
            std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
            ListenerTls { ticket_keys: Some(TicketKeys::load(&path).unwrap()), ..pair.clone().into() }
        };
        let [one, other] = [(); 2].map(|()| Terminator::new(keys(&[[1; 32]]), &ring()).unwrap());
        let known = client(version);
        assert_eq!((kind_at(&one, &known), kind_at(&other, &known)), (HandshakeKind::Full, HandshakeKind::Resumed));
        other.set(keys(&[[2; 32], [1; 32]]));
        assert_eq!(kind_at(&other, &known), HandshakeKind::Resumed, "{version:?}");
        other.set(keys(&[[3; 32]]));
        assert_eq!(kind_at(&other, &known), HandshakeKind::Full, "{version:?}");
    }
}

#[test]
fn listeners_are_found_by_their_very_address() {
    let dir = TempDir::new().unwrap();
    let pair = pair(dir.path());
    let listeners = ["127.0.0.1:1", "[::]:3"].map(|address| (address.parse().unwrap(), pair.clone().into()));
    let listeners = TlsListeners::new(listeners, &[], SystemClock.now()).unwrap();
    let found = |address: &str| listeners.at(address.parse().unwrap()).is_some();
    assert!(found("127.0.0.1:1") && found("[::]:3") && !found("127.0.0.1:3") && !found("[::1]:3"));
}
