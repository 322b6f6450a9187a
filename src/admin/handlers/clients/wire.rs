//! How clients go over the wire.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

use super::describe::ModeName;
use super::keys;
use crate::admin::api::respond::{number, optional_number};
use crate::client::{ApiKey, ClientId, PlanName, Quota, UsageFigures};
use crate::store::{HistoryEntry, Profile, Record};
use crate::telemetry::rfc3339;

/// A client, with how it stands now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Client)]
pub(in crate::admin) struct ClientView {
    #[serde(flatten)]
    config: ConfigView,
    /// When it was made: RFC 3339, UTC.
    #[schema(format = DateTime, example = "2026-11-21T19:41:28.123Z")]
    created_at: String,
    /// When it was last changed: RFC 3339, UTC.
    #[schema(format = DateTime, example = "2026-11-21T19:41:28.123Z")]
    updated_at: String,
    /// Counts its changes; in quotes it is the `ETag`.
    #[schema(minimum = 1, example = 1)]
    version: u64,
    /// The tokens in its bucket now, to a thousandth, rounded down; null when nobody is limited. In a fleet those that
    /// nodes hold for it count among them, and while the store is away it is what this node knows.
    #[serde(serialize_with = "optional_number")]
    #[schema(required, example = 87.5)]
    tokens: Option<f64>,
    /// Its requests that its limit let through since the process started, as what follows; in a fleet the sum over all
    /// processes of its nodes, but for those in the header `Nodes-Missing`. With `rate_limit.enabled: false` there is
    /// none, so only those of mode `unlimited` count.
    #[schema(example = 1200)]
    allowed: u64,
    /// Its requests that its bucket refused since the process started.
    #[schema(example = 13)]
    limited: u64,
    /// Its requests that its candidate would have refused since the process started.
    #[schema(example = 0)]
    candidate_limited: u64,
    /// When its last request came since the process started: RFC 3339, UTC; null before the first one.
    #[schema(required, format = DateTime, example = "2026-11-21T19:41:28.123Z")]
    last_seen: Option<String>,
    /// The key that was just made: shown in this answer and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "tg_w3mDRMd4ZxlcGfS1nQdB4X1b1gOnfvJ2wqJ0g4hcZ0o")]
    pub(super) api_key: Option<String>,
    /// The id of the key that was just made, where it is a further one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "4f9c0e8a1b2d")]
    pub(super) key_id: Option<String>,
    /// What of it does not count, and why: in the answers to what changes it, and only where there is such a thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["policies.writes: the configuration has no such policy; it is kept, and counts when that is there"]))]
    pub(super) warnings: Vec<String>,
}

/// How a client stands.
pub(super) struct ClientStanding {
    /// The tokens in its bucket; none when nobody is limited.
    pub(super) tokens: Option<f64>,
    /// What it has done.
    pub(super) figures: UsageFigures,
}

/// An API key of a client, which is not shown itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(in crate::admin) struct KeyView {
    /// By what it is told from the others; `primary` is the one that was given as `api_key`.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,32}$", example = "primary")]
    key_id: String,
    /// From when on it counts no more, by the second: RFC 3339, UTC; null for never.
    #[schema(required, format = DateTime, example = "2026-12-31T23:59:59Z")]
    expires_at: Option<String>,
}

/// An API key in the form that a bulk apply takes.
#[derive(Debug, Serialize)]
struct KeyExport {
    key_id: String,
    key_sha256: String,
    expires_at: Option<String>,
}

