//! One SQLite file that survives: the process, however it ends, and for clients the loss of power too.
//!
//! The rules:
//! - One thread writes, on one connection. It takes all writes that wait into one transaction (group commit), so that
//!   many writers share the time of one sync. A write is answered after that. A batch has a transaction of its own.
//! - Clients are synced to disk with every commit (WAL with `synchronous = FULL`). Buckets alone are not: the log holds
//!   them when the process is killed, and losing power costs at most what came since the last commit of a client or
//!   checkpoint.
//! - Reads have connections of their own, and wait for no writer.
//! - Several processes may share the file, as during an upgrade. Each follows the others' changes.
//! - When the disk is full, or the file is locked, unreadable or gone, writes are answered with the reason, reads go on
//!   as far as SQLite can, and all of it ends by itself with its cause. Nothing is acknowledged that is not in the file
//!   at the path.
//!
//! Refused: a pool of writers, as SQLite has one writer at a time and the others would wait for its lock; a commit for
//! each write (see `benches/store.rs`); a rollback journal, which blocks readers and syncs three times; trusting SQLite
//! that the file is there (see the module `identity`).

mod adopt;
mod announce;
pub mod backup;
mod buckets;
mod changes;
mod create;
mod credential;
mod fault;
mod feed;
mod identity;
mod meta;
mod more;
mod open;
mod patience;
mod publish;
mod queue;
mod reads;
mod recovery;
mod rows;
mod schema;
mod search;
mod search_text;
mod shared;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;

use super::{
    Adoption, Authored, Batch, BucketStore, Change, ClientRepository, Committed, Difference, FleetCursor, Follower,
    HistoryEntry, HistoryRules, Moment, Page, PageQuery, Publisher, Record, Reply, Saved, SavedOwed, Snapshot,
    StoreError, WriteError,
};
use crate::client::ClientId;
use fault::{Fault, words};
use feed::Feed;
pub use open::OpenError;
use patience::LockPatience;
use queue::{Queue, Request, Write};
use rows::{ClientReader, ReadFailure};
use search::Search;
use shared::{Reading, Shared};
use writer::Writer;

/// Clients and buckets in a SQLite file. See the [module](self). Clones share it; with the last one it is closed.
#[derive(Clone, Debug)]
pub struct Sqlite(Arc<Handle>);

