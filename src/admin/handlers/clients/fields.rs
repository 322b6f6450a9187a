//! What a body says of a client, field by field.

use std::collections::HashMap;

use ipnet::IpNet;

use super::secret::Secret;
use crate::admin::api::BodyFields;
use crate::admin::api::json::Value;
use crate::admin::api::{ApiError, FieldError};
use crate::client::{ClientId, KeyDigest, MAX_CAPACITY, Mode, Quota, QuotaError, Rate, network};
use crate::store::{Profile, Record};

/// The fields that a body may set.
const WRITABLE: &[&str] = &[
    "client_id",
    "capacity",
    "rate_per_sec",
    "mode",
    "addresses",
    "api_key",
    "api_key_sha256",
    "generate_api_key",
    "note",
];
/// The fields that only answers have.
pub(super) const READ_ONLY: &[&str] =
    &["has_api_key", "created_at", "updated_at", "version", "tokens", "allowed", "limited", "last_seen"];
/// The most addresses that one client has.
pub(super) const MAX_ADDRESSES: usize = 1_000;
/// The longest API key, in characters.
pub(super) const MAX_KEY: usize = KeyDigest::LONGEST_KEY;
/// The longest note, in characters.
pub(super) const MAX_NOTE: usize = 1_024;

/// Which call a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `POST`: makes a client.
    Create,
    /// `PUT`: makes or replaces one. What only answers have is passed over, so that what was read can be edited and
    /// sent back.
    Replace,
    /// `PATCH`: changes the fields that are there; `null` puts one back to its default.
    Merge,
    /// An item of a bulk apply: as `PUT`, but makes no keys, which nobody could be shown.
    Item,
}

/// What becomes of the API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyEdit {
    /// It stays.
    Keep,
    /// It is this one, or none.
    Set(Option<KeyDigest>),
    /// It is a new one, which is shown.
    Generate(Secret),
}

/// What a body says. A field that is not in it is `None`.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// The name in the body.
    pub(super) id: Option<ClientId>,
    /// What becomes of the key.
    pub(super) key: KeyEdit,
    capacity: Option<u64>,
    rate: Option<Rate>,
    mode: Option<Mode>,
    addresses: Option<Vec<IpNet>>,
    note: Option<String>,
}

impl Draft {
    /// Reads the body of `call`.
    ///
    /// # Errors
    /// 422 with everything that is wrong; 503 when no key can be made.
    pub(super) fn read(body: Value, call: Call) -> Result<Self, ApiError> {
        let (draft, errors) = Draft::collect(body, call, "");
        match (draft?, errors) {
            (draft, errors) if errors.is_empty() => Ok(draft),
            (_, errors) => Err(ApiError::fields(errors)),
        }
    }

    /// Reads an item of a bulk apply, with `prefix` before the names of its fields.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn read_item(item: Value, prefix: &str) -> Result<Self, Vec<FieldError>> {
        match Draft::collect(item, Call::Item, prefix) {
            (Ok(draft), errors) if errors.is_empty() => Ok(draft),
            (_, errors) => Err(errors),
        }
    }

    fn collect(body: Value, call: Call, prefix: &str) -> (Result<Self, ApiError>, Vec<FieldError>) {
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
        let (capacity, rate) = if merge {
            (fields.read("capacity", capacity), fields.read("rate_per_sec", rate))
        } else {
            (fields.require("capacity", capacity), fields.require("rate_per_sec", rate))
        };
        let mode = fields.read("mode", or_default(merge, mode));
        let addresses = addresses(&mut fields, merge);
        let note = fields.read("note", or_default(merge, note));
        let key = key(&mut fields, call);
        let draft = key.map(|key| Draft { id, key, capacity, rate, mode, addresses, note });
        (draft, fields.into_errors())
    }

    /// The profile that a client gets which was `before`: what the body does not say is at its default. `None` when the
    /// body lacks the capacity or the rate.
    pub(super) fn replace(self, before: Option<&Profile>) -> Option<Profile> {
        let quota = Quota::from_parts(self.capacity?, self.rate?).ok()?;
        let (mode, addresses) = (self.mode.unwrap_or_default(), self.addresses.unwrap_or_default());
        let api_key = self.key.apply(before.and_then(|before| before.api_key));
        Some(Profile { quota, mode, addresses, api_key, note: self.note.unwrap_or_default() })
    }

    /// The profile of `record` with what the body says in it.
    pub(super) fn merge(self, record: &Record) -> Profile {
        let old = &record.profile;
        let capacity = self.capacity.unwrap_or_else(|| old.quota.capacity().get().into());
        let quota = Quota::from_parts(capacity, self.rate.unwrap_or(old.quota.rate())).unwrap_or(old.quota);
        Profile {
            quota,
            mode: self.mode.unwrap_or(old.mode),
            addresses: self.addresses.unwrap_or_else(|| old.addresses.clone()),
            api_key: self.key.apply(old.api_key),
            note: self.note.unwrap_or_else(|| old.note.clone()),
        }
    }
}

