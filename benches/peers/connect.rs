//! A load of new connections, plain or TLS, each for one request.
//!
//! No load generator does this well. wrk resumes a TLS session wherever the server lets it, which costs a fraction of a
//! handshake and would make proxies that keep sessions look better; h2load opens no new connections. And both leave
//! connections in TIME_WAIT, tens of thousands a second: the kernel's tables of connections, those of a firewall first,
//! fill within seconds, and from then on packets are dropped. So the benchmark starts itself once more, as a process on
//! the cores of the load. It speaks TLS 1.3 and keeps no session, makes at most [`MOST`] connections for each second of
//! a round, and resets each one that the server has closed, which leaves nothing behind.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
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
pub(crate) const ARGUMENT: &str = "--connect";

/// How many connections are made at most, for each second that the load may last. It is over then.
const MOST: u64 = 8_000;

/// The name in the certificate.
pub(crate) const NAME: &str = "localhost";

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

/// Asks over `connections` connections at a time, each of them anew; over TLS with the certificate of that directory.
///
/// # Errors
///
/// When the load fails, or says what cannot be read; when the firewall's table of connections stays full.
pub(crate) fn run(
    stop: &Stop,
    place: &Place,
    address: SocketAddr,
    certificates: Option<&Path>,
    connections: usize,
    seconds: u64,
) -> Fallible<Measured> {
    // Connections that were reset stay in it for 10 s, others for 2 minutes.
    stop.until("room in the firewall's table of connections", Duration::from_secs(150), || {
        Ok(has_room().then_some(()))
    })?;
    let said = place.directory.join("connect.out");
    Launch::new(std::env::current_exe()?, &place.cores, place.directory.join("connect.err"))
        .args([ARGUMENT.to_owned(), address.to_string(), connections.to_string(), seconds.to_string()])
        .args(certificates.map(|directory| directory.join("cert.pem")))
        .stdout(&said)
        .finish(stop, Duration::from_secs(seconds + 30))?;
    let said = std::fs::read_to_string(&said)?;
    parse::measured(&said).ok_or_else(|| format!("the load of connections said what cannot be read:\n{said}").into())
}

/// Whether a firewall that keeps track of connections, if there is one, has half of its table free.
fn has_room() -> bool {
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?.trim().parse().ok()
    };
    match (read("count"), read("max")) {
        (Some(count), Some(max)) => count * 2 < max,
        _ => true,
    }
}

/// The process that is the load: address, connections, seconds and, for TLS, the certificate are its arguments.
///
/// # Errors
///
/// When an argument is wrong.
pub(crate) fn load(arguments: &[String]) -> Fallible<()> {
    let (address, connections, seconds) = match arguments {
        [address, connections, seconds] | [address, connections, seconds, _] => (address, connections, seconds),
        _ => return Err("address, connections and seconds are needed".into()),
    };
    let (address, connections): (SocketAddr, usize) = (address.parse()?, connections.parse()?);
    let seconds = Duration::from_secs(seconds.parse()?);
    let config = arguments.get(3).map(|certificate| config(Path::new(certificate))).transpose()?;
    let (left, started) = (Arc::new(AtomicU64::new(MOST * seconds.as_secs())), now());
    let ask_on = |_| {
        let (config, left, end) = (config.clone(), Arc::clone(&left), started + seconds);
        std::thread::spawn(move || ask_until(address, config.as_ref(), &left, end))
    };
    let threads: Vec<_> = (0..connections).map(ask_on).collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (its, failures) = thread.join().map_err(|_| "a thread of the load failed")?;
        times.extend(its);
        failed += failures;
    }
    let measured = Measured::of(times, started.elapsed().as_secs_f64(), 0, failed);
    println!("{MARK}{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// A client that trusts this certificate alone, speaks TLS 1.3 and HTTP/1.1, and resumes nothing.
pub(crate) fn config(certificate: &Path) -> Fallible<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let mut config = config.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A connection of such a client.
pub(crate) fn client(config: &Arc<ClientConfig>) -> Fallible<ClientConnection> {
    Ok(ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?)
}

/// Asks in a loop: the times in µs, and how many failed.
fn ask_until(
    address: SocketAddr,
    config: Option<&Arc<ClientConfig>>,
    left: &AtomicU64,
    end: Instant,
) -> (Vec<f64>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    while now() < end && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        let started = now();
        match ask(address, config) {
            Ok(()) => times.push(started.elapsed().as_secs_f64() * 1e6),
            Err(_) => failed += 1,
        }
    }
    (times, failed)
}

fn ask(address: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Fallible<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // A reset in place of TIME_WAIT.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    match config {
        None => exchange(stream),
        Some(config) => exchange(StreamOwned::new(client(config)?, stream)),
    }
}

/// One request, and its answer up to the end of the connection.
fn exchange(mut stream: impl Read + Write) -> Fallible<()> {
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
