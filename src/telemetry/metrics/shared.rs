//! The fleet, written out. All of it is there on a node alone, too, so that what is watched has a value.

use std::fmt::Result;

use super::Sources;
use super::family::{Family, Pen};
use crate::telemetry::FleetState;

impl Sources {
    /// The fleet as this node sees it.
    pub(super) fn fleet(&self, encoder: &mut Pen<'_>) -> Result {
        let view = (self.parts.fleet)();
        let state = match view.state {
            FleetState::Alone => 0_u64,
            FleetState::Joined => 1,
            FleetState::Unreachable => 2,
        };
        let help = "How this node stands to its fleet: 0 it has none, 1 it has joined, 2 the store is unreachable.";
        Family::gauge(encoder, "tollgate_fleet_state", help)?.bare(state)?;
        Family::gauge(encoder, "tollgate_fleet_nodes", "Nodes of the fleet that are seen, this one among them.")?
            .bare(view.nodes.len().max(1) as u64)?;
        Family::histogram(encoder, "tollgate_fleet_store_seconds", "Time of round trips to the fleet's store.")?
            .bare_buckets(view.store.seconds_sum, &view.store.seconds)?;
        Family::counter(
            encoder,
            "tollgate_fleet_store_errors_total",
            "Calls of the fleet's store without an answer, or with an error for one.",
        )?
        .bare(view.store.errors)?;
        let mut family = Family::counter(
            encoder,
            "tollgate_fleet_leases_total",
            "Leases of tokens by kind: asked for by a request, taken ahead, returned, or come late.",
        )?;
        for (kind, count) in view.leases.each() {
            family.value(&[("kind", kind)], count)?;
        }
        Family::counter(encoder, "tollgate_fleet_waits_total", "Requests that waited for the fleet's store.")?
            .bare(view.waits)
    }
}
