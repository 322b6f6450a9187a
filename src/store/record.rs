//! What is kept of a client.

use std::num::NonZeroU32;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::client::{ApiKey, Client, ClientId, Mode, PlanName, Plans, Quota};
use crate::limit::KeyMaker;

/// What an operator says of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it may spend, unless it has a plan that is there.
    pub quota: Quota,
    /// Its plan.
    pub plan: Option<PlanName>,
    /// A quota that is tried beside that one.
    pub candidate: Option<Quota>,
    /// How many of its requests may run at once; none when what counts for everybody does.
    pub max_concurrent: Option<NonZeroU32>,
    /// What it may spend of its own in policies, in the order of their names; also in those that are gone.
    pub policies: Vec<(String, Quota)>,
    /// What is done with its requests.
    pub mode: Mode,
    /// Its addresses, without those that its name stands for; canonical (see [`network`](crate::client::network)),
    /// sorted, none twice.
    pub addresses: Vec<IpNet>,
    /// Its API keys, those that have ended too, without the one that its name may be. The one that is given as
    /// `api_key` stands first.
    pub api_keys: Vec<ApiKey>,
    /// Whatever the operator wants to remember; at most 1,024 characters.
    pub note: String,
}

impl Profile {
    /// One that says nothing but what the client may spend.
    pub fn new(quota: Quota) -> Self {
        Profile {
            quota,
            plan: None,
            candidate: None,
            max_concurrent: None,
            policies: Vec::new(),
            mode: Mode::Limit,
            addresses: Vec::new(),
            api_keys: Vec::new(),
            note: String::new(),
        }
    }

    /// The same with the quota of its own that `before` has, where it says what is shown of that: the same plan, and as
    /// its quota what the plan has. Whoever sends back what was read takes nothing away.
    #[must_use]
    pub fn keeping_own(self, before: &Profile, of_plan: Option<Quota>) -> Self {
        let shown = self.plan == before.plan && of_plan == Some(self.quota);
        Profile { quota: if shown { before.quota } else { self.quota }, ..self }
    }

    /// What the client may spend while there are these plans.
    pub fn quota(&self, plans: &Plans) -> Quota {
        plans.quota(self.plan.as_ref(), self.quota)
    }
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
    /// `keys` makes its bits of its number; `plans` say what it may spend.
    pub fn client(&self, keys: &KeyMaker, plans: &Plans) -> Client {
        let Profile { quota, plan, candidate, max_concurrent, policies, mode, addresses, api_keys, note: _ } =
            &self.profile;
        let (plain, further): (Vec<_>, Vec<_>) = api_keys.iter().cloned().partition(ApiKey::is_plain);
        let client = Client {
            plan: plan.clone().map(|name| Box::new((name, *quota))),
            candidate: *candidate,
            max_concurrent: *max_concurrent,
            policies: policies.clone(),
            mode: *mode,
            addresses: addresses.clone(),
            api_key: plain.first().map(|key| key.digest),
            further_keys: further.into(),
            ..Client::new(keys.client(self.number).bits(), self.id.clone(), self.profile.quota(plans))
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
