//! How a change of a client stands in the fleet's store: as JSON, with no key but its digest.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::client::{ApiKey, ClientId, KeyDigest, KeyId, Mode, PlanName, Quota, Rate};
use crate::store::{Action, Authored, Committed, Profile, Record};

/// A capacity, and a rate in nanotokens a second.
type WireQuota = (u32, u64);

#[derive(Debug, Serialize, Deserialize)]
struct WireChange {
    id: String,
    number: u64,
    created: u64,
    version: u64,
    at: u64,
    by: String,
    action: String,
    /// Since when it was what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<WireProfile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<WireProfile>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireProfile {
    quota: WireQuota,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<WireQuota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<String, WireQuota>,
    mode: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    /// The id, the digest in hexadecimal digits, and the second from which it counts no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<(String, String, Option<u64>)>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

const MODES: [(Mode, &str); 3] = [(Mode::Limit, "limit"), (Mode::Unlimited, "unlimited"), (Mode::Blocked, "blocked")];
const ACTIONS: [Action; 4] = [Action::Create, Action::Update, Action::Delete, Action::Rollback];

/// The change as it is written; none for what changes nothing.
pub(super) fn written(authored: &Authored) -> Option<String> {
    let Authored { change: Committed { before, after, action }, by, at } = authored;
    let shown = after.as_ref().or(before.as_ref())?;
    let profile = |record: &Option<Record>| record.as_ref().map(|record| wire_profile(&record.profile));
    let wire = WireChange {
        id: shown.id.to_string(),
        number: shown.number,
        created: micros(shown.created_at),
        version: authored.order().0,
        at: micros(*at),
        by: by.clone(),
        action: (*action)?.name().to_owned(),
        since: before.as_ref().map(|before| micros(before.updated_at)),
        before: profile(before),
        after: profile(after),
    };
    serde_json::to_string(&wire).ok()
}

/// Reads one; none when it makes no sense.
pub(super) fn read(text: &[u8]) -> Option<Authored> {
    let wire: WireChange = serde_json::from_slice(text).ok()?;
    let (id, at) = (ClientId::parse(&wire.id).ok()?, time(wire.at));
    let record = |profile, updated_at, version| Record {
        number: wire.number,
        id: id.clone(),
        profile,
        created_at: time(wire.created),
        updated_at,
        version,
    };
    let before = match wire.before {
        Some(before) => {
            Some(record(profile_of(before)?, time(wire.since.unwrap_or(wire.created)), wire.version.checked_sub(1)?))
        }
        None => None,
    };
    let after = match wire.after {
        Some(after) => Some(record(profile_of(after)?, at, wire.version)),
        None => None,
    };
    let action = ACTIONS.into_iter().find(|action| action.name() == wire.action)?;
    before.as_ref().or(after.as_ref())?;
    Some(Authored { change: Committed { before, after, action: Some(action) }, by: wire.by, at })
}

fn wire_profile(profile: &Profile) -> WireProfile {
    let quota = |quota: Quota| (quota.capacity().get(), quota.rate().nanos_per_sec());
    let mode = MODES.iter().find(|(mode, _)| *mode == profile.mode).map_or("limit", |(_, name)| name);
    let keys = profile.api_keys.iter().map(|key| (key.id.to_string(), key.digest.hex(), key.expires_at));
    WireProfile {
        quota: quota(profile.quota),
        plan: profile.plan.as_ref().map(|plan| plan.as_str().to_owned()),
        candidate: profile.candidate.map(quota),
        max_concurrent: profile.max_concurrent,
        policies: profile.policies.iter().map(|(name, own)| (name.clone(), quota(*own))).collect(),
        mode: mode.to_owned(),
        addresses: profile.addresses.iter().map(ToString::to_string).collect(),
        keys: keys.collect(),
        note: profile.note.clone(),
    }
}

fn profile_of(wire: WireProfile) -> Option<Profile> {
    let quota =
        |(capacity, rate): WireQuota| Quota::from_parts(u64::from(capacity), Rate::from_nanos_per_sec(rate)?).ok();
    let key = |(id, digest, expires_at): (String, String, Option<u64>)| {
        Some(ApiKey { id: KeyId::parse(&id)?, digest: KeyDigest::from_hex(&digest)?, expires_at })
    };
    let optional = |given: Option<WireQuota>| match given {
        Some(given) => quota(given).map(Some),
        None => Some(None),
    };
    Some(Profile {
        quota: quota(wire.quota)?,
        plan: match wire.plan {
            Some(plan) => Some(PlanName::parse(&plan)?),
            None => None,
        },
        candidate: optional(wire.candidate)?,
        max_concurrent: wire.max_concurrent,
        policies: wire.policies.into_iter().map(|(name, own)| Some((name, quota(own)?))).collect::<Option<_>>()?,
        mode: MODES.iter().find(|(_, name)| *name == wire.mode)?.0,
        addresses: wire.addresses.iter().map(|address| address.parse().ok()).collect::<Option<_>>()?,
        api_keys: wire.keys.into_iter().map(key).collect::<Option<_>>()?,
        note: wire.note,
    })
}

fn micros(time: SystemTime) -> u64 {
    crate::store::micros(time).cast_unsigned()
}

fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.min(i64::MAX as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_back_and_nonsense_does_not() {
        let quota = Quota::new(1_000_000_000, 1.0 / 3.0).unwrap();
        let profile = Profile {
            plan: PlanName::parse("gold"),
            candidate: Some(quota),
            max_concurrent: NonZeroU32::new(7),
            policies: vec![("a".to_owned(), quota)],
            mode: Mode::Blocked,
            addresses: vec!["10.0.0.0/8".parse().unwrap()],
            api_keys: vec![
                ApiKey::primary(KeyDigest::of(b"k")),
                ApiKey { id: KeyId::fresh(), digest: KeyDigest::of(b"l"), expires_at: Some(9) },
            ],
            note: "\u{1f600}\0\"".to_owned(),
            ..Profile::new(quota)
        };
        let record = |version| Record {
            number: u64::MAX >> 2,
            id: ClientId::parse("user1").unwrap(),
            profile: profile.clone(),
            created_at: time(1),
            updated_at: time(1_764_295_200_123_456 + version),
            version,
        };
        for (before, after, action) in [
            (None, Some(record(1)), Action::Create),
            (Some(record(1)), Some(record(2)), Action::Rollback),
            (Some(record(2)), None, Action::Delete),
        ] {
            let change = Committed { before, after, action: Some(action) };
            let at = time(1_764_295_200_123_456 + change.after.as_ref().map_or(9, |after| after.version));
            let authored = Authored { change, by: "someone".to_owned(), at };
            assert_eq!(read(written(&authored).unwrap().as_bytes()), Some(authored));
        }
        for nonsense in ["", "{}", "[]", r#"{"id":"a","number":1,"created":1,"version":0,"at":1,"by":"","action":"x"}"#]
        {
            assert_eq!(read(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
