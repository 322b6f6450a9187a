//! What only a file can do: survive, be broken, go away, be shared.

mod failing;
mod fleet;
mod running;
mod search;
mod sharing;
mod start;
mod survival;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::samples::{create, profile};
use super::super::{ClientRepository, Committed, WriteError};
use super::Sqlite;
use crate::clock::{Clock, SystemClock};

/// A directory, and the database's path in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    (directory, path)
}

/// The database's path with a suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// A database that was closed cleanly, with `clients` clients in it.
fn filled(path: &Path, clients: usize) {
    let store = Sqlite::open(path).unwrap();
    for client in 0..clients {
        create(&store, &format!("user{client}"), profile(10, 1.0)).unwrap();
    }
    store.close();
    assert!(!beside(path, "-wal").exists());
}

/// Polls until `done`, for 20 s at most.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(20);
    while !done() {
        assert!(SystemClock.now() < deadline, "waited for 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// What the follower of `store` was told.
fn followed(store: &Sqlite) -> Arc<Mutex<Vec<Committed>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let follower = Arc::clone(&told);
    store.follow(Box::new(move |changes| follower.lock().extend_from_slice(changes)));
    told
}

/// Why the store cannot make a client now.
fn unavailable(store: &Sqlite, name: &str) -> String {
    match create(store, name, profile(1, 1.0)) {
        Err(WriteError::Unavailable(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Another program's connection to the file.
fn stranger(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}
