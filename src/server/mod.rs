//! Building everything, services and their order, signals, drain.
//!
//! Each server stands alone: nothing of it is static, so two of them run in one process without knowing of each other.
//! Clients and saved buckets are read before anything starts. Services start in this order: telemetry, buckets, the
//! admin API, health (ready after the first round of checks), and then the listeners, so nobody gets in before it is
//! known where requests may go. At a stop the listeners close, requests finish, the buckets are saved, and the admin
//! API, which tells how far that is, ends last.

mod admin;
mod buckets;
pub mod echo;
mod lifecycle;
mod listening;
mod overflow;
mod owner;
mod services;
mod socket;
mod store;
mod ticker;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::{Log, info};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server as PingoraServer};
use pingora_core::services::background::background_service;
use pingora_proxy::HttpProxy;

use crate::admin::{Access, Admin};
use crate::client::Directory;
use crate::clock::{Clock, SystemClock, Timeline};
use crate::config::{Config, PingoraSettings};
use crate::limit::{Key, RateLimit, Striped, StripedSettings};
use crate::proxy::{Activity, Downstream, Identity, Limits, Proxy, ProxyParts, RateLimiter};
use crate::route::{Route, RouteTable};
use crate::store::sqlite::OpenError;
use crate::telemetry::{AccessLog, AccessLogWriter, Decisions, EventLog, Metrics, MetricsParts, Tally};
use crate::upstream::Pool;
use admin::View;
use buckets::Buckets;
use echo::Echo;
use lifecycle::{Conductor, Lifecycle, State};
use listening::Listening;
use services::{Health, Telemetry};
use socket::{Bound, Sockets};
use store::{Followers, Store};

pub use lifecycle::{Stop, StopHandle};
pub use socket::BindError;

/// More than any pool's retries, so that the pools' own limits decide; Pingora's counts attempts.
const MAX_ATTEMPTS: usize = 32;
/// Threads of the admin API. Work that blocks has threads of its own.
const ADMIN_THREADS: usize = 1;

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
    /// It could not go on.
    #[error("{0}")]
    Failed(String),
}

/// A proxy whose addresses are bound, whose clients are loaded, and that is ready to run.
pub struct Server {
    pingora: PingoraSettings,
    routes: Vec<Route>,
    pools: Vec<Arc<Pool>>,
    limits: Limits,
    identity: Identity,
    rate_limit: RateLimit,
    directory: Arc<ArcSwap<Directory>>,
    store: Store,
    limiter: Option<Arc<Striped>>,
    buckets: Option<Buckets>,
    sockets: Vec<Bound>,
    admin: Option<(Bound, Access)>,
    access_log: AccessLog,
    writer: AccessLogWriter,
    tally: Arc<Tally>,
    echoes: Vec<Echo>,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
}

