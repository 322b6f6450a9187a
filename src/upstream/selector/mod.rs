//! Choosing a backend for a request: one type per rule, behind Pingora's `BackendSelection`.
//!
//! To add a rule: a file here with its type, and its line in the table of `rules`; `make schema` and
//! `UPDATE=1 cargo test --lib admin::openapi` write its name into what is generated.
//!
//! A [`Selector`] is asked for every attempt of every request, by `BackendSelection::iter`. Its rule chooses among
//! the backends that are ready and not yet tried by this request, so the weights hold among those that are left.
//! Pingora's own `RoundRobin` and `Random` cannot: they choose first and look at health afterwards, and then go on
//! without weights.
//!
//! A choice costs the same among three backends and, but for a logarithm, among thousands: no rule but `hash`, which
//! says why, looks at all of them. What a rule wants to know of a request it says in the table; a request pays for
//! nothing else.
//!
//! Rules keep no health and no counters. Both live in the [`Backend`](super::Backend)s, which the [`Registry`] hands on
//! when the set changes, so a rebuild forgets nothing. Weights do belong to a selector: the pools before and after a
//! reload share backends, and each is to keep to its own weights.

mod candidates;
mod changes;
mod foreign;
mod hash;
mod least_connections;
mod least_time;
mod marks;
mod members;
mod random;
mod registry;
mod round_robin;
mod rules;
mod tournament;
mod warm_up;

pub use candidates::{Candidates, Selector, SelectorConfig};
pub(super) use changes::Changes;
pub use hash::HashKey;
pub use registry::Registry;
pub use rules::{Balance, Needs};

#[cfg(test)]
mod tests;
