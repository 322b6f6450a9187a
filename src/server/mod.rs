//! Building everything, services and their order, signals, drain.
//!
//! Each server stands alone: nothing of it is static, so two of them run in one process without knowing of each other.
//! Clients and saved buckets are read before anything starts. Services start in this order: telemetry, buckets, the
//! admin API, health (ready after the first round of checks), and then the listeners, so nobody gets in before it is
//! known where requests may go. At a stop the listeners close, requests finish, the buckets are saved, and the admin
//! API, which tells how far that is, ends last.

mod admin;
mod asks;
mod buckets;
mod conductor;
pub mod daemon;
pub mod echo;
mod handover;
mod lifecycle;
mod listening;
mod notify;
mod overflow;
mod owner;
pub mod pid_file;
mod privileges;
mod process;
mod reload;
mod services;
mod socket;
mod start;
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
use tokio::sync::mpsc;

use crate::admin::{Access, Admin};
use crate::client::{Directory, Quota};
use crate::clock::{Clock, SystemClock, Timeline};
use crate::config::{Config, PingoraSettings};
use crate::limit::{Key, RateLimit, Striped, StripedSettings};
use crate::proxy::{Activity, Downstream, Idle, Proxy, ProxyParts};
use crate::route::{Route, RouteTable};
use crate::store::sqlite::OpenError;
use crate::telemetry::{AccessLog, AccessLogWriter, Decisions, EventLog, Metrics, MetricsParts, Tally};
use crate::tls::TlsListeners;
use crate::upstream::{Pool, Pools};
use admin::View;
use buckets::Buckets;
use conductor::Conductor;
use echo::Echo;
use handover::{Estate, Predecessor, Successor, TakeOver, Told};
use lifecycle::{Lifecycle, State};
use listening::Listening;
use process::Process;
use reload::{Live, Reloader};
use services::{Health, Sweep, Telemetry};
use socket::{Bound, Sockets};
use store::{Followers, Store};

pub use asks::{Stop, StopHandle};
pub use pid_file::PidFileError;
pub use privileges::PrivilegesError;
pub use reload::Source;
pub use socket::BindError;

