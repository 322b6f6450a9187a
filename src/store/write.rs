//! What is asked of the repository, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::{Action, KeyChange, Profile, Record, StoreError, WrongKeys};
use crate::client::{ClientId, KeyDigest, LostInPaths, PlanName, Quota};

/// What becomes of a client, given what it is: its new profile, or none to delete it. Equal to the present profile, it
/// changes nothing, and nothing is recorded. Runs within the write, so that nothing comes in between; when it panics,
/// only this write is refused. It may run more than once: in a fleet, when others wrote first.
pub type Edit = Box<dyn Fn(Option<&Record>) -> Result<Option<Profile>, Refusal> + Send>;

/// A change of one client.
pub struct Change {
    /// Its name.
    pub id: ClientId,
    /// By whom, for the history.
    pub by: String,
    /// When, for the history and the record.
    pub at: SystemTime,
    /// Whether this goes back to an earlier version; for the history.
    pub rollback: bool,
    /// Whether it may be made here alone when the fleet's store cannot be reached.
    pub local: bool,
    /// What becomes of it.
    pub edit: Edit,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("id", &self.id).field("by", &self.by).finish_non_exhaustive()
    }
}

/// Changes of many clients in one transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What they become, each name once.
    pub items: Vec<BatchItem>,
    /// Whether clients that are not among the items are deleted.
    pub prune: bool,
    /// Whether to find out and change nothing.
    pub dry_run: bool,
    /// Whether it may be made here alone when the fleet's store cannot be reached.
    pub local: bool,
    /// By whom, for the history.
    pub by: String,
    /// When, for the history and the records.
    pub at: SystemTime,
    /// How far it is, for whoever looks.
    pub progress: Arc<BatchProgress>,
}

/// How far a batch is: what it looks at, claims and writes counts alike.
#[derive(Debug, Default)]
pub struct BatchProgress {
    clients: AtomicU64,
    done: AtomicU64,
    all: AtomicU64,
}

impl BatchProgress {
    /// Says of how many clients it is, and how many steps that takes, as far as is known.
    pub fn expect(&self, clients: usize, steps: usize) {
        self.clients.store(clients as u64, Ordering::Relaxed);
        self.all.store(steps as u64, Ordering::Relaxed);
    }

    /// Counts some steps.
    pub fn count(&self, steps: usize) {
        self.done.fetch_add(steps as u64, Ordering::Relaxed);
    }

    /// How many clients that comes to, and of how many.
    pub fn clients(&self) -> (u64, u64) {
        let [clients, done, all] = [&self.clients, &self.done, &self.all].map(|count| count.load(Ordering::Relaxed));
        ((done * clients).checked_div(all).unwrap_or(0).min(clients), clients)
    }
}

/// What one client becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchItem {
    /// Its name.
    pub id: ClientId,
    /// What it becomes.
    pub profile: Profile,
    /// What becomes of its API keys; those of the profile do not count.
    pub keys: KeyChange,
    /// What its plan has now: see [`Profile::keeping_own`].
    pub of_plan: Option<Quota>,
}

/// One change, as it is on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// What the client was; none when it was made.
    pub before: Option<Record>,
    /// What it is; none when it was deleted. Equal to `before` when nothing changed.
    pub after: Option<Record>,
    /// What was done; none when nothing changed.
    pub action: Option<Action>,
}

impl Committed {
    /// The version that it has in the history: that of the client after it, and one more than it had when it is
    /// deleted.
    pub(crate) fn version(&self) -> u64 {
        match (&self.after, &self.before) {
            (Some(after), _) => after.version,
            (None, Some(before)) => before.version + 1,
            (None, None) => 0,
        }
    }
}

/// What a batch changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// The changes, in the order of the names; what stays as it is, is not among them.
    pub changes: Vec<Committed>,
    /// How many of the items stay as they are.
    pub unchanged: u64,
}

