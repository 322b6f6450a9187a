//! What the admin API is handed: it knows neither the proxy nor the server's life.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::buckets::Buckets;
use super::core::Core;
use super::fleet::{FleetPlace, show};
use super::lifecycle::State;
use super::reload::Reloader;
use crate::admin::{
    Access, AdminParts, Fill, GrantTokens, MadeWhere, NotFilled, Question, QuotaInPolicy, Readiness, ServerStatus,
};
use crate::fleet::BucketChange;
use crate::limit::Payer;
use crate::proxy::{Proxy, Rules, Seats};
use crate::telemetry::Metrics;

/// What the admin API looks at.
pub(super) struct View {
    pub(super) core: Core,
    pub(super) access: Arc<ArcSwap<Access>>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) address: String,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) proxy: Proxy,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) seats: Arc<Seats>,
    pub(super) metrics: Arc<Metrics>,
}

impl View {
    /// The parts of the admin API.
    ///
    /// Long because each part has its line.
    pub(super) fn into_parts(self) -> AdminParts {
        let status = self.status();
        let View { core, access, reloader, proxy, rules, metrics, .. } = self;
        let Core {
            pools,
            store,
            directory,
            plans,
            recorder,
            series,
            tally,
            limiter,
            buckets,
            decisions,
            lifecycle,
            clock,
            timeline,
            fleet,
            ..
        } = core;
        let patience = lifecycle.patience();
        AdminParts {
            access,
            repository: store.clients,
            keys: Arc::clone(buckets.keys()),
            grant: grant(Arc::clone(&buckets), fleet.clone()),
            fill: fill(buckets, Arc::clone(&rules), fleet.clone()),
            directory,
            plans,
            recorder,
            series,
            tally,
            limiter,
            own_quotas: Box::new({
                let rules = Arc::clone(&rules);
                move |name| match rules.load().policies.as_ref().and_then(|policies| policies.is_of_clients(name)) {
                    Some(true) => QuotaInPolicy::Counts,
                    Some(false) => QuotaInPolicy::OtherKey,
                    None => QuotaInPolicy::NoPolicy,
                }
            }),
            limited: Box::new(move || rules.load().rate.is_some()),
            pools: Box::new(move || pools.all()),
            reload: Box::new(move || {
                let reloader = Arc::clone(&reloader);
                Box::pin(async move { reloader.reload().await })
            }),
            decisions,
            metrics: Box::new(move |format| metrics.text(format)),
            explain: Box::new(move |Question { address, headers, certificate, method, target }| {
                let target = target.as_ref().map(|(host, path)| (host.as_str(), path.as_str()));
                proxy.explain(*address, headers, certificate, (method, target))
            }),
            patience: Arc::new(move || patience.get()),
            readiness: Box::new(move || match lifecycle.state() {
                _ if lifecycle.is_service_ready() => Readiness::Ready,
                State::Starting => Readiness::Starting,
                _ => Readiness::Draining,
            }),
            fleet_figures: fleet.as_ref().and_then(FleetPlace::figures),
            fleet: show(fleet),
            status,
            clock,
            timeline,
        }
    }

    /// What tells how the server is.
    fn status(&self) -> Box<dyn Fn() -> ServerStatus + Send + Sync> {
        let Core { store, directory, limiter, lifecycle, traffic, clock, .. } = self.core.clone();
        let (metrics, seats) = (Arc::clone(&self.metrics), Arc::clone(&self.seats));
        let (listeners, admin, started) = (self.listeners.clone(), self.address.clone(), clock.now());
        Box::new(move || {
            let totals = metrics.totals();
            ServerStatus {
                state: lifecycle.state().name(),
                uptime: clock.now().saturating_duration_since(started),
                listeners: listeners.clone(),
                admin: admin.clone(),
                clients: directory.load().len(),
                buckets: limiter.buckets(),
                requests: totals.requests,
                allowed: totals.allowed,
                limited: totals.limited,
                blocked: totals.blocked,
                unlimited: totals.unlimited,
                in_flight: traffic.requests.busy(),
                connections: seats.taken(),
                max_connections: seats.bound(),
                store_error: store.fault(),
            }
        })
    }
}

/// What adds tokens to the bucket of a client.
fn grant(buckets: Arc<Buckets>, fleet: Option<FleetPlace>) -> GrantTokens {
    Box::new(move |(payer, quota), tokens, local| {
        let (buckets, fleet) = (Arc::clone(&buckets), fleet.clone());
        Box::pin(async move {
            let change = BucketChange { buckets: vec![(payer, quota)], tokens: Some(tokens) };
            everywhere(fleet, change, local, buckets.grant(payer, quota, tokens)).await
        })
    })
}

/// What fills the buckets of a client: its own one, and those of policies that go by clients.
fn fill(buckets: Arc<Buckets>, rules: Arc<ArcSwap<Rules>>, fleet: Option<FleetPlace>) -> Fill {
    Box::new(move |payer, own, local| {
        let (buckets, rules) = (Arc::clone(&buckets), rules.load());
        let policies = rules.policies.iter().flat_map(|policies| policies.of_clients());
        let payers: Vec<_> = policies.map(|policy| payer.within(policy)).chain([payer]).collect();
        let fleet = fleet.clone();
        Box::pin(async move {
            let own = |payer: Payer| own.get(&payer).copied();
            let whose = |payer: &Payer| buckets.whose(*payer, own).map(|(_, quota)| (*payer, quota));
            let change = BucketChange { buckets: payers.iter().filter_map(whose).collect(), tokens: None };
            everywhere(fleet, change, local, buckets.reset(&payers, own)).await
        })
    })
}

/// Makes a change in the fleet, if there is one, and then `here`; what is kept to be told later only if it counts here.
async fn everywhere(
    fleet: Option<FleetPlace>,
    change: BucketChange,
    local: bool,
    here: impl Future<Output = Result<(), NotFilled>>,
) -> Result<MadeWhere, NotFilled> {
    let kept = match &fleet {
        Some(fleet) => {
            fleet.tell_before(&change).await;
            fleet.changes().make(&change, local).await?
        }
        None => None,
    };
    let made = here.await;
    match (fleet, kept) {
        (Some(fleet), Some(kept)) if made.is_err() => fleet.changes().give_up(kept).await,
        (_, Some(_)) => return Ok(MadeWhere::HereFirst),
        _ => {}
    }
    made.map(|()| MadeWhere::Everywhere)
}
