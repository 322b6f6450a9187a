//! A load of TLS connections, each with a full handshake and one request.
//!
//! Neither of the load generators does this: wrk resumes a session wherever the server lets it, which costs a fraction of a
//! handshake and would make proxies that keep sessions look better, and h2load opens no new connections. So the benchmark
//! starts itself once more, as a process on the cores of the load, that asks over TLS 1.3 and keeps no session.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::load::Place;
use crate::parse::{self, MARK, Measured};
use crate::process::Launch;
use crate::stop::{Fallible, Stop, now};

/// The first argument of the process that is the load.
pub(crate) const ARGUMENT: &str = "--handshakes";

/// The name in the certificate.
const NAME: &str = "localhost";

/// Writes a fresh self-signed certificate over P-256: `cert.pem`, `key.pem`, and `bundle.pem`, which is both.
///
/// # Errors
///
/// When it cannot be made or written.
pub(crate) fn certificate(directory: &Path) -> Fallible<()> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = rcgen::CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.pem();
    for (name, text) in [
        ("cert.pem", certificate.clone()),
        ("key.pem", key.serialize_pem()),
        ("bundle.pem", certificate + &key.serialize_pem()),
    ] {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Loads `address` from `connections` connections at a time.
///
/// # Errors
///
/// When the load fails, or says what cannot be read.
pub(crate) fn run(
    stop: &Stop,
    place: &Place,
    address: SocketAddr,
    certificates: &Path,
    connections: usize,
    seconds: u64,
) -> Fallible<Measured> {
    let said = place.directory.join("handshake.out");
    Launch::new(std::env::current_exe()?, &place.cores, place.directory.join("handshake.err"))
        .args([ARGUMENT.to_owned(), address.to_string(), connections.to_string(), seconds.to_string()])
        .arg(certificates.join("cert.pem"))
        .stdout(&said)
        .finish(stop, Duration::from_secs(seconds + 30))?;
    let said = std::fs::read_to_string(&said)?;
    parse::measured(&said).ok_or_else(|| format!("the load of handshakes said what cannot be read:\n{said}").into())
}

/// The process that is the load: address, connections, seconds and certificate are its arguments.
///
/// # Errors
///
/// When an argument is wrong.
pub(crate) fn load(arguments: &[String]) -> Fallible<()> {
    let [address, connections, seconds, certificate] = arguments else {
        return Err("address, connections, seconds and certificate are needed".into());
    };
    let (address, connections): (SocketAddr, usize) = (address.parse()?, connections.parse()?);
    let seconds = Duration::from_secs(seconds.parse()?);
    let config = config(Path::new(certificate))?;
    let started = now();
    let loops: Vec<_> = (0..connections)
        .map(|_| (Arc::clone(&config), started + seconds))
        .map(|(config, end)| std::thread::spawn(move || ask_until(address, &config, end)))
        .collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for one in loops {
        let (its, failures) = one.join().map_err(|_| "a thread of the load failed")?;
        times.extend(its);
        failed += failures;
    }
    let measured = Measured::of(times, started.elapsed().as_secs_f64(), 0, failed);
    println!("{MARK}{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// A client that trusts this certificate alone, speaks TLS 1.3 and HTTP/1.1, and resumes nothing.
fn config(certificate: &Path) -> Fallible<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let mut config = config.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Asks in a loop: the times in µs, and how many failed.
fn ask_until(address: SocketAddr, config: &Arc<ClientConfig>, end: Instant) -> (Vec<f64>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    while now() < end {
        let started = now();
        match ask(address, config) {
            Ok(()) => times.push(started.elapsed().as_secs_f64() * 1e6),
            Err(_) => failed += 1,
        }
    }
    (times, failed)
}

fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> Fallible<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::with_capacity(1024);
    match stream.read_to_end(&mut answer) {
        Ok(_) => (),
        // Not every server says goodbye before it closes.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => (),
        Err(error) => return Err(error.into()),
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("another answer".into()) }
}
