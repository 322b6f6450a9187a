//! What stands before a plain backend and makes another kind of it: one that speaks TLS, or listens on a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::authority::Signed;

/// What a server of these versions presents and asks for: a certificate signed by one of `clients`, if there are any.
pub(crate) fn server(
    signed: &Signed,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<RootCertStore>,
) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(signed.chain(), signed.private_key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A handshake that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// Whether a session was resumed.
    pub(crate) resumed: bool,
    /// The name that was asked for.
    pub(crate) name: Option<String>,
    /// What was agreed on.
    pub(crate) protocol: Option<String>,
    /// Whether a client certificate was shown.
    pub(crate) certificate: bool,
}

/// A front. Dropping it closes what goes through it.
pub(crate) struct Front {
    /// Where one over TCP listens.
    pub(crate) address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    _runtime: Runtime,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Front {
    /// Speaks TLS for `backend`.
    pub(crate) fn tls(backend: SocketAddr, config: ServerConfig) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::<Mutex<Vec<Handshake>>>::default();
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&handshakes));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let tls = acceptor.accept(tcp).await?;
                    let session = tls.get_ref().1;
                    seen.lock().unwrap().push(Handshake {
                        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                        name: session.server_name().map(str::to_owned),
                        protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                        certificate: session.peer_certificates().is_some(),
                    });
                    pass(tls, backend).await
                });
            }
        });
        Front { address, handshakes, _runtime: runtime }
    }

    /// Listens on a Unix socket at `path` for `backend`.
    pub(crate) fn unix(path: &Path, backend: SocketAddr) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(async { UnixListener::bind(path) }).unwrap();
        runtime.spawn(async move {
            while let Ok((unix, _)) = listener.accept().await {
                tokio::spawn(pass(unix, backend));
            }
        });
        Front { address: backend, handshakes: Arc::default(), _runtime: runtime }
    }

    /// The same, speaking TLS there.
    pub(crate) fn tls_over_unix(path: &Path, backend: SocketAddr, config: ServerConfig) -> [Self; 2] {
        let tls = Self::tls(backend, config);
        let address = tls.address;
        [Self::unix(path, address), tls]
    }

    /// The handshakes that went well so far.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap().clone()
    }
}

async fn pass(mut from: impl AsyncRead + AsyncWrite + Unpin, backend: SocketAddr) -> io::Result<()> {
    let mut to = TcpStream::connect(backend).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await.map(drop)
}

/// A path for a socket in `dir`.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("app.sock")
}
