//! What is kept of a client.

use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::client::{Client, ClientId, KeyDigest, Mode, Quota, Usage};
use crate::limit::KeyMaker;

/// What an operator says of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it may spend.
    pub quota: Quota,
    /// What is done with its requests.
    pub mode: Mode,
    /// Its addresses, without those that its name stands for; canonical (see [`network`](crate::client::network)),
    /// sorted, none twice.
    pub addresses: Vec<IpNet>,
    /// Its API key, when it has one that is not its name.
    pub api_key: Option<KeyDigest>,
    /// Whatever the operator wants to remember; at most 1,024 characters.
    pub note: String,
}

/// A client as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Never changes and is never given away again.
    pub number: u64,
    /// Its name.
    pub id: ClientId,
    /// What an operator says of it.
    pub profile: Profile,
    /// When it was made, to the microsecond.
    pub created_at: SystemTime,
    /// When it was last changed, to the microsecond.
    pub updated_at: SystemTime,
    /// Counts its changes, from 1 on. A client that is made again under the name of a deleted one counts on, so that a
    /// version never means two things.
    pub version: u64,
}

impl Record {
    /// The client that the directory knows: with its name as its credential when it has no other.
    /// `keys` makes its bits of its number.
    pub fn client(&self, keys: &KeyMaker) -> Client {
        let Profile { quota, mode, addresses, api_key, note: _ } = &self.profile;
        let client = Client {
            uid: keys.client(self.number).bits(),
            id: self.id.clone(),
            quota: *quota,
            mode: *mode,
            addresses: addresses.clone(),
            api_key: *api_key,
            usage: Arc::new(Usage::default()),
        };
        client.with_credential()
    }
}

/// Which clients a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// Only those after this name.
    pub after: Option<ClientId>,
    /// How many at most, at least 1.
    pub limit: usize,
    /// Only those in whose name or note this occurs, ASCII letters in either case. Empty: all.
    pub search: String,
}

/// Some clients, in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Them.
    pub items: Vec<Record>,
    /// Whether there are more behind the last one.
    pub more: bool,
    /// How many the query matches, whatever the page.
    pub total: u64,
}

/// What was done to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Create,
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
    /// It was put back to an earlier version.
    Rollback,
}

impl Action {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Rollback => "rollback",
        }
    }
}

/// One change in a client's history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The client's version after it. A deletion counts as one.
    pub version: u64,
    /// When, to the microsecond.
    pub at: SystemTime,
    /// By whom.
    pub by: String,
    /// What.
    pub action: Action,
    /// What it was; none when it was made.
    pub before: Option<Profile>,
    /// What it is since; none when it was deleted.
    pub after: Option<Profile>,
}
