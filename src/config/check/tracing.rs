//! Traces.

use crate::config::report::Level;
use crate::config::shape::TracingKeys;
use crate::config::value::OrNone;
use crate::config::written::{Section, Written};
use crate::telemetry::{CAN_EXPORT, TracingSettings};

/// What the file says of traces; none where there are none.
pub(super) fn of_file(top: &mut Level<'_>, key: Written<OrNone<Section<TracingKeys>>>) -> Option<TracingSettings> {
    let keys = top.take("tracing", key).flatten()?;
    let at = &mut top.below("tracing");
    let (propagate, sample) = (at.or("propagate", keys.propagate, true), at.or("sample", keys.sample, 0.01));
    let otlp = at.take("otlp", keys.otlp).flatten();
    if otlp.is_some() && !CAN_EXPORT {
        at.add("otlp", "must be null: this build has no exporter, as it was made without the feature otlp");
    }
    Some(TracingSettings { propagate, sample, otlp })
}