/// Asks the writer, and ends it.
struct Handle {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the database at `path`. Where nothing is, a new one is made, with its directory.
    ///
    /// The file is checked whole, so this takes about a second for each million clients. It may block for 5 s more when
    /// another process holds the file locked.
    ///
    /// # Errors
    /// When the file is none of ours, damaged, cut off, read-only, locked or newer. Then it is left as it is.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).map_err(|error| OpenError::new(path, &error.to_string()))?;
        let patience = LockPatience::new();
        let database = open::open_or_create(&path, &patience)?;
        let feed = Feed::new(&database.connection).map_err(|error| OpenError::new(&path, &words(&error)))?;
        let reading = Reading::open(&database).map_err(|error| OpenError::new(&path, &words(&error)))?;
        let shared = Arc::new(Shared {
            path,
            secret: database.secret,
            fault: Fault::default(),
            followers: Mutex::default(),
            publisher: Mutex::new(None),
            history: Mutex::new(HistoryRules::ALL),
            reading: RwLock::new(Some(Arc::new(reading))),
        });
        let (requests, incoming) = channel();
        let writer = Writer::new(Arc::clone(&shared), Queue::new(incoming), database, patience, feed);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(|| writer.run());
        let thread = thread.map_err(|error| OpenError::new(&shared.path, &error.to_string()))?;
        Ok(Sqlite(Arc::new(Handle { shared, requests, thread: Mutex::new(Some(thread)) })))
    }

    /// Why writes fail now; none when they do not. Known within about a second, also when nobody writes.
    pub fn fault(&self) -> Option<String> {
        self.0.shared.fault.reason()
    }

    /// How many write transactions have failed since it was opened.
    pub fn errors(&self) -> u64 {
        self.0.shared.fault.errors()
    }

    /// Has what is written from now on published to the fleet before it is committed here. Until the fleet is joined,
    /// that is until something was [adopted](Sqlite::adopt), writes are refused that do not do without it.
    pub fn publish_through(&self, publisher: Publisher) {
        *self.0.shared.publisher.lock() = Some(publisher);
    }

    /// Takes in what other nodes have changed, exactly as it is. What is known already changes nothing. What was changed
    /// here alone is published with it, if the fleet can be reached.
    pub fn adopt(&self, adoption: Adoption) -> Reply<()> {
        self.ask(|answer| Write::Adopt(adoption, answer))
    }

    /// Which fleet this belongs to and how far it has taken in its changes; none when it belongs to none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fleet_cursor(&self) -> Result<Option<FleetCursor>, StoreError> {
        self.read(|connection| Ok(adopt::cursor(connection)?))
    }

    /// What was changed here alone and is not published yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pending(&self) -> Result<Vec<Authored>, StoreError> {
        self.read(adopt::pending)
    }

    /// Gives `each` the last change of every client that is or was, until it returns false.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn latest_changes(&self, each: &mut dyn FnMut(Authored) -> bool) -> Result<(), StoreError> {
        self.read_long(|connection| adopt::latest(connection, each))
    }

    /// A text that is kept of the fleet, such as the node's name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fleet_note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.read(|connection| Ok(adopt::note(connection, name)?))
    }

    /// Where it is: which file, on the machine whose start has this number. The same for all processes that have it open.
    pub fn place(&self, boot: u128) -> u64 {
        let (device, inode) = self.0.shared.reading().map(|reading| reading.identity.database()).unwrap_or_default();
        (boot >> 64) as u64 ^ boot as u64 ^ device.rotate_left(32) ^ inode
    }

    /// Those whose names begin like this, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fleet_notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|connection| Ok(adopt::notes(connection, prefix)?))
    }

    /// Keeps a text of the fleet.
    pub fn keep_fleet_note(&self, name: &str, value: &str) -> Reply<()> {
        self.ask(|answer| Write::Note(name.to_owned(), Some(value.to_owned()), answer))
    }

    /// Forgets one.
    pub fn forget_fleet_note(&self, name: &str) -> Reply<()> {
        self.ask(|answer| Write::Note(name.to_owned(), None, answer))
    }

    /// What is kept of the history.
    pub fn history_rules(&self) -> HistoryRules {
        *self.0.shared.history.lock()
    }

    /// Finishes the writes that wait and closes the file; later writes are refused. Blocks until that is done.
    pub fn close(self) {
        self.0.close();
    }

    fn ask<T>(&self, write: impl FnOnce(tokio::sync::oneshot::Sender<Result<T, WriteError>>) -> Write) -> Reply<T> {
        let (answer, reply) = Reply::new();
        match self.0.requests.send(Request::Write(write(answer))) {
            Ok(()) => reply,
            Err(_) => Reply::ready(Err(self.0.shared.ended().into())),
        }
    }

    /// A short read.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, ReadFailure>) -> Result<T, StoreError> {
        self.read_with(|connection, _| read(connection))
    }

    /// The same, with what searches look through.
    fn read_with<T>(&self, read: impl FnOnce(&Connection, &Search) -> Result<T, ReadFailure>) -> Result<T, StoreError> {
        let shared = &self.0.shared;
        let reading = shared.reading()?;
        let connection = reading.readers.get();
        read(&connection, &reading.search).map_err(|failure| shared.failed(failure))
    }

    /// A long read, on a connection of its own and in one transaction.
    fn read_long<T>(&self, read: impl FnOnce(&Connection) -> Result<T, ReadFailure>) -> Result<T, StoreError> {
        let shared = &self.0.shared;
        let reading = shared.reading()?;
        let connect = || -> Result<T, ReadFailure> {
            let connection = reads::connect(&reading.real)?;
            // It may have opened another file than the writer has.
            reading.identity.check().map_err(|moved| ReadFailure::Row(StoreError(moved.words())))?;
            let moment = connection.unchecked_transaction()?;
            read(&moment)
        };
        connect().map_err(|failure| shared.failed(failure))
    }
}

impl Handle {
    fn close(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        // It has ended when nobody listens.
        let _ = self.requests.send(Request::Close);
        // A follower may hold the last clone; the thread does not wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
        // A writer that failed has left them open.
        self.shared.close_readers();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl ClientRepository for Sqlite {
    fn change(&self, change: Change) -> Reply<Committed> {
        self.ask(|answer| Write::Change(change, answer))
    }

    fn apply(&self, batch: Batch) -> Reply<Difference> {
        self.ask(|answer| Write::Apply(batch, answer))
    }

    fn get(&self, id: &ClientId) -> Result<Option<Record>, StoreError> {
        self.read(|connection| changes::get(connection, &mut ClientReader::default(), id))
    }

    fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        self.read_with(|connection, search| reads::page(connection, search, query))
    }

    fn history(&self, id: &ClientId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read(|connection| reads::history(connection, id, before, limit))
    }

    fn latest_changes(&self, limit: usize) -> Result<Vec<(ClientId, HistoryEntry)>, StoreError> {
        self.read(|connection| reads::latest_changes(connection, limit))
    }

    fn for_each(&self, each: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        self.read_long(|connection| reads::for_each(connection, each))
    }

    fn keep_history(&self, rules: HistoryRules) {
        *self.0.shared.history.lock() = rules;
    }

    fn follow(&self, follower: Follower) {
        self.0.shared.followers.lock().push(follower);
    }
}

impl BucketStore for Sqlite {
    fn secret(&self) -> u128 {
        self.0.shared.secret
    }

    fn save(&self, snapshot: Snapshot) -> Reply<()> {
        self.ask(|answer| Write::Save(snapshot, answer))
    }

    fn load(&self, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, StoreError> {
        self.read_long(|connection| buckets::load(connection, each))
    }

    fn load_owed(&self, each: &mut dyn FnMut(SavedOwed)) -> Result<(), StoreError> {
        self.read_long(|connection| buckets::load_owed(connection, each))
    }
}
