//! What the link and the task that keeps it up have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use log::warn;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};

use super::errors::{LinkError, StoreFault};
use super::figures::Counted;
use super::session::Session;
use super::state::LinkState;
use crate::clock::Clock;
use crate::fleet::settings::FleetSettings;

pub(super) const TARGET: &str = "tollgate::fleet";

/// For how long something is told that the store has refused: nodes ask for most things each second.
const REFUSES: Duration = Duration::from_secs(10);

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
    pub(super) why: Mutex<Option<LinkError>>,
    /// A call was not answered in time.
    pub(super) doubt: Notify,
    /// What the store refuses while it is reachable, and when it did so last.
    refuses: Mutex<Option<(String, Instant)>>,
    pub(super) counted: Counted,
    /// Whether it was ever reached.
    pub(super) met: AtomicBool,
}

impl LinkCore {
    /// Not connected yet.
    pub(super) fn new(settings: &FleetSettings, clock: Arc<dyn Clock>) -> Self {
        let start = clock.now();
        let state =
            LinkState::Unreachable { since: start, why: LinkError::Unreachable("not connected yet".to_owned()) };
        LinkCore {
            settings: settings.clone(),
            clock,
            session: ArcSwapOption::empty(),
            state: watch::Sender::new(state),
            sign: AtomicU64::new(0),
            start,
            broken: Notify::new(),
            why: Mutex::new(None),
            doubt: Notify::new(),
            refuses: Mutex::new(None),
            counted: Counted::default(),
            met: AtomicBool::new(false),
        }
    }

    pub(super) fn unreachable(&self) -> LinkError {
        self.counted.failed(1);
        match &*self.state.borrow() {
            LinkState::Unreachable { why, .. } => why.clone(),
            LinkState::Reachable { .. } => LinkError::lost(),
        }
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
            self.break_off(if fault.answered { fault.error.clone() } else { LinkError::lost() });
        } else if let Some(fault) = faults.iter().find(|fault| fault.is_refusal()) {
            self.note_refusal(fault.error.reason());
        }
        if faults.iter().any(|fault| !fault.answered) {
            self.doubt.notify_one();
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
    pub(super) fn break_off(&self, why: LinkError) {
        *self.why.lock() = Some(why);
        self.broken.notify_one();
    }

    /// Notes, and tells once as long as it goes on, that the store does not do what it is asked.
    fn note_refusal(&self, reason: String) {
        let now = self.clock.now();
        let before = self.refuses.lock().replace((reason.clone(), now));
        if !before.is_some_and(|(of, at)| of == reason && now.saturating_duration_since(at) < REFUSES) {
            warn!(target: TARGET, "the fleet's store at {} refuses: {reason}", self.settings.store);
        }
    }

    /// What the store refuses, if it did so lately.
    pub(super) fn refuses(&self) -> Option<String> {
        let now = self.clock.now();
        let lately = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) < REFUSES;
        self.refuses.lock().as_ref().filter(|refusal| lately(refusal)).map(|(reason, _)| reason.clone())
    }
}
