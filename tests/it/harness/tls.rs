//! Certificates, TLS handshakes, and a tunnel through which the plain client talks to a TLS listener.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::client::CLIENT_TIMEOUT;

/// The name in every certificate.
pub(crate) const NAME: &str = "test.example";

/// Writes a fresh certificate and its key as `cert.pem` and `key.pem` into `dir`; valid for these years.
pub(crate) fn write_pair(dir: &Path, (from, to): (i32, i32)) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let (cert_path, key_path) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert_path, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (cert_path, key_path)
}

/// Writes a fresh certificate for these names, whose subject is the first, and its key, as `STEM.pem` and `STEM.key`
/// into `dir`.
pub(crate) fn write_pair_for(dir: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, names[0].clone());
    let (cert_path, key_path) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    std::fs::write(&cert_path, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (cert_path, key_path)
}

/// Years in which every test runs.
pub(crate) const NOW: (i32, i32) = (2020, 2099);

/// What a client of these versions and protocols says. It believes every certificate.
pub(crate) fn config(versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(versions).unwrap().dangerous();
    let mut config = config.with_custom_certificate_verifier(Arc::new(Credulous)).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// What a handshake came to.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) protocol: Option<String>,
    pub(crate) version: ProtocolVersion,
    pub(crate) certificate: CertificateDer<'static>,
}

/// A TLS stream that blocks.
pub(crate) type Blocking = StreamOwned<ClientConnection, TcpStream>;

/// Does a handshake with the listener at `address`.
pub(crate) fn handshake(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<(Agreed, Blocking)> {
    handshake_as(address, config, NAME)
}

/// The same, asking for this name.
pub(crate) fn handshake_as(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> io::Result<(Agreed, Blocking)> {
    let mut tcp = TcpStream::connect_timeout(&address, CLIENT_TIMEOUT)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    tcp.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let name = ServerName::try_from(name).unwrap();
    let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    let agreed = Agreed {
        protocol: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        version: tls.protocol_version().unwrap(),
        certificate: tls.peer_certificates().unwrap()[0].clone().into_owned(),
    };
    Ok((agreed, StreamOwned::new(tls, tcp)))
}

/// A plain listener; each connection to it is one over TLS to a listener of the server.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Tunnel {
    /// A tunnel to `address`. Dropping it closes what goes through it.
    pub(crate) fn to(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let local = listener.local_addr().unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        runtime.spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let tcp = tokio::net::TcpStream::connect(address).await?;
                    let mut tls = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await?;
                    // An end without a goodbye is an error here, which the plain side sees as a reset.
                    tokio::io::copy_bidirectional(&mut plain, &mut tls).await
                });
            }
        });
        Tunnel { address: local, _runtime: runtime }
    }
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
