//! The column `more`: what few clients have, as JSON.
//!
//! It is null for a client that has nothing of it, which is most of them. A part that this version does not know is
//! passed over, as a later one may have written it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::super::Profile;
use crate::client::{ApiKey, KeyDigest, KeyId, PlanName, Quota, Rate};

/// The column's name, for what makes no sense in it.
const COLUMN: &str = "more";

/// What stands in the column.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    /// The capacity, and the rate in nanotokens a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_concurrent: Option<NonZeroU32>,
    /// By the names of policies: the capacity, and nanotokens a second.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<String, (u32, u64)>,
    /// The keys that the column `api_key` does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeptKey>,
}

/// A key.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct KeptKey {
    id: String,
    /// In hexadecimal digits.
    sha256: String,
    /// Seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl More {
    /// Reads the column; none when it makes no sense.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What of `profile` stands in it.
    pub(super) fn of(profile: &Profile) -> Self {
        let keys = profile.api_keys.iter().filter(|key| !key.is_plain()).map(|key| KeptKey {
            id: key.id.as_str().to_owned(),
            sha256: key.digest.hex(),
            expires_at: key.expires_at,
        });
        let policies = profile
            .policies
            .iter()
            .map(|(name, quota)| (name.clone(), (quota.capacity().get(), quota.rate().nanos_per_sec())));
        More {
            plan: profile.plan.as_ref().map(|plan| plan.as_str().to_owned()),
            candidate: profile.candidate.map(|quota| [quota.capacity().get().into(), quota.rate().nanos_per_sec()]),
            policies: policies.collect(),
            max_concurrent: profile.max_concurrent,
            keys: keys.collect(),
        }
    }

    /// What is written; none for what is nothing.
    pub(super) fn written(&self) -> Option<String> {
        // A structure of texts and numbers can be written.
        (*self != More::default()).then(|| serde_json::to_string(self).ok()).flatten()
    }

    /// The keys.
    pub(super) fn keys(&self) -> Result<Vec<ApiKey>, &'static str> {
        let key = |key: &KeptKey| -> Option<ApiKey> {
            let (id, digest) = (KeyId::parse(&key.id)?, KeyDigest::from_hex(&key.sha256)?);
            Some(ApiKey { id, digest, expires_at: key.expires_at })
        };
        self.keys.iter().map(|kept| key(kept).ok_or(COLUMN)).collect()
    }

    /// The quota that is tried.
    pub(super) fn candidate(&self) -> Result<Option<Quota>, &'static str> {
        let quota = |[capacity, rate]: [u64; 2]| Quota::from_parts(capacity, Rate::from_nanos_per_sec(rate)?).ok();
        self.candidate.map(|kept| quota(kept).ok_or(COLUMN)).transpose()
    }

    /// The quotas in policies.
    pub(super) fn policies(&self) -> Result<Vec<(String, Quota)>, &'static str> {
        let policy = |(name, (capacity, rate)): (&String, &(u32, u64))| {
            let quota = Quota::from_parts(u64::from(*capacity), Rate::from_nanos_per_sec(*rate)?).ok()?;
            Some((name.clone(), quota))
        };
        self.policies.iter().map(|kept| policy(kept).ok_or(COLUMN)).collect()
    }

    /// The plan.
    pub(super) fn plan(&self) -> Result<Option<PlanName>, &'static str> {
        self.plan.as_deref().map(|name| PlanName::parse(name).ok_or(COLUMN)).transpose()
    }
}
