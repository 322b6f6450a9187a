//! Handing a running proxy over to its successor without losing a request.
//!
//! ```text
//!  predecessor (serves)                              successor (tollgate -u)
//!       │                                                 │ checks its configuration, binds upgrade_sock, waits
//!   SIGQUIT                                               │
//!       │──── connects, hello, listening sockets ────────►│ keeps those that its configuration names, binds the rest
//!       │                                                 │ opens the database, loads clients, first health checks
//!       │◄──── prepared ──────────────────────────────────│
//!       │──── the last minutes, all buckets ─────────────►│ keeps them
//!  accepts no more; new connections wait in the kernel    │
//!       │──── the buckets that changed meanwhile, go ────►│ takes the pid file over, accepts
//!       │◄──── serving ───────────────────────────────────│
//!       │──── debits: tokens that kept requests take ────►│ takes them from its buckets
//!  kept connections end, requests in flight finish        │
//!       │──── settled, after five seconds ───────────────►│
//!    drains, ends                                         │ serves
//! ```
//!
//! The problem: Pingora's own hand-over is one way. The old process sends its sockets and quits, whatever becomes of
//! the new one; with nobody there it stops serving all the same. It takes 32 sockets, 2,048 bytes of names, and
//! anybody who can reach its socket; it knows nothing of buckets.
//!
//! The rules:
//! - Until `go` the predecessor serves as ever. Whatever goes wrong before, it goes on and says why. Whatever goes
//!   wrong after that, until five seconds of the successor's service have passed, it takes everything back: it
//!   accepts, saves, and is the one that counts again. That its successor is gone it knows by the connection, which
//!   the kernel closes; one that fails and has requests to finish says so before. Only a successor that was asked to
//!   stop is not followed by its predecessor: then the service is to stop.
//! - A listening socket is never closed in between, so no connection is refused and none that waits is lost.
//! - The keys of TLS tickets go along with the sockets, so clients resume their sessions with the successor. So does
//!   the secret of sticky cookies where no database keeps it.
//! - Only one of the two saves buckets; the right to is handed over with them.
//! - No token is given twice in the long run. The successor starts with the buckets of the moment when the predecessor
//!   stopped accepting. What the predecessor gives after that, to requests on connections that it kept, it tells within
//!   20 ms, and the successor takes it from its own bucket, into debt if it must. So over any time t a client gets at
//!   most C + ρ·t, and on top what the predecessor gave it after `go` while its bucket here was empty; that is at most
//!   one for each connection that it kept, since the next answer ends the connection, and it is paid back before
//!   anything else is given. Of several upgrades in a row, each hands on what it is told.
//! - What the fleet's store is still to be told the successor tells: that of the time before `go`, what is given here after
//!   that while the store is away, and what is left at the end.
//! - A hand-over that fails after `go` costs what the successor gave by then.
//! - The overflow bucket, which new callers share when there is no room for more buckets, is each process' own.
//! - Each wait has a bound: 30 s for a predecessor, 60 s for a successor to be prepared, 10 s for it to serve, 5 s for
//!   a message. Each message has a length that is looked at before anything is kept. Both ends make sure that the
//!   other is the same user or root. One successor waits at a time.
//! - Clients are told by their row in the database. A successor with another database takes only the buckets of
//!   anonymous callers.
//! - A successor that lacks a variable of the environment that counts for its predecessor, or would make a new database
//!   beside its predecessor's, refuses. A predecessor without a database refuses while it has clients.
//!
//! Nobody accepts while the predecessor looks for the buckets that changed since it began to hand over, and the
//! successor takes them and writes the pid file; all other buckets are there before. From the last accept to the word
//! that the successor serves it took 0.5 ms with no buckets, 1.6 ms with 10,000 and 24 ms with a million, on four busy
//! cores; a million took 2 s in all, in which the predecessor served. It is logged at debug.
//!
//! Refused: handing buckets over through the database, which takes seconds for a million of them; letting both accept
//! for a while, which would give each bucket twice.

mod beside;
mod conduct;
mod conversation;
mod debits;
mod predecessor;
mod successor;
mod surroundings;
mod wire;

#[cfg(test)]
mod tests;

pub(super) use beside::Inherited;
pub(super) use conduct::Next;
pub(super) use debits::Told;
pub(super) use predecessor::{Estate, Predecessor, Underway};
pub(super) use successor::{Successor, TakeOver, Waiting};
pub use surroundings::StartEnvironment;
