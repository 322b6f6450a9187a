//! What the admin API is made of. What it must not know itself (the proxy, the server's life) it is handed as
//! functions.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;

use super::Access;
use crate::client::{ClientId, Directory, Mode};
use crate::clock::{Clock, Timeline};
use crate::limit::{Limiter, Standing};
use crate::store::{BucketStore, ClientRepository};
use crate::telemetry::Decisions;
use crate::upstream::Pool;

/// What the admin API is made of.
pub struct AdminParts {
    /// Who gets in.
    pub access: Access,
    /// The clients, durably.
    pub repository: Arc<dyn ClientRepository>,
    /// Their buckets, durably.
    pub buckets: Arc<dyn BucketStore>,
    /// The clients as the proxy knows them; read for their usage, never written here.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Their buckets; none when nobody is limited.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// The pools.
    pub pools: Vec<Arc<Pool>>,
    /// The latest refusals.
    pub decisions: Arc<Decisions>,
    /// The metrics as Prometheus text, format 0.0.4.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Who a caller would be and what it would get, step by step; takes nothing from any bucket.
    pub explain: Explain,
    /// What the server is doing.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Whether it serves.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limiter's time; the same one wherever the limiter is asked.
    pub timeline: Timeline,
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
}

/// Who it would be, and what it would get.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// How that was found out, step by step, in words. No keys.
    pub steps: Vec<String>,
    /// The trusted proxy whose `X-Forwarded-For` was believed, when the connection is from one.
    pub trusted_proxy: Option<IpAddr>,
    /// The address that counts as the caller's.
    pub client_ip: IpAddr,
    /// The header that an API key was read from, when there was one: its name, not its value.
    pub api_key_from: Option<String>,
    /// The client, when the caller is one.
    pub client_id: Option<ClientId>,
    /// The client's network that matched, when it was recognised by address.
    pub network: Option<String>,
    /// `api_key`, `address` or `anonymous`.
    pub identity: &'static str,
    /// The client's mode; none for an anonymous caller.
    pub mode: Option<Mode>,
    /// How its bucket stands; none when it has none.
    pub standing: Option<Standing>,
    /// What the limiter would say: `allowed`, `limited`, `blocked` or `unlimited`; none when it would not be asked.
    pub decision: Option<&'static str>,
    /// The status and message of the refusal; none when the request would go on to its route.
    pub refusal: Option<(u16, String)>,
    /// The rate headers and `Retry-After` that the answer would carry: their names and values.
    pub headers: Vec<(String, String)>,
}

/// What the server is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// `starting`, `ready`, `draining`.
    pub state: &'static str,
    /// Since when it has been running.
    pub uptime: Duration,
    /// Where it listens for requests.
    pub listeners: Vec<SocketAddr>,
    /// Where this API listens.
    pub admin: SocketAddr,
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
    /// What keeps the store from being written, when something does.
    pub store_error: Option<String>,
}

/// Whether the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does not listen yet.
    Starting,
    /// It does.
    Ready,
    /// It finishes what it has begun.
    Draining,
}
