//! What is kept: clients with their history, and the buckets that are not full.
//!
//! Two seams, each with two implementations: [`ClientRepository`] and [`BucketStore`], in [`sqlite`] (a file that
//! survives) and in [`memory`] (nothing does). One contract test runs over both.
//!
//! No request ever waits for this: the proxy looks clients up in the [`Directory`](crate::client::Directory), which a
//! [`Follower`] keeps up to date, and buckets are saved behind its back.

#[cfg(test)]
mod contract;
mod fleet;
mod keys;
pub mod memory;
mod plan;
mod record;
#[cfg(test)]
mod samples;
pub mod sqlite;
mod write;

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use crate::client::{ClientId, Quota};
use crate::clock::{BootTime, Clock, Timeline};
use crate::limit::{Bucket, Nanos, Payer};

pub use fleet::{Adoption, Authored, FleetCursor, Published, Publisher};
pub use keys::{KeyChange, WantedKey, WrongKeys, with_key, without_key};
pub use record::{Action, HistoryEntry, Page, PageQuery, Profile, Record};
pub(crate) use write::credentials;
pub use write::{Batch, BatchItem, BatchProgress, Change, Committed, Difference, Edit, Refusal, Reply, WriteError};

/// Why the store could not do what it was asked to. It says what happened, to which file, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Is told of every change to a client that is on disk, in the order of the changes, before whoever made it is
/// answered; of changes that another process made too. Runs on the writer's thread: it must not block, and must not
/// call the repository.
pub type Follower = Box<dyn FnMut(&[Committed]) + Send>;

/// The clients, durably.
///
/// Contract: a write is answered after it is on disk and the follower has seen it. Writes take effect one after the
/// other; one that is refused changes nothing. Reads block the calling thread and see every write that was answered
/// before. Ids, API keys (by digest) and networks belong to one client each. A number is never given away twice.
pub trait ClientRepository: Send + Sync {
    /// Changes one client.
    fn change(&self, change: Change) -> Reply<Committed>;

    /// Changes many clients, all or none.
    fn apply(&self, batch: Batch) -> Reply<Difference>;

    /// The client with this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, id: &ClientId) -> Result<Option<Record>, StoreError>;

    /// Some clients, in the order of their names (by bytes).
    ///
    /// # Errors
    /// When the store cannot be read.
    fn page(&self, query: &PageQuery) -> Result<Page, StoreError>;

    /// The changes of the client with this name, the latest first; those of a deleted one too. At most `limit` of
    /// them, and only those of versions below `before` when that is given. How many are kept says
    /// [`keep_history`](ClientRepository::keep_history); all of them before it was ever called.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn history(&self, id: &ClientId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// The latest changes of all clients, deleted ones too, the latest first; at most `limit` of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn latest_changes(&self, limit: usize) -> Result<Vec<(ClientId, HistoryEntry)>, StoreError>;

    /// Gives `each` every client of one moment, in the order of their names, until it returns false.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn for_each(&self, each: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError>;

    /// From now on forgets what the history has beyond these bounds, in the background: within seconds what is beyond
    /// the number, within hours what is beyond the age. What a client is now is never forgotten.
    fn keep_history(&self, rules: HistoryRules);

    /// Calls `follower` with every change from now on; also with those that other processes made since the repository
    /// was opened.
    ///
    /// Whoever wants to know all clients follows first and reads them then: a change may then come twice, in what was
    /// read and through the follower, and none is missed.
    fn follow(&self, follower: Follower);
}

/// A bucket as it is saved: whose it is says the number or the address itself, not a key of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Who pays.
    pub payer: Payer,
    /// Its tokens, and when it held them.
    pub bucket: Bucket,
    /// The quota it was last under.
    pub quota: Quota,
}

/// What this node gave of a bucket and the store of its fleet is still to be told of, as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedOwed {
    /// Who paid.
    pub payer: Payer,
    /// Tokens; 0 where nothing is owed any more.
    pub tokens: u64,
    /// The quota of the bucket.
    pub quota: Quota,
}

/// The buckets that are not full, durably. Their keeper is the only one who writes them.
pub trait BucketStore: Send + Sync {
    /// The secret of the keys by which a limiter finds buckets. Made once, and kept as long as the clients are.
    fn secret(&self) -> u128;

    /// Writes `snapshot`, all or nothing. Survives the end of the process, however it ends; not the loss of power.
    ///
    /// Changes of clients wait while it is written, some 5 µs for each bucket. So a large one is cut into pieces of a
    /// few thousand, which are not all or nothing together. Sort the buckets by payer before cutting: neighbours share
    /// a page of the file, and pieces of neighbours are written twenty times as fast as pieces of strangers.
    fn save(&self, snapshot: Snapshot) -> Reply<()>;

    /// Gives `each` every saved bucket; the moment of the last save, or none when there never was one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&self, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, StoreError>;

    /// Gives `each` all that is owed, of each payer once.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load_owed(&self, each: &mut dyn FnMut(SavedOwed)) -> Result<(), StoreError>;
}

/// What is kept of each client's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRules {
    /// How many changes of a client. Default 1,000.
    pub keep: NonZeroU64,
    /// For how long, by the wall clock. Default 400 days.
    pub age: Duration,
}

