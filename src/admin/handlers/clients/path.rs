//! Which client a path is about, and what is to be done with it.
//!
//! Names may have slashes in them, and people type them as they are: `/clients/203.0.113.0/24` and
//! `/clients/203.0.113.0%2F24` are the same client. So everything behind `/clients/` is the name, except a last segment
//! that is an action, and the last two of `/keys/{key_id}`. The path is split before it is decoded:
//! `/clients/a%2Fhistory` is the client `a/history`, `/clients/a/history` the history of `a`. Refused: an action only
//! with its own method, since then `PUT` to that second path would make a client that `GET` does not show.

use crate::admin::api::{ApiError, percent};
use crate::client::{ClientId, KeyId};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathTarget<'p> {
    /// Whatever the method says.
    Client,
    /// Tokens are added to its bucket.
    Grant,
    /// The quota that it is tried with is put in force.
    Promote,
    /// A quota is recommended to it.
    Recommend,
    /// A quota is judged by what was recorded of it.
    Simulate,
    /// Its keys are added to.
    Keys,
    /// One of its keys, with this id, is deleted.
    Key(&'p str),
    /// Its bucket is made full.
    Reset,
    /// Its changes are shown.
    History,
    /// It is put back to an earlier version.
    Rollback,
}

/// Splits `rest`, which is what stands behind `/clients/` in the path.
pub(super) fn split(rest: &str) -> (&str, PathTarget<'_>) {
    let target = |action: &str| match action {
        "grant" => Some(PathTarget::Grant),
        "promote" => Some(PathTarget::Promote),
        "recommend" => Some(PathTarget::Recommend),
        "simulate" => Some(PathTarget::Simulate),
        "keys" => Some(PathTarget::Keys),
        "reset" => Some(PathTarget::Reset),
        "history" => Some(PathTarget::History),
        "rollback" => Some(PathTarget::Rollback),
        _ => None,
    };
    match rest.rsplit_once('/') {
        Some((id, action)) if !id.is_empty() => match (target(action), id.strip_suffix("/keys")) {
            (Some(target), _) => (id, target),
            (None, Some(id)) if !id.is_empty() && !action.is_empty() => (id, PathTarget::Key(action)),
            (None, _) => (rest, PathTarget::Client),
        },
        _ => (rest, PathTarget::Client),
    }
}

/// Reads a name from a path.
///
/// # Errors
/// 400 when it cannot be decoded, 422 when it is no name.
pub(super) fn id(raw: &str) -> Result<ClientId, ApiError> {
    let text = percent::decode(raw).map_err(|wrong| ApiError::bad_request(format!("The path {wrong}")))?;
    ClientId::parse(&text).map_err(|wrong| ApiError::field("client_id", wrong.to_string()))
}

/// Reads the id of a key from a path.
///
/// # Errors
/// 422 when it is none.
pub(super) fn key(raw: &str) -> Result<KeyId, ApiError> {
    let wrong = "must be 1 to 32 characters of A-Z, a-z, 0-9, _ and -";
    KeyId::parse(raw).ok_or_else(|| ApiError::field("key_id", wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_slashes() {
        for (rest, name) in [
            ("user1", "user1"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.0%2F24", "203.0.113.0/24"),
            ("2001:db8::%2f32", "2001:db8::/32"),
            ("a%40b", "a@b"),
            ("a%2Fhistory", "a/history"),
            ("history", "history"),
            ("/history", "/history"),
            ("a/", "a/"),
        ] {
            let (raw, target) = split(rest);
            assert_eq!((id(raw).unwrap().as_str(), target), (name, PathTarget::Client), "{rest}");
        }
    }

    #[test]
    fn an_action_is_a_last_segment() {
        assert_eq!(split("203.0.113.0/24/reset"), ("203.0.113.0/24", PathTarget::Reset));
        assert_eq!(split("a/history"), ("a", PathTarget::History));
        assert_eq!(split("a/rollback"), ("a", PathTarget::Rollback));
        assert_eq!(split("a/rollback/"), ("a/rollback/", PathTarget::Client));
        assert_eq!(split("10.0.0.0/8/keys"), ("10.0.0.0/8", PathTarget::Keys));
        assert_eq!(split("a/keys/primary"), ("a", PathTarget::Key("primary")));
        assert_eq!(split("keys/k"), ("keys/k", PathTarget::Client));
        assert_eq!(split("a%2Fkeys%2Fk"), ("a%2Fkeys%2Fk", PathTarget::Client));
        assert_eq!(split("a/history/reset"), ("a/history", PathTarget::Reset));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (raw, status) in [("%zz", 400), ("%ff", 400), ("%00", 400), ("a%20b", 422), ("a+b", 422), ("%C3%A4", 422)] {
            assert_eq!(id(raw).unwrap_err().status, status, "{raw}");
        }
        assert_eq!(id(&"x".repeat(129)).unwrap_err().status, 422);
    }
}
