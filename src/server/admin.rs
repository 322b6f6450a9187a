//! What the admin API is handed: it knows neither the proxy nor the server's life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::buckets::Buckets;
use super::lifecycle::{Lifecycle, State};
use super::reload::Reloader;
use super::store::Store;
use crate::admin::{Access, AdminParts, Readiness, ServerStatus};
use crate::client::Directory;
use crate::clock::{Clock, Timeline};
use crate::limit::WholeLimiter;
use crate::proxy::{Activity, Proxy, Rules, Seats};
use crate::telemetry::{LatestRefusals, Metrics};
use crate::upstream::Pools;

/// What the admin API looks at.
pub(super) struct View {
    pub(super) access: Arc<ArcSwap<Access>>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) address: SocketAddr,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) proxy: Proxy,
    pub(super) pools: Arc<Pools>,
    pub(super) store: Store,
    pub(super) limiter: Arc<dyn WholeLimiter>,
    pub(super) buckets: Arc<Buckets>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) seats: Arc<Seats>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) decisions: Arc<LatestRefusals>,
    pub(super) activity: Arc<Activity>,
    pub(super) lifecycle: Lifecycle,
    pub(super) directory: Arc<ArcSwap<Directory>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeline: Timeline,
    pub(super) started: Instant,
}

impl View {
    /// The parts of the admin API.
    pub(super) fn into_parts(self) -> AdminParts {
        let View { access, reloader, address, listeners, proxy, pools, store, limiter, buckets, .. } = self;
        let keys = Arc::clone(buckets.keys());
        let (rules, seats) = (self.rules, self.seats);
        let (metrics, decisions, activity, lifecycle) = (self.metrics, self.decisions, self.activity, self.lifecycle);
        let (directory, clock, timeline) = (self.directory, self.clock, self.timeline);
        AdminParts {
            access,
            repository: Arc::clone(&store.clients),
            fill: Box::new(move |payer, quota| {
                let buckets = Arc::clone(&buckets);
                Box::pin(async move { buckets.reset(payer, quota).await })
            }),
            directory: Arc::clone(&directory),
            limiter: Arc::clone(&limiter) as _,
            keys,
            limited: Box::new(move || rules.load().rate.is_some()),
            pools: Box::new(move || pools.all()),
            reload: Box::new(move || {
                let reloader = Arc::clone(&reloader);
                Box::pin(async move { reloader.reload().await })
            }),
            decisions,
            metrics: Box::new({
                let metrics = Arc::clone(&metrics);
                move || metrics.text()
            }),
            explain: Box::new(move |question| proxy.explain(question.address, &question.headers)),
            patience: Arc::new({
                let patience = lifecycle.patience();
                move || patience.get()
            }),
            readiness: Box::new({
                let lifecycle = lifecycle.clone();
                move || match lifecycle.state() {
                    _ if lifecycle.is_service_ready() => Readiness::Ready,
                    State::Starting => Readiness::Starting,
                    _ => Readiness::Draining,
                }
            }),
            status: Box::new({
                let clock = Arc::clone(&clock);
                move || {
                    let totals = metrics.totals();
                    ServerStatus {
                        state: lifecycle.state().name(),
                        uptime: clock.now().saturating_duration_since(self.started),
                        listeners: listeners.clone(),
                        admin: address,
                        clients: directory.load().len(),
                        buckets: limiter.buckets(),
                        requests: totals.requests,
                        allowed: totals.allowed,
                        limited: totals.limited,
                        blocked: totals.blocked,
                        unlimited: totals.unlimited,
                        in_flight: activity.busy(),
                        connections: seats.taken(),
                        max_connections: seats.bound(),
                        store_error: store.fault(),
                    }
                }
            }),
            clock,
            timeline,
        }
    }
}
