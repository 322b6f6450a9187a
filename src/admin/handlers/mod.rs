//! One file for each kind of call, with what goes over the wire in it.

pub(super) mod clients;
pub(super) mod decisions;
pub(super) mod explain;
pub(super) mod fleet;
pub(super) mod live;
pub(super) mod page;
pub(super) mod reload;
pub(super) mod series;
pub(super) mod status;
pub(super) mod top;
pub(super) mod upstreams;
