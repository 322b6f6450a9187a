//! What a body says of a client, field by field.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::keys::{Call, keys};
use super::quotas::{GivenQuota, MAX_POLICIES, OwnQuotas, candidate, capacity, policies, rate};
use super::secret::Secret;
use crate::admin::api::json::Value;
use crate::admin::api::{ApiError, BodyFields, FieldError};
use crate::client::{ClientId, Mode, PlanName, Plans, Quota, Rate, network};
use crate::store::{KeyChange, Profile, Record, Refusal};

/// The fields that a body may set.
const WRITABLE: &[&str] = &[
    "client_id",
    "capacity",
    "rate_per_sec",
    "plan",
    "policies",
    "mode",
    "addresses",
    "api_key",
    "api_key_sha256",
    "api_keys",
    "generate_api_key",
    "note",
    "candidate",
    "max_concurrent",
];
/// The fields that only answers have.
pub(super) const READ_ONLY: &[&str] = &[
    "has_api_key",
    "created_at",
    "updated_at",
    "version",
    "tokens",
    "allowed",
    "limited",
    "candidate_limited",
    "last_seen",
    "warnings",
];
/// The most addresses that one client has.
pub(super) const MAX_ADDRESSES: usize = 1_000;
/// The most requests at once that a client may be bound to.
pub(super) const MAX_CONCURRENT: u64 = 1_000_000;
/// The longest note, in characters.
pub(super) const MAX_NOTE: usize = 1_024;

/// What a body says. A field that is not in it is `None`.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The name in the body.
    pub(super) id: Option<ClientId>,
    /// What becomes of the keys.
    pub(super) keys: KeyChange,
    /// The one that is made, to be shown.
    pub(super) secret: Option<Secret>,
    capacity: Option<u64>,
    rate: Option<Rate>,
    /// The plan and what it has now, unless it is gone; or none of any.
    plan: Option<Option<(PlanName, Option<Quota>)>>,
    /// By the names of policies, where none takes away what it has there; or none of all.
    policies: Option<Option<OwnQuotas>>,
    mode: Option<Mode>,
    addresses: Option<Vec<IpNet>>,
    note: Option<String>,
    candidate: Option<Option<GivenQuota>>,
    max_concurrent: Option<Option<NonZeroU32>>,
}

impl Draft {
    /// Reads the body of `call`.
    ///
    /// # Errors
    /// 422 with everything that is wrong; 503 when no key can be made.
    pub(super) fn read(body: Value, call: Call, plans: &Plans) -> Result<Self, ApiError> {
        let (draft, errors) = Draft::collect(body, call, plans, "");
        match (draft?, errors) {
            (draft, errors) if errors.is_empty() => Ok(draft),
            (_, errors) => Err(ApiError::fields(errors)),
        }
    }