/// What an operator says of a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClientConfig)]
pub(in crate::admin) struct ConfigView {
    /// Its name.
    #[schema(pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: String,
    /// The most tokens that it can save up.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[serde(serialize_with = "number")]
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
    /// What is done with its requests.
    #[schema(value_type = ModeName)]
    mode: &'static str,
    /// The addresses and networks that it is known by, besides those that its name stands for.
    #[schema(example = json!(["203.0.113.0/24"]))]
    addresses: Vec<String>,
    /// Whether it has an API key that is not its name.
    has_api_key: bool,
    /// Its API keys, those that have ended too, without the one that its name may be.
    api_keys: Vec<KeyView>,
    /// Whatever the operator wants to remember.
    note: String,
    /// Its plan, which says what it may spend; null when it has none.
    #[schema(required, example = "free")]
    plan: Option<String>,
    /// The quota that it is tried with beside the one in force, and that refuses nothing; null when there is none.
    #[schema(required)]
    candidate: Option<QuotaView>,
    /// How many of its requests may run at once; null when `rate_limit.max_concurrent` counts.
    #[schema(required, value_type = Option<u32>, minimum = 1, example = 10)]
    max_concurrent: Option<NonZeroU32>,
    /// What it may spend of its own in policies, by their names; left out when that is nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<String, QuotaView>,
}

/// What may be spent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
pub(in crate::admin) struct QuotaView {
    /// The most tokens that can be saved up.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[serde(serialize_with = "number")]
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
}

impl QuotaView {
    /// Of a quota.
    pub(super) fn new(quota: Quota) -> Self {
        QuotaView { capacity: quota.capacity().get(), rate_per_sec: quota.rate().to_f64() }
    }
}

/// Some clients, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClientPage)]
pub(in crate::admin) struct PageView {
    /// Them.
    pub(super) items: Vec<ClientView>,
    /// Gets the next page as `cursor`; null on the last one.
    #[schema(required, example = "dXNlcjE")]
    pub(super) next_cursor: Option<String>,
    /// How many the query matches, whatever the page.
    #[schema(example = 1)]
    pub(super) total: u64,
}

/// Some changes of a client, the latest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub(in crate::admin) struct HistoryView {
    /// Them.
    pub(super) items: Vec<EntryView>,
    /// Gets the earlier ones as `before`; null when there are none.
    #[schema(required, minimum = 1, example = 17)]
    pub(super) next_before: Option<u64>,
}

/// One change of a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub(in crate::admin) struct EntryView {
    /// The client's version after it.
    #[schema(minimum = 1, example = 2)]
    version: u64,
    /// When: RFC 3339, UTC.
    #[schema(format = DateTime, example = "2026-11-21T19:41:28.123Z")]
    at: String,
    /// By whom: the name of a token, or `loopback`.
    #[schema(example = "loopback")]
    by: String,
    /// What was done: `create`, `update`, `delete` or `rollback`.
    #[schema(example = "update")]
    action: &'static str,
    /// What it was; null when it was made.
    #[schema(required)]
    before: Option<ConfigView>,
    /// What it is since; null when it was deleted.
    #[schema(required)]
    after: Option<ConfigView>,
}

