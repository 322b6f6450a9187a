//! Traces.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{Flag, Fraction, OrNone, OtlpAddress};
use crate::config::written::Written;

/// Traces, by W3C's Trace Context.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct TracingKeys {
    /// Whether backends get a `traceparent`: the client's trace, or a new one, and this server's place in it. With false
    /// they get what the client says.
    #[schemars(extend("default" = true))]
    pub(in crate::config) propagate: Written<Flag>,
    /// The share of requests that is sampled, where no trusted proxy has decided.
    #[schemars(extend("default" = 0.01))]
    pub(in crate::config) sample: Written<Fraction>,
    /// Where a collector takes spans by OTLP over HTTP: `/v1/traces` below this. Null is nowhere.
    #[schemars(extend("default" = null))]
    pub(in crate::config) otlp: Written<OrNone<OtlpAddress>>,
}
