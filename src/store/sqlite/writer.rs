//! The one thread that writes.
//!
//! It takes waiting writes into one transaction, commits it, looks whether the file is still the file, tells the
//! followers, and answers. Between writes it looks what other processes have changed (every 200 ms) and, every second,
//! whether the file is there and, when writes failed, whether they work again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::{Committed, Reply, StoreError, WriteError};
use super::adopt;
use super::announce;
use super::changes::ClientRows;
use super::fault::{TARGET, words};
use super::feed::Feed;
use super::identity::Moved;
use super::meta;
use super::open::Database;
use super::patience::LockPatience;
use super::publish::{Failed, check_seen, is_long, publish, refuse};
use super::queue::{Done, Queue, Write, WriteOutcome};
use super::rows::ReadFailure;
use super::shared::Shared;
use super::trim::Trim;
use crate::clock::{Clock, SystemClock};

/// How often to look for the changes of other processes.
const FOLLOW: Duration = Duration::from_millis(200);
/// How often to look whether the file is there and works.
const LOOK: Duration = Duration::from_secs(1);

/// For how long a lock that is held for a batch is tried again, each time for 5 s: whoever waits for the answer waits
/// for 30 s.
const BATCHES: Duration = Duration::from_secs(16);

/// How often one group of writes may find that others of the fleet came first.
const BEHIND: usize = 100;

/// What the thread has in hand.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Queue,
    pub(super) database: Database,
    pub(super) patience: LockPatience,
    pub(super) feed: Feed,
    /// Whether commits are synced to disk at present; not known at first.
    pub(super) durable: Option<bool>,
    /// What is known of a file that is no longer at the path.
    pub(super) lost: Option<Lost>,
    /// How long the file was, and whether it has lost some of that.
    pub(super) length: (u64, bool),
    /// Forgets old history.
    trim: Trim,
}

/// A file that is no longer what is open.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) moved: Moved,
    pub(super) since: Instant,
    /// Why it could not be recovered so far, and what is the matter.
    pub(super) reason: String,
}

/// What came of a group of writes, the changes of other processes before it, and the feed behind it.
type Carried = (Vec<WriteOutcome>, Vec<Committed>, Feed);

