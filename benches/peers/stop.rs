//! The end by Ctrl-C or SIGTERM, and the clock.
//!
//! Every wait of the benchmark goes through [`Stop::pause`], which fails as soon as a signal has come. So an
//! interrupted run unwinds as a failed one does, and ends each process and removes each file that it made. A second
//! signal exits at once; the kernel then kills what is left (see [`Process`](crate::process::Process)).

use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// What can fail for a reason that is told to the caller of the benchmark.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Whether a signal has come.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on, on a thread of its own.
    pub(crate) fn on_signals() -> Fallible<Arc<Self>> {
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        drop(guard);
        std::thread::spawn(move || {
            for _ in 0..2 {
                runtime.block_on(async {
                    tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
                });
                let again = std::mem::replace(&mut *told.asked.lock().unwrap_or_else(PoisonError::into_inner), true);
                if again {
                    std::process::exit(130);
                }
                told.changed.notify_all();
            }
        });
        Ok(stop)
    }

    /// Waits for `time`.
    ///
    /// # Errors
    ///
    /// When a signal has come, before or meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> Fallible<()> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        let (asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *asked { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Asks `ready` every 10 ms until it gives a value, for at most `time`.
    ///
    /// # Errors
    ///
    /// When the time is over, naming `what` was waited for; when a signal has come; when `ready` fails.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        time: Duration,
        mut ready: impl FnMut() -> Fallible<Option<T>>,
    ) -> Fallible<T> {
        let started = now();
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if started.elapsed() > time {
                return Err(format!("waited {time:?} in vain for {what}").into());
            }
            self.pause(Duration::from_millis(10))?;
        }
    }
}

/// The present moment.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
