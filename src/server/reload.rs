//! Reloading: the file is read again and takes effect, all of it or nothing.
//!
//! The order is what makes that hold. First everything that can fail, none of which shows: the file is read and
//! checked, compared with what runs (some keys need a restart), and what it names is opened. Then the pools that are
//! new are checked for as long as a start would check them, so that no request meets a pool whose backends nobody
//! knows. Only then everything is swapped, which cannot fail. A request goes by one configuration from its start to its
//! end.
//!
//! One reload at a time; who asks meanwhile waits for its turn and reads the file again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::{error, info};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinError, spawn_blocking};

use super::asks::OPERATOR;
use super::core::Core;
use super::lifecycle::State;
use crate::admin::{Access, ReloadRefused, Reloaded};
use crate::client::Plans;
use crate::config::{Config, ListenerSettings, Problems};
use crate::proxy::{Destination, ListenerRules, Policies, PoolSplit, RateRules, RouteChanges, Rules, Seats};
use crate::route::{Route, RouteTable};
use crate::telemetry::{AccessLogSettings, Metrics, Prepared, SpanQueue, Tracing};
use crate::upstream::Pool;
use difference::{changes, needs_a_restart};

mod difference;

/// Reads the configuration again, as it was read at the start: the same file, arguments and environment. Blocks.
pub type Source = Arc<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// What is asked of the service that checks backends.
pub(super) enum Watch {
    /// To check these pools from now on. What is with it is dropped when each was checked once.
    Begin(Vec<Arc<Pool>>, oneshot::Sender<()>),
    /// To check these no more.
    End(Vec<Arc<Pool>>),
}

/// What of a running server follows the configuration.
pub(super) struct Live {
    pub(super) core: Core,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) seats: Arc<Seats>,
    pub(super) access: Arc<ArcSwap<Access>>,
    pub(super) watches: mpsc::UnboundedSender<Watch>,
    pub(super) metrics: Arc<Metrics>,
}

impl Live {
    /// Takes note in `current` of the certificates that were taken up since it was loaded.
    fn take_note_of_renewed(&self, current: &mut Config) {
        let listeners = current.listeners.iter_mut().map(|listener| (Some(listener.address), &mut listener.tls));
        let admin = current.admin.iter_mut().map(|admin| (admin.address.tcp(), &mut admin.tls));
        for (address, tls) in listeners.chain(admin) {
            // A pair of an authority's is none of the file's.
            let tls = tls.as_mut().filter(|tls| tls.acme.is_none());
            if let (Some(tls), Some(terminator)) = (tls, address.and_then(|address| self.core.tls.at(address))) {
                *tls = terminator.tls();
            }
        }
    }
}

/// Reloads one server.
pub(super) struct Reloader {
    /// None when there is no file to read again.
    source: Option<Source>,
    current: Mutex<Config>,
    live: Live,
}

impl Reloader {
    /// A reloader of a server that runs with `current`.
    pub(super) fn new(source: Option<Source>, current: Config, live: Live) -> Self {
        Reloader { source, current: Mutex::new(current), live }
    }

    /// Reads the configuration again and puts it into force. What comes of it is logged and counted.
    ///
    /// # Errors
    /// Every reason against it. What was in force stays so.
    pub(super) async fn reload(&self) -> Result<Reloaded, ReloadRefused> {
        let outcome = {
            let mut current = self.current.lock().await;
            self.attempt(&mut current).await
        };
        self.live.metrics.count_reload(outcome.is_ok());
        match &outcome {
            Ok(Reloaded { changed }) if changed.is_empty() => info!("configuration reloaded: nothing changed"),
            Ok(Reloaded { changed }) => info!("configuration reloaded: {}", changed.join("; ")),
            Err(ReloadRefused::NotNow(reason)) => {
                error!(target: OPERATOR, "configuration not reloaded: {reason}; the old one stays in force");
            }
            Err(ReloadRefused::Wrong(problems)) => {
                let count = problems.len();
                let s = if count == 1 { "" } else { "s" };
                error!(target: OPERATOR, "configuration not reloaded: {count} problem{s}; the old one stays in force");
                for (field, message) in problems {
                    let colon = if field.is_empty() { "" } else { ": " };
                    error!(target: OPERATOR, "configuration not reloaded: {field}{colon}{message}");
                }
            }
        }
        outcome
    }