/// Why the repository does not carry out a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is a client with this name already.
    #[error("client {0} exists already")]
    Exists(ClientId),
    /// There is no client with this name.
    #[error("there is no client {0}")]
    Missing(ClientId),
    /// No new client may have this name, since paths lose a part of it.
    #[error("the name {0} {wrong}", wrong = LostInPaths)]
    Name(ClientId),
    /// The client has another version than the writer has seen.
    #[error("client {id} has version {version} by now")]
    Version {
        /// Its name.
        id: ClientId,
        /// The version it has.
        version: u64,
    },
    /// The client has what its plan has.
    #[error(
        "client {id} has plan {plan}, which says what it may spend; say with it what becomes of plan, such as null"
    )]
    OfPlan {
        /// Its name.
        id: ClientId,
        /// Its plan.
        plan: PlanName,
    },
    /// The configuration has no such plan, nor had the client it before.
    #[error("must be a plan of the configuration, or null for none; it has no plan {0}")]
    NoPlan(PlanName),
    /// A quota would have only one of its halves.
    #[error("client {id} has none that a half could be changed of; must have a capacity and a rate_per_sec")]
    HalfQuota {
        /// Its name.
        id: ClientId,
        /// Where the quota stands.
        field: String,
    },
    /// It would have a quota of its own in too many policies.
    #[error("client {id} would have a quota of its own in more than {most} policies")]
    ManyPolicies {
        /// Its name.
        id: ClientId,
        /// How many there may be.
        most: usize,
    },
    /// The history has no such version.
    #[error("client {id} has no version {version} in its history")]
    NoSuchVersion {
        /// Its name.
        id: ClientId,
        /// The version that was asked for.
        version: u64,
    },
    /// The client has no candidate.
    #[error("client {0} has no candidate")]
    NoCandidate(ClientId),
    /// Its API keys cannot be changed like that.
    #[error("client {id} {wrong}")]
    Keys {
        /// Its name.
        id: ClientId,
        /// What is wrong.
        wrong: WrongKeys,
    },
    /// Another client has the API key. `id` is who wants it.
    #[error("the API key of {id} is that of client {other}")]
    KeyTaken {
        /// Who wants it.
        id: ClientId,
        /// Who has it.
        other: ClientId,
    },
    /// Another client has the address or network. `id` is who wants it.
    #[error("the address {network} of {id} is that of client {other}")]
    AddressTaken {
        /// Who wants it.
        id: ClientId,
        /// Who has it.
        other: ClientId,
        /// The address or network.
        network: IpNet,
    },
}

impl Refusal {
    /// For what is wrong with the keys of the client `id`.
    pub fn of_keys(id: &ClientId) -> impl FnOnce(WrongKeys) -> Self {
        |wrong| Refusal::Keys { id: id.clone(), wrong }
    }
}

/// Why a write did not take place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It must not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot. Nothing was changed, unless it says that whether the change was kept is not known.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
    /// The fleet's store cannot be reached, so that nothing was changed.
    #[error("fleet store unreachable")]
    FleetUnreachable,
    /// The fleet's store can be reached and does not take it, so that nothing was changed.
    #[error("fleet store unreachable: {0}")]
    FleetRefuses(String),
    /// The fleet's store did not answer. When it has the change, it comes back from there.
    #[error("fleet store unreachable; whether the change was kept is not known")]
    FleetUnknown,
}

/// The answer to a write, to be waited for.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Receiver<Result<T, WriteError>>);

impl<T> Reply<T> {
    /// An answer and where it is given.
    pub fn new() -> (oneshot::Sender<Result<T, WriteError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Reply(receiver))
    }

    /// An answer that is there already.
    pub fn ready(answer: Result<T, WriteError>) -> Self {
        let (sender, reply) = Self::new();
        let _ = sender.send(answer);
        reply
    }

    /// Waits for it.
    ///
    /// # Errors
    /// Why the write did not take place. When the writer ended before it answered, whether it did is not known.
    pub async fn wait(self) -> Result<T, WriteError> {
        self.0.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Waits for it, blocking the thread. Not for use inside a runtime.
    ///
    /// # Errors
    /// As [`wait`](Reply::wait).
    pub fn wait_blocking(self) -> Result<T, WriteError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> WriteError {
    WriteError::Unavailable(StoreError(
        "the store's writer has ended; whether the change was kept is not known".to_owned(),
    ))
}

/// The credentials that a client with this name and profile has in the directory.
pub(crate) fn credentials(id: &ClientId, profile: &Profile) -> (Vec<KeyDigest>, Vec<IpNet>) {
    use crate::client::credential;
    if profile.api_keys.is_empty() && profile.addresses.is_empty() {
        let (key, networks) = credential(id);
        return (key.into_iter().collect(), networks);
    }
    (profile.api_keys.iter().map(|key| key.digest).collect(), profile.addresses.clone())
}
