//! What the file says, checked into what the server is built from.
//!
//! The problem: a proxy that guesses what a wrong file meant sends traffic somewhere, and one that stops at the first
//! mistake makes its user start it ten times to find ten.
//!
//! The rule, in five steps, none of which stops at a mistake:
//!
//! 1. `tree` reads the text into a tree and remembers the line of every key.
//! 2. `unknown` takes out keys that the schema does not have, and reports them.
//! 3. `variables` puts in what `${NAME}` says, value by value.
//! 4. `shape` is the file's. Each of its keys holds what was written there: nothing, a value of its kind (`value`), or
//!    what is wrong with it. The same types yield the JSON Schema, so that an editor and `tollgate check` allow the
//!    same.
//! 5. `check` looks at what no key can know alone (names, addresses, routes), lets the command line override the
//!    file, and builds the [`Config`]. It exists only when no problem was found.
//!
//! Refused: serde's own errors, which end at the first; `serde_ignored`, which names an unknown key and not the known
//! ones; validation by the schema, whose messages speak of patterns instead of addresses and durations.

mod check;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod load;
mod overrides;
mod problem;
mod report;
mod schema;
mod settings;
mod shape;
mod source;
mod tokens;
mod tree;
mod unknown;
mod value;
mod variables;
mod written;

#[cfg(test)]
mod tests;

pub use load::load;
pub use overrides::{
    BackendOverride, InvalidValue, Overrides, parse_admin, parse_database, parse_fleet, parse_listen, parse_target,
};
pub use problem::{Problem, Problems};
pub use schema::schema;
pub use settings::{AdminSettings, Config, ListenerSettings, PingoraSettings};
pub use tokens::{parse_token, read_tokens};
