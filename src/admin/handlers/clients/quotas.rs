//! What a body says of quotas: a client's own, the one that is tried, and those in policies.

use std::collections::BTreeMap;

use crate::admin::api::json::{Value, shown};
use crate::admin::api::{Api, BodyFields, QuotaInPolicy};
use crate::client::{MAX_CAPACITY, PlanName, Quota, QuotaError, Rate};
use crate::store::Profile;

/// The most policies in which one client has a quota of its own.
pub(super) const MAX_POLICIES: usize = 100;

/// Quotas by the names of policies.
pub(super) type OwnQuotas = BTreeMap<String, Option<GivenQuota>>;

/// A quota as a body has it. In a merge patch what is left out stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GivenQuota {
    pub(super) capacity: Option<u64>,
    pub(super) rate: Option<Rate>,
}

impl GivenQuota {
    /// Takes the field `name` out; in a merge patch it need not be whole.
    fn take(fields: &mut BodyFields, (name, value): (&str, Value), merge: bool) -> Self {
        let mut at = BodyFields::new(value, &format!("{name}."), &["capacity", "rate_per_sec"]);
        let (capacity, rate) = if merge {
            (at.read("capacity", capacity), at.read("rate_per_sec", rate))
        } else {
            (at.require("capacity", capacity), at.require("rate_per_sec", rate))
        };
        at.into_errors().into_iter().for_each(|error| fields.wrong(&error.field, error.message));
        GivenQuota { capacity, rate }
    }

    /// The quota, with what `old` has where this has nothing.
    pub(super) fn over(self, old: Option<Quota>) -> Option<Quota> {
        let capacity = self.capacity.or(old.map(|old| old.capacity().get().into()))?;
        Quota::from_parts(capacity, self.rate.or(old.map(Quota::rate))?).ok()
    }
}

pub(super) fn capacity(value: Value) -> Result<u64, String> {
    let wrong = QuotaError::Capacity;
    let number = match &value {
        Value::Number(number) if number.is_f64() => return Err(format!("{wrong}, written without point or exponent")),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    number.filter(|number| (1..=MAX_CAPACITY).contains(number)).ok_or_else(|| wrong.to_string())
}

pub(super) fn rate(value: Value) -> Result<Rate, String> {
    match value {
        Value::Number(number) => number.as_f64().and_then(|number| Rate::per_sec(number).ok()),
        _ => None,
    }
    .ok_or_else(|| QuotaError::Rate.to_string())
}

/// The quota that is tried, or none.
pub(super) fn candidate(fields: &mut BodyFields, merge: bool) -> Option<Option<GivenQuota>> {
    match fields.take("candidate")? {
        Value::Null => Some(None),
        value => Some(Some(GivenQuota::take(fields, ("candidate", value), merge))),
    }
}

/// The quotas in policies; in a merge patch, null takes one away.
pub(super) fn policies(fields: &mut BodyFields, merge: bool) -> Option<Option<OwnQuotas>> {
    const WANTED: &str = "must be an object of names of policies, each with a capacity and a rate_per_sec";
    let given = match fields.take("policies")? {
        Value::Object(given) => given,
        // All of them.
        Value::Null if merge => return Some(None),
        _ => {
            fields.wrong("policies", WANTED);
            return None;
        }
    };
    let mut policies = BTreeMap::new();
    if given.len() > MAX_POLICIES {
        fields.wrong("policies", format!("must be at most {MAX_POLICIES} names"));
    }
    for (name, value) in given.into_iter().take(MAX_POLICIES) {
        let at = format!("policies.{name}");
        if PlanName::parse(&name).is_none() {
            fields.wrong(
                &format!("policies.{}", shown(&name)),
                "has no valid name: 1 to 64 characters of A-Z, a-z, 0-9, . _ and -",
            );
            continue;
        }
        let own = match value {
            Value::Null if merge => None,
            value => Some(GivenQuota::take(fields, (&at, value), merge)),
        };
        policies.insert(name, own);
    }
    Some(Some(policies))
}

/// What `profile` says that does not count, by the field that says it, and why.
pub(super) fn warnings(api: &Api, profile: &Profile) -> Vec<String> {
    let counts = |name: &str| match (api.parts.own_quotas)(name) {
        QuotaInPolicy::Counts => None,
        QuotaInPolicy::NoPolicy => {
            Some("the configuration has no such policy; it is kept, and counts when that is there")
        }
        QuotaInPolicy::OtherKey => Some(
            "no client has a bucket of its own in this policy, whose key is not client; it is kept, and does not count",
        ),
    };
    let named = |(name, _): &(String, Quota)| Some(format!("policies.{name}: {}", counts(name)?));
    profile.policies.iter().filter_map(named).collect()
}
