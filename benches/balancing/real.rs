//! tollgate, HAProxy and nginx in turns, before backends of this process whose times are scripted.
//!
//! Requests come by a Poisson process whatever becomes of those before them, as those of many clients do, and each time
//! counts from when the request was to be sent. Backends serve so many requests at once and let others wait, so one
//! that gets too many of them becomes slower.

use std::net::{SocketAddr, TcpListener as Bound};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tollgate::clock::{Clock, SystemClock};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// How many requests a backend serves at once.
const WORKERS: usize = 4;
const HEALTHY: u32 = 20;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A backend, which can go and come back.
struct Scripted {
    address: SocketAddr,
    /// What a request takes now, in milliseconds.
    millis: Arc<AtomicU32>,
    served: Arc<AtomicUsize>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Scripted {
    fn start(millis: u32) -> Fallible<Self> {
        let address = free()?;
        let (millis, served) = (Arc::new(AtomicU32::new(millis)), Arc::default());
        let backend = Scripted { address, millis, served, task: Mutex::default() };
        backend.come()?;
        Ok(backend)
    }

    fn come(&self) -> Fallible<()> {
        let listener = Bound::bind(self.address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (millis, served) = (Arc::clone(&self.millis), Arc::clone(&self.served));
        *self.task.lock() = Some(tokio::spawn(async move {
            let workers = Arc::new(Semaphore::new(WORKERS));
            // Dropped with the task, which ends all of its connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&workers), Arc::clone(&millis), Arc::clone(&served)));
            }
        }));
        Ok(())
    }

    fn go(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, workers: Arc<Semaphore>, millis: Arc<AtomicU32>, served: Arc<AtomicUsize>) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        buffer.clear();
        let Ok(permit) = workers.acquire().await else { return };
        let half = f64::from(millis.load(Ordering::Relaxed)) / 2e3;
        tokio::time::sleep(Duration::from_secs_f64(half - half * (1.0 - fastrand::f64()).ln())).await;
        drop(permit);
        served.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

fn free() -> Fallible<SocketAddr> {
    Ok(Bound::bind("127.0.0.1:0")?.local_addr()?)
}

/// A proxy that runs.
struct Contender {
    name: String,
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What stands in the file of a proxy that listens at an address.
type Configured = fn(SocketAddr, &[SocketAddr], &str) -> String;

fn tollgate(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let backends: Vec<_> = backends.iter().map(|backend| format!("{{address: \"{backend}\"}}")).collect();
    format!(
        "listeners: [{{address: \"{address}\"}}]\nadmin: {{address: null}}\ndatabase: null\naccess_log: {{path: null}}\n\
         rate_limit: {{enabled: false}}\nupstreams: [{{name: app, {how}, health_check: {{interval: 200ms}}, \
         backends: [{}]}}]\n",
        backends.join(", ")
    )
}

fn haproxy(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let (balance, server) = how.split_once('|').unwrap_or((how, ""));
    let server = |(place, backend): (usize, &SocketAddr)| {
        format!("  server s{place} {backend} check inter 200ms fall 2 rise 1 {server}\n")
    };
    let servers: String = backends.iter().enumerate().map(server).collect();
    format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  retries 2\n  option redispatch\n  timeout connect 3s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  \
         balance {balance}\n{servers}"
    )
}

fn nginx(address: SocketAddr, backends: &[SocketAddr], how: &str) -> String {
    let servers: String =
        backends.iter().map(|backend| format!("server {backend} max_fails=1 fail_timeout=1s;")).collect();
    format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null; events {{worker_connections 8192;}}\n\
         http {{access_log off; upstream app {{{how} {servers} keepalive 64;}} server {{listen {address}; \
         location / {{proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";}}}}}}"
    )
}

fn start(name: &str, how: &str, binary: &str, backends: &[SocketAddr]) -> Fallible<Contender> {
    let (directory, address) = (tempfile::tempdir()?, free()?);
    let file = directory.path().join("proxy.yaml");
    let (configured, arguments): (Configured, &[&str]) = match name {
        "tollgate" => (tollgate, &["run", "-c"]),
        "haproxy" => (haproxy, &["-f"]),
        _ => (nginx, &["-p", ".", "-c"]),
    };
    std::fs::write(&file, configured(address, backends, how))?;
    let mut command = Command::new(if name == "tollgate" { binary } else { name });
    command.args(arguments).arg(&file).current_dir(directory.path());
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(Contender { name: format!("{name} {how}"), process, address, _directory: directory })
}

/// Asks the proxy so often a second for so long; when each request was to be sent, and what it took, in seconds. None
/// is one that failed.
async fn load(address: SocketAddr, rate: f64, seconds: f64) -> Vec<(f64, Option<f64>)> {
    let (start, idle) = (SystemClock.now(), Arc::new(Mutex::new(Vec::new())));
    let (mut at, mut requests) = (0.0, Vec::new());
    while at < seconds {
        at -= (1.0 - fastrand::f64()).ln() / rate;
        tokio::time::sleep_until((start + Duration::from_secs_f64(at)).into()).await;
        let (idle, due) = (Arc::clone(&idle), start + Duration::from_secs_f64(at));
        requests.push((at, tokio::spawn(async move { ask(address, due, &idle).await })));
    }
    let mut took = Vec::new();
    for (at, request) in requests {
        took.push((at, request.await.ok().flatten()));
    }
    took
}

async fn ask(address: SocketAddr, due: Instant, idle: &Mutex<Vec<TcpStream>>) -> Option<f64> {
    let kept = idle.lock().pop();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.ok()?,
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    idle.lock().push(stream);
    let took = SystemClock.now().saturating_duration_since(due).as_secs_f64();
    answer.starts_with(b"HTTP/1.1 200").then_some(took)
}

fn p99(took: impl Iterator<Item = Option<f64>>) -> (f64, usize) {
    let all: Vec<_> = took.collect();
    let failed = all.iter().filter(|took| took.is_none()).count();
    let mut took: Vec<_> = all.into_iter().flatten().collect();
    took.sort_by(f64::total_cmp);
    (took.get(took.len() * 99 / 100).copied().unwrap_or_default() * 1e3, failed)
}

/// Asks again and again until it is answered, for ten seconds at most.
async fn wait_until_it_serves(address: SocketAddr) -> Result<(), String> {
    for _ in 0..200 {
        if ask(address, SystemClock.now(), &Mutex::default()).await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{address} does not serve"))
}

/// Runs both cases, with this binary of tollgate.
pub(crate) fn run(binary: &str) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        one_slow(binary).await?;
        comes_back(binary).await
    })
}

/// One backend of three is ten times slower; 70 % of what they can do together.
async fn one_slow(binary: &str) -> Fallible<()> {
    println!("one of three ten times slower (200 ms beside 20), 70 % load: p99 ms, failed, share of the slow one %");
    for (name, how) in [
        ("tollgate", "balance: least_time"),
        ("haproxy", "leastconn"),
        ("tollgate", "balance: least_connections"),
        ("nginx", "least_conn;"),
    ] {
        let backends = [Scripted::start(10 * HEALTHY)?, Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?];
        let contender = start(name, how, binary, &backends.each_ref().map(|backend| backend.address))?;
        wait_until_it_serves(contender.address).await?;
        load(contender.address, 294.0, 3.0).await;
        let before: Vec<_> = backends.iter().map(|backend| backend.served.load(Ordering::Relaxed)).collect();
        let took = load(contender.address, 294.0, 15.0).await;
        let (p99, failed) = p99(took.into_iter().map(|(_, took)| took));
        let after = backends.iter().map(|backend| backend.served.load(Ordering::Relaxed));
        let served: Vec<_> = after.zip(before).map(|(after, before)| after - before).collect();
        let share = served[0] as f64 * 100.0 / served.iter().sum::<usize>() as f64;
        println!("{:40} {p99:8.0} {failed:6} {share:6.1}", contender.name);
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}

/// One backend of three comes back cold: it takes 300 ms, and 20 after ten seconds.
async fn comes_back(binary: &str) -> Fallible<()> {
    println!("one of three comes back cold (300 ms, 20 after 10 s): p99 ms of the first ten seconds, failed");
    for (name, how) in [
        ("tollgate", "balance: round_robin, slow_start: 20s"),
        ("nginx", ""),
        ("tollgate", "balance: least_time, slow_start: 20s"),
        ("tollgate", "balance: round_robin"),
        ("haproxy", "roundrobin|slowstart 20s"),
    ] {
        let backends = [Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?];
        let contender = start(name, how, binary, &backends.each_ref().map(|backend| backend.address))?;
        wait_until_it_serves(contender.address).await?;
        load(contender.address, 200.0, 1.0).await;
        backends[0].go();
        load(contender.address, 200.0, 2.0).await;
        backends[0].millis.store(300, Ordering::Relaxed);
        backends[0].come()?;
        // What looks for it every 200 ms or second has found it by then.
        load(contender.address, 50.0, 0.5).await;
        let millis = Arc::clone(&backends[0].millis);
        let warms = tokio::spawn(async move {
            for step in 0..100 {
                millis.store(300 - 280 * step / 100, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let took = load(contender.address, 200.0, 10.0).await;
        warms.abort();
        let (p99, failed) = p99(took.into_iter().map(|(_, took)| took));
        println!("{:40} {p99:8.0} {failed:6}", contender.name);
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}
