//! What the admin API is made of. What it must not know itself (the proxy, the server's life) it is handed as
//! functions.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::access::Access;
use super::error::{ApiError, sentence};
use crate::client::{Directory, KeyDigest, Plans, Quota, Recorder, UsageFigures};
use crate::clock::{Clock, Timeline};
use crate::limit::{KeyMaker, Limiter, Payer};
use crate::store::{ClientRepository, WriteError};
use crate::telemetry::{Explanation, LatestRefusals, Series, ShowFleet, Talk, TalkersBy, Tally, TextFormat};
use crate::upstream::Pool;

/// What the admin API is made of.
pub struct AdminParts {
    /// Who gets in. Whoever changes it stores another one; it counts from the next request on.
    pub access: Arc<ArcSwap<Access>>,
    /// The clients, durably.
    pub repository: Arc<dyn ClientRepository>,
    /// Fills a client's bucket, durably.
    pub fill: Fill,
    /// Adds tokens to a client's bucket, durably.
    pub grant: GrantTokens,
    /// The clients as the proxy knows them; read for their usage, never written here.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What clients with a plan may spend, which a reload changes.
    pub plans: Arc<ArcSwap<Plans>>,
    /// What is recorded of them.
    pub recorder: Arc<Recorder>,
    /// What the last minutes were like.
    pub series: Arc<Series>,
    /// Who asks most.
    pub tally: Arc<Tally>,
    /// Their buckets.
    pub limiter: Arc<dyn Limiter>,
    /// What makes the keys of buckets.
    pub keys: Arc<KeyMaker>,
    /// Whether anybody is limited, which a reload may change.
    pub limited: Box<dyn Fn() -> bool + Send + Sync>,
    /// What becomes of a client's own quota in the policy of this name, which a reload may change.
    pub own_quotas: Box<dyn Fn(&str) -> QuotaInPolicy + Send + Sync>,
    /// The pools there are now; a reload changes which.
    pub pools: Box<dyn Fn() -> Arc<Vec<Arc<Pool>>> + Send + Sync>,
    /// The latest refusals.
    pub decisions: Arc<LatestRefusals>,
    /// The metrics as text.
    pub metrics: Box<dyn Fn(TextFormat) -> String + Send + Sync>,
    /// Who a caller would be and what it would get, step by step; takes nothing from any bucket.
    pub explain: Explain,
    /// What the server is doing.
    pub status: Box<dyn Fn() -> ServerStatus + Send + Sync>,
    /// The fleet.
    pub fleet: ShowFleet,
    /// What the whole fleet knows of clients; none without a fleet.
    pub fleet_figures: Option<FleetFigures>,
    /// Whether it serves.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// How long a connection must have been silent to be closed once the API closes.
    pub patience: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Reads the configuration again and applies it, all or nothing.
    pub reload: Reload,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limiter's time; the same one wherever the limiter is asked.
    pub timeline: Timeline,
}

/// What becomes of a client's own quota in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaInPolicy {
    /// It counts.
    Counts,
    /// There is no such policy.
    NoPolicy,
    /// Clients have no buckets of their own in it.
    OtherKey,
}

/// Asks for what the whole fleet knows of clients. Each answers within moments, with what is known then.
pub struct FleetFigures {
    /// What clients, each known by a credential, have done on all other nodes, and the names of the nodes of which that
    /// is not known.
    pub usage: AskFleet<Vec<String>, (Vec<UsageFigures>, Vec<String>)>,
    /// The requests of each second of a client on all other nodes, from a second since the Unix epoch on, and the names
    /// of the nodes of which they are not known.
    pub recorded: AskFleet<(String, u64), (RecordedSeconds, Vec<String>)>,
    /// Who has asked most of late, or been refused most, on all other nodes; over how many seconds at most; and the names
    /// of the nodes of which that is not known.
    pub talkers: AskFleet<TalkersBy, (Vec<Talk>, u64, Vec<String>)>,
    /// The thousandths of tokens in buckets, where the store tells them.
    pub tokens: AskFleet<Vec<(Payer, Quota)>, Vec<Option<u64>>>,
}