impl Server {
    /// Builds a server, binds its addresses, opens its database and reads what is in it; nobody can connect before
    /// [`run`](Server::run).
    ///
    /// # Errors
    /// When an address cannot be had, the database cannot be used or the access log cannot be opened.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        let sockets = config.listeners.iter().map(|address| Bound::new(*address)).collect::<Result<_, _>>()?;
        let admin = config.admin.map(|admin| Ok::<_, BindError>((Bound::new(admin.address)?, admin.access)));
        let admin = admin.transpose()?;
        let (access_log, writer) = AccessLog::new(&config.access_log).map_err(ServerError::AccessLog)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // One for all who ask the limiter: two would disagree for good when the wall clock steps in between.
        let timeline = Timeline::new(clock.as_ref());
        let RateLimit { quota, max_buckets, .. } = config.rate_limit;
        let limiter = config.rate_limit.enabled.then(|| {
            let settings = StripedSettings { max_buckets, stripes: None, default_quota: quota };
            Arc::new(Striped::new(settings, timeline.nanos(clock.now())))
        });
        let store = Store::open(config.database.as_deref())?;
        let directory: Arc<ArcSwap<Directory>> = Arc::default();
        let followers = Followers {
            directory: Arc::clone(&directory),
            limiter: limiter.clone(),
            buckets: Arc::clone(&store.buckets),
            clock: Arc::clone(&clock),
            timeline,
        };
        let quotas = followers.load(store.clients.as_ref())?;
        let buckets = limiter.clone().map(|limiter| {
            Buckets::new(limiter, Arc::clone(&store.buckets), &config.rate_limit, Arc::clone(&clock), timeline)
        });
        if let Some(buckets) = &buckets {
            let owner = |key: Key| key.client_number().map_or(Some(quota), |number| quotas.get(&number).copied());
            let restored = buckets.restore(owner).map_err(|error| ServerError::Failed(error.to_string()))?;
            info!("clients: {}; buckets that are not full: {restored}", quotas.len());
        }
        Ok(Server {
            pingora: config.pingora,
            routes: config.routes,
            pools: config.upstreams.into_iter().map(|pool| Arc::new(Pool::new(pool))).collect(),
            limits: config.limits,
            identity: config.identity,
            rate_limit: config.rate_limit,
            directory,
            store,
            limiter,
            buckets,
            sockets,
            admin,
            access_log,
            writer,
            tally: Arc::default(),
            echoes: Vec::new(),
            clock,
            timeline,
        })
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
        self.admin.as_ref().map(|(socket, _)| socket.address())
    }

    /// Where clients are looked up; storing another directory changes them from the next request on.
    pub fn directory(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.directory)
    }

    /// The pools.
    pub fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    /// What the proxy counts beside the pools.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Runs until it is asked to stop, and then until its requests are answered. Blocks the thread. `events` gets its
    /// summaries written once a second.
    ///
    /// # Errors
    /// When it stops although nobody asked it to.
    pub fn run(self, stop: Stop, events: Option<EventLog>) -> Result<(), ServerError> {
        let (lifecycle, sockets) = (Lifecycle::new(), Sockets::default());
        let (activity, connections, admin_connections): (Arc<Activity>, Arc<Activity>, Arc<Activity>) =
            Default::default();
        let decisions: Arc<Decisions> = Arc::default();
        let mut pingora = pingora_server(&self.pingora);
        let threads = self.pingora.threads.get();
        let addresses = self.addresses();
        let metrics = Arc::new(self.metrics());

        let telemetry = Telemetry::new(self.writer, events.clone(), Arc::clone(&self.clock), lifecycle.clone());
        let guard = telemetry.guard();
        let telemetry = pingora.add_service(background_service("telemetry", telemetry));
        let health = Health { pools: self.pools.clone(), clock: Arc::clone(&self.clock) };
        let health = pingora.add_service(background_service("health", health));
        health.add_dependency(&telemetry);
        for echo in self.echoes {
            let echo = pingora.add_service(echo.into_service(&activity, &sockets, &lifecycle));
            health.add_dependency(&echo);
        }
        let buckets = self.buckets.map(|buckets| {
            let service = background_service("buckets", buckets);
            let buckets = service.task();
            pingora.add_service(service);
            buckets
        });

        let app = Proxy::new(ProxyParts {
            identity: self.identity,
            directory: Arc::clone(&self.directory),
            limiter: self.limiter.clone().map(|limiter| RateLimiter {
                limiter,
                default: self.rate_limit.quota,
                headers: self.rate_limit.headers,
            }),
            routes: route_table(self.routes, &self.pools),
            limits: self.limits,
            access_log: self.access_log.clone(),
            tally: self.tally,
            decisions: Arc::clone(&decisions),
            clock: Arc::clone(&self.clock),
            timeline: self.timeline,
        });
        let mut proxy = HttpProxy::new(app.clone(), Arc::clone(&pingora.configuration));
        proxy.handle_init_modules();
        if let Some((socket, access)) = self.admin {
            let address = socket.address();
            let view = View {
                access,
                address,
                listeners: addresses.clone(),
                proxy: app.clone(),
                pools: self.pools.clone(),
                store: self.store.clone(),
                limiter: self.limiter,
                metrics,
                decisions,
                activity: Arc::clone(&activity),
                lifecycle: lifecycle.clone(),
                directory: Arc::clone(&self.directory),
                clock: Arc::clone(&self.clock),
                timeline: self.timeline,
                started: self.clock.now(),
            };
            let admin = Admin::new(view.into_parts());
            let threads = (ADMIN_THREADS, &admin_connections);
            let admin = Listening::new("admin", admin, vec![socket], threads, &sockets, &lifecycle);
            let admin = admin.until_drained().announced(move || info!("admin API on {address}"));
            let admin = pingora.add_service(admin);
            admin.add_dependency(&telemetry);
            // Whoever finds the proxy listening finds the admin API, too.
            health.add_dependency(&admin);
        }
        let downstream = Downstream::new(proxy, app, Arc::clone(&activity));
        let (backends, pools) =
            (self.pools.iter().map(|pool| pool.settings().backends.len()).sum::<usize>(), self.pools.len());
        let threads = (threads, &connections);
        let listening = Listening::new("proxy", downstream, self.sockets, threads, &sockets, &lifecycle).announced({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.advance(State::Ready);
                let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                info!("listening on {}; upstreams: {pools}, backends: {backends}", list.join(", "));
            }
        });
        pingora.add_service(listening).add_dependency(&health);

        let conductor = Conductor {
            lifecycle: lifecycle.clone(),
            stop: stop.clone(),
            activity,
            connections,
            admin: admin_connections,
            access_log: self.access_log,
            grace_period: self.pingora.grace_period,
        };
        run(pingora, conductor);
        let store = self.store;
        lifecycle::finish(&stop, move || {
            if let Some(buckets) = buckets {
                buckets::save_at_stop(&buckets);
            }
            store.close();
        });
        drop(guard.lock().take());
        if let Some(events) = events {
            events.flush();
        }
        lifecycle.failure().map_or(Ok(()), |reason| Err(ServerError::Failed(reason)))
    }

    /// What is counted.
    fn metrics(&self) -> Metrics {
        let store = self.store.clone();
        Metrics::new(MetricsParts {
            pools: self.pools.clone(),
            tally: Arc::clone(&self.tally),
            access_log: self.access_log.clone(),
            limiter: self.limiter.clone(),
            persist_errors: Box::new(move || store.errors()),
        })
    }
}