/// What a bulk apply changes.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Difference)]
pub(in crate::admin) struct DifferenceView {
    /// Whether it was only found out, and nothing was changed.
    pub(super) dry_run: bool,
    /// The names of the clients that are made.
    pub(super) created: Vec<String>,
    /// Those that are changed.
    pub(super) changed: Vec<ChangedView>,
    /// The names of those that are deleted.
    pub(super) deleted: Vec<String>,
    /// How many stay as they are.
    pub(super) unchanged: u64,
    /// What of those that are made or changed does not count, and why, each behind the client's name; the first 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// A client that a bulk apply changes. When only its API key changes, `before` equals `after`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedClient)]
pub(in crate::admin) struct ChangedView {
    /// Its name.
    client_id: String,
    /// What it was.
    before: ConfigView,
    /// What it becomes.
    after: ConfigView,
}

/// A client in the form that a bulk apply takes: nothing of it is lost.
#[derive(Debug, Serialize)]
pub(super) struct ExportView {
    client_id: String,
    capacity: u32,
    #[serde(serialize_with = "number")]
    rate_per_sec: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<QuotaView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrent: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    policies: BTreeMap<String, QuotaView>,
    mode: &'static str,
    addresses: Vec<String>,
    /// The one key, where it is the one that is given as `api_key`; else `api_keys` has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_sha256: Option<Option<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    api_keys: Vec<KeyExport>,
    note: String,
}

impl ClientView {
    /// `record`, which may spend `quota` and stands like this.
    pub(super) fn new(record: &Record, quota: Quota, standing: ClientStanding) -> Self {
        let ClientStanding { tokens, figures } = standing;
        ClientView {
            config: ConfigView::new(&record.id, &Profile { quota, ..record.profile.clone() }),
            created_at: rfc3339(record.created_at).to_string(),
            updated_at: rfc3339(record.updated_at).to_string(),
            version: record.version,
            tokens,
            allowed: figures.allowed,
            limited: figures.limited,
            candidate_limited: figures.candidate_limited,
            last_seen: figures.last_seen.map(|seen| rfc3339(seen).to_string()),
            api_key: None,
            key_id: None,
            warnings: Vec::new(),
        }
    }
}

impl ConfigView {
    /// What `profile` says of the client `id`.
    pub(super) fn new(id: &ClientId, profile: &Profile) -> Self {
        ConfigView {
            client_id: id.to_string(),
            capacity: profile.quota.capacity().get(),
            rate_per_sec: profile.quota.rate().to_f64(),
            plan: profile.plan.as_ref().map(PlanName::to_string),
            candidate: profile.candidate.map(QuotaView::new),
            max_concurrent: profile.max_concurrent,
            policies: profile.policies.iter().map(|(name, quota)| (name.clone(), QuotaView::new(*quota))).collect(),
            mode: profile.mode.name(),
            addresses: profile.addresses.iter().map(address).collect(),
            has_api_key: !profile.api_keys.is_empty(),
            api_keys: profile.api_keys.iter().map(KeyView::new).collect(),
            note: profile.note.clone(),
        }
    }
}

impl KeyView {
    fn new(key: &ApiKey) -> Self {
        KeyView { key_id: key.id.to_string(), expires_at: key.expires_at.map(keys::written) }
    }
}

impl KeyExport {
    fn new(key: &ApiKey) -> Self {
        let KeyView { key_id, expires_at } = KeyView::new(key);
        KeyExport { key_id, key_sha256: key.digest.hex(), expires_at }
    }
}

impl EntryView {
    /// `entry` of the history of the client `id`.
    pub(super) fn new(id: &ClientId, entry: &HistoryEntry) -> Self {
        let config = |profile: &Option<Profile>| profile.as_ref().map(|profile| ConfigView::new(id, profile));
        EntryView {
            version: entry.version,
            at: rfc3339(entry.at).to_string(),
            by: entry.by.clone(),
            action: entry.action.name(),
            before: config(&entry.before),
            after: config(&entry.after),
        }
    }
}

impl ChangedView {
    /// What was `before` and is `after`.
    pub(super) fn new(before: &Record, after: &Record) -> Self {
        ChangedView {
            client_id: after.id.to_string(),
            before: ConfigView::new(&before.id, &before.profile),
            after: ConfigView::new(&after.id, &after.profile),
        }
    }
}

impl ExportView {
    /// `record`, so that nothing is lost.
    pub(super) fn new(record: &Record) -> Self {
        let ConfigView {
            client_id,
            capacity,
            rate_per_sec,
            plan,
            candidate,
            max_concurrent,
            policies,
            mode,
            addresses,
            note,
            ..
        } = ConfigView::new(&record.id, &record.profile);
        let keys = &record.profile.api_keys;
        let (api_key_sha256, api_keys) = match &keys[..] {
            [] => (Some(None), Vec::new()),
            [key] if key.is_plain() => (Some(Some(key.digest.hex())), Vec::new()),
            keys => (None, keys.iter().map(KeyExport::new).collect()),
        };
        ExportView {
            client_id,
            capacity,
            rate_per_sec,
            plan,
            candidate,
            max_concurrent,
            policies,
            mode,
            addresses,
            api_key_sha256,
            api_keys,
            note,
        }
    }
}

/// A network as people write it: a single address without its length.
fn address(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_people_do() {
        for (text, written) in
            [("203.0.113.7/32", "203.0.113.7"), ("10.0.0.0/8", "10.0.0.0/8"), ("2001:db8::1/128", "2001:db8::1")]
        {
            assert_eq!(address(&text.parse().unwrap()), written);
        }
    }
}
