//! Running in the background.
//!
//! ```text
//! tollgate -d            starts    tollgate -d, in a session of its own
//!   (starter)         ─────────►     (daemon)
//!                                    checks, binds, becomes its user, opens its files, checks its backends
//!   ends with 0       ◄─────────     "serving"; from here on its outputs go to the error log
//! ```
//!
//! The problem: a command that returns before the server listens says nothing, and one that forks must do so before it
//! has threads, before it has bound anything, and so before it knows whether it can serve.
//!
//! The rule: the starter runs the same program again with the same arguments and waits. The daemon's standard input is
//! a socket to the starter; over it the daemon tells how far it is ([`Milestone`]). Until then the daemon's standard
//! error is the starter's, so its reasons are seen where somebody looks; after that no descriptor of the starter stays
//! open, so `$(tollgate -d)` ends. When the daemon ends first, the socket says so and the starter ends with the same
//! exit code. So the starter waits for as long as the daemon lives and no longer, and Ctrl-C ends both.
//!
//! Nothing is forked: the daemon is a new process that has no threads before it starts them itself, so none can be
//! lost. That is why Pingora's own way, a double fork before the listeners bind, is not used; and `fork` needs
//! `unsafe`, which this crate forbids.
//!
//! The daemon's standard output goes to the error log from the start, as nobody reads the starter's to the end. Files
//! that it makes are its user's and its group's alone (umask 027).

mod detached;
mod outputs;
mod starter;

pub use detached::Detached;
pub use outputs::is_journal;
pub use starter::{Ended, Starter, pass_on};

/// How far a process in the background is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// It waits for a predecessor.
    Waiting,
    /// It accepts.
    Serving,
    /// It accepts, and nothing can bring its predecessor back.
    Settled,
}

impl Milestone {
    const ALL: [Milestone; 3] = [Milestone::Waiting, Milestone::Serving, Milestone::Settled];

    /// As it is told.
    fn word(self) -> &'static str {
        match self {
            Milestone::Waiting => "waiting",
            Milestone::Serving => "serving",
            Milestone::Settled => "settled",
        }
    }

    /// What was told.
    fn of(word: &str) -> Option<Self> {
        Milestone::ALL.into_iter().find(|milestone| milestone.word() == word)
    }
}

/// The variable by which the starter tells the daemon that it is one, and until which milestone it listens.
const VARIABLE: &str = "TOLLGATE_DETACHED";

/// The variable by which the starter tells a process to start the daemon in its place and to end.
const ORPHAN: &str = "TOLLGATE_ORPHAN";

/// What comes before its process id in the first line that a daemon tells.
const PID: &str = "pid ";
