//! The scripts that the store runs.
//!
//! A store forgets scripts: at a restart, by `SCRIPT FLUSH`, and Valkey 500 later ones if they came by `EVAL`. So each
//! is loaded at each connection, called by its digest, and loaded again where the digest is not known.

use std::fmt::Write;
use std::sync::OnceLock;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A Lua script.
#[derive(Debug)]
pub struct Script {
    /// For people.
    pub name: &'static str,
    /// The Lua.
    pub source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    /// The script of a name and a source.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Script { name, source, sha: OnceLock::new() }
    }

    /// What the store knows it by.
    pub fn sha(&self) -> &str {
        self.sha.get_or_init(|| {
            let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.source.as_bytes());
            sum.as_ref().iter().fold(String::with_capacity(40), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }
}

/// Takes from a bucket and leases ahead.
pub static BUCKET: Script =
    Script::new("bucket", concat!(include_str!("scripts/state.lua"), include_str!("scripts/bucket.lua")));
/// Fills a bucket.
pub static RESET: Script =
    Script::new("reset", concat!(include_str!("scripts/state.lua"), include_str!("scripts/reset.lua")));
/// Adds tokens to a bucket, above its capacity if need be.
pub static GRANT: Script =
    Script::new("grant", concat!(include_str!("scripts/state.lua"), include_str!("scripts/grant.lua")));
/// Looks at a bucket.
pub static PEEK: Script =
    Script::new("peek", concat!(include_str!("scripts/state.lua"), include_str!("scripts/peek.lua")));
/// Holds turns of those that a caller may have at once.
pub static TURNS: Script = Script::new("turns", include_str!("scripts/turns.lua"));

/// Says that a node is there, and hears of the others.
pub static NODES: Script = Script::new("nodes", include_str!("scripts/nodes.lua"));

/// Adds changes of clients at the end of their line.
pub static REGISTRY_PUBLISH: Script = Script::new("registry_publish", include_str!("scripts/registry_publish.lua"));
/// Adds those changes of clients that are newer than what is there.
pub static REGISTRY_OFFER: Script = Script::new(
    "registry_offer",
    concat!(include_str!("scripts/registry_order.lua"), include_str!("scripts/registry_offer.lua")),
);
/// Folds bulks of changes of clients in, and drops old deletions.
pub static REGISTRY_TEND: Script = Script::new(
    "registry_tend",
    concat!(include_str!("scripts/registry_order.lua"), include_str!("scripts/registry_tend.lua")),
);
/// Makes a registry of clients.
pub static REGISTRY_OPEN: Script = Script::new("registry_open", include_str!("scripts/registry_open.lua"));

/// All of them: what is loaded at a connection.
pub fn all() -> [&'static Script; 10] {
    [&BUCKET, &RESET, &GRANT, &PEEK, &TURNS, &NODES, &REGISTRY_PUBLISH, &REGISTRY_OFFER, &REGISTRY_TEND, &REGISTRY_OPEN]
}
