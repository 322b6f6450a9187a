//! The one thread that writes.
//!
//! It takes all waiting writes into one transaction, commits it, looks whether the file is still the file, tells the
//! followers, and answers. Between writes it looks what other processes have changed (every 200 ms) and, every second,
//! whether the file is there and, when writes failed, whether they work again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Committed, StoreError};
use super::Shared;
use super::changes::Clients;
use super::fault::{TARGET, words};
use super::feed::Feed;
use super::identity::Moved;
use super::meta;
use super::open::Database;
use super::patience::Patience;
use super::queue::{Done, Queue, Write};
use super::recovery::Lost;
use super::rows::Failure;
use crate::clock::{Clock, SystemClock};

/// How often to look for the changes of other processes.
const FOLLOW: Duration = Duration::from_millis(200);
/// How often to look whether the file is there and works.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread has in hand.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Queue,
    pub(super) database: Database,
    pub(super) patience: Patience,
    pub(super) feed: Feed,
    /// Whether commits are synced to disk at present; not known at first.
    pub(super) durable: Option<bool>,
    /// What is known of a file that is no longer at the path.
    pub(super) lost: Option<Lost>,
}

impl Writer {
    /// A writer to `database`.
    pub(super) fn new(shared: Arc<Shared>, queue: Queue, database: Database, patience: Patience, feed: Feed) -> Self {
        Writer { shared, queue, database, patience, feed, durable: None, lost: None }
    }

    /// Writes until nobody can ask for anything any more, then closes the file.
    pub(super) fn run(mut self) {
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
            }
        }
        self.shared.close_readers();
        if let Err((_, error)) = self.database.connection.close() {
            log::warn!(target: TARGET, "the database was not closed cleanly: {}", words(&error));
        }
    }

    /// Carries out a group of writes in one transaction, and answers them.
    fn write(&mut self, group: Vec<Write>) {
        let urgent = group.iter().any(Write::is_durable);
        let mut waiting = group.into_iter();
        let mut done = Vec::new();
        let written = self.transact(&mut waiting, &mut done);
        let told = match written {
            Ok(told) => told,
            Err(reason) => {
                self.shared.fault.count();
                let error = self.fail(&reason);
                waiting.for_each(|write| write.fail(&error));
                done.into_iter().for_each(|done| done.fail(&error));
                if let (true, Err(Moved::Missing)) = (urgent, self.database.identity.check()) {
                    self.recover(Moved::Missing, SystemClock.now(), urgent);
                }
                return;
            }
        };
        self.succeed();
        let (foreign, feed) = told;
        self.feed = feed;
        self.tell(&foreign);
        let batched = |done: &Done| matches!(done, Done::Apply(..));
        for run in done.chunk_by(|a, b| !batched(a) && !batched(b)) {
            match run {
                [one] => self.tell(one.changes()),
                several => self.tell(&several.iter().flat_map(Done::changes).cloned().collect::<Vec<_>>()),
            }
        }
        done.into_iter().for_each(Done::answer);
    }

    /// The transaction, from before it begins until it is known to be in the right file: the changes of others that
    /// came before it, and the feed behind it. Otherwise nothing was written, and why.
    fn transact(
        &mut self,
        waiting: &mut std::vec::IntoIter<Write>,
        done: &mut Vec<Done>,
    ) -> Result<(Vec<Committed>, Feed), String> {
        self.find()?;
        let durable = waiting.as_slice().iter().any(Write::is_durable);
        let committed = self.commit(durable, waiting, done);
        if committed.is_err() && !self.database.connection.is_autocommit() {
            // When this fails too, SQLite has rolled back by itself, or will when the next one begins.
            let _ = self.database.connection.execute_batch("ROLLBACK");
        }
        let told = committed.map_err(|failure| match failure {
            Failure::Sqlite(error) => words(&error),
            Failure::Row(error) => error.0,
        })?;
        // What was committed to a file that is no longer there is not acknowledged. It stays in the feed, so that it is
        // told of if it comes back with the file.
        self.find()?;
        Ok(told)
    }

    /// Whether the file is where it was, or else why not.
    fn find(&mut self) -> Result<(), String> {
        self.database.identity.check().map_err(|moved| self.lost(moved, SystemClock.now()))
    }

    fn commit(
        &mut self,
        durable: bool,
        waiting: &mut std::vec::IntoIter<Write>,
        done: &mut Vec<Done>,
    ) -> Result<(Vec<Committed>, Feed), Failure> {
        let connection = &self.database.connection;
        if self.durable != Some(durable) {
            connection.execute_batch(if durable {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.durable = Some(durable);
        }
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (foreign, _) = self.feed.read(connection)?;
        let mut clients = Clients::new(connection)?;
        for write in waiting.by_ref() {
            let (carried_out, error) = write.carry_out(&mut clients);
            done.push(carried_out);
            if let Some(error) = error {
                return Err(error.into());
            }
        }
        clients.finish()?;
        let feed = self.feed.past(connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok((foreign, feed))
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
            Ok(true) => self.catch_up(),
            Err(error) => drop(self.fail(&words(&error))),
        }
    }

    /// Tells the followers what is in the feed.
    pub(super) fn catch_up(&mut self) {
        match self.feed.read(&self.database.connection) {
            Ok((changes, feed)) => {
                self.feed = feed;
                self.tell(&changes);
            }
            Err(Failure::Sqlite(error)) => drop(self.fail(&words(&error))),
            Err(Failure::Row(error)) => drop(self.fail(&error.0)),
        }
    }

    /// Looks whether the file is there, and whether writes work again after they failed.
    fn look(&mut self, now: Instant) {
        if let Err(moved) = self.database.identity.check() {
            self.recover(moved, now, false);
            return;
        }
        self.lost = None;
        if self.shared.fault.reason().is_some() {
            match self.probe() {
                Ok(()) => self.succeed(),
                Err(error) => drop(self.fail(&words(&error))),
            }
        }
    }

    /// Writes a number, durably.
    fn probe(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.database.connection;
        self.durable = Some(true);
        connection.execute_batch("PRAGMA synchronous = FULL")?;
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
