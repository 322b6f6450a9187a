//! What a write makes of a client: the part that every repository shares, so that they cannot differ in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use super::{Action, Committed, Edit, Profile, Record, Refusal, StoreError, WriteError, micros};
use crate::client::ClientId;

/// Who changes clients, when, and whether it is a return to an earlier version.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    /// By whom.
    pub(super) by: String,
    /// When, to the microsecond.
    pub(super) at: SystemTime,
    /// Whether this goes back to an earlier version.
    pub(super) rollback: bool,
}

impl Stamp {
    /// The stamp of a write by `by` at `at`.
    pub(super) fn new(by: String, at: SystemTime, rollback: bool) -> Self {
        Stamp { by, at: from_micros(micros(at)), rollback }
    }
}

/// Where a new client's number and version come from. Asked only when they are needed.
pub(super) trait ClientSource {
    /// Why it could not say.
    type Error;
    /// A number that no client ever had.
    fn number(&mut self) -> Result<u64, Self::Error>;
    /// The version of the latest change that is recorded under this name; 0 when there is none.
    fn last_version(&mut self, id: &ClientId) -> Result<u64, Self::Error>;
}

/// What `edit` makes of the client `id`. An edit that panics is answered like a store that cannot: it was given what is
/// kept and nothing to change it with, so nothing is half done, and the writes beside it go on.
pub(super) fn run(id: &ClientId, edit: &Edit, before: Option<&Record>) -> Result<Option<Profile>, WriteError> {
    let edited = catch_unwind(AssertUnwindSafe(|| edit(before)));
    let edited = edited.map_err(|_| {
        log::error!(target: "tollgate::store", "an edit of client {id} panicked; nothing was changed");
        StoreError(format!("the edit of client {id} failed; the log says more"))
    })?;
    Ok(edited?)
}

/// Refuses a new client whose name [no new one may have](ClientId::check_new). Those that are there stay, and
/// a deleted one may come back by a roll back.
pub(super) fn check_name(id: &ClientId, committed: &Committed) -> Result<(), Refusal> {
    match committed.action {
        Some(Action::Create) if id.check_new().is_err() => Err(Refusal::Name(id.clone())),
        _ => Ok(()),
    }
}

/// What becomes of the client `id` that is `before`, when its profile becomes `after`.
pub(super) fn outcome<S: ClientSource>(
    id: &ClientId,
    before: Option<Record>,
    after: Option<Profile>,
    stamp: &Stamp,
    source: &mut S,
) -> Result<Committed, S::Error> {
    let edited = if stamp.rollback { Action::Rollback } else { Action::Update };
    let made = if stamp.rollback { Action::Rollback } else { Action::Create };
    Ok(match (before, after) {
        (None, None) => Committed { before: None, after: None, action: None },
        (Some(before), None) => Committed { before: Some(before), after: None, action: Some(Action::Delete) },
        (Some(before), Some(profile)) if before.profile == profile => {
            Committed { after: Some(before.clone()), before: Some(before), action: None }
        }
        (Some(before), Some(profile)) => {
            let after = Record { profile, updated_at: stamp.at, version: before.version + 1, ..before.clone() };
            Committed { before: Some(before), after: Some(after), action: Some(edited) }
        }
        (None, Some(profile)) => {
            let (number, version) = (source.number()?, source.last_version(id)? + 1);
            let (created_at, updated_at) = (stamp.at, stamp.at);
            let after = Record { number, id: id.clone(), profile, created_at, updated_at, version };
            Committed { before: None, after: Some(after), action: Some(made) }
        }
    })
}

/// Whether a search for `needle`, in lower case, finds the client: in its name or its note, ASCII letters in either
/// case.
pub(super) fn matches(needle: &str, id: &str, note: &str) -> bool {
    let found = |text: &str| {
        let (text, needle) = (text.as_bytes(), needle.as_bytes());
        needle.is_empty() || text.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
    };
    found(id) || found(note)
}

/// The moment so many microseconds after the Unix epoch; the epoch itself for what was before.
pub(super) fn from_micros(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Why `id` cannot have the key or the address that `other` has.
pub(super) fn taken(id: &ClientId, other: ClientId, network: Option<ipnet::IpNet>) -> Refusal {
    let id = id.clone();
    match network {
        Some(network) => Refusal::AddressTaken { id, other, network },
        None => Refusal::KeyTaken { id, other },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_letters_of_either_case() {
        assert!(matches("team", "my-TEAM", "") && matches("pay", "x", "They Pay") && matches("", "x", ""));
        assert!(!matches("teams", "my-team", "team") && !matches("ä", "x", "Ä"));
        assert!(matches("\0b", "x", "a\0B"));
    }

    #[test]
    fn a_stamp_is_to_the_microsecond() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_891_999);
        assert_eq!(
            Stamp::new(String::new(), at, false).at,
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567_891)
        );
    }
}
