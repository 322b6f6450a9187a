//! What checks tell a pool of its backends.

use std::time::Instant;

use log::warn;

use super::roster::PoolStage;
use super::{News, Pool};
use crate::upstream::Backend;
use crate::upstream::health::{CheckOutcome, HealthStatus, REST, Thresholds};

impl Pool {
    /// Takes note of a check of `backend`.
    pub(in crate::upstream) fn checked(&self, backend: &Backend, outcome: CheckOutcome) {
        if let CheckOutcome::NotDone(reason) = &outcome {
            warn!("upstream {}: backend {} could not be checked: {reason}", self.name(), backend.address());
            return;
        }
        let mut news = News::default();
        // Held to the end, so that a check is either counted before another pool takes over or not at all.
        let roster = self.roster.lock();
        match roster.stage {
            PoolStage::Prepared if backend.status() != HealthStatus::Unknown => {
                self.pending.lock().insert(backend.id(), (backend.transitions(), outcome));
            }
            PoolStage::Prepared | PoolStage::Serving => self.count_check(backend, outcome, &mut news),
            PoolStage::Replaced => {}
        }
    }

    /// Counts what a check of `backend` said. What that changes is `news`.
    pub(super) fn count_check(&self, backend: &Backend, outcome: CheckOutcome, news: &mut News) {
        let health = &self.settings.health;
        let thresholds = Thresholds { healthy: health.healthy_threshold, unhealthy: health.unhealthy_threshold };
        let Some(transition) = backend.checked(outcome == CheckOutcome::Passed, thresholds) else { return };
        let needed = match (transition.from, transition.to) {
            (HealthStatus::Unknown, _) => 1,
            (_, HealthStatus::Up) => thresholds.healthy.get(),
            _ => thresholds.unhealthy.get(),
        };
        let row = if needed > 1 { format!(", {needed} times in a row") } else { String::new() };
        let reason = match outcome {
            CheckOutcome::Passed => format!("check passed{row}"),
            CheckOutcome::Failed(reason) | CheckOutcome::NotDone(reason) => format!("check failed{row}: {reason}"),
        };
        self.announce(backend, transition, &reason, news);
    }

    /// Brings back the backends that no check brings back and that have rested long enough at `now`.
    pub(in crate::upstream) fn end_rests(&self, now: Instant) {
        let mut news = News::default();
        let roster = self.roster.lock();
        if roster.stage != PoolStage::Serving {
            return;
        }
        for backend in self.selector.now().backends() {
            if let Some(transition) = backend.end_rest(now) {
                self.announce(backend, transition, &format!("tried again after {} s", REST.as_secs()), &mut news);
            }
        }
    }
}