fn route_table(routes: Vec<Route>, pools: &[Arc<Pool>]) -> RouteTable<Arc<Pool>> {
    let pools: HashMap<&str, &Arc<Pool>> = pools.iter().map(|pool| (pool.name(), pool)).collect();
    RouteTable::new(routes.into_iter().map(|route| {
        let pool = pools.get(route.upstream.as_str()).expect("the configuration takes only routes to known pools");
        (route.host, route.path, Arc::clone(pool))
    }))
}

/// Pingora's server, as far as configuration goes. Every default that matters is set, because Pingora's are not ours.
fn pingora_server(settings: &PingoraSettings) -> PingoraServer {
    let conf = ServerConf {
        threads: settings.threads.get(),
        work_stealing: settings.work_stealing,
        listener_tasks_per_fd: settings.listener_tasks_per_fd.get(),
        upstream_keepalive_pool_size: settings.upstream_keepalive_pool_size,
        max_retries: MAX_ATTEMPTS,
        // Draining is over before Pingora hears of the stop.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    PingoraServer::new_with_opt_and_conf(None, conf)
}

fn run(pingora: PingoraServer, conductor: Conductor) {
    pingora.run(RunArgs { shutdown_signal: Box::new(conductor) });
}

/// Allows the process as many open files as the system lets it have: each request needs two.
pub fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
}
