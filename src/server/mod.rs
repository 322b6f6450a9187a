//! Building everything, services and their order, signals, drain.
//!
//! Each server stands alone: nothing of it is static, so two of them run in one process without knowing of each other.
//! First everything is built that can fail, over addresses that are bound (module `build`; and `start`, when it is all of
//! its process). Then it runs (module `run`): its services start in order, and it serves until it is asked to stop, or has
//! handed over.

mod admin;
mod asks;
mod buckets;
mod build;
mod conductor;
pub mod echo;
mod handover;
mod lifecycle;
mod listening;
mod reload;
mod run;
mod services;
mod sparingly;
mod start;
mod store;
mod ticker;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::client::{Directory, Quota};
use crate::clock::{Clock, Timeline};
use crate::config::Config;
use crate::limit::{Key, WholeLimiter};
use crate::process::{BindError, Bound, PidFileError, PrivilegesError, Process};
use crate::store::sqlite::OpenError;
use crate::telemetry::{AccessLog, AccessLogWriter, Tally};
use crate::tls::TlsListeners;
use crate::upstream::Pools;
use buckets::Buckets;
use echo::Echo;
use handover::Successor;
use store::Store;

pub use asks::{Stop, StopHandle};
pub use reload::Source;

/// The log target of what came of what an operator asked for, which the event log writes one by one, also when it repeats.
const OPERATOR: &str = "tollgate::operator";

/// Why a server could not start, or stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The access log cannot be written.
    #[error("{0}")]
    AccessLog(#[source] io::Error),
    /// It cannot become the user that it should.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// Its pid file cannot be had.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// It could not go on.
    #[error("{0}")]
    Failed(String),
}

/// A proxy whose addresses are bound, whose clients are loaded, and that is ready to run.
pub struct Server {
    config: Config,
    source: Option<Source>,
    pools: Arc<Pools>,
    directory: Arc<ArcSwap<Directory>>,
    store: Store,
    limiter: Arc<dyn WholeLimiter>,
    buckets: Arc<Buckets>,
    sockets: Vec<Bound>,
    tls: Arc<TlsListeners>,
    admin: Option<Bound>,
    access_log: AccessLog,
    writer: AccessLogWriter,
    tally: Arc<Tally>,
    echoes: Vec<Echo>,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
    /// The database, as another process would name it.
    database: Option<String>,
    /// The process, when it is all of one.
    process: Option<Arc<Process>>,
    /// What it takes over from, and the quotas of clients by their numbers.
    inheritance: Option<(Successor, HashMap<Key, Quota>)>,
}

impl Server {
    /// Reads the configuration again from `source` when it is asked to.
    pub fn reloads_from(&mut self, source: Source) {
        self.source = Some(source);
    }

    /// Runs a sample backend beside the proxy, stopped with it.
    pub fn add_echo(&mut self, echo: Echo) {
        self.echoes.push(echo);
    }

    /// The addresses that it will listen on, with real ports where port 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(Bound::address).collect()
    }

    /// Where the admin API will listen, if it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Bound::address)
    }

    /// Where clients are looked up; storing another directory changes them from the next request on.
    pub fn directory(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.directory)
    }

    /// The TLS of the listeners that have it; another pair given to one of them counts from its next handshake on.
    pub fn tls(&self) -> Arc<TlsListeners> {
        Arc::clone(&self.tls)
    }

    /// The pools.
    pub fn pools(&self) -> Arc<Pools> {
        Arc::clone(&self.pools)
    }

    /// What the proxy counts beside the pools.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}
