//! Running a server: its services and their order, and what is done after the last request.
//!
//! Services start in this order: telemetry, buckets, the admin API, health (ready after the first round of checks), and
//! then the listeners, so nobody gets in before it is known where requests may go. At a stop the listeners close and
//! requests finish. The admin API, which tells how far that is, ends last. Then the buckets are saved.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::info;
use parking_lot::Mutex;
use pingora_core::server::Server as PingoraServer;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::background::{GenBackgroundService, background_service};
use pingora_proxy::HttpProxy;
use tokio::sync::mpsc;

use super::admin::View;
use super::asks::Stop;
use super::buckets::{self, Buckets};
use super::conductor::{self, Conductor};
use super::handover::{self, Estate, Predecessor, TakeOver, Told, Underway};
use super::lifecycle::{Lifecycle, State};
use super::listening::Listening;
use super::reload::{self, Live, Reloader};
use super::services::{Certificates, Health, LogGuard, Sweep, Telemetry};
use super::start::start_events;
use super::store::Store;
use super::{Server, ServerError};
use crate::admin::{Access, Admin};
use crate::clock::Clock;
use crate::config::PingoraSettings;
use crate::limit::Key;
use crate::process::{Process, Sockets, descriptors};
use crate::proxy::{Activity, Downstream, Proxy, ProxyParts, SeatRoom, Seats, UntakenAnswers};
use crate::telemetry::{EventLog, LatestRefusals, Metrics, MetricsParts};
use crate::upstream::Transport;

/// More than any pool's retries, so that the pools' own limits decide; Pingora's counts attempts.
const MAX_ATTEMPTS: usize = 32;
/// Threads of the admin API. Work that blocks has threads of its own.
const ADMIN_THREADS: usize = 1;

impl Server {
    /// Runs until it is asked to stop, and then until its requests are answered. Blocks the thread. `events` is started,
    /// unless it runs, and gets its summaries written once a second.
    ///
    /// # Errors
    /// When it stops although nobody asked it to, or there is no thread for the event log.
    pub fn run(self, stop: Stop, events: Option<EventLog>) -> Result<(), ServerError> {
        start_events(events.as_ref())?;
        let (lifecycle, sockets) = (Lifecycle::new(), Sockets::default());
        let (pingora, conductor, ending) = self.assemble(&stop, events, &lifecycle, &sockets);
        conductor.run(pingora);
        ending.finish(&stop);
        lifecycle.failure().map_or(Ok(()), |reason| Err(ServerError::Failed(reason)))
    }