    async fn attempt(&self, current: &mut Config) -> Result<Reloaded, ReloadRefused> {
        let live = &self.live;
        // The sender lives in `live`, so waiting cannot fail.
        let _ = live.core.lifecycle.states().wait_for(|state| *state != State::Starting).await;
        self.is_the_time()?;
        let source = self.source.clone();
        let source = source.ok_or_else(|| refused("--conf", "tollgate was started without a configuration file"))?;
        let loaded = spawn_blocking(move || source()).await.map_err(broken)?;
        let next = loaded.map_err(|problems| ReloadRefused::Wrong(problems.iter().map(told).collect()))?;
        let problems = needs_a_restart(current, &next);
        if !problems.is_empty() {
            return Err(ReloadRefused::Wrong(problems));
        }
        live.take_note_of_renewed(current);
        let changed = changes(current, &next);
        let access_log = match current.access_log == next.access_log {
            true => None,
            false => Some(self.open_log(&next.access_log).await?),
        };
        let pools = live.core.pools.prepare(next.upstreams.clone());
        let fresh = live.core.pools.fresh(&pools);
        self.check(&fresh).await;
        // Meanwhile a successor may have begun to get what is here, or a stop.
        if let Err(refused) = self.is_the_time() {
            let _ = live.watches.send(Watch::End(fresh));
            return Err(refused);
        }
        // Nothing fails from here on.
        self.swap(&next, pools).await;
        if let Some(opened) = access_log {
            live.core.access_log.apply(opened);
        }
        next.warn();
        live.seats.warn();
        *current = next;
        Ok(Reloaded { changed })
    }

    /// Opens another access log beside the one that is written.
    async fn open_log(&self, settings: &AccessLogSettings) -> Result<Prepared, ReloadRefused> {
        let (log, settings) = (self.live.core.access_log.clone(), settings.clone());
        let opened = spawn_blocking(move || log.prepare(&settings)).await.map_err(broken)?;
        opened.map_err(|error| refused("access_log.path", error.to_string()))
    }

    /// Has the backends of pools that are new checked once.
    async fn check(&self, fresh: &[Arc<Pool>]) {
        if !fresh.is_empty() {
            let (checked, all_checked) = oneshot::channel();
            // When the service is gone so is the server.
            let _ = self.live.watches.send(Watch::Begin(fresh.to_vec(), checked));
            let _ = all_checked.await;
        }
    }

    /// Puts `next` with its `pools` into force, but for its access log.
    async fn swap(&self, next: &Config, pools: Vec<Arc<Pool>>) {
        let live = &self.live;
        let policies = self.set_quotas(next).await;
        self.set_plans(next.plans.clone()).await;
        let rules = rules(next, &pools, (policies, &live.core.spans));
        // The pools first: only then all of their backends may be up.
        let gone = live.core.pools.replace(pools);
        live.rules.store(Arc::new(rules));
        let _ = live.watches.send(Watch::End(gone));
        for listener in &next.listeners {
            if let (Some(terminator), Some(tls)) = (live.core.tls.at(listener.address), &listener.tls) {
                // What is kept for it was kept before; where it cannot be, the old one stays.
                match live.core.acme.fill(tls.clone(), live.core.clock.wall()) {
                    Ok(tls) => terminator.set(tls),
                    Err(error) => error!("listener {}: ACME: {error}", listener.address),
                }
            }
        }
        if let Some(admin) = &next.admin {
            let terminator = admin.address.tcp().and_then(|address| live.core.tls.at(address));
            if let (Some(terminator), Some(tls)) = (terminator, &admin.tls) {
                terminator.set(tls.clone());
            }
            live.access.store(Arc::new(admin.access.clone()));
        }
        live.core.store.clients.keep_history(next.history);
        live.core.recorder.set_most(next.rate_limit.record);
    }

    /// An error unless the server serves and goes on to.
    fn is_the_time(&self) -> Result<(), ReloadRefused> {
        match self.live.core.lifecycle.state() {
            State::Ready => Ok(()),
            state => Err(ReloadRefused::NotNow(format!("the server is {}", state.name().replace('_', " ")))),
        }
    }

