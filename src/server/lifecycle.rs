//! From start to stop: the states of a server, and the moves between them.
//!
//! ```text
//!                        hands its sockets over
//! starting ──► ready ◄──────────────────────────► handing over
//!     │          │      takes them back               │
//!     │          ▼                                    ▼
//!     └─────► draining ◄──────────────────────────────┘
//!                │         the successor serves
//!                ▼
//!             stopped
//! ```
//!
//! *Starting*: addresses are bound, pools have their first round of checks, nobody gets in. *Ready*: listeners accept.
//! *Handing over*: another process is about to accept on the same sockets; here nobody gets in any more, the sockets
//! stay open, and what comes meanwhile waits in the kernel's queue. *Draining*, on SIGTERM, SIGINT, when a listener
//! dies, or when the successor serves: the sockets close, requests in flight finish, up to
//! `pingora.grace_period_seconds`.
//! *Stopped*: nothing is in flight any more; buckets are saved and the process exits. An idle server is gone at once. A
//! second SIGINT while draining ends it at once.
//!
//! From handing over and draining on, each kept connection gets one more answer, which says `Connection: close`. One
//! that stays silent is closed: [`Downstream`](crate::proxy::Downstream) says when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::debug;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::proxy::Patience;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody gets in yet.
    Starting,
    /// Listeners accept.
    Ready,
    /// Nobody gets in here; another process is about to accept on the same sockets.
    HandingOver,
    /// Nobody gets in any more; requests in flight finish.
    Draining,
    /// Nothing is in flight any more.
    Stopped,
}

impl State {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::HandingOver => "handing_over",
            State::Draining => "draining",
            State::Stopped => "stopped",
        }
    }

    /// Whether it may become `next`.
    fn leads_to(self, next: State) -> bool {
        match (self, next) {
            (State::Starting, State::Ready)
            | (State::Ready, State::HandingOver)
            | (State::HandingOver, State::Ready)
            | (State::Draining, State::Stopped) => true,
            (from, State::Draining) => !matches!(from, State::Draining | State::Stopped),
            _ => false,
        }
    }

    /// Whether what is begun is to be finished and nothing else.
    fn is_stopping(self) -> bool {
        !matches!(self, State::Starting | State::Ready)
    }
}

/// What the services of one server share of its life.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    state: Arc<watch::Sender<State>>,
    /// True while what is begun is to be finished and nothing else; follows `state`.
    stopping: Arc<watch::Sender<bool>>,
    /// The same for the admin API, which goes on while the server drains.
    closing: Arc<watch::Sender<bool>>,
    /// How long silent connections stay once no new requests are wanted.
    patience: Arc<Patience>,
    /// True once another process serves in this one's place.
    succeeded: Arc<AtomicBool>,
    /// True once somebody listens to what the server is asked for.
    attended: Arc<watch::Sender<bool>>,
    failure: Arc<ServerFailure>,
}

