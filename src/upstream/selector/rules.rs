//! The rules by name: a line each.

use std::fmt;

use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::foreign;
use super::hash::Hash;
use super::least_connections::LeastConnections;
use super::least_time::LeastTime;
use super::members::{Members, Rule};
use super::random::Random;
use super::round_robin::RoundRobin;

/// What a rule wants to be told, so that nobody pays for what none asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Of every request that a backend took or ended.
    pub loads: bool,
    /// Of a request who sent it, or what else it is told from others by, as the key that it is chosen by.
    pub caller: bool,
    /// The time, also of answers.
    pub time: bool,
}

impl Needs {
    /// Nothing but who is ready.
    pub const NOTHING: Needs = Needs { loads: false, caller: false, time: false };
    /// How many requests each backend holds.
    pub const LOADS: Needs = Needs { loads: true, ..Needs::NOTHING };
    /// Who sends a request.
    pub const CALLER: Needs = Needs { caller: true, ..Needs::NOTHING };
    /// How soon each backend answers.
    pub const TIME: Needs = Needs { time: true, ..Needs::NOTHING };
    /// Who sends a request, and how many each backend holds.
    pub const CALLER_AND_LOADS: Needs = Needs { caller: true, ..Needs::LOADS };
}

/// A rule that chooses a backend for each request: a line of the table.
#[derive(Clone, Copy)]
pub struct Balance {
    name: &'static str,
    doc: &'static str,
    needs: Needs,
    build: fn(&Members) -> Box<dyn Rule>,
}

/// All rules, the default first. One that was written for Pingora is a line, too:
/// `Balance::of_pingora::<Consistent>("consistent", "Ketama", Needs::CALLER)`.
#[rustfmt::skip]
const RULES: &[Balance] = &[
    Balance::new("round_robin", "smooth weighted round robin", Needs::NOTHING, |members| Box::new(RoundRobin::new(members))),
    Balance::new("random", "weighted random", Needs::NOTHING, |members| Box::new(Random::new(members))),
    Balance::new("least_connections", "fewest requests in flight per weight", Needs::LOADS, |members| Box::new(LeastConnections::new(members))),
    Balance::new("least_time", "of two the one that is to be expected to answer sooner", Needs::TIME, |members| Box::new(LeastTime::new(members))),
    Balance::new("hash", "always the same backend for the same key, within bounds of load", Needs::CALLER_AND_LOADS, |members| Box::new(Hash::new(members))),
];

impl Balance {
    /// A line of the table: the name that the configuration and the admin API have for it, what it does in a few words,
    /// what it needs, and how it is made.
    const fn new(name: &'static str, doc: &'static str, needs: Needs, build: fn(&Members) -> Box<dyn Rule>) -> Self {
        Balance { name, doc, needs, build }
    }

    /// The same of a rule that was written for Pingora. It is asked for its order with the caller as its key if it
    /// needs the caller, and with none otherwise, and gets the backends with their weights.
    pub const fn of_pingora<S>(name: &'static str, doc: &'static str, needs: Needs) -> Self
    where
        S: BackendSelection + Send + Sync + 'static,
        S::Iter: BackendIter,
    {
        Balance::new(name, doc, needs, foreign::built::<S>)
    }

    /// All of them, the default first.
    pub const ALL: &'static [Balance] = RULES;

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.name == name).copied()
    }

    /// As the configuration and the admin API name it.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Their names, the default first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|rule| rule.name)
    }

    /// What each of them does, in a sentence.
    pub fn described() -> String {
        let rules: Vec<_> = RULES.iter().map(|rule| format!("`{}`, {}", rule.name, rule.doc)).collect();
        format!("The rule that chooses a backend for each request: {}.", rules.join("; "))
    }

    /// What it wants to be told.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The rule over `members`.
    pub(super) fn over(self, members: &Members) -> Box<dyn Rule> {
        (self.build)(members)
    }
}

impl Default for Balance {
    fn default() -> Self {
        RULES[0]
    }
}

/// Names are unique.
impl PartialEq for Balance {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Balance {}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
