//! The data plane: what requests go through.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;

use crate::config::Config;
use crate::limit::{CallerTurns, Charge};
use crate::process::descriptors;
use crate::proxy::{Downstream, Proxy, ProxyParts, Rules, SeatRoom, Seats, UntakenAnswers};
use crate::server::core::Core;
use crate::server::fleet::FleetPlace;
use crate::server::handover::Told;
use crate::server::reload;
use crate::upstream::Transport;

/// What requests go through.
pub(in crate::server) struct DataPlane {
    /// What the configuration says of requests; a reload stores others.
    pub(in crate::server) rules: Arc<ArcSwap<Rules>>,
    /// Where connections of clients sit.
    pub(in crate::server) seats: Arc<Seats>,
    /// The proxy, which can also explain what it would do.
    pub(in crate::server) proxy: Proxy,
    /// How backends are reached.
    pub(in crate::server) transport: Arc<Transport>,
    /// The limiter of the proxy, and what it tells of.
    pub(in crate::server) told: Arc<Told>,
    pub(in crate::server) given: Receiver<Charge>,
    /// What the listeners hand their connections to.
    pub(in crate::server) downstream: Downstream,
}

impl DataPlane {
    pub(in crate::server) fn new(core: &Core, config: &Config, conf: &Arc<ServerConf>) -> Self {
        let settings = &config.pingora;
        let (told, given) = Told::new(Arc::clone(&core.limiter));
        let rules = reload::rules(config, &core.pools.all(), (core.policies(config), &core.spans));
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let transport = Transport::new(settings.upstream_keepalive_pool_size, settings.threads, settings.work_stealing);
        let transport = Arc::new(transport);
        let app = Proxy::new(ProxyParts {
            rules: Arc::clone(&rules),
            directory: Arc::clone(&core.directory),
            limiter: Arc::clone(&told) as _,
            keys: Arc::clone(core.buckets.keys()),
            access_log: core.access_log.clone(),
            tally: Arc::clone(&core.tally),
            decisions: Arc::clone(&core.decisions),
            transport: Arc::clone(&transport),
            turns: Arc::new(core.fleet.as_ref().map_or_else(CallerTurns::default, FleetPlace::turns)),
            recorder: Arc::clone(&core.recorder),
            untaken: UntakenAnswers::default(),
            challenges: Arc::clone(core.acme.challenges()),
            clock: Arc::clone(&core.clock),
            timeline: core.timeline,
        });
        let mut proxy = HttpProxy::new(app.clone(), Arc::clone(conf));
        proxy.handle_init_modules();
        let share = descriptors::client_share(settings.threads.get());
        let room = SeatRoom { auto: share.auto, most: share.most };
        let seats = Seats::new(Arc::clone(&rules), room, Arc::clone(&core.tally), Arc::clone(&core.clock));
        seats.warn();
        descriptors::warn_of_few(settings.threads.get());
        let seats = Arc::new(seats);
        let life = (Arc::clone(&core.traffic.requests), core.lifecycle.patience());
        let downstream = Downstream::new((proxy, app.clone()), Arc::clone(&core.tls), life, Arc::clone(&seats));
        DataPlane { rules, seats, proxy: app, transport, told, given, downstream }
    }
}