/// More than any pool's retries, so that the pools' own limits decide; Pingora's counts attempts.
const MAX_ATTEMPTS: usize = 32;
/// The log target of what came of what an operator asked for, which the event log writes one by one, also when it repeats.
const OPERATOR: &str = "tollgate::operator";
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
    limiter: Arc<Striped>,
    buckets: Buckets,
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
    inheritance: Option<(Successor, HashMap<u64, Quota>)>,
}

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
    fn build(
        config: Config,
        sockets: Vec<Bound>,
        admin: Option<Bound>,
        process: Option<(Arc<Process>, bool)>,
    ) -> Result<(Self, HashMap<u64, Quota>), ServerError> {
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
        let limiter = Arc::new(Striped::new(settings, timeline.nanos(clock.now())));
        let store = Store::open(config.database.as_deref())?;
        let directory: Arc<ArcSwap<Directory>> = Arc::default();
        let (limits, saved) = (Arc::clone(&limiter), Arc::clone(&store.buckets));
        let buckets = Buckets::new(limits, saved, &config.rate_limit, Arc::clone(&clock), timeline);
        let buckets = if is_successor { buckets.of_successor() } else { buckets };
        let followers = Followers {
            directory: Arc::clone(&directory),
            limiter: Arc::clone(&limiter),
            buckets: Arc::clone(&store.buckets),
            handed_over: buckets.handed_over(),
            clock: Arc::clone(&clock),
            timeline,
        };
        let quotas = followers.load(store.clients.as_ref())?;
        if !is_successor {
            let owner = |key: Key| key.client_number().map_or(Some(quota), |number| quotas.get(&number).copied());
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
        let settings = self.config.pingora.clone();
        let mut pingora = pingora_server(&settings);
        let addresses = self.addresses();
        let listeners = addresses.iter().zip(&self.config.listeners);
        let secure: Vec<_> = listeners.filter(|(_, settings)| settings.tls.is_some()).map(|(at, _)| *at).collect();
        let pools = self.pools.all();
        let metrics = Arc::new(self.metrics());

        let telemetry = Telemetry::new(self.writer, events.clone(), Arc::clone(&self.clock), lifecycle.clone());
        let guard = telemetry.guard();
        let telemetry = pingora.add_service(background_service("telemetry", telemetry));
        let (watches, orders) = mpsc::unbounded_channel();
        let health = Health::new(pools.to_vec(), orders, Arc::clone(&self.clock));
        let health = pingora.add_service(background_service("health", health));
        health.add_dependency(&telemetry);
        for echo in self.echoes {
            let echo = pingora.add_service(echo.into_service(&activity, &sockets, &lifecycle));
            health.add_dependency(&echo);
        }
        let service = background_service("buckets", self.buckets);
        let buckets = service.task();
        pingora.add_service(service);

        let (told, given) = Told::new(Arc::clone(&self.limiter));
        let is_successor = self.inheritance.is_some();
        let default_quota = self.config.rate_limit.quota;
        let rules = Arc::new(ArcSwap::from_pointee(reload::rules(&self.config, &pools)));
        let app = Proxy::new(ProxyParts {
            rules: Arc::clone(&rules),
            directory: Arc::clone(&self.directory),
            limiter: Arc::clone(&told) as _,
            access_log: self.access_log.clone(),
            tally: self.tally,
            decisions: Arc::clone(&decisions),
            pooled: settings.upstream_keepalive_pool_size > 0,
            clock: Arc::clone(&self.clock),
            timeline: self.timeline,
        });
        let mut proxy = HttpProxy::new(app.clone(), Arc::clone(&pingora.configuration));
        proxy.handle_init_modules();
        let access = self.config.admin.as_ref().map_or(Access::Loopback, |admin| admin.access.clone());
        let access = Arc::new(ArcSwap::from_pointee(access));
        let live = Live {
            rules: Arc::clone(&rules),
            pools: Arc::clone(&self.pools),
            tls: Arc::clone(&self.tls),
            access: Arc::clone(&access),
            access_log: self.access_log.clone(),
            limiter: Arc::clone(&self.limiter),
            watches,
            metrics: Arc::clone(&metrics),
            lifecycle: lifecycle.clone(),
            clock: Arc::clone(&self.clock),
            timeline: self.timeline,
        };
        let reloader = Arc::new(Reloader::new(self.source, self.config, live));
        if let Some(socket) = self.admin {
            let address = socket.address();
            let view = View {
                access,
                reloader: Arc::clone(&reloader),
                address,
                listeners: addresses.clone(),
                proxy: app.clone(),
                pools: self.pools,
                store: self.store.clone(),
                limiter: self.limiter,
                rules,
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
            let admin = admin
                .until_drained()
                .after_a_hand_over(is_successor)
                .announced(move || info!("admin API on {address}"));
            let admin = pingora.add_service(admin);
            admin.add_dependency(&telemetry);
            // Whoever finds the proxy listening finds the admin API, too.
            health.add_dependency(&admin);
        }
        // The key says how many in all, and each thread keeps its own.
        let most = settings.upstream_keepalive_pool_size.div_ceil(settings.threads.get());
        let idle = Arc::new(Idle::new(most, settings.work_stealing));
        let sweep = Sweep { idle: Arc::clone(&idle), clock: Arc::clone(&self.clock) };
        pingora.add_service(background_service("connections", sweep));
        let downstream = Downstream::new((proxy, app), idle, self.tls, Arc::clone(&activity), lifecycle.patience());
        let (backends, pools) = (pools.iter().map(|pool| pool.settings().backends.len()).sum::<usize>(), pools.len());
        let threads = (settings.threads.get(), &connections);
        let take_over = self.inheritance.map(|(successor, quotas)| {
            let quota =
                move |key: Key| key.client_number().map_or(Some(default_quota), |number| quotas.get(&number).copied());
            let (clock, timeline) = (Arc::clone(&self.clock), self.timeline);
            let take_over = TakeOver {
                buckets: Arc::clone(&buckets),
                told: Arc::clone(&told),
                now: Box::new(move || timeline.nanos(clock.now())),
                quota: Box::new(quota),
                database: self.database.clone(),
                process: self.process.clone().expect("only a whole process takes over from another one"),
                lifecycle: lifecycle.clone(),
            };
            (take_over, successor)
        });
        let listening =
            Listening::new("proxy", downstream, self.sockets, threads, &sockets, &lifecycle).buffered(secure);
        let listening = listening.after_a_hand_over(is_successor).announced({
            let (lifecycle, process) = (lifecycle.clone(), self.process.clone());
            move || {
                let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                info!("listening on {}; upstreams: {pools}, backends: {backends}", list.join(", "));
                if let Some((take_over, successor)) = take_over {
                    return handover::take_over(take_over, successor);
                }
                lifecycle.advance(State::Ready);
                if let Some(process) = process {
                    process.serves("serving");
                }
            }
        });
        pingora.add_service(listening).add_dependency(&health);

        let predecessor = self.process.as_ref().map(|process| {
            Arc::new(Predecessor {
                process: Arc::clone(process),
                sockets: sockets.clone(),
                estate: Estate { buckets: Arc::clone(&buckets), told, given: given.into() },
                database: self.database,
                lifecycle: lifecycle.clone(),
                clock: Arc::clone(&self.clock),
            })
        });
        let underway = Arc::default();
        let conductor = Conductor {
            lifecycle: lifecycle.clone(),
            stop: stop.clone(),
            activity,
            connections,
            admin: admin_connections,
            access_log: self.access_log,
            reloader: Some(reloader),
            grace_period: settings.grace_period,
            process: self.process.clone(),
            predecessor,
            underway: Arc::clone(&underway),
        };
        run(pingora, conductor);
        if let Some(underway) = underway.lock().take() {
            underway.finish(self.clock.as_ref());
        }
        let store = self.store;
        conductor::finish(&stop, move || {
            buckets::save_at_stop(&buckets);
            store.close();
        });
        drop(guard.lock().take());
        if let Some(process) = self.process {
            process.release_pid_file();
        }
        if let Some(events) = events {
            events.flush();
        }
        lifecycle.failure().map_or(Ok(()), |reason| Err(ServerError::Failed(reason)))
    }

    /// What is counted.
    fn metrics(&self) -> Metrics {
        let store = self.store.clone();
        Metrics::new(MetricsParts {
            pools: Arc::clone(&self.pools),
            tally: Arc::clone(&self.tally),
            access_log: self.access_log.clone(),
            limiter: Arc::clone(&self.limiter),
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