impl HistoryRules {
    /// Everything.
    pub const ALL: HistoryRules = HistoryRules { keep: NonZeroU64::MAX, age: Duration::MAX };
}

impl Default for HistoryRules {
    fn default() -> Self {
        let keep = NonZeroU64::MIN.saturating_add(999);
        HistoryRules { keep, age: Duration::from_secs(400 * 24 * 60 * 60) }
    }
}

/// What changed among the buckets since the last snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Those that were written.
    pub changed: Vec<Saved>,
    /// Those that are full and were dropped. A payer may stand in both; then it is there if it is in `changed`.
    pub dropped: Vec<Payer>,
    /// What is owed now, of whom that is another amount.
    pub owed: Vec<SavedOwed>,
    /// When this was.
    pub at: Moment,
}

impl Snapshot {
    /// Of buckets only.
    pub fn of(changed: Vec<Saved>, dropped: Vec<Payer>, at: Moment) -> Self {
        Snapshot { changed, dropped, owed: Vec::new(), at }
    }
}

/// One moment on three clocks: the limiter's, in which buckets are kept; that of the machine since its start and the
/// wall's, which go on while no process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The limiter's time.
    pub timeline: Nanos,
    /// The wall clock, in nanoseconds since the Unix epoch.
    pub wall: Nanos,
    /// The time since the machine was started, where it is known.
    pub boot: Option<BootTime>,
}

impl Moment {
    /// The present one.
    pub fn present(clock: &dyn Clock, timeline: &Timeline) -> Self {
        let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Moment { timeline: timeline.nanos(clock.now()), wall, boot: clock.boot() }
    }

    /// The limiter's time now for what happened at `then` before this moment's process ended, when the present is
    /// `now`. The time at rest is what the machine's own clock says, which nobody sets; when the machine was started
    /// anew meanwhile, what the wall clock says, and nothing when that stepped back. What was yet to come at this
    /// moment (the end of a debt) is as far ahead, less that time.
    pub fn carry(self, then: Nanos, now: Moment) -> Nanos {
        let own = now.boot.zip(self.boot).and_then(|(now, then)| now.since(then));
        let rest = own.unwrap_or_else(|| now.wall.saturating_sub(self.wall));
        let (age, ahead) = (self.timeline.saturating_sub(then), then.saturating_sub(self.timeline));
        now.timeline.saturating_sub(rest).saturating_sub(age).saturating_add(ahead)
    }
}

/// A secret that nobody can guess.
fn new_secret() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    u128::from_le_bytes(bytes)
}

/// The microseconds since the Unix epoch at `time`; 0 for what was before.
pub(crate) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// When something happened that was `age` old at the save, in the time of a process that starts `rest` after it by
    /// the wall.
    fn carried(age: Nanos, wall: impl Fn(Nanos) -> Nanos) -> i64 {
        let saved = Moment { timeline: 1_000 * SECOND, wall: 2_000 * SECOND, boot: None };
        let now = Moment { timeline: 5_000 * SECOND, wall: wall(saved.wall), boot: None };
        now.timeline as i64 - saved.carry(saved.timeline - age, now) as i64
    }

    #[test]
    fn time_at_rest_is_what_the_wall_clock_says() {
        let seconds = |seconds: i64| seconds * SECOND as i64;
        assert_eq!(carried(0, |wall| wall + 30 * SECOND), seconds(30));
        assert_eq!(carried(7 * SECOND, |wall| wall + 30 * SECOND), seconds(37));
        assert_eq!(
            carried(7 * SECOND, |wall| wall - 30 * SECOND),
            seconds(7),
            "a clock that stepped back credits nothing"
        );
        let then = Moment { timeline: 10 * SECOND, wall: 10 * SECOND, boot: None };
        let now = Moment { timeline: 50 * SECOND, wall: 13 * SECOND, boot: None };
        assert_eq!(then.carry(15 * SECOND, now), 52 * SECOND, "five seconds ahead, of which three are gone");
        assert_eq!(
            carried(0, |_| u64::MAX),
            seconds(5_000),
            "far ahead: as long ago as can be, and a bucket is full at most"
        );
    }

    #[test]
    fn within_one_start_of_the_machine_its_own_clock_counts() {
        let boot = |id, seconds| Some(BootTime { id, nanos: seconds * SECOND });
        let saved = Moment { timeline: 1_000 * SECOND, wall: 2_000 * SECOND, boot: boot(1, 50) };
        let rest = |wall: u64, boot| {
            let now = Moment { timeline: 9_000_000 * SECOND, wall: wall * SECOND, boot };
            (now.timeline - saved.carry(saved.timeline, now)) / SECOND
        };
        assert_eq!(rest(1_000_000, boot(1, 53)), 3, "the wall clock was set forward");
        assert_eq!(rest(0, boot(1, 53)), 3, "and back");
        assert_eq!(rest(2_007, boot(2, 3)), 7, "another start");
        assert_eq!(rest(2_007, None), 7);
        assert_eq!(rest(2_007, boot(1, 49)), 7, "a number that makes no sense");
    }
}
