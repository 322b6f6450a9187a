//! Keeping the link up: connecting, pings, the primary that Sentinel names, and what is said when it changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};
use log::{debug, warn};
use tokio::time::{sleep, timeout};

use super::core::{LinkCore, TARGET};
use super::errors::LinkError;
use super::sentinels::Sentinels;
use super::session::{CONNECTING, Session};
use super::state::LinkState;
use crate::fleet::names::Names;

/// Between two pings.
const PINGS: Duration = Duration::from_millis(100);
/// Without a sign of life for so long, the store is unreachable; and a little for a process that was itself held up.
const LIFE: Duration = Duration::from_millis(225);
const GRACE: Duration = Duration::from_millis(20);
/// Between two trials of writes: a Cluster that is only slow is not to be given much more to do by that.
const TRIALS: Duration = Duration::from_secs(1);
/// Between two looks at what the store tells of itself.
const LOOKS: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The same where the store refused what it is for, again so soon after it had taken a write.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
const STEADY: Duration = Duration::from_secs(10);
/// Reasons that are told while the store is away, at most.
const REASONS: usize = 8;

impl LinkCore {
    /// Connects, watches, and connects again, for ever.
    pub(super) async fn keep(&self) {
        let mut pause = SHORTEST_PAUSE;
        let mut told: Vec<String> = Vec::new();
        loop {
            let connected = timeout(CONNECTING, Session::open(&self.settings)).await;
            let why = match connected.unwrap_or_else(|_| Err(self.silent())) {
                Ok(session) => {
                    told.clear();
                    let began = self.clock.now();
                    let why = self.up(session).await;
                    let again = self.clock.now().saturating_duration_since(began) < STEADY;
                    pause = if again && matches!(why, LinkError::Refused(_)) { REFUSED_PAUSE } else { SHORTEST_PAUSE };
                    why
                }
                Err(why) => {
                    self.counted.failed(1);
                    why
                }
            };
            self.down(why, &mut told);
            // Not all nodes at the same moment.
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Has a connection in use until it is of none, and says why.
    async fn up(&self, session: Session) -> LinkError {
        let session = std::sync::Arc::new(session);
        // What was said of the connection before.
        *self.why.lock() = None;
        let _ = timeout(Duration::ZERO, self.broken.notified()).await;
        self.counted.policy(session.policy.clone());
        self.alive();
        self.met.store(true, Ordering::Relaxed);
        self.session.store(Some(std::sync::Arc::clone(&session)));
        debug!(target: TARGET, "the fleet's store answers: {}, {}", session.place, session.version);
        if let Some(policy) = session.policy.as_deref().filter(|policy| *policy != "noeviction") {
            warn!(
                target: TARGET,
                "the fleet's store has `maxmemory-policy {policy}`: when its memory is full it forgets what callers \
                 have spent; only `noeviction` is exact"
            );
        }
        self.state.send_replace(LinkState::Reachable { since: self.clock.now() });
        tokio::select! {
            biased;
            () = self.broken.notified() => self.why.lock().take().unwrap_or_else(LinkError::lost),
            why = self.pings(&session) => why,
            why = self.elsewhere(&session) => why,
            why = self.doubts(&session) => why,
            () = self.looks(&session) => LinkError::lost(),
        }
    }

    /// Nothing came.
    fn silent(&self) -> LinkError {
        let speaks = if self.settings.store.tls { "; does it speak TLS at that port?" } else { "" };
        LinkError::Unreachable(format!("it does not answer{speaks}"))
    }

    fn down(&self, why: LinkError, told: &mut Vec<String>) {
        self.session.store(None);
        let reason = why.reason();
        if !told.contains(&reason) && told.len() < REASONS {
            // A change of state is told by whoever watches that. Before the first one it is said what is in the way.
            if !told.is_empty() && !self.met.load(Ordering::Relaxed) {
                warn!(target: TARGET, "the fleet's store is unreachable still: {}: {reason}", self.settings.store);
            }
            told.push(reason);
        }
        self.state.send_modify(|state| {
            let since = match state {
                LinkState::Unreachable { since, .. } => *since,
                LinkState::Reachable { .. } => self.clock.now(),
            };
            *state = LinkState::Unreachable { since, why };
        });
    }

    /// Pings until there is no sign of life any more.
    async fn pings(&self, session: &Session) -> LinkError {
        loop {
            let begun = self.clock.now();
            let mut ping = Box::pin(session.ping());
            let answer = loop {
                let left = (self.last_sign() + LIFE).saturating_duration_since(self.clock.now());
                match select(ping, Box::pin(sleep(left.max(GRACE)))).await {
                    Either::Left((answer, _)) => break answer,
                    Either::Right((_, rest)) if left.is_zero() => {
                        drop(rest);
                        break Err(LinkError::Unreachable("it does not answer".to_owned()));
                    }
                    Either::Right((_, rest)) => ping = rest,
                }
            };
            if let Err(why) = answer {
                return why;
            }
            self.alive();
            let took = self.clock.now().saturating_duration_since(begun);
            self.counted.pinged(took);
            self.counted.took(took);
            sleep(PINGS).await;
        }
    }

    /// Returns when Sentinel names another primary than the one that is spoken to.
    async fn elsewhere(&self, session: &Session) -> LinkError {
        let Some(primary) = &session.primary else { return std::future::pending().await };
        let mut sentinels = Sentinels::default();
        loop {
            sleep(PINGS).await;
            if let Ok(other) = sentinels.primary(&self.settings).await
                && other != *primary
            {
                return LinkError::Unreachable(format!("the primary is now {other}"));
            }
        }
    }

    /// Returns when a Cluster does not do what it is for, though it answers.
    async fn doubts(&self, session: &Session) -> LinkError {
        loop {
            self.doubt.notified().await;
            if session.is_cluster()
                && let Err(why) = session.try_writes(&Names::new(&self.settings.prefix)).await
            {
                return why;
            }
            sleep(TRIALS).await;
        }
    }

    /// Reads now and then what the store tells of itself.
    async fn looks(&self, session: &Session) {
        loop {
            if let Ok(Some(keys)) = timeout(CONNECTING, session.evicted_keys()).await {
                self.counted.evicted(keys);
            }
            sleep(LOOKS).await;
        }
    }
}
