//! Building a server: everything that can fail, before anybody can connect.
//!
//! The order matters. Clients are read before saved buckets: a bucket is read back under the quota that its owner has now,
//! and one whose owner is gone is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::info;

use super::buckets::Buckets;
use super::store::{Followers, Store};
use super::{Server, ServerError};
use crate::client::{Directory, Quota};
use crate::clock::{Clock, SystemClock, Timeline};
use crate::config::Config;
use crate::limit::{Key, RateLimit, Striped, StripedSettings, WholeLimiter};
use crate::process::{Bound, Process};
use crate::telemetry::AccessLog;
use crate::tls::TlsListeners;
use crate::upstream::Pools;

impl Server {
    /// Builds a server, binds its addresses, opens its database and reads what is in it; nobody can connect before
    /// [`run`](Server::run).
    ///
    /// # Errors
    /// When an address cannot be had, the database cannot be used or the access log cannot be opened.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        let sockets = config.listeners.iter().map(|listener| Bound::new(listener.address));
        let sockets = sockets.collect::<Result<_, _>>()?;
        let admin = config.admin.as_ref().map(|admin| Bound::new(admin.address)).transpose()?;
        Server::build(config, sockets, admin, None).map(|(server, _)| server)
    }

    /// Builds a server over sockets that are bound, and gives the quotas of its clients beside it. With `process` it is
    /// all of one; a `successor` does not read what was saved of the buckets, since it gets them later.
    pub(super) fn build(
        config: Config,
        sockets: Vec<Bound>,
        admin: Option<Bound>,
        process: Option<(Arc<Process>, bool)>,
    ) -> Result<(Self, HashMap<Key, Quota>), ServerError> {
        let is_successor = process.as_ref().is_some_and(|(_, successor)| *successor);
        let pairs = sockets.iter().map(Bound::address).zip(&config.listeners);
        let pairs = pairs.filter_map(|(address, listener)| Some((address, listener.tls.clone()?)));
        let tls = TlsListeners::new(pairs).map_err(|error| ServerError::Failed(format!("TLS: {error}")))?;
        let (access_log, writer) = AccessLog::new(&config.access_log).map_err(ServerError::AccessLog)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // One for all who ask the limiter: two would disagree for good when the wall clock steps in between.
        let timeline = Timeline::new(clock.as_ref());
        let RateLimit { quota, max_buckets, .. } = config.rate_limit;
        let settings = StripedSettings { max_buckets, stripes: None, default_quota: quota };
        let limiter: Arc<dyn WholeLimiter> = Arc::new(Striped::new(settings, timeline.nanos(clock.now())));
        let store = Store::open(config.database.as_deref())?;
        store.clients.keep_history(config.history);
        let directory: Arc<ArcSwap<Directory>> = Arc::default();
        let (limits, saved) = (Arc::clone(&limiter), Arc::clone(&store.buckets));
        let buckets = Buckets::new(limits, saved, &config.rate_limit, Arc::clone(&clock), timeline);
        let buckets = Arc::new(if is_successor { buckets.of_successor() } else { buckets });
        let followers = Followers {
            directory: Arc::clone(&directory),
            limiter: Arc::clone(&limiter),
            buckets: Arc::clone(&buckets),
            clock: Arc::clone(&clock),
            timeline,
        };
        let quotas = followers.load(store.clients.as_ref())?;
        if !is_successor {
            let owner = |key: Key| if key.is_client() { quotas.get(&key).copied() } else { Some(quota) };
            let restored = buckets.restore(owner).map_err(|error| ServerError::Failed(error.to_string()))?;
            info!("clients: {}; buckets that are not full: {restored}", quotas.len());
        }
        // As it is after it was opened: by whatever path, it is the same one.
        let database = config.database.as_ref();
        let database = database.and_then(|path| Some(path.canonicalize().ok()?.display().to_string()));
        let server = Server {
            pools: Arc::new(Pools::new(config.upstreams.clone())),
            config,
            source: None,
            directory,
            store,
            limiter,
            buckets,
            sockets,
            tls: Arc::new(tls),
            admin,
            access_log,
            writer,
            tally: Arc::default(),
            echoes: Vec::new(),
            clock,
            timeline,
            database,
            process: process.map(|(process, _)| process),
            inheritance: None,
        };
        Ok((server, quotas))
    }
}