    /// Puts anonymous callers and policies under the quotas of `next`, which edits every bucket of theirs: with a
    /// million of them it keeps a thread busy for a while, so it has one of its own.
    async fn set_quotas(&self, next: &Config) -> Option<Arc<Policies>> {
        let (core, next, now) = (self.live.core.clone(), next.clone(), self.live.core.nanos());
        let set = move || {
            core.limiter.set_default_quota(next.rate_limit.quota, now);
            core.policies(&next)
        };
        // It fails only where the runtime ends, and with it the server.
        spawn_blocking(set).await.ok().flatten()
    }

    /// Puts clients that have a plan under what `plans` say, all at once, and says what clients name that is not there;
    /// a thread of its own looks through them.
    async fn set_plans(&self, plans: Plans) {
        let followers = self.live.core.followers();
        let set = move || {
            followers.set_plans(&plans);
            followers.warn_of_missing();
        };
        let _ = spawn_blocking(set).await;
    }
}

/// What `config` says of requests, which go to `pools` and pay into the buckets of `policies`, and whose
/// `spans` are put there.
pub(super) fn rules(
    config: &Config,
    pools: &[Arc<Pool>],
    (policies, spans): (Option<Arc<Policies>>, &Arc<SpanQueue>),
) -> Rules {
    let rate = RateRules {
        default: config.rate_limit.quota,
        headers: config.rate_limit.headers,
        max_concurrent: config.rate_limit.max_concurrent,
        telling: config.rate_limit.telling,
        close_after: config.rate_limit.close_after,
    };
    Rules {
        answers: config.answers.clone(),
        self_service: config.rate_limit.self_service,
        identity: config.identity.clone(),
        rate: config.rate_limit.enabled.then_some(rate),
        policies,
        routes: route_table(config, pools),
        limits: config.limits,
        listeners: listener_rules(&config.listeners),
        direct: config.direct,
        tracing: config.tracing.clone().map(|settings| Tracing { settings, queue: Arc::clone(spans) }),
    }
}

/// What holds for some of these, by where they listen; where there are none of them, nobody is looked for.
fn listener_rules(listeners: &[ListenerSettings]) -> HashMap<SocketAddr, ListenerRules> {
    let special = listeners.iter().filter(|listener| listener.rules != ListenerRules::default());
    special.map(|listener| (listener.address, listener.rules)).collect()
}

fn route_table(config: &Config, pools: &[Arc<Pool>]) -> RouteTable<Destination> {
    let pools: HashMap<&str, &Arc<Pool>> = pools.iter().map(|pool| (pool.name(), pool)).collect();
    let identity = &config.identity;
    RouteTable::new(config.routes.iter().cloned().map(|route| {
        let named =
            |name: &str| Arc::clone(pools.get(name).expect("the configuration takes only routes to known pools"));
        let pool = named(&route.upstream);
        let shares = route.split.iter().map(|(name, weight)| (named(name), *weight));
        let split = (!route.split.is_empty()).then(|| Arc::new(PoolSplit::new(shares)));
        let Route { host, path, max_body, read_timeout, limit, .. } = route;
        let changes = RouteChanges {
            strip_prefix: route.strip_prefix,
            hidden_key: (!identity.forward_api_key).then(|| identity.api_key_header.clone()),
            request: route.request_headers,
            answer: route.response_headers,
        };
        (host, path, Destination { pool, split, max_body, read_timeout, limit, changes: changes.if_any() })
    }))
}

fn refused(field: &str, message: impl Into<String>) -> ReloadRefused {
    ReloadRefused::Wrong(vec![(field.to_owned(), message.into())])
}

/// A thread of its own came to no end.
fn broken(error: JoinError) -> ReloadRefused {
    ReloadRefused::NotNow(format!("it broke off: {error}"))
}

/// A problem as an operator is told of it.
fn told(problem: &crate::config::Problem) -> (String, String) {
    let line = problem.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    (problem.path.clone(), format!("{}{line}", problem.message))
}

#[cfg(test)]
mod tests;
