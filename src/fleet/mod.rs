//! Many nodes, one budget for each client: what they share, over Valkey or Redis.
//!
//! The problem: a client's limit must hold over all nodes, and neither a round trip a request nor a store that is away
//! may be felt by clients. The rule: the store holds what is shared, small Lua scripts change it in one step by the
//! store's own time, and whoever calls has a deadline of its own. [`StoreLink`] is the one way there.
//!
//! What the store's user must be allowed, and no more, as an ACL with the prefix `tollgate`:
//!
//! ```text
//! user NAME on >PASSWORD resetchannels ~tollgate:* -@all +ping +evalsha +script|load +time
//!   +get +set +del +expire +pexpire +persist +hget +hset +hdel +hlen +hmget +hgetall +hscan
//!   +xadd +xrange +xread +rpush +lpop +lindex +lrange +llen
//!   +role +info +config|get          (may be left out: then not known are version, evictions and policy)
//!   +select                           (a database but 0 only)
//!   +cluster|slots +readonly +asking (a Cluster only)
//! ```
//!
//! Refused: the library's own reconnecting connection, which blocks callers for seconds while a server is away and
//! knows no Sentinel; functions (`FCALL`), which a store without persistence forgets like scripts but answers less
//! clearly for; MULTI, which cannot decide.

pub mod asker;
pub mod bucket;
pub mod bucket_changes;
pub mod challenges;
pub mod gather;
pub mod joining;
pub mod link;
pub mod names;
pub mod nodes;
pub mod registry;
pub mod script;
#[cfg(test)]
pub(crate) mod servers;
pub mod settings;
#[cfg(test)]
mod simulation;
pub mod sums;
pub mod turns;
pub mod untold;

pub use asker::Asker;
pub use bucket_changes::{BucketChange, BucketChanges, KeptChange};
pub use challenges::OpenChallenges;
pub use joining::{JoinError, JoinReport, JoinStep, OwnClients};
pub use link::{LinkError, LinkState, ScriptCall, StoreLink};
pub use names::Names;
pub use registry::{ClientRegistry, JoinOutcome, RegistryError, RegistryState};
pub use settings::{FleetSettings, StoreAddress, StoreKind, StoreTls, WhenUnreachable, password_in};
