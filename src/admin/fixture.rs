//! An API over a store in memory, called without a socket. For the tests of this module.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::watch;

use super::api::Stopping;
use super::{Access, Admin, AdminParts, MadeWhere, QuotaInPolicy, Readiness, Reload, Reloaded, ServerStatus};
use crate::client::{Directory, KeyDigest, PlanName, Plans, Quota, Recorder};
use crate::clock::{Clock, ManualClock, Timeline};
use crate::limit::exact::Exact;
use crate::limit::{Charge, Key, KeyMaker, WholeLimiter};
use crate::store::memory::Memory;
use crate::store::{ClientRepository, Committed, Record};
use crate::telemetry::{FleetView, LatestRefusals, Series, Tally};

/// How long silent connections stay once the API closes.
pub(super) const PATIENCE: Duration = Duration::from_millis(400);

/// An API and what it stands on.
pub(super) struct Fixture {
    pub(super) directory: Arc<ArcSwap<Directory>>,
    pub(super) limiter: Arc<dyn WholeLimiter>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) timeline: Timeline,
    pub(super) series: Arc<Series>,
    pub(super) tally: Arc<Tally>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) admin: Arc<Admin>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    /// Its body as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// What it says is wrong: field and message.
    pub(super) fn errors(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| (text(&error["field"]), text(&error["message"]))).collect()
    }
}

impl Fixture {
    /// An API for whoever is on this machine, over an empty store.
    pub(super) fn new() -> Self {
        Fixture::over(Arc::new(Memory::new()), Access::Loopback)
    }

    /// An API over `repository`.
    pub(super) fn over(repository: Arc<dyn ClientRepository>, access: Access) -> Self {
        Fixture::with(repository, access, Box::new(|| Box::pin(std::future::ready(Ok(Reloaded::default())))))
    }

    /// An API for whoever is on this machine, over an empty store, whose configuration is read again by `reload`.
    pub(super) fn reloading(reload: Reload) -> Self {
        Fixture::with(Arc::new(Memory::new()), Access::Loopback, reload)
    }

    fn with(repository: Arc<dyn ClientRepository>, access: Access, reload: Reload) -> Self {
        let clock = Arc::new(ManualClock::new());
        let timeline = Timeline::new(&*clock);
        let default_quota = Quota::new(100, 10.0).unwrap();
        let limiter: Arc<dyn WholeLimiter> = Arc::new(Exact::new(1_000, default_quota, timeline.nanos(clock.now())));
        let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
        follow(&*repository, &directory, &limiter, &clock, timeline);
        let (series, tally, recorder) = (Arc::default(), Arc::default(), Arc::new(Recorder::new(10)));
        let parts = AdminParts {
            access: Arc::new(ArcSwap::from_pointee(access)),
            repository: Arc::clone(&repository),
            fill: Box::new({
                let (limiter, clock) = (Arc::clone(&limiter), Arc::clone(&clock));
                move |payer, own, _| {
                    limiter.reset(keys().key(payer), own[&payer], timeline.nanos(clock.now()));
                    Box::pin(std::future::ready(Ok(MadeWhere::Everywhere)))
                }
            }),
            grant: Box::new({
                let (limiter, clock) = (Arc::clone(&limiter), Arc::clone(&clock));
                move |(payer, quota), tokens, _| {
                    limiter.grant(keys().key(payer), quota, tokens.get(), timeline.nanos(clock.now()));
                    Box::pin(std::future::ready(Ok(MadeWhere::Everywhere)))
                }
            }),
            directory: Arc::clone(&directory),
            plans: Arc::new(ArcSwap::from_pointee(plans())),
            recorder: Arc::clone(&recorder),
            series: Arc::clone(&series),
            tally: Arc::clone(&tally),
            limiter: Arc::clone(&limiter) as _,
            keys: Arc::new(keys()),
            patience: Arc::new(|| PATIENCE),
            limited: Box::new(|| true),
            own_quotas: Box::new(|name| match name {
                "writes" => QuotaInPolicy::Counts,
                "by-address" => QuotaInPolicy::OtherKey,
                _ => QuotaInPolicy::NoPolicy,
            }),
            pools: Box::new(Arc::default),
            decisions: Arc::new(LatestRefusals::default()),
            metrics: Box::new(|format| format!("{format:?}")),
            explain: Box::new(|question| panic!("nobody asks {question:?} here")),
            status: Box::new(status),
            fleet: Arc::new(FleetView::default),
            fleet_figures: None,
            readiness: Box::new(|| Readiness::Ready),
            reload,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            timeline,
        };
        let admin = Arc::new(Admin::new(parts, None));
        Fixture { directory, limiter, clock, timeline, series, tally, recorder, admin }
    }

