//! The bodies that the calls on clients take, for the description of the API. They are read by hand, in `fields`: a derived reader
//! stops at the first mistake.

use serde::Deserialize;
use utoipa::ToSchema;

/// What is done with a client's requests: they are held to its quota, let in for free, or refused with 403.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Mode)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum ModeName {
    /// They are held to its quota.
    Limit,
    /// They are let in, and cost nothing.
    Unlimited,
    /// They are refused with 403.
    Blocked,
}

/// A client, to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct ClientInput {
    /// Its name. Without addresses and API key it is the credential: an address or network by address,
    /// anything else as the API key.
    #[schema(pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: String,
    /// The most tokens that it can save up: a whole number, written without point or exponent.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
    /// What is done with its requests; `limit` when it is left out.
    #[schema(nullable = false)]
    mode: Option<ModeName>,
    /// IP addresses and networks that it is known by; none of them twice.
    #[schema(nullable = false, max_items = 1000, example = json!(["203.0.113.0/24"]))]
    addresses: Option<Vec<String>>,
    /// The API key that it is known by, kept only as a digest; null for none. Left out, a present key stays.
    #[schema(min_length = 1, max_length = 4096, pattern = "^[!-~]{1,4096}$", example = "correct-horse-battery-staple")]
    api_key: Option<String>,
    /// The SHA-256 digest of the API key, in place of the key.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    api_key_sha256: Option<String>,
    /// Whether an API key is made, and shown in this one answer. Not together with `api_key`.
    #[schema(nullable = false)]
    generate_api_key: Option<bool>,
    /// Whatever the operator wants to remember: at most 1,024 bytes, without control characters but tab and newline.
    #[schema(nullable = false, max_length = 1024, example = "")]
    note: Option<String>,
}

/// What a client becomes: fields that are left out are at their defaults. Those that only answers have are passed over.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct ClientReplacement {
    /// Its name; the one in the path, if it is there at all.
    #[schema(nullable = false, pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: Option<String>,
    /// The most tokens that it can save up: a whole number, written without point or exponent.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
    /// What is done with its requests; `limit` when it is left out.
    #[schema(nullable = false)]
    mode: Option<ModeName>,
    /// IP addresses and networks that it is known by; none of them twice.
    #[schema(nullable = false, max_items = 1000, example = json!(["203.0.113.0/24"]))]
    addresses: Option<Vec<String>>,
    /// The API key that it is known by, kept only as a digest; null for none. Left out, a present key stays.
    #[schema(min_length = 1, max_length = 4096, pattern = "^[!-~]{1,4096}$", example = "correct-horse-battery-staple")]
    api_key: Option<String>,
    /// The SHA-256 digest of the API key, in place of the key.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    api_key_sha256: Option<String>,
    /// Whether an API key is made, and shown in this one answer. Not together with `api_key`.
    #[schema(nullable = false)]
    generate_api_key: Option<bool>,
    /// Whatever the operator wants to remember: at most 1,024 bytes, without control characters but tab and newline.
    #[schema(nullable = false, max_length = 1024, example = "")]
    note: Option<String>,
}

/// A client among many. Fields that are left out are at their defaults; those that only answers have are passed over.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct ClientItem {
    /// Its name. Without addresses and API key it is the credential: an address or network by address,
    /// anything else as the API key.
    #[schema(pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: String,
    /// The most tokens that it can save up: a whole number, written without point or exponent.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
    /// What is done with its requests; `limit` when it is left out.
    #[schema(nullable = false)]
    mode: Option<ModeName>,
    /// IP addresses and networks that it is known by; none of them twice.
    #[schema(nullable = false, max_items = 1000, example = json!(["203.0.113.0/24"]))]
    addresses: Option<Vec<String>>,
    /// The API key that it is known by, kept only as a digest; null for none. Left out, a present key stays.
    #[schema(min_length = 1, max_length = 4096, pattern = "^[!-~]{1,4096}$", example = "correct-horse-battery-staple")]
    api_key: Option<String>,
    /// The SHA-256 digest of the API key, in place of the key.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    api_key_sha256: Option<String>,
    /// Whatever the operator wants to remember: at most 1,024 bytes, without control characters but tab and newline.
    #[schema(nullable = false, max_length = 1024, example = "")]
    note: Option<String>,
}

/// A change of a client as a JSON merge patch: fields that are left out stay, `null` puts one back to its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct ClientPatch {
    /// Its name; the one in the path, if it is there at all.
    #[schema(nullable = false, pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: Option<String>,
    /// The most tokens that it can save up: a whole number, written without point or exponent.
    #[schema(nullable = false, minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: Option<u32>,
    /// The tokens that come back each second.
    #[schema(nullable = false, minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: Option<f64>,
    /// What is done with its requests; `limit` when it is left out.
    mode: Option<ModeName>,
    /// IP addresses and networks that it is known by; none of them twice.
    #[schema(max_items = 1000, example = json!(["203.0.113.0/24"]))]
    addresses: Option<Vec<String>>,
    /// The API key that it is known by, kept only as a digest; null for none. Left out, a present key stays.
    #[schema(min_length = 1, max_length = 4096, pattern = "^[!-~]{1,4096}$", example = "correct-horse-battery-staple")]
    api_key: Option<String>,
    /// The SHA-256 digest of the API key, in place of the key.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    api_key_sha256: Option<String>,
    /// Whether an API key is made, and shown in this one answer. Not together with `api_key`.
    generate_api_key: Option<bool>,
    /// Whatever the operator wants to remember: at most 1,024 bytes, without control characters but tab and newline.
    #[schema(max_length = 1024, example = "")]
    note: Option<String>,
}

/// Which version a client is put back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct RollbackInput {
    /// The client becomes what it was after this change.
    #[schema(minimum = 1, example = 1)]
    version: u64,
}