#[derive(Debug, Default)]
struct ServerFailure {
    reason: Mutex<Option<String>>,
    happened: tokio::sync::Notify,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let switch = || Arc::new(watch::Sender::new(false));
        let state = Arc::new(watch::Sender::new(State::Starting));
        Lifecycle {
            state,
            stopping: switch(),
            closing: switch(),
            patience: Arc::default(),
            succeeded: Arc::default(),
            attended: switch(),
            failure: Arc::default(),
        }
    }

    /// Where the server is.
    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Whether whoever connects is served: by this process, or by the one that takes its place.
    pub(super) fn is_service_ready(&self) -> bool {
        matches!(self.state(), State::Ready | State::HandingOver) || self.succeeded.load(Ordering::SeqCst)
    }

    /// Calls `tell` if the server is ready, and lets it become nothing else meanwhile: what is told holds. `tell` must
    /// neither move the server on nor log.
    pub(super) fn if_ready<T>(&self, tell: impl FnOnce() -> T) -> Option<T> {
        let state = self.state.borrow();
        (*state == State::Ready).then(tell)
    }

    /// How long silent connections stay once no new requests are wanted.
    pub(super) fn patience(&self) -> Arc<Patience> {
        Arc::clone(&self.patience)
    }

    /// Waits until the server fails.
    pub(super) async fn failed(&self) {
        self.failure.happened.notified().await;
    }

    /// Tells of each change of state.
    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Moves on; whether that was possible from where the server is.
    pub(super) fn advance(&self, next: State) -> bool {
        let moved = self.state.send_if_modified(|state| {
            let may = state.leads_to(next);
            if may {
                match (*state, next) {
                    (_, State::HandingOver) => self.patience.set(Patience::HAND_OVER),
                    // The connections that are left after a hand-over keep theirs.
                    (State::HandingOver, State::Draining) => {}
                    _ => self.patience.set(Patience::STOP),
                }
                // Before the state shows: whoever sees that it is ready again must not find it stopping still.
                self.stopping.send_replace(next.is_stopping());
                if next != State::Draining {
                    self.closing.send_replace(next.is_stopping());
                } else if *state == State::HandingOver {
                    self.succeeded.store(true, Ordering::SeqCst);
                }
                *state = next;
            }
            may
        });
        if moved {
            debug!("state: {}", next.name());
        }
        moved
    }

    /// Somebody listens to what the server is asked for from now on.
    pub(super) fn attend(&self) {
        self.attended.send_replace(true);
    }

    /// Waits until somebody listens to what the server is asked for. Before that a signal would end the process, so
    /// nobody is let in.
    pub(super) async fn attended(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.attended.subscribe().wait_for(|attended| *attended).await;
    }

    /// True while no new requests are wanted.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// True while no new requests are wanted for the admin API either, which tells how far a drain is.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Ends the server because it cannot do its work any more. The first reason counts.
    pub(super) fn fail(&self, reason: String) {
        self.failure.reason.lock().get_or_insert(reason);
        self.failure.happened.notify_one();
    }

    /// Why the server failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.reason.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [State; 5] = [State::Starting, State::Ready, State::HandingOver, State::Draining, State::Stopped];

    #[test]
    fn only_the_moves_of_the_drawing_are_made() {
        let moves: Vec<_> = ALL
            .iter()
            .flat_map(|from| ALL.iter().filter(|to| from.leads_to(**to)).map(|to| (from.name(), to.name())))
            .collect();
        let expected = [
            ("starting", "ready"),
            ("starting", "draining"),
            ("ready", "handing_over"),
            ("ready", "draining"),
            ("handing_over", "ready"),
            ("handing_over", "draining"),
            ("draining", "stopped"),
        ];
        assert_eq!(moves, expected);
    }

    #[test]
    fn who_sees_a_state_sees_what_follows_from_it() {
        let lifecycle = Lifecycle::new();
        let (states, stopping, closing) = (lifecycle.states(), lifecycle.stopping(), lifecycle.closing());
        lifecycle.advance(State::Ready);
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                for _ in 0..20_000 {
                    assert!(lifecycle.advance(State::HandingOver) && lifecycle.advance(State::Ready));
                }
            });
            while !moving.is_finished() {
                // No state comes as long as this one is looked at.
                let state = states.borrow();
                let seen = (*stopping.borrow(), *closing.borrow());
                assert_eq!(seen, (state.is_stopping(), state.is_stopping()), "{}", state.name());
            }
        });
    }

    #[test]
    fn the_admin_api_goes_on_while_the_server_drains_and_not_while_it_hands_over() {
        let lifecycle = Lifecycle::new();
        let (stopping, closing) = (lifecycle.stopping(), lifecycle.closing());
        let mut seen = Vec::new();
        let moves = [State::Ready, State::HandingOver, State::Ready, State::Draining, State::Ready, State::Stopped];
        for state in moves {
            seen.push((lifecycle.advance(state), *stopping.borrow(), *closing.borrow()));
        }
        let (no, yes) = (false, true);
        let expected = [(yes, no, no), (yes, yes, yes), (yes, no, no), (yes, yes, no), (no, yes, no), (yes, yes, yes)];
        assert_eq!((seen.as_slice(), lifecycle.state()), (&expected[..], State::Stopped));
        assert!(!lifecycle.is_service_ready());
        assert_eq!(lifecycle.patience().get(), Patience::STOP);

        let lifecycle = Lifecycle::new();
        let moves = [State::Ready, State::HandingOver, State::Draining];
        assert!(moves.into_iter().all(|state| lifecycle.advance(state)));
        assert!(*lifecycle.stopping().borrow() && *lifecycle.closing().borrow(), "the successor has the sockets");
        assert!(lifecycle.is_service_ready(), "the successor serves");
        assert_eq!(lifecycle.patience().get(), Patience::HAND_OVER, "there is time for slow clients");
    }
}