impl KeyEdit {
    fn apply(&self, old: Option<KeyDigest>) -> Option<KeyDigest> {
        match self {
            KeyEdit::Keep => old,
            KeyEdit::Set(key) => *key,
            KeyEdit::Generate(secret) => Some(secret.digest()),
        }
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

fn capacity(value: Value) -> Result<u64, String> {
    let wrong = QuotaError::Capacity;
    let number = match &value {
        Value::Number(number) if number.is_f64() => return Err(format!("{wrong}, written without point or exponent")),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    number.filter(|number| (1..=MAX_CAPACITY).contains(number)).ok_or_else(|| wrong.to_string())
}

fn rate(value: Value) -> Result<Rate, String> {
    match value {
        Value::Number(number) => number.as_f64().and_then(|number| Rate::per_sec(number).ok()),
        _ => None,
    }
    .ok_or_else(|| QuotaError::Rate.to_string())
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

fn key(fields: &mut BodyFields, call: Call) -> Result<KeyEdit, ApiError> {
    let given: Vec<_> = ["api_key", "api_key_sha256"].into_iter().filter(|name| fields.has(name)).collect();
    let merge = call == Call::Merge;
    let generate = fields.read("generate_api_key", |value| match value {
        Value::Bool(true) if call == Call::Item => {
            Err("is not allowed in bulk; nobody could be shown the key".to_owned())
        }
        Value::Bool(generate) => Ok(generate),
        Value::Null if merge => Ok(false),
        _ => Err("must be true or false".to_owned()),
    });
    let generate = generate.unwrap_or(false);
    if generate && let Some(other) = given.first() {
        fields.wrong("generate_api_key", format!("must not be true together with {other}"));
    }
    if given.len() > 1 {
        fields.wrong("api_key_sha256", "must not be given together with api_key");
    }
    let plain = fields.read("api_key", |value| match value {
        Value::Null => Ok(None),
        Value::String(text) if (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(KeyDigest::of(text.as_bytes())))
        }
        _ => {
            Err(format!("must be a string of 1 to {MAX_KEY} visible ASCII characters without spaces, or null for none"))
        }
    });
    let digest = fields.read("api_key_sha256", |value| {
        match value {
            Value::Null => Ok(None),
            Value::String(text) => hex_digest(&text).map(Some).ok_or(()),
            _ => Err(()),
        }
        .map_err(|_| "must be a string of 64 hexadecimal digits, or null for none".to_owned())
    });
    match plain.or(digest) {
        _ if generate => Secret::generate().map(KeyEdit::Generate),
        Some(key) => Ok(KeyEdit::Set(key)),
        None => Ok(KeyEdit::Keep),
    }
}

fn hex_digest(text: &str) -> Option<KeyDigest> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(KeyDigest::from_bytes(bytes))
}

#[cfg(test)]
mod tests;