impl Writer {
    /// A writer to `database`.
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Queue,
        database: Database,
        patience: LockPatience,
        feed: Feed,
    ) -> Self {
        let trim = Trim::new(*shared.history.lock(), SystemClock.now());
        Writer { shared, queue, database, patience, feed, durable: None, lost: None, length: (0, false), trim }
    }

    /// Writes until nobody can ask for anything any more, then closes the file. A panic ends it too, as nobody knows
    /// what it has left half done; that is a fault which stays, and reads go on.
    pub(super) fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            self.shared.fault.count();
            let error = self.shared.fault.begin(&self.shared.path, "the store's writer failed; restart tollgate");
            self.queue.fail(&error);
            return;
        }
        self.shared.close_readers();
        if let Err((_, error)) = self.database.connection.close() {
            log::warn!(target: TARGET, "the database was not closed cleanly: {}", words(&error));
        }
    }

    /// Writes until nobody can ask for anything any more.
    fn serve(&mut self) {
        let (mut follow, mut look) = (SystemClock.now(), SystemClock.now());
        loop {
            self.queue.wait(FOLLOW);
            if !self.queue.is_empty() {
                let group = self.queue.group();
                self.write(group);
            } else if self.queue.is_closed() {
                break;
            }
            let now = SystemClock.now();
            if now >= follow + FOLLOW {
                follow = now;
                self.follow();
            }
            if now >= look + LOOK {
                look = now;
                self.look(now);
                self.trim(now);
            }
        }
    }

    /// Carries out a group of writes in one transaction, and answers them. When others of the fleet came first, takes in
    /// what they have done and tries again; when the fleet cannot be reached, goes on with those that do without.
    fn write(&mut self, mut group: Vec<Write>) {
        let mut alone = false;
        for _ in 0..BEHIND {
            match self.transact(&group, alone) {
                Ok(carried) => return self.finish(group, carried),
                Err(Failed::Store { reason, known }) => return self.give_up(group, &reason, known),
                Err(Failed::Behind(adoption)) => {
                    let adopt = [Write::Adopt(*adoption, Reply::new().0)];
                    match self.transact(&adopt, true) {
                        Ok(carried) => self.finish(adopt.into(), carried),
                        Err(Failed::Store { reason, known }) => return self.give_up(group, &reason, known),
                        Err(_) => {}
                    }
                }
                Err(Failed::Fleet(error)) => {
                    group = refuse(group, &error);
                    alone = true;
                }
            }
        }
        let group = refuse(group, &WriteError::FleetUnreachable);
        match self.transact(&group, true) {
            Ok(carried) => self.finish(group, carried),
            Err(Failed::Store { reason, known }) => self.give_up(group, &reason, known),
            Err(_) => {}
        }
    }

    /// Answers that the file cannot.
    fn give_up(&mut self, group: Vec<Write>, reason: &str, known: bool) {
        let urgent = group.iter().any(Write::is_durable);
        self.shared.fault.count();
        let mut error = self.fail(reason);
        if !known {
            error.0.push_str("; whether the change was kept is not known");
        }
        group.into_iter().for_each(|write| write.fail(&error));
        if let (true, Err(Moved::Missing)) = (urgent, self.database.identity.check()) {
            self.recover(Moved::Missing, SystemClock.now(), urgent);
        }
    }

    /// Tells of what was committed, and answers.
    fn finish(&mut self, group: Vec<Write>, (outcomes, foreign, feed): Carried) {
        if group.iter().any(is_long) && outcomes.iter().any(WriteOutcome::is_undone) {
            // The note of a dry run or a refused batch was not rolled back with it. It lapses if this fails.
            let _ = announce::end(&self.database.connection);
        }
        let done: Vec<_> = group.into_iter().zip(outcomes).map(|(write, outcome)| write.done(outcome)).collect();
        self.succeed();
        self.feed = feed;
        self.tell(&foreign);
        done.iter().for_each(|done| self.trim.changed(done.changes()));
        let batched = |done: &Done| matches!(done, Done::Apply(..) | Done::Adopt(..));
        for run in done.chunk_by(|a, b| !batched(a) && !batched(b)) {
            match run {
                [one] => self.tell(one.changes()),
                several => self.tell(&several.iter().flat_map(Done::changes).cloned().collect::<Vec<_>>()),
            }
        }
        done.into_iter().for_each(Done::answer);
    }

    /// The transaction, from before it begins until it is known to be in the right file. `alone` publishes nothing.
    fn transact(&mut self, group: &[Write], alone: bool) -> Result<Carried, Failed> {
        let failed = |known| move |reason| Failed::Store { reason, known };
        self.find().map_err(failed(true))?;
        let carried_out = self.carry_out(group, alone);
        let undone = carried_out.as_ref().is_ok_and(|(outcomes, ..)| outcomes.iter().any(WriteOutcome::is_undone));
        if undone || carried_out.is_err() {
            self.roll_back();
        }
        let carried = carried_out?;
        if undone {
            self.find().map_err(failed(true))?;
            return Ok(carried);
        }
        let committed = self.database.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        if let Err(error) = committed {
            // What was written before the error may be found in the log when the file is opened the next time.
            self.roll_back();
            return Err(failed(false)(words(&error)));
        }
        // What was committed to a file that is no longer there is not acknowledged. It stays in the feed, so that it is
        // told of if it comes back with the file.
        self.find().map_err(failed(false))?;
        Ok(carried)
    }

    /// Gives the transaction up, when there is one.
    fn roll_back(&self) {
        let connection = &self.database.connection;
        if !connection.is_autocommit() {
            // When this fails too, SQLite has rolled back by itself, or will when the next one begins.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }

    /// Whether the file is where it was, or else why not.
    fn find(&mut self) -> Result<(), String> {
        self.whereabouts().map_err(|moved| self.lost(moved, SystemClock.now()))
    }

    /// Begins a transaction, carries out the writes in it, and publishes what they change. It is to be committed, or
    /// rolled back when one is undone or this fails.
    fn carry_out(&mut self, group: &[Write], alone: bool) -> Result<Carried, Failed> {
        self.sync_commits(group.iter().any(Write::is_durable))?;
        let long = group.iter().any(is_long);
        let started = SystemClock.now();
        if long {
            self.patiently(started, announce::begin)?;
        }
        self.patiently(started, |connection| connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop))?;
        let connection = &self.database.connection;
        let (foreign, seen) = self.feed.read(connection)?;
        let shared = Arc::clone(&self.shared);
        let mut publisher = shared.publisher.lock();
        let kept = adopt::cursor(connection)?;
        let mut clients = ClientRows::new(connection, kept.is_some() || publisher.is_some())?;
        let mut outcomes = Vec::with_capacity(group.len());
        for write in group {
            let (outcome, error) = write.carry_out(&mut clients);
            outcomes.push(outcome);
            if let Some(error) = error {
                return Err(error.into());
            }
        }
        let mut publisher = publisher.as_mut().filter(|_| !alone);
        if outcomes.iter().any(WriteOutcome::is_undone) {
            check_seen(publisher, kept, (group, &outcomes))?;
            return Ok((outcomes, foreign, seen));
        }
        clients.finish()?;
        let changes: Vec<_> = group.iter().zip(&outcomes).flat_map(|(write, out)| write.authored(out)).collect();
        if changes.is_empty() {
            check_seen(publisher.as_deref_mut(), kept, (group, &outcomes))?;
        }
        publish(connection, publisher, alone, changes)?;
        if long {
            announce::end(connection)?;
        }
        let feed = seen.past(connection)?;
        Ok((outcomes, foreign, feed))
    }

    /// Has commits synced to disk from now on, or not.
    fn sync_commits(&mut self, durable: bool) -> rusqlite::Result<()> {
        if self.durable != Some(durable) {
            self.durable = None;
            let level = if durable { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.database.connection.execute_batch(level)?;
            self.durable = Some(durable);
        }
        Ok(())
    }

    /// Does what needs the lock for writing. While another process holds it for a batch, tries again for some 20 s
    /// after `started`; not when writes have failed already.
    fn patiently(
        &self,
        started: Instant,
        attempt: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let connection = &self.database.connection;
        loop {
            let attempted = attempt(connection);
            match &attempted {
                Err(error)
                    if started.elapsed() < BATCHES
                        && self.shared.fault.reason().is_none()
                        && announce::is_reason(connection, error) => {}
                _ => return attempted,
            }
        }
    }

    /// Tells the followers.
    pub(super) fn tell(&self, changes: &[Committed]) {
        if !changes.is_empty() {
            self.shared.followers.lock().iter_mut().for_each(|follower| follower(changes));
        }
    }

    /// Tells the followers what other processes have changed.
    fn follow(&mut self) {
        // They stay in the feed for the first follower.
        if self.shared.followers.lock().is_empty() {
            return;
        }
        match self.feed.is_behind(&self.database.connection) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(reason) = self.catch_up() {
                    self.feed.look_again();
                    self.fail(&reason);
                }
            }
            Err(error) => drop(self.fail(&words(&error))),
        }
    }

    /// Tells the followers what is in the feed, or says why it cannot be read.
    pub(super) fn catch_up(&mut self) -> Result<(), String> {
        let (changes, feed) = self.feed.read(&self.database.connection).map_err(ReadFailure::words)?;
        self.feed = feed;
        self.tell(&changes);
        Ok(())
    }

    /// Looks whether the file is there, and whether writes work again after they failed.
    fn look(&mut self, now: Instant) {
        if let Err(moved) = self.whereabouts() {
            self.recover(moved, now, false);
            return;
        }
        self.lost = None;
        if self.shared.fault.reason().is_some() {
            // What failed may have been kept all the same, or have kept this from following others.
            match self.probe().map_err(|error| words(&error)).and_then(|()| self.catch_up()) {
                Ok(()) => self.succeed(),
                Err(reason) => drop(self.fail(&reason)),
            }
        }
    }

    /// Forgets some of the history, while all is well. What fails is tried again; whoever writes meets the reason.
    fn trim(&mut self, now: Instant) {
        if self.shared.fault.reason().is_some() || self.find().is_err() || self.sync_commits(false).is_err() {
            return;
        }
        let rules = *self.shared.history.lock();
        // Another process may hold the lock; there is no haste.
        let _ = self.trim.step(&mut self.database.connection, rules, (now, SystemClock.wall()));
    }

    /// Writes a number, durably.
    fn probe(&mut self) -> rusqlite::Result<()> {
        self.sync_commits(true)?;
        let connection = &mut self.database.connection;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let probes = meta::get(&transaction, "probes")?.unwrap_or(0);
        meta::set(&transaction, "probes", probes.wrapping_add(1))?;
        transaction.commit()
    }

    /// Notes that writes fail; what to answer to them.
    pub(super) fn fail(&mut self, reason: &str) -> StoreError {
        self.patience.shorten(true);
        self.shared.fault.begin(&self.shared.path, reason)
    }

    /// Notes that writes work.
    pub(super) fn succeed(&mut self) {
        self.patience.shorten(false);
        self.shared.fault.end(&self.shared.path);
    }
}