/// Seconds since the Unix epoch with the requests of each, the earliest first.
pub type RecordedSeconds = Vec<(u64, u32)>;

/// Asks a fleet something.
pub type AskFleet<Q, A> = Box<dyn Fn(Q) -> BoxFuture<'static, A> + Send + Sync>;

/// Reads the configuration again and applies it, all or nothing. One that runs already is waited for.
pub type Reload = Box<dyn Fn() -> BoxFuture<'static, Result<Reloaded, ReloadRefused>> + Send + Sync>;

/// Fills the buckets of this client, its own one and those in policies; with the quotas that it has of its own, by who
/// pays; and whether here alone where the fleet's store is away. Once that is answered, no crash brings an empty one back.
pub type Fill = Box<dyn Fn(Payer, HashMap<Payer, Quota>, bool) -> BoxFuture<'static, ChangeMade> + Send + Sync>;

/// Adds so many tokens to the bucket of this payer under this quota, above its capacity if need be; here alone, too,
/// where the fleet's store is away. Once that is answered, no crash takes them away.
pub type GrantTokens = Box<dyn Fn((Payer, Quota), NonZeroU32, bool) -> BoxFuture<'static, ChangeMade> + Send + Sync>;

/// Where buckets were filled, or given tokens.
pub type ChangeMade = Result<MadeWhere, NotFilled>;

/// Where something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeWhere {
    /// On all nodes, or on the only one.
    Everywhere,
    /// On this node, and on all once the fleet's store can be reached.
    HereFirst,
}

/// A bucket that was not filled, and is what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFilled {
    /// The buckets go over to another process, which has them from then on.
    #[error("the buckets are being handed over to another process")]
    HandedOver,
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] WriteError),
}

impl From<NotFilled> for ApiError {
    fn from(error: NotFilled) -> Self {
        match error {
            NotFilled::HandedOver => ApiError::unavailable(format!("{}; try again", sentence(&error))),
            NotFilled::Store(error) => error.into(),
        }
    }
}

/// A reload that took place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What changed, a sentence each, such as `upstreams changed: app`; empty when nothing did.
    pub changed: Vec<String>,
}

/// A reload that did not take place: the configuration is what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadRefused {
    /// The configuration is wrong, or changes what only a restart can change: the key's path, such as
    /// `upstreams[0].backends`, the flag or the file, and what is wrong with it.
    Wrong(Vec<(String, String)>),
    /// It is not known to be wrong; this is why it was not put into force.
    NotNow(String),
}

/// Answers a [`Question`].
pub type Explain = Box<dyn Fn(&Question) -> Explanation + Send + Sync>;

/// Who would this be?
#[derive(Clone, Debug)]
pub struct Question {
    /// The address at the other end of the connection.
    pub address: IpAddr,
    /// The request's headers.
    pub headers: HeaderMap,
    /// What the certificate that is shown in the handshake is known by, if one is.
    pub certificate: Vec<KeyDigest>,
    /// The method that it asks by.
    pub method: String,
    /// The host and the path that the request asks for, where they are told.
    pub target: Option<(String, String)>,
}

/// What the server is doing.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// `starting`, `ready`, `draining`.
    pub state: &'static str,
    /// Since when it has been running.
    pub uptime: Duration,
    /// Where it listens for requests.
    pub listeners: Vec<SocketAddr>,
    /// Where this API listens.
    pub admin: String,
    /// The clients there are.
    pub clients: usize,
    /// The buckets in use.
    pub buckets: usize,
    /// The requests since the start.
    pub requests: u64,
    /// Those that took a token.
    pub allowed: u64,
    /// Those that were refused for want of one.
    pub limited: u64,
    /// Those of blocked clients.
    pub blocked: u64,
    /// Those of unlimited clients.
    pub unlimited: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// The open connections from clients.
    pub connections: usize,
    /// How many there may be.
    pub max_connections: usize,
    /// What keeps the store from being written, when something does.
    pub store_error: Option<String>,
}

/// Whether the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does not listen yet.
    Starting,
    /// It does, or another process takes its place.
    Ready,
    /// It finishes what it has begun.
    Draining,
}