    /// The answer to a request with these headers, beside `Host`, and this body.
    pub(super) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("host", "127.0.0.1:9901");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = TowerToHyperService::new(self.admin.router.clone());
        let response = service.call(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// The answer to a request whose body is read as it comes, until `closing`.
    pub(super) async fn open(&self, target: &str, closing: watch::Receiver<bool>) -> Response {
        let request = Request::builder().uri(target).header("host", "127.0.0.1:9901").extension(Stopping(closing));
        let service = TowerToHyperService::new(self.admin.router.clone());
        service.call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// The answer to a request with these headers, whose body may be anything.
    pub(super) async fn open_with(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        let request = Request::builder().uri(target).header("host", "127.0.0.1:9901");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let service = TowerToHyperService::new(self.admin.router.clone());
        service.call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// The answer to a request with a JSON body, or with none when it is empty.
    pub(super) async fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, target, if body.is_empty() { &[] } else { &headers }, body.to_owned()).await
    }

    /// Takes tokens with an API key, as the proxy does: how many there were.
    pub(super) fn spend(&self, key: &str, wanted: u32) -> u32 {
        let directory = self.directory.load();
        let client = directory.by_key(&KeyDigest::of(key.as_bytes()), SystemTime::UNIX_EPOCH).unwrap();
        let now = self.timeline.nanos(self.clock.now());
        let takes = (0..wanted).map(|_| self.limiter.take(&Charge::one(Key::client(client.uid), client.quota), now));
        takes.map(|decision| u32::from(decision.is_allowed())).sum()
    }
}

/// What makes keys here.
fn keys() -> KeyMaker {
    KeyMaker::new(1)
}

/// The plans here: `free` and `pro`.
fn plans() -> Plans {
    let plan = |name, capacity| Some((PlanName::parse(name)?, Quota::new(capacity, 1.0).ok()?));
    [plan("free", 5), plan("pro", 50)].into_iter().flatten().collect()
}

/// Keeps the directory and the buckets as the store says.
fn follow(
    repository: &dyn ClientRepository,
    directory: &Arc<ArcSwap<Directory>>,
    limiter: &Arc<dyn WholeLimiter>,
    clock: &Arc<ManualClock>,
    timeline: Timeline,
) {
    let (directory, limiter, clock) = (Arc::clone(directory), Arc::clone(limiter), Arc::clone(clock));
    repository.follow(Box::new(move |changes: &[Committed]| {
        let now = timeline.nanos(clock.now());
        for change in changes {
            if let (Some(before), Some(after)) = (&change.before, &change.after) {
                let (from, to) = (before.profile.quota(&plans()), after.profile.quota(&plans()));
                limiter.edit(keys().client(after.number), from, to, now);
            }
        }
        let client = |record: &Option<Record>| record.as_ref().map(|record| record.client(&keys(), &plans()));
        let changes = changes.iter().map(|change| (client(&change.before), client(&change.after)));
        directory.store(Arc::new(directory.load().with(changes)));
    }));
}

fn status() -> ServerStatus {
    ServerStatus {
        state: "ready",
        uptime: Duration::ZERO,
        listeners: Vec::new(),
        admin: "127.0.0.1:9901".to_owned(),
        clients: 0,
        buckets: 0,
        requests: 0,
        allowed: 0,
        limited: 0,
        blocked: 0,
        unlimited: 0,
        in_flight: 0,
        connections: 0,
        max_connections: 100,
        store_error: None,
    }
}
