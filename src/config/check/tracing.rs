//! Traces.

use crate::config::report::Level;
use crate::config::shape::TracingKeys;
use crate::config::value::OrNone;
use crate::config::written::{Section, Written};
use crate::telemetry::TracingSettings;

/// What the file says of traces; none where there are none.
pub(super) fn of_file(top: &mut Level<'_>, key: Written<OrNone<Section<TracingKeys>>>) -> Option<TracingSettings> {
    let keys = top.take("tracing", key).flatten()?;
    let at = &mut top.below("tracing");
    Some(TracingSettings {
        propagate: at.or("propagate", keys.propagate, true),
        sample: at.or("sample", keys.sample, 0.01),
    })
}
