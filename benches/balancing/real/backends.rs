//! Backends of this process whose times and answers are scripted.
//!
//! They serve so many requests at once and let others wait, so one that gets too many of them becomes slower.

use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Fallible;

/// How many requests a backend serves at once.
pub(crate) const WORKERS: usize = 4;
/// What a request takes at one that is well, in milliseconds.
pub(crate) const HEALTHY: u32 = 20;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno";

/// A backend, which can go and come back.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Script>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// What it does now.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What a request takes, in milliseconds.
    pub(crate) millis: AtomicU32,
    /// Whether each is answered 500, and at once.
    pub(crate) ill: AtomicBool,
    /// How many it has served.
    pub(crate) served: AtomicUsize,
}

impl Scripted {
    pub(crate) fn start(millis: u32) -> Fallible<Self> {
        let script = Arc::new(Script { millis: millis.into(), ..Script::default() });
        let backend = Scripted { address: free()?, script, task: Mutex::default() };
        backend.come()?;
        Ok(backend)
    }

    /// Three of them that are well.
    pub(crate) fn three() -> Fallible<[Self; 3]> {
        Ok([Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?])
    }

    pub(crate) fn come(&self) -> Fallible<()> {
        let listener = Bound::bind(self.address)?;
        listener.set_nonblocking(true)?;
        let (listener, script) = (TcpListener::from_std(listener)?, Arc::clone(&self.script));
        *self.task.lock() = Some(tokio::spawn(async move {
            let workers = Arc::new(Semaphore::new(WORKERS));
            // Dropped with the task, which ends all of its connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&workers), Arc::clone(&script)));
            }
        }));
        Ok(())
    }

    pub(crate) fn go(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    pub(crate) fn served(&self) -> usize {
        self.script.served.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, workers: Arc<Semaphore>, script: Arc<Script>) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        buffer.clear();
        let ill = script.ill.load(Ordering::Relaxed);
        if !ill {
            let Ok(permit) = workers.acquire().await else { return };
            let half = f64::from(script.millis.load(Ordering::Relaxed)) / 2e3;
            tokio::time::sleep(Duration::from_secs_f64(half - half * (1.0 - fastrand::f64()).ln())).await;
            drop(permit);
        }
        script.served.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(if ill { ERROR } else { ANSWER }).await.is_err() {
            return;
        }
    }
}

pub(crate) fn free() -> Fallible<SocketAddr> {
    Ok(Bound::bind("127.0.0.1:0")?.local_addr()?)
}
