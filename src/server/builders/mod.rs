//! The four builders, each over the server's core and what the builders before it made. Nothing here starts anything.

mod control_plane;
mod data_plane;
mod life;
mod telemetry;

pub(super) use control_plane::ControlPlane;
pub(super) use data_plane::DataPlane;
pub(super) use life::{Descent, Ending, Life};
pub(super) use telemetry::TelemetryPlane;
