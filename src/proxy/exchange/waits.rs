//! What bounds a body on its way, and how long each side keeps it waiting.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use crate::clock::Clock;
use crate::proxy::gate::headers::Underscores;

/// What bounds a body and its way.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct BodyBounds {
    /// The longest silence in it; `None` is no bound.
    pub(in crate::proxy) silence: Option<Duration>,
    /// The fewest bytes a second that it may come at, until the answer begins.
    pub(in crate::proxy) rate: Option<NonZeroU64>,
    /// Whether the client waits for a word before it sends any of it.
    pub(in crate::proxy) expects: bool,
    /// What becomes of trailers with `_` in their name.
    pub(in crate::proxy) underscores: Underscores,
    /// Its length, in bytes; known once the request is let in.
    pub(in crate::proxy) length: Option<u64>,
    /// The longest that a backend may take nothing of it.
    pub(in crate::proxy) write: Duration,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Side {
    Client,
    Backend,
}

/// The wait that goes on.
pub(in crate::proxy) struct Waits {
    /// Whom it is for.
    side: Option<Side>,
    /// When it began; when none goes on, when the last one ended that is to be known.
    since: Instant,
    timer: Option<(Pin<Box<Sleep>>, Instant)>,
    clock: Arc<dyn Clock>,
}

impl Waits {
    /// None, by `clock`.
    pub(in crate::proxy) fn new(clock: Arc<dyn Clock>) -> Self {
        Waits { side: None, since: clock.now(), timer: None, clock }
    }

    /// Begins anew, now.
    pub(in crate::proxy) fn begin(&mut self) {
        self.side = None;
        self.note();
    }

    /// What was waited for has come.
    pub(in crate::proxy) fn end(&mut self) {
        self.side = None;
    }

    /// Takes note of this moment.
    pub(in crate::proxy) fn note(&mut self) {
        self.since = self.clock.now();
    }

    /// How long ago that was.
    pub(in crate::proxy) fn since_then(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.since)
    }

    /// Waits for `side`; ready when that has taken longer than `limit`.
    pub(in crate::proxy) fn poll_too_long(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        limit: Option<Duration>,
    ) -> Poll<()> {
        if self.side != Some(side) {
            (self.side, self.since) = (Some(side), self.clock.now());
        }
        let Some(limit) = limit else { return Poll::Pending };
        let due = self.since + limit;
        loop {
            // One that is due too early is set anew when it is over: most are never.
            if self.timer.as_ref().is_none_or(|(_, at)| *at > due) {
                let left = due.saturating_duration_since(self.clock.now());
                self.timer = Some((Box::pin(sleep(left)), due));
            }
            let Some((timer, _)) = &mut self.timer else { return Poll::Pending };
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            if self.clock.now() >= due {
                return Poll::Ready(());
            }
        }
    }
}
