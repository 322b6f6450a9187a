//! What a body says of a client's API keys.
//!
//! `api_keys` are all of them; `api_key` is the short form for one that never ends, `generate_api_key` for one that is
//! made here. Whoever reads a client, edits it and sends it back names each key by its id.

use std::time::{Duration, SystemTime};

use super::secret::Secret;
use crate::admin::api::json::Value;
use crate::admin::api::{ApiError, BodyFields};
use crate::client::{KeyDigest, KeyId, MOST_KEYS};
use crate::store::{KeyChange, WantedKey};

/// The longest API key, in characters.
pub(super) const MAX_KEY: usize = KeyDigest::LONGEST_KEY;
/// What is said of a moment that is none.
pub(super) const MOMENT: &str = "must be a moment such as 2026-12-31T23:59:59Z, or null for none";
/// The first second that is not written so any more.
const YEAR_10000: u64 = 253_402_300_800;
const DIGEST: &str = "must be a string of 64 hexadecimal digits, or null for none";
const ID: &str = "must be a string of 1 to 32 characters of A-Z, a-z, 0-9, _ and -";

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

/// What becomes of the keys, and the one that is made and shown, if any.
///
/// # Errors
/// 503 when no key can be made. What is wrong with the body is noted in `fields`.
pub(super) fn keys(fields: &mut BodyFields, call: Call) -> Result<(KeyChange, Option<Secret>), ApiError> {
    let names = ["api_key", "api_key_sha256", "api_keys"];
    let given: Vec<_> = names.into_iter().filter(|name| fields.has(name)).collect();
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
    if let [first, others @ ..] = &given[..] {
        others.iter().for_each(|other| fields.wrong(other, format!("must not be given together with {first}")));
    }
    let plain = fields.read("api_key", key);
    let digest = fields.read("api_key_sha256", sha256);
    let list = fields.take("api_keys").map(|value| list(fields, value, merge));
    if generate {
        let secret = Secret::generate()?;
        return Ok((KeyChange::Set(vec![WantedKey::primary(secret.digest())]), Some(secret)));
    }
    let short = plain.or(digest).map(|key| key.map(WantedKey::primary).into_iter().collect());
    Ok((short.or(list).map_or(KeyChange::Keep, KeyChange::Set), None))
}

/// The keys of a list; what is wrong with them is noted.
fn list(fields: &mut BodyFields, value: Value, merge: bool) -> Vec<WantedKey> {
    let items = match value {
        Value::Null if merge => return Vec::new(),
        Value::Array(items) if items.len() <= MOST_KEYS => items,
        _ => {
            fields.wrong("api_keys", format!("must be an array of at most {MOST_KEYS} objects"));
            return Vec::new();
        }
    };
    let mut wanted = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let known = ["key_id", "key", "key_sha256", "expires_at"];
        let mut at = BodyFields::new(item, &format!("api_keys[{place}]."), &known);
        if at.has("key") && at.has("key_sha256") {
            at.wrong("key_sha256", "must not be given together with key");
        }
        if !known[..3].iter().any(|name| at.has(name)) {
            at.wrong("key", "is required, or key_sha256, or the key_id of a key that is there");
        }
        let id = at.read("key_id", |value| match value {
            Value::String(text) => KeyId::parse(&text).ok_or_else(|| ID.to_owned()),
            _ => Err(ID.to_owned()),
        });
        let digest = at.read("key", key).or(at.read("key_sha256", sha256)).flatten();
        let expires_at = at.read("expires_at", moment).flatten();
        if let errors @ [_, ..] = &at.into_errors()[..] {
            errors.iter().for_each(|error| fields.wrong(&error.field, error.message.clone()));
        } else if id.is_some() || digest.is_some() {
            wanted.push(WantedKey { id, digest, expires_at });
        } else {
            fields.wrong(&format!("api_keys[{place}].key"), "must not be null");
        }
    }
    wanted
}

fn key(value: Value) -> Result<Option<KeyDigest>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(KeyDigest::of(text.as_bytes())))
        }
        _ => {
            Err(format!("must be a string of 1 to {MAX_KEY} visible ASCII characters without spaces, or null for none"))
        }
    }
}

fn sha256(value: Value) -> Result<Option<KeyDigest>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => KeyDigest::from_hex(&text).map(Some).ok_or_else(|| DIGEST.to_owned()),
        _ => Err(DIGEST.to_owned()),
    }
}

/// The second since the Unix epoch of a moment as RFC 3339 has it, in UTC or with an offset; parts of a second are
/// dropped.
pub(super) fn moment(value: Value) -> Result<Option<u64>, String> {
    let Value::String(text) = value else {
        return if value == Value::Null { Ok(None) } else { Err(MOMENT.to_owned()) };
    };
    seconds(&text).map(Some).ok_or_else(|| MOMENT.to_owned())
}

fn seconds(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
            let sign = match offset.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let sound = digits(&offset[1..3]) && digits(&offset[4..]) && hours < 24 && minutes < 60;
            (local, sound.then_some(sign * (hours * 3_600 + minutes * 60))?)
        }
    };
    let moment: SystemTime = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let since: Duration = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_secs().checked_add_signed(-offset).filter(|second| *second < YEAR_10000)
}

/// A moment of [`moment`] as it is written.
pub(super) fn written(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_rfc_3339_has_it() {
        for (text, second) in [
            ("1970-01-01T00:00:07Z", Some(7)),
            ("1970-01-01t00:00:07.999z", Some(7)),
            ("1970-01-01T02:00:07+02:00", Some(7)),
            ("1970-01-01T00:00:07.25+00:00", Some(7)),
            ("1969-12-31T23:30:07-00:30", None),
            ("1970-01-01T00:00:07-00:30", Some(1_807)),
            ("1970-01-01", None),
            ("1970-01-01T00:00:07", None),
            ("1970-01-01T00:00:07+2:00", None),
            ("1970-01-01T00:00:07+ä:00", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), second, "{text}");
        }
        assert_eq!(written(1_807), "1970-01-01T00:30:07Z");
    }
}
