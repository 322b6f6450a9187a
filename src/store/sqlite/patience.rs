//! How long to wait for a lock that another process holds.
//!
//! Two processes share the file during an upgrade, and neither's writes may be refused because the other one writes.
//! SQLite's own waiting looks for the lock ten times a second in the end, and a process that commits without a pause
//! leaves it free for microseconds only; so this looks a thousand times a second. A lock that is held for longer is
//! that of a large batch (see the module `announce`), or not tollgate's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::Connection;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// Looks before giving up: at least 5 s.
const LONG: i32 = 5_000;
/// Looks while the last attempt has failed: at least 250 ms, so that refusals come fast.
const SHORT: i32 = 250;

/// How long a connection waits for locks; can be changed while it is in use.
#[derive(Clone, Debug)]
pub(super) struct LockPatience(Arc<AtomicI32>);

impl LockPatience {
    /// Waits for 5 s.
    pub(super) fn new() -> Self {
        LockPatience(Arc::new(AtomicI32::new(LONG)))
    }

    /// From now on waits for 250 ms only, or for 5 s again.
    pub(super) fn shorten(&self, short: bool) {
        self.0.store(if short { SHORT } else { LONG }, Ordering::Relaxed);
    }

    /// Makes the connection wait so long.
    pub(super) fn keep(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let looks = Arc::clone(&self.0);
        connection.busy_handler(Some(move |looked| {
            // Returns early when the thread is woken for another reason; then it looks again early.
            std::thread::park_timeout(PAUSE);
            looked < looks.load(Ordering::Relaxed)
        }))
    }
}
