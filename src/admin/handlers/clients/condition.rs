//! `If-Match` and `If-None-Match`: two operators who edit one client at once.
//!
//! A client's entity tag is its version in quotes. Whoever sends back the tag that he has seen gets 412 when somebody
//! was faster; whoever sends none has the last word. The check runs within the write, so nothing comes between it and
//! the change.
//!
//! Source: RFC 9110 §8.8.3, §13.1.

use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

use crate::admin::api::ApiError;
use crate::client::ClientId;
use crate::store::{Record, Refusal};

/// Under which conditions a client may be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What stands in one of the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever there is.
    Any,
    /// These.
    Listed(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

impl Condition {
    /// What `headers` say.
    ///
    /// # Errors
    /// 400 when one of the two headers is malformed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Condition { if_match: tags(headers, &IF_MATCH)?, if_none_match: tags(headers, &IF_NONE_MATCH)? })
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        *self == Condition::default()
    }

    /// Whether `record`, which is what there is of the client `id`, may be changed.
    ///
    /// # Errors
    /// [`Refusal::Missing`] when something should be there, [`Refusal::Exists`] when nothing should,
    /// [`Refusal::Version`] when it is another version.
    pub(super) fn check(&self, id: &ClientId, record: Option<&Record>) -> Result<(), Refusal> {
        if let Some(wanted) = &self.if_match {
            let record = record.ok_or_else(|| Refusal::Missing(id.clone()))?;
            // Strong comparison: a weak tag matches nothing.
            if !wanted.has(record.version, |tag| !tag.weak) {
                return Err(Refusal::Version { id: id.clone(), version: record.version });
            }
        }
        match (&self.if_none_match, record) {
            (Some(unwanted), Some(record)) if unwanted.has(record.version, |_| true) => {
                Err(Refusal::Exists(id.clone()))
            }
            _ => Ok(()),
        }
    }
}

impl Tags {
    fn has(&self, version: u64, counts: impl Fn(&Tag) -> bool) -> bool {
        match self {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| counts(tag) && tag.opaque == version.to_string()),
        }
    }
}

/// The entity tag of a version.
pub(super) fn etag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let malformed = || {
        ApiError::bad_request(format!("The header {name} is malformed; it must be * or a list of tags such as \"3\""))
    };
    let mut listed = Vec::new();
    let mut any = false;
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_| malformed())?.trim();
        match value {
            "*" => any = true,
            list => listed.extend(list_of_tags(list).ok_or_else(malformed)?),
        }
    }
    match (any, listed.is_empty()) {
        (true, true) => Ok(Some(Tags::Any)),
        (false, false) => Ok(Some(Tags::Listed(listed))),
        (false, true) if !headers.contains_key(name) => Ok(None),
        _ => Err(malformed()),
    }
}

/// Reads `"3", W/"4"`. Empty elements are passed over, as RFC 9110 §5.6.1 wants.
fn list_of_tags(mut rest: &str) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let strong = rest.strip_prefix("W/");
        let (opaque, behind) = strong.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        if opaque.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        tags.push(Tag { weak: strong.is_some(), opaque: opaque.to_owned() });
        rest = behind.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::client::Quota;
    use crate::store::Profile;

    fn condition(name: HeaderName, values: &[&str]) -> Result<Condition, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        Condition::of(&headers)
    }

    fn record(version: u64) -> Record {
        let quota = Quota::new(1, 1.0).unwrap();
        let profile = Profile::new(quota);
        let at = SystemTime::UNIX_EPOCH;
        Record { number: 1, id: ClientId::parse("a").unwrap(), profile, created_at: at, updated_at: at, version }
    }

    #[test]
    fn if_match_wants_the_version_that_was_seen() {
        let id = ClientId::parse("a").unwrap();
        let check = |values: &[&str], record: Option<&Record>| condition(IF_MATCH, values).unwrap().check(&id, record);
        let third = record(3);
        for right in [&["\"3\""][..], &["*"], &["\"1\", \"3\""], &["\"1\"", "\"3\""], &[",\"3\" ,"], &[]] {
            assert_eq!(check(right, Some(&third)), Ok(()), "{right:?}");
        }
        for wrong in ["\"2\"", "W/\"3\"", "\"03\"", "\"\"", "\"abc\"", "\"33\""] {
            assert_eq!(check(&[wrong], Some(&third)), Err(Refusal::Version { id: id.clone(), version: 3 }), "{wrong}");
        }
        assert_eq!(check(&["*"], None), Err(Refusal::Missing(id.clone())));
        assert_eq!(check(&[], None), Ok(()));
        assert_eq!(etag(3), "\"3\"");
    }

    #[test]
    fn if_none_match_wants_something_else() {
        let id = ClientId::parse("a").unwrap();
        let check = |value: &str, record: Option<&Record>| {
            condition(IF_NONE_MATCH, &[value]).unwrap().check(&id, record).map_err(|_| ())
        };
        assert_eq!((check("*", None), check("*", Some(&record(1)))), (Ok(()), Err(())));
        assert_eq!((check("W/\"1\"", Some(&record(1))), check("\"2\"", Some(&record(1)))), (Err(()), Ok(())));
    }

    #[test]
    fn what_is_malformed_is_told() {
        for value in ["3", "\"3", "3\"", "\"3\" \"4\"", "\"3\";", "w/\"3\"", "", "*, \"3\"", ",", "\"a b\""] {
            assert_eq!(condition(IF_MATCH, &[value]).unwrap_err().status, 400, "{value}");
        }
        assert_eq!(condition(IF_MATCH, &["*", "\"3\""]).unwrap_err().status, 400);
    }
}
