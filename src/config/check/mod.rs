//! What no key can know alone, and the building of the [`Config`](super::Config).
//!
//! Every function here reports what it finds and goes on. Where a value is wrong its default stands in, so that the
//! rest can be looked at; nothing is built when anything was reported.

mod admin;
mod answers;
mod file;
mod fleet;
mod header_rules;
mod listeners;
mod lists;
mod manner;
mod policies;
mod process;
mod routes;
mod sections;
mod tracing;
mod upstreams;

pub(super) use file::check;
