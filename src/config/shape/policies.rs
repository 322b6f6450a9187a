//! The policies.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{
    Choice, Cost, PerSec, PolicyMode, PolicyName, PolicyPayer, RequestMethod, RouteHost, RoutePath, SaidText, Whole,
};
use crate::config::written::{List, Map, Section, Written};

/// More buckets that requests must pay into, beside their caller's own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "capacity", "rate_per_sec"]))]
pub(in crate::config) struct PolicyKeys {
    /// Its name; stands in `RateLimit-Policy` and `RateLimit`, in metrics and in the access log.
    pub(in crate::config) name: Written<PolicyName>,
    /// Which requests it is for. Default: all.
    pub(in crate::config) r#match: Written<Section<MatchKeys>>,
    /// Whose bucket pays: the client's or else the address's, the address's, one for all, or that of a header's value;
    /// a request without the header does not pay.
    #[schemars(extend("default" = "client"))]
    pub(in crate::config) key: Written<PolicyPayer>,
    /// The most tokens of each bucket.
    pub(in crate::config) capacity: Written<Whole<u64, 1, 1_000_000_000>>,
    /// The tokens a second that come back to it.
    pub(in crate::config) rate_per_sec: Written<PerSec>,
    /// The tokens that a request costs; or the header of the answer that says so, whose cost is taken afterwards, into
    /// debt if need be. The client does not get that header.
    #[schemars(extend("default" = 1))]
    pub(in crate::config) cost: Written<Cost>,
    /// The most buckets there are at once; payers beyond it share one.
    #[schemars(extend("default" = 100_000))]
    pub(in crate::config) max_buckets: Written<Whole<NonZeroUsize, 1, 100_000_000>>,
    /// Whether it refuses, or is on trial: counted, logged, never refused, not told in headers.
    #[schemars(extend("default" = "enforce"))]
    pub(in crate::config) mode: Written<Choice<PolicyMode>>,
}

/// Which requests a policy is for: those that are in all that is given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct MatchKeys {
    /// Host names, or `*.` and a name for all names below it.
    #[schemars(extend("default" = []))]
    pub(in crate::config) hosts: Written<List<RouteHost, 0>>,
    /// Paths; each stands for all paths below it too.
    #[schemars(extend("default" = []))]
    pub(in crate::config) paths: Written<List<RoutePath, 0>>,
    /// Methods.
    #[schemars(extend("default" = []))]
    pub(in crate::config) methods: Written<List<RequestMethod, 0>>,
    /// Headers with what they say.
    #[schemars(extend("default" = {}))]
    pub(in crate::config) headers: Written<Map<SaidText>>,
}
