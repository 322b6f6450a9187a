//! The fleet as this node sees it, for whoever asks the admin API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FleetPlace;
use crate::fleet::link::BOUNDS;
use crate::fleet::nodes::NodeSeen;
use crate::fleet::registry::FOREIGN;
use crate::fleet::{LinkError, RegistryState};
use crate::limit::Reach;
use crate::telemetry::{FleetNode, FleetState, FleetStore, FleetView, LeaseCounts, ShowFleet};

impl FleetPlace {
    /// The fleet as this node sees it now.
    pub(in crate::server) fn view(&self) -> FleetView {
        let parts = &self.0;
        let link = parts.link.state().borrow().clone();
        let nodes = parts.late.lock().nodes.clone();
        let double = nodes.as_ref().filter(|nodes| nodes.has_double());
        let double = double.map(|_| format!("another node is called {}, too", parts.node));
        let registry = *parts.registry.state().borrow();
        let settled = link.is_reachable() && parts.leases.reach() == Reach::Joined;
        let (state, reason) = match (settled, registry) {
            (true, RegistryState::Foreign) => (FleetState::Unreachable, Some(FOREIGN.to_owned())),
            (true, _) => {
                let refuses = || parts.link.refuses().map(|reason| format!("the store refuses: {reason}"));
                let taking_in = || {
                    let (done, all) = parts.registry.taking_in()?;
                    Some(format!("the fleet's clients are taken in: {done} of about {all}"))
                };
                (FleetState::Joined, double.or_else(refuses).or_else(taking_in))
            }
            (false, _) => {
                let settling = || "it answers again, and hears first what was given without it".to_owned();
                (FleetState::Unreachable, Some(link.why().map_or_else(settling, LinkError::reason)))
            }
        };
        let (figures, counts) = (parts.link.figures(), &parts.leases.counts);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let nodes = nodes.map(|nodes| nodes.list());
        let seen = |seen: &NodeSeen| FleetNode {
            node: seen.node.clone(),
            version: seen.version.clone(),
            seen: seen.seen,
            leased: seen.leased,
        };
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        FleetView {
            state,
            since: Some(parts.clock.wall() - parts.clock.now().saturating_duration_since(link.since())),
            reason,
            node: Some(parts.node.clone()),
            nodes: nodes.iter().flat_map(|nodes| nodes.iter().map(seen)).collect(),
            store: FleetStore {
                address: Some(parts.settings.store.to_string()),
                primary: parts.link.primary(),
                latency: figures.latency,
                errors: figures.errors,
                evicted_keys: figures.evicted_keys,
                maxmemory_policy: figures.maxmemory_policy.clone(),
                seconds: bounds.zip(figures.seconds).collect(),
                seconds_sum: figures.seconds_sum,
            },
            leases: LeaseCounts {
                asked: count(&counts.asked),
                ahead: count(&counts.ahead),
                returned: count(&counts.returned),
                late: count(&counts.late),
            },
            waits: count(&counts.waits),
        }
    }
}

/// What shows the fleet, or that there is none.
pub(in crate::server) fn show(place: Option<FleetPlace>) -> ShowFleet {
    Arc::new(move || place.as_ref().map_or_else(FleetView::default, FleetPlace::view))
}
