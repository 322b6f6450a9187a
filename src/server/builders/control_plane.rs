//! The control plane: reloads, health checks, and the admin API.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::info;
use tokio::sync::mpsc;

use super::data_plane::DataPlane;
use crate::admin::{Access, Admin, HandshakeConfig};
use crate::config::Config;
use crate::process::Bound;
use crate::server::admin::View;
use crate::server::core::Core;
use crate::server::listening::Listening;
use crate::server::reload::{Live, Reloader, Source};
use crate::server::services::Health;
use crate::telemetry::Metrics;
use crate::tls::{Terminator, TlsListeners};

/// Threads of the admin API. Work that blocks has threads of its own.
const ADMIN_THREADS: usize = 1;

/// What changes and watches the data plane.
pub(in crate::server) struct ControlPlane {
    /// Puts other configurations into force.
    pub(in crate::server) reloader: Arc<Reloader>,
    /// The service that checks the backends of all pools, as reloads change them.
    pub(in crate::server) health: Health,
    /// The admin API, if there is one.
    pub(in crate::server) admin: Option<Listening<Admin>>,
}

impl ControlPlane {
    /// Over `data`; the admin API on `admin` tells of `listeners`.
    pub(in crate::server) fn new(
        core: &Core,
        (config, source): (Config, Option<Source>),
        (data, metrics): (&DataPlane, Arc<Metrics>),
        (admin, listeners): (Option<Bound>, Vec<SocketAddr>),
    ) -> Self {
        let (watches, orders) = mpsc::unbounded_channel();
        let access = config.admin.as_ref().map_or(Access::Loopback, |admin| admin.access.clone());
        let access = Arc::new(ArcSwap::from_pointee(access));
        let live = Live {
            core: core.clone(),
            rules: Arc::clone(&data.rules),
            seats: Arc::clone(&data.seats),
            access: Arc::clone(&access),
            watches,
            metrics: Arc::clone(&metrics),
        };
        let reloader = Arc::new(Reloader::new(source, config, live));
        let admin = admin.map(|socket| {
            let address = socket.address().clone();
            let secure = address.tcp().and_then(|address| handshakes(&core.tls, address));
            let view = View {
                core: core.clone(),
                access,
                reloader: Arc::clone(&reloader),
                address: address.to_string(),
                listeners,
                proxy: data.proxy.clone(),
                rules: Arc::clone(&data.rules),
                seats: Arc::clone(&data.seats),
                metrics,
            };
            let threads = (ADMIN_THREADS, &core.traffic.admin);
            let admin = Admin::new(view.into_parts(), secure);
            let upkeep = admin.upkeep();
            let admin = Listening::new("admin", admin, vec![socket], threads, (&core.sockets, &core.lifecycle));
            admin.until_drained().announced(move || {
                info!("admin API on {address}");
                tokio::spawn(upkeep);
            })
        });
        let health = Health::new(core.pools.all().to_vec(), orders, Arc::clone(&core.clock));
        ControlPlane { reloader, health, admin }
    }
}

/// What tells the admin API at `address` how to do handshakes, if it does any.
fn handshakes(tls: &Arc<TlsListeners>, address: SocketAddr) -> Option<HandshakeConfig> {
    let (tls, first) = (Arc::clone(tls), tls.at(address)?.config());
    Some(Box::new(move || tls.at(address).map_or_else(|| Arc::clone(&first), Terminator::config)))
}
