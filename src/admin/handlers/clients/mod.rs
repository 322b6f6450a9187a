//! Everything about clients: making, changing, finding and deleting them, one at a time or all at once.
//!
//! | file | holds |
//! |---|---|
//! | `routes` | which call is which |
//! | `condition` | `If-Match` and `If-None-Match` |
//! | `path` | which client a path is about |
//! | `fields` | what a body says of a client |
//! | `quotas` | what it says of quotas |
//! | `keys` | what it says of the client's API keys |
//! | `describe` | the same for the description of the API |
//! | `wire` | what answers say of one |
//! | `standing` | how clients stand now |
//! | `read` | one, a page of them, a history |
//! | `recorded` | what a quota would have done to a client's requests |
//! | `changes` | what changed last, of all of them |
//! | `write` | the changes of one |
//! | `key_calls` | those of its API keys |
//! | `tokens` | what is done to its bucket |
//! | `bulk` | the changes of many |
//! | `export` | all of them, streamed |
//! | `secret` | API keys that are made here |

mod author;
pub(in crate::admin) mod bulk;
pub(in crate::admin) mod changes;
mod condition;
mod describe;
mod export;
mod fields;
pub(in crate::admin) mod key_calls;
mod keys;
mod path;
mod quotas;
pub(in crate::admin) mod read;
pub(in crate::admin) mod recorded;
mod routes;
mod secret;
mod standing;
pub(in crate::admin) mod tokens;
mod wire;
pub(in crate::admin) mod write;

pub(in crate::admin) use routes::routes;

#[cfg(test)]
mod tests;