    /// Reads an item of a bulk apply, with `prefix` before the names of its fields.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn read_item(item: Value, plans: &Plans, prefix: &str) -> Result<Self, Vec<FieldError>> {
        match Draft::collect(item, Call::Item, plans, prefix) {
            (Ok(draft), errors) if errors.is_empty() => Ok(draft),
            (_, errors) => Err(errors),
        }
    }

    fn collect(body: Value, call: Call, plans: &Plans, prefix: &str) -> (Result<Self, ApiError>, Vec<FieldError>) {
        let (body, read_only) = without_read_only(body);
        let mut fields = BodyFields::new(body, prefix, WRITABLE);
        if matches!(call, Call::Create | Call::Merge) {
            for name in read_only {
                fields.wrong(&name, "is read-only");
            }
        }
        let merge = call == Call::Merge;
        let id = match call {
            Call::Create => fields.require("client_id", |value| {
                let id = id(value)?;
                id.check_new().map_err(|wrong| wrong.to_string()).map(|()| id)
            }),
            Call::Item => fields.require("client_id", id),
            Call::Replace | Call::Merge => fields.read("client_id", id),
        };
        let planned = fields.has("plan");
        // What was read or exported comes back with a quota beside it, also when its plan is gone.
        let kept = matches!(call, Call::Replace | Call::Item) && fields.has("capacity") && fields.has("rate_per_sec");
        let plan = fields.read("plan", |value| plan(value, plans, kept));
        // A plan says both; of one that is wrong, no more is said.
        let (capacity, rate) = if merge || planned && plan != Some(None) {
            (fields.read("capacity", capacity), fields.read("rate_per_sec", rate))
        } else {
            (fields.require("capacity", capacity), fields.require("rate_per_sec", rate))
        };
        let policies = policies(&mut fields, merge);
        let mode = fields.read("mode", or_default(merge, mode));
        let addresses = addresses(&mut fields, merge);
        let note = fields.read("note", or_default(merge, note));
        let candidate = candidate(&mut fields, merge);
        let max_concurrent = fields.read("max_concurrent", max_concurrent);
        let keys = keys(&mut fields, call);
        let draft = keys.map(|(keys, secret)| Draft {
            id,
            keys,
            secret,
            capacity,
            rate,
            plan,
            policies,
            mode,
            addresses,
            note,
            candidate,
            max_concurrent,
        });
        (draft, fields.into_errors())
    }

    /// The profile that a client gets that has no keys: what the body does not say is at its default. `None` when the
    /// body lacks the capacity or the rate, and a plan.
    pub(super) fn replace(self) -> Option<Profile> {
        let (plan, base) = self.plan.flatten().unzip();
        let quota = GivenQuota { capacity: self.capacity, rate: self.rate }.over(base.flatten())?;
        let (mode, addresses) = (self.mode.unwrap_or_default(), self.addresses.unwrap_or_default());
        let note = self.note.unwrap_or_default();
        let whole = |given: GivenQuota| given.over(None);
        let (candidate, max_concurrent) = (self.candidate.flatten().and_then(whole), self.max_concurrent.flatten());
        let own = self.policies.flatten().unwrap_or_default().into_iter();
        let policies = own.filter_map(|(name, given)| Some((name, whole(given?)?))).collect();
        Some(Profile { plan, policies, candidate, max_concurrent, mode, addresses, note, ..Profile::new(quota) })
    }

    /// The profile of `record` with what the body says in it. Whoever leaves a plan has what that has now.
    ///
    /// # Errors
    /// When the body changes the quota of a client that has a plan, and does not say what becomes of the plan; when it
    /// names a key that is not there, leaves a quota without a half, or makes it too many policies.
    pub(super) fn merge(self, record: &Record, plans: &Plans) -> Result<Profile, Refusal> {
        let old = &record.profile;
        let present = old.plan.as_ref().filter(|name| plans.get(name).is_some());
        if let (None, Some(plan), true) = (&self.plan, present, self.capacity.is_some() || self.rate.is_some()) {
            return Err(Refusal::OfPlan { id: record.id.clone(), plan: plan.clone() });
        }
        let (plan, base) = match self.plan {
            Some(Some((name, quota))) => (Some(name), quota.unwrap_or(old.quota)),
            Some(None) => (None, old.quota(plans)),
            None => (old.plan.clone(), old.quota),
        };
        let quota = GivenQuota { capacity: self.capacity, rate: self.rate }.over(Some(base)).unwrap_or(base);
        let half = |field: String| move || Refusal::HalfQuota { id: record.id.clone(), field };
        let candidate = match self.candidate {
            Some(Some(given)) => Some(given.over(old.candidate).ok_or_else(half("candidate".to_owned()))?),
            Some(None) => None,
            None => old.candidate,
        };
        let mut policies: BTreeMap<_, _> = old.policies.iter().cloned().collect();
        if self.policies == Some(None) {
            policies.clear();
        }
        for (name, own) in self.policies.flatten().unwrap_or_default() {
            match own {
                Some(own) => {
                    let field = format!("policies.{name}");
                    let own = own.over(policies.get(&name).copied()).ok_or_else(half(field))?;
                    policies.insert(name, own);
                }
                None => drop(policies.remove(&name)),
            }
        }
        if policies.len() > MAX_POLICIES {
            return Err(Refusal::ManyPolicies { id: record.id.clone(), most: MAX_POLICIES });
        }
        Ok(Profile {
            quota,
            plan,
            candidate,
            max_concurrent: self.max_concurrent.unwrap_or(old.max_concurrent),
            policies: policies.into_iter().collect(),
            mode: self.mode.unwrap_or(old.mode),
            addresses: self.addresses.unwrap_or_else(|| old.addresses.clone()),
            api_keys: self.keys.of(&old.api_keys).map_err(Refusal::of_keys(&record.id))?,
            note: self.note.unwrap_or_else(|| old.note.clone()),
        })
    }
}