    /// All services, in Pingora's hands and in their order; what conducts them; and what is to be done when they have ended.
    /// Starts nothing.
    fn assemble(
        self,
        stop: &Stop,
        events: Option<EventLog>,
        lifecycle: &Lifecycle,
        sockets: &Sockets,
    ) -> (PingoraServer, Conductor, Ending) {
        let (activity, connections, admin_connections): (Arc<Activity>, Arc<Activity>, Arc<Activity>) =
            Default::default();
        let decisions: Arc<LatestRefusals> = Arc::default();
        let settings = self.config.pingora.clone();
        let mut pingora = pingora_server(&settings);
        let addresses = self.addresses();
        let pools = self.pools.all();
        let metrics = Arc::new(self.metrics(events.clone()));

        let telemetry =
            Telemetry::new(self.writer, events, Arc::clone(&self.tally), Arc::clone(&self.clock), lifecycle.clone());
        let guard = telemetry.guard();
        let telemetry = pingora.add_service(background_service("telemetry", telemetry));
        let (watches, orders) = mpsc::unbounded_channel();
        let health = Health::new(pools.to_vec(), orders, Arc::clone(&self.clock));
        let health = pingora.add_service(background_service("health", health));
        health.add_dependency(&telemetry);
        for echo in self.echoes {
            let echo = pingora.add_service(echo.into_service(&activity, sockets, lifecycle));
            health.add_dependency(&echo);
        }
        let buckets = self.buckets;
        let service = GenBackgroundService::new("BG buckets".to_owned(), Arc::clone(&buckets));
        pingora.add_service(service);

        let tally = self.tally;
        let (told, given) = Told::new(Arc::clone(&self.limiter));
        let is_successor = self.inheritance.is_some();
        let default_quota = self.config.rate_limit.quota;
        let rules = Arc::new(ArcSwap::from_pointee(reload::rules(&self.config, &pools)));
        let transport = Transport::new(settings.upstream_keepalive_pool_size, settings.threads, settings.work_stealing);
        let transport = Arc::new(transport);
        let app = Proxy::new(ProxyParts {
            rules: Arc::clone(&rules),
            directory: Arc::clone(&self.directory),
            limiter: Arc::clone(&told) as _,
            keys: Arc::clone(buckets.keys()),
            access_log: self.access_log.clone(),
            tally: Arc::clone(&tally),
            decisions: Arc::clone(&decisions),
            transport: Arc::clone(&transport),
            untaken: UntakenAnswers::default(),
            clock: Arc::clone(&self.clock),
            timeline: self.timeline,
        });
        let mut proxy = HttpProxy::new(app.clone(), Arc::clone(&pingora.configuration));
        proxy.handle_init_modules();
        let access = self.config.admin.as_ref().map_or(Access::Loopback, |admin| admin.access.clone());
        let access = Arc::new(ArcSwap::from_pointee(access));
        let share = descriptors::client_share(settings.threads.get());
        let room = SeatRoom { auto: share.auto, most: share.most };
        let seats = Arc::new(Seats::new(Arc::clone(&rules), room, Arc::clone(&tally), Arc::clone(&self.clock)));
        seats.warn();
        let live = Live {
            rules: Arc::clone(&rules),
            seats: Arc::clone(&seats),
            pools: Arc::clone(&self.pools),
            tls: Arc::clone(&self.tls),
            access: Arc::clone(&access),
            access_log: self.access_log.clone(),
            limiter: Arc::clone(&self.limiter),
            clients: Arc::clone(&self.store.clients),
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
                buckets: Arc::clone(&buckets),
                rules,
                seats: Arc::clone(&seats),
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
            let admin = Listening::new("admin", admin, vec![socket], threads, sockets, lifecycle);
            let admin = admin
                .until_drained()
                .after_a_hand_over(is_successor)
                .announced(move || info!("admin API on {address}"));
            let admin = pingora.add_service(admin);
            admin.add_dependency(&telemetry);
            // Whoever finds the proxy listening finds the admin API, too.
            health.add_dependency(&admin);
        }
        let sweep = Sweep { transport, clock: Arc::clone(&self.clock) };
        pingora.add_service(background_service("connections", sweep));
        if !self.tls.is_empty() {
            let certificates = Certificates { tls: Arc::clone(&self.tls), clock: Arc::clone(&self.clock) };
            pingora.add_service(background_service("certificates", certificates));
        }
        let life = (Arc::clone(&activity), lifecycle.patience());
        let downstream = Downstream::new((proxy, app), self.tls, life, Arc::clone(&seats));
        let tunnels = downstream.tunnels();
        let (backends, pools) = (pools.iter().map(|pool| pool.settings().backends.len()).sum::<usize>(), pools.len());
        let threads = (settings.threads.get(), &connections);
        let take_over = self.inheritance.map(|(successor, quotas)| {
            let quota = move |key: Key| if key.is_client() { quotas.get(&key).copied() } else { Some(default_quota) };
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
        let listening = Listening::new("proxy", downstream, self.sockets, threads, sockets, lifecycle);
        let listening = listening.seated(seats).after_a_hand_over(is_successor).announced({
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
            tunnels,
            admin: admin_connections,
            access_log: self.access_log,
            reloader: Some(reloader),
            grace_period: settings.grace_period,
            process: self.process.clone(),
            predecessor,
            underway: Arc::clone(&underway),
        };
        let ending = Ending { underway, clock: self.clock, buckets, store: self.store, guard, process: self.process };
        (pingora, conductor, ending)
    }

    /// What is counted.
    fn metrics(&self, events: Option<EventLog>) -> Metrics {
        let store = self.store.clone();
        Metrics::new(MetricsParts {
            pools: Arc::clone(&self.pools),
            tally: Arc::clone(&self.tally),
            access_log: self.access_log.clone(),
            events,
            limiter: Arc::clone(&self.limiter) as _,
            tls: Arc::clone(&self.tls),
            persist_errors: Box::new(move || store.errors()),
        })
    }
}

/// What is to be done when all services have ended.
struct Ending {
    /// The hand-over after which it leaves.
    underway: Arc<Mutex<Option<Underway>>>,
    clock: Arc<dyn Clock>,
    buckets: Arc<Buckets>,
    store: Store,
    /// Keeps the access log's writer running.
    guard: LogGuard,
    process: Option<Arc<Process>>,
}

impl Ending {
    /// Does it. Blocks the thread. The event log ends later, since all of it writes to that.
    fn finish(self, stop: &Stop) {
        let underway = self.underway.lock().take();
        if let Some(underway) = underway {
            underway.finish(self.clock.as_ref());
        }
        let (buckets, store) = (self.buckets, self.store);
        conductor::finish(stop, move || {
            buckets::save_at_stop(&buckets);
            store.close();
        });
        // It may wait, and have something to say.
        let guard = self.guard.lock().take();
        drop(guard);
        if let Some(process) = self.process {
            process.release_pid_file();
        }
    }
}

/// Pingora's server, as far as configuration goes. Every default that matters is set, because Pingora's are not ours.
pub(super) fn pingora_server(settings: &PingoraSettings) -> PingoraServer {
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
