//! The fleet.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{Choice, LeaseTime, OrNone, PemPath, PoolName, SecretPath, StoreKey, StoreWait, Whole};
use crate::config::written::{Section, Written};
use crate::fleet::WhenUnreachable;

/// Many nodes that hold their clients to one budget. All of it needs a restart.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["store"]))]
pub(in crate::config) struct FleetKeys {
    /// Where Valkey or Redis is, from 7.0 on: `redis://USER@HOST:PORT/DB`, `redis+cluster://A,B,C` or
    /// `redis+sentinel://A,B,C/NAME`; with `rediss` over TLS. The variable `TOLLGATE_FLEET` counts before it.
    pub(in crate::config) store: Written<StoreKey>,
    /// A file with nothing but the store's password. Null is none.
    #[schemars(extend("default" = null))]
    pub(in crate::config) password_file: Written<SecretPath>,
    /// The files for TLS to the store.
    pub(in crate::config) tls: Written<OrNone<Section<StoreTlsKeys>>>,
    /// What all keys in the store begin with. All nodes of a fleet have the same.
    #[schemars(extend("default" = "tollgate"))]
    pub(in crate::config) prefix: Written<PoolName>,
    /// This node's name, which no other one has. Null is one that is made once and kept in the database.
    #[schemars(extend("default" = null))]
    pub(in crate::config) node: Written<OrNone<PoolName>>,
    /// How far ahead of its need this node holds tokens, at least; it grows with what is busy.
    #[schemars(extend("default" = "100ms"))]
    pub(in crate::config) lease: Written<LeaseTime>,
    /// The longest that a request waits for the store.
    #[schemars(extend("default" = "25ms"))]
    pub(in crate::config) timeout: Written<StoreWait>,
    /// Requests that may wait for the store at once; further ones are judged by this node's share.
    #[schemars(extend("default" = 1024))]
    pub(in crate::config) max_asks: Written<Whole<NonZeroUsize, 1, 1_000_000>>,
    /// What is done with requests while the store is away: this node enforces its share of every quota, they are
    /// refused with 503, or they are let in.
    #[schemars(extend("default" = "share"))]
    pub(in crate::config) when_unreachable: Written<Choice<WhenUnreachable>>,
}

/// The files for TLS to the store; only where its address begins with `rediss`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct StoreTlsKeys {
    /// A PEM file with the authorities that the store's certificate is to be signed by. Default: those of the system.
    #[schemars(extend("default" = null))]
    pub(in crate::config) ca: Written<OrNone<PemPath>>,
    /// A PEM file: the certificate for a store that asks for one.
    #[schemars(extend("default" = null))]
    pub(in crate::config) cert: Written<OrNone<PemPath>>,
    /// A PEM file: the certificate's private key, not encrypted.
    #[schemars(extend("default" = null))]
    pub(in crate::config) key: Written<OrNone<PemPath>>,
}