/// The body without the fields that only answers have, and the names of those it had.
fn without_read_only(body: Value) -> (Value, Vec<String>) {
    let Value::Object(values) = body else { return (body, Vec::new()) };
    let (read_only, values): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(name, _)| READ_ONLY.contains(&name.as_str()));
    (Value::Object(values), read_only.into_iter().map(|(name, _)| name).collect())
}

/// Reads with `read`; in a merge patch `null` is the default.
fn or_default<T: Default>(
    merge: bool,
    read: impl FnOnce(Value) -> Result<T, String>,
) -> impl FnOnce(Value) -> Result<T, String> {
    move |value| if merge && value == Value::Null { Ok(T::default()) } else { read(value) }
}

fn id(value: Value) -> Result<ClientId, String> {
    match value {
        Value::String(text) => ClientId::parse(&text).map_err(|wrong| wrong.to_string()),
        _ => Err("must be a string of 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -".to_owned()),
    }
}

fn max_concurrent(value: Value) -> Result<Option<NonZeroU32>, String> {
    let number = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    let number = number.filter(|number| *number <= MAX_CONCURRENT).and_then(|number| u32::try_from(number).ok());
    let wrong = || format!("must be a whole number from 1 to {MAX_CONCURRENT}, or null for none of its own");
    number.and_then(NonZeroU32::new).map(Some).ok_or_else(wrong)
}

/// A plan; where what a client keeps stands beside it, one that is `kept` though it is gone, too.
fn plan(value: Value, plans: &Plans, kept: bool) -> Result<Option<(PlanName, Option<Quota>)>, String> {
    let names = || plans.names().map(PlanName::as_str).collect::<Vec<_>>().join(", ");
    let known = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => PlanName::parse(text)
            .map(|name| (plans.get(&name), name))
            .filter(|(quota, _)| kept || quota.is_some())
            .map(|(quota, name)| (name, quota)),
        _ => None,
    };
    known.map(Some).ok_or_else(|| match names() {
        none if none.is_empty() => "must be null: the configuration has no plans".to_owned(),
        names => format!("must be a plan of the configuration ({names}), or null for none"),
    })
}

fn mode(value: Value) -> Result<Mode, String> {
    match value {
        Value::String(text) if text == "limit" => Ok(Mode::Limit),
        Value::String(text) if text == "unlimited" => Ok(Mode::Unlimited),
        Value::String(text) if text == "blocked" => Ok(Mode::Blocked),
        _ => Err("must be limit, unlimited or blocked".to_owned()),
    }
}

fn note(value: Value) -> Result<String, String> {
    let control = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    match value {
        Value::String(text) if text.chars().count() <= MAX_NOTE && !control(&text) => Ok(text),
        _ => Err(format!(
            "must be a string of at most {MAX_NOTE} characters, without control characters but tab and newline"
        )),
    }
}

fn addresses(fields: &mut BodyFields, merge: bool) -> Option<Vec<IpNet>> {
    let wanted = format!("must be an array of at most {MAX_ADDRESSES} IP addresses or networks such as 203.0.113.0/24");
    let items = match fields.take("addresses")? {
        Value::Null if merge => return Some(Vec::new()),
        Value::Array(items) if items.len() <= MAX_ADDRESSES => items,
        _ => {
            fields.wrong("addresses", wanted);
            return None;
        }
    };
    let mut places = HashMap::new();
    for (place, item) in items.into_iter().enumerate() {
        let name = format!("addresses[{place}]");
        let read = if let Value::String(text) = &item { network(text) } else { None };
        match read.map(|network| (network, places.insert(network, place))) {
            Some((_, None)) => {}
            Some((network, Some(other))) => {
                fields.wrong(&name, format!("is {network}, which addresses[{other}] is already"));
            }
            None => fields.wrong(&name, "must be an IP address or a network such as 203.0.113.0/24"),
        }
    }
    let mut networks: Vec<_> = places.into_keys().collect();
    networks.sort_unstable();
    Some(networks)
}

#[cfg(test)]
mod tests;
