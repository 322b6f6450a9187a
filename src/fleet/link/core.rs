//! What the link and the task that keeps it up have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};

use super::errors::{LinkError, StoreFault};
use super::figures::Counted;
use super::session::Session;
use super::state::LinkState;
use crate::clock::Clock;
use crate::fleet::settings::FleetSettings;

/// The link to one store.
pub(super) struct LinkCore {
    pub(super) settings: FleetSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) session: ArcSwapOption<Session>,
    pub(super) state: watch::Sender<LinkState>,
    /// When something last answered, in nanoseconds after `start`.
    pub(super) sign: AtomicU64,
    pub(super) start: Instant,
    /// Somebody saw that the connection is of no use any more, and why.
    pub(super) broken: Notify,
    pub(super) why: Mutex<Option<String>>,
    pub(super) counted: Counted,
    /// Whether it was ever reached.
    pub(super) met: AtomicBool,
}

impl LinkCore {
    /// Not connected yet.
    pub(super) fn new(settings: &FleetSettings, clock: Arc<dyn Clock>) -> Self {
        let start = clock.now();
        let state = LinkState::Unreachable { since: start, reason: "not connected yet".to_owned() };
        LinkCore {
            settings: settings.clone(),
            clock,
            session: ArcSwapOption::empty(),
            state: watch::Sender::new(state),
            sign: AtomicU64::new(0),
            start,
            broken: Notify::new(),
            why: Mutex::new(None),
            counted: Counted::default(),
            met: AtomicBool::new(false),
        }
    }

    pub(super) fn unreachable(&self) -> LinkError {
        self.counted.failed(1);
        let reason = match &*self.state.borrow() {
            LinkState::Unreachable { reason, .. } => reason.clone(),
            LinkState::Reachable { .. } => "the connection was lost".to_owned(),
        };
        LinkError::Unreachable(reason)
    }

    /// Sends commands and waits for their answers, at most so long, and not once the store counts as unreachable.
    pub(super) async fn send(
        &self,
        session: &Session,
        commands: Vec<Cmd>,
        limit: Duration,
    ) -> Vec<Result<Value, StoreFault>> {
        let (begun, count) = (self.clock.now(), commands.len());
        let mut state = self.state.subscribe();
        let sent_in = state.borrow().clone();
        let answers = tokio::select! {
            biased;
            answers = session.send(commands, limit) => answers,
            _ = state.wait_for(|state| sent_in.is_reachable() && *state != sent_in) => vec![Err(StoreFault::late()); count],
        };
        let faults: Vec<&StoreFault> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        self.counted.failed(faults.len());
        if let Some(fault) = faults.iter().find(|fault| fault.breaks) {
            self.break_off(fault.error.to_string());
        }
        if faults.iter().all(|fault| fault.answered) {
            self.alive();
            self.counted.took(self.clock.now().saturating_duration_since(begun));
        }
        answers
    }

    pub(super) fn alive(&self) {
        let nanos = self.clock.now().saturating_duration_since(self.start).as_nanos();
        self.sign.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn last_sign(&self) -> Instant {
        self.start + Duration::from_nanos(self.sign.load(Ordering::Relaxed))
    }

    /// Has the connection replaced.
    pub(super) fn break_off(&self, reason: String) {
        *self.why.lock() = Some(reason);
        self.broken.notify_one();
    }
}
