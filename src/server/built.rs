//! A server that is built: everything that can fail is done, and nobody can connect before it runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::core::{Core, OpenedCore};
use super::echo::Echo;
use super::error::ServerError;
use super::handover::{Inherited, Successor};
use super::reload::Source;
use crate::client::{Directory, Quota};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::fleet::registry::TakingIn;
use crate::limit::Payer;
use crate::process::{Bound, ListenAddress, Process};
use crate::telemetry::{AccessLogWriter, Tally};
use crate::upstream::Pools;

/// A proxy whose addresses are bound, whose clients are loaded, and that is ready to run.
pub struct Server {
    pub(super) config: Config,
    pub(super) source: Option<Source>,
    pub(super) core: Core,
    pub(super) listeners: Vec<Bound>,
    pub(super) admin: Option<Bound>,
    pub(super) writer: AccessLogWriter,
    pub(super) echoes: Vec<Echo>,
    /// The process, when it is all of one.
    pub(super) process: Option<Arc<Process>>,
    /// What it takes over from, and the quotas of clients.
    pub(super) inheritance: Option<(Successor, HashMap<Payer, Quota>)>,
}

impl Server {
    /// Builds a server, binds its addresses, opens its database and reads what is in it; nobody can connect before
    /// [`run`](Server::run).
    ///
    /// # Errors
    /// When an address cannot be had, the database cannot be used or the access log cannot be opened.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        let listeners = config.listeners.iter().map(|listener| Bound::new(listener.address));
        let listeners = listeners.collect::<Result<_, _>>()?;
        let admin = config.admin.as_ref().map(|admin| Bound::new(admin.address.clone())).transpose()?;
        Server::build(config, (listeners, admin), None, &mut |_, _| ()).map(|(server, _)| server)
    }

    /// Builds a server over sockets that are bound, and gives the quotas of its clients beside it. With `process` it is
    /// all of one; a successor, which has the keys of tickets of another, does not read what was saved of the buckets,
    /// since it gets them later. `taking` hears how far it is while it takes in all clients of a fleet.
    pub(super) fn build(
        config: Config,
        (listeners, admin): (Vec<Bound>, Option<Bound>),
        process: Option<(Arc<Process>, Option<Inherited>)>,
        taking: TakingIn<'_>,
    ) -> Result<(Self, HashMap<Payer, Quota>), ServerError> {
        let inherited = process.as_ref().and_then(|(_, inherited)| inherited.as_ref());
        let addresses: Vec<_> = listeners.iter().filter_map(|bound| bound.address().tcp()).collect();
        let (core, OpenedCore { writer, quotas }) =
            Core::open(&config, &addresses, inherited, (Arc::new(SystemClock), taking))?;
        let server = Server {
            config,
            source: None,
            core,
            listeners,
            admin,
            writer,
            echoes: Vec::new(),
            process: process.map(|(process, _)| process),
            inheritance: None,
        };
        Ok((server, quotas))
    }

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
        self.listeners.iter().filter_map(|bound| bound.address().tcp()).collect()
    }

    /// Where the admin API will listen, if it does.
    pub fn admin_address(&self) -> Option<&ListenAddress> {
        self.admin.as_ref().map(Bound::address)
    }

    /// Where clients are looked up; storing another directory changes them from the next request on.
    pub fn directory(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.core.directory)
    }

    /// The pools.
    pub fn pools(&self) -> Arc<Pools> {
        Arc::clone(&self.core.pools)
    }

    /// What the proxy counts beside the pools.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.core.tally)
    }
}
