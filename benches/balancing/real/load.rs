//! Requests at a proxy: by a Poisson process, or as fast as answers come.
//!
//! By the process they come whatever becomes of those before them, as those of many clients do, and each time counts
//! from when the request was to be sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tollgate::clock::{Clock, SystemClock};

/// Asks the proxy so often a second for so long; when each request was to be sent, and what it took, in seconds. None
/// is one that failed.
pub(crate) async fn load(address: SocketAddr, rate: f64, seconds: f64) -> Vec<(f64, Option<f64>)> {
    let (start, idle) = (SystemClock.now(), Arc::new(Mutex::new(Vec::new())));
    let (mut at, mut requests) = (0.0, Vec::new());
    while at < seconds {
        at -= (1.0 - fastrand::f64()).ln() / rate;
        tokio::time::sleep_until((start + Duration::from_secs_f64(at)).into()).await;
        let (idle, due) = (Arc::clone(&idle), start + Duration::from_secs_f64(at));
        requests.push((at, tokio::spawn(async move { ask_by(address, due, &idle).await })));
    }
    let mut took = Vec::new();
    for (at, request) in requests {
        took.push((at, request.await.ok().flatten()));
    }
    took
}

/// The client that asks by the process. Another one is who floods.
const ASKS: &str = "192.0.2.2";

async fn ask_by(address: SocketAddr, due: Instant, idle: &Mutex<Vec<TcpStream>>) -> Option<f64> {
    let kept = idle.lock().pop();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.ok()?,
    };
    let (status, closes) = ask(&mut stream, ASKS).await?;
    if !closes {
        idle.lock().push(stream);
    }
    let took = SystemClock.now().saturating_duration_since(due).as_secs_f64();
    (status == 200).then_some(took)
}

/// Asks once, as `client`; the status of the answer, and whether the connection closes after it.
async fn ask(stream: &mut TcpStream, client: &str) -> Option<(u16, bool)> {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = value("content-length:")?.parse().ok()?;
        if answer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            return Some((status, value("connection:") == Some("close")));
        }
    }
}

/// A client with so many connections, over each of which it asks again as soon as it is answered. It has a thread of
/// its own, as neither backends nor another client share a machine's thread with it.
pub(crate) struct Flood {
    runtime: Runtime,
    counts: Arc<[AtomicUsize; 2]>,
}

impl Flood {
    pub(crate) fn start(address: SocketAddr, connections: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let counts = Arc::<[AtomicUsize; 2]>::default();
        for _ in 0..connections {
            let counts = Arc::clone(&counts);
            runtime.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { return };
                    while let Some((status, closes)) = ask(&mut stream, "192.0.2.1").await {
                        counts[usize::from(status != 200)].fetch_add(1, Ordering::Relaxed);
                        if closes {
                            break;
                        }
                    }
                }
            });
        }
        Ok(Flood { runtime, counts })
    }

    /// Ends it; how many were answered 200, and how many otherwise.
    pub(crate) fn end(self) -> [usize; 2] {
        self.runtime.shutdown_background();
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The 99th percentile of those that were answered, in milliseconds, and how many were not.
pub(crate) fn p99(took: impl Iterator<Item = Option<f64>>) -> (f64, usize) {
    let all: Vec<_> = took.collect();
    let failed = all.iter().filter(|took| took.is_none()).count();
    let mut took: Vec<_> = all.into_iter().flatten().collect();
    took.sort_by(f64::total_cmp);
    (took.get(took.len() * 99 / 100).copied().unwrap_or_default() * 1e3, failed)
}

/// Asks again and again until it is answered, for ten seconds at most.
pub(crate) async fn wait_until_it_serves(address: SocketAddr) -> Result<(), String> {
    for _ in 0..200 {
        if ask_by(address, SystemClock.now(), &Mutex::default()).await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{address} does not serve"))
}
