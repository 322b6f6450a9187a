//! What the parts of one server share: its clients and their buckets, its pools, where it writes, how far its life is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::info;
use parking_lot::Mutex;

use super::buckets::Buckets;
use super::error::ServerError;
use super::fleet::FleetPlace;
use super::handover::Inherited;
use super::lifecycle::Lifecycle;
use super::store::{Followers, Store};
use crate::client::{Directory, Plans, Quota, Recorder};
use crate::clock::{Clock, Timeline};
use crate::config::Config;
use crate::fleet::registry::TakingIn;
use crate::fleet::sums::OwnFigures;
use crate::limit::{Nanos, Payer, RateLimit, Striped, StripedSettings, WholeLimiter};
use crate::process::Sockets;
use crate::proxy::{Activity, Policies, PolicySettings};
use crate::store::sqlite::Sqlite;
use crate::telemetry::{AccessLog, AccessLogWriter, LatestRefusals, Series, SpanQueue, TalkersBy, Tally};
use crate::tls::{AcmeKeeper, TlsListeners};
use crate::upstream::{Pools, StickyKey};

/// What the parts of one server share. A clone is the same.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) pools: Arc<Pools>,
    /// The secret of sticky cookies, where no database keeps it.
    pub(super) sticky: Option<u128>,
    pub(super) tls: Arc<TlsListeners>,
    /// Gets certificates for listeners.
    pub(super) acme: Arc<AcmeKeeper>,
    /// Where clients and buckets are kept.
    pub(super) store: Store,
    /// The fleet that it belongs to.
    pub(super) fleet: Option<FleetPlace>,
    /// Where the proxy looks clients up.
    pub(super) directory: Arc<ArcSwap<Directory>>,
    /// What clients with a plan may spend.
    pub(super) plans: Arc<ArcSwap<Plans>>,
    /// Locked by whoever changes clients, plans or both in memory.
    alone: Arc<Mutex<()>>,
    pub(super) limiter: Arc<dyn WholeLimiter>,
    /// Who keeps the buckets on disk.
    pub(super) buckets: Arc<Buckets>,
    pub(super) access_log: AccessLog,
    pub(super) tally: Arc<Tally>,
    /// Where spans are put.
    pub(super) spans: Arc<SpanQueue>,
    pub(super) decisions: Arc<LatestRefusals>,
    /// What is recorded of clients.
    pub(super) recorder: Arc<Recorder>,
    /// What the last minutes were like.
    pub(super) series: Arc<Series>,
    pub(super) lifecycle: Lifecycle,
    /// The sockets that listen.
    pub(super) sockets: Sockets,
    pub(super) traffic: ServerActivity,
    pub(super) clock: Arc<dyn Clock>,
    /// The limiter's time. One for all who ask it: two would disagree for good when the wall clock steps in between.
    pub(super) timeline: Timeline,
}

/// What is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerActivity {
    /// The requests in flight.
    pub(super) requests: Arc<Activity>,
    /// The connections of the proxy, which end after the requests on them.
    pub(super) connections: Arc<Activity>,
    /// The connections of the admin API.
    pub(super) admin: Arc<Activity>,
}

/// What is made with a core, for one part of it alone.
pub(super) struct OpenedCore {
    /// The access log's writer.
    pub(super) writer: AccessLogWriter,
    /// The quotas of clients, and those of their own in policies.
    pub(super) quotas: HashMap<Payer, Quota>,
}

impl Core {
    /// Opens the database and the access log, and reads what is in the database: clients before saved buckets, since a
    /// bucket is read back under the quota that its owner has now, and one whose owner is gone is forgotten. A
    /// successor, which has `inherited` the keys of tickets, does not read the buckets; it gets them later.
    ///
    /// # Errors
    /// When the database cannot be used, or the access log cannot be opened.
    ///
    /// Long because each part of a server has its line.
    pub(super) fn open(
        config: &Config,
        addresses: &[SocketAddr],
        inherited: Option<&Inherited>,
        (clock, taking): (Arc<dyn Clock>, TakingIn<'_>),
    ) -> Result<(Self, OpenedCore), ServerError> {
        let successor = inherited.is_some();
        let failed = |what: &str, error: &dyn std::fmt::Display| ServerError::Failed(format!("{what}{error}"));
        // The directory of the database first: pairs are kept beside it.
        let mut store = Store::open(config.database.as_deref())?;
        let fleet = match (&config.fleet, store.file(), &config.database) {
            (Some(settings), Some(mut file), Some(path)) => {
                let reopen = || Ok(Sqlite::open(path)?);
                let place = FleetPlace::join(settings, &mut file, reopen, (&clock, taking))?;
                store = Store::of(file);
                Some(place)
            }
            _ => None,
        };
        let pairs = addresses.iter().zip(&config.listeners);
        let pairs = pairs.filter_map(|(address, listener)| Some((*address, listener.tls.clone()?)));
        let board = fleet.as_ref().map(|place| (place.challenges(), Arc::clone(&clock)));
        let acme = AcmeKeeper::new(config.database.as_deref(), board);
        let filled = |(address, tls)| acme.fill(tls, clock.wall()).map(|tls| (address, tls));
        let pairs = pairs.map(filled).collect::<Result<Vec<_>, _>>().map_err(|error| failed("ACME: ", &error))?;
        let admin = config.admin.as_ref().and_then(|admin| admin.address.tcp().zip(admin.tls.clone()));
        let tls = TlsListeners::new(
            pairs.into_iter().chain(admin),
            inherited.map(|inherited| &inherited.tickets[..]).unwrap_or_default(),
            clock.now(),
        );
        let tls = tls.map_err(|error| failed("TLS: ", &error))?;
        let (access_log, writer) = AccessLog::new(&config.access_log).map_err(ServerError::AccessLog)?;
        let timeline = Timeline::new(clock.as_ref());
        let RateLimit { quota, max_buckets, .. } = config.rate_limit;
        let settings = StripedSettings { max_buckets, stripes: None, default_quota: quota };
        let striped = Striped::new(settings, timeline.nanos(clock.now()));
        let (limiter, shared): (Arc<dyn WholeLimiter>, _) = match &fleet {
            None => (Arc::new(striped), None),
            Some(place) => {
                let shared = place.limiter(striped);
                (Arc::clone(&shared) as _, Some(shared))
            }
        };
        store.clients.keep_history(config.history);
        let (limits, saved) = (Arc::clone(&limiter), Arc::clone(&store.buckets));
        let buckets = Buckets::new(limits, saved, &config.rate_limit, Arc::clone(&clock), timeline);
        let (directory, recorder) = (Arc::default(), Arc::new(Recorder::new(config.rate_limit.record)));
        let tally = Arc::<Tally>::default();
        if let Some((place, shared)) = fleet.as_ref().zip(shared) {
            let (directory, recorder) = (Arc::clone(&directory), Arc::clone(&recorder));
            let talkers = told_talkers(Arc::clone(&tally), Arc::clone(&clock));
            let figures = OwnFigures { directory, recorder, clock: Arc::clone(&clock), timeline, talkers };
            place.feed(&shared, buckets.keys(), figures);
        }
        let secret = store.buckets.secret();
        let sticky = config.database.is_none().then(|| inherited.and_then(|had| had.sticky).unwrap_or(secret));
        let core = Core {
            pools: Arc::new(Pools::keyed(config.upstreams.clone(), StickyKey::new(sticky.unwrap_or(secret)))),
            sticky,
            tls: Arc::new(tls),
            acme: Arc::new(acme),
            store,
            fleet,
            directory,
            plans: Arc::new(ArcSwap::from_pointee(config.plans.clone())),
            alone: Arc::default(),
            limiter,
            buckets: Arc::new(if successor { buckets.of_successor() } else { buckets }),
            access_log,
            tally,
            spans: Arc::default(),
            decisions: Arc::default(),
            recorder,
            series: Arc::default(),
            lifecycle: Lifecycle::new(),
            sockets: Sockets::default(),
            traffic: ServerActivity::default(),
            clock,
            timeline,
        };
        core.policies(config);
        let quotas = core.followers().load(core.store.clients.as_ref())?;
        if !successor {
            let restored = core.buckets.restore(|payer| owner(payer, quota, &quotas)).map_err(|e| failed("", &e))?;
            info!("clients: {}; buckets that are not full: {restored}", core.directory.load().len());
        }
        core.fleet.iter().for_each(FleetPlace::tell_changes);
        Ok((core, OpenedCore { writer, quotas }))
    }

    /// Puts the policies of `config` into the limiter, in place of those that were there; ready for requests.
    pub(super) fn policies(&self, config: &Config) -> Option<Arc<Policies>> {
        let terms: Vec<_> = config.policies.iter().map(PolicySettings::terms).collect();
        let slots = self.limiter.set_policies(&terms, self.nanos());
        let tallies = self.tally.set_policies(config.policies.iter().map(|policy| policy.name.as_str()));
        Policies::new(config.policies.clone(), slots, tallies)
    }

    /// What keeps the directory and the buckets in step with clients and plans.
    pub(super) fn followers(&self) -> Followers {
        Followers {
            directory: Arc::clone(&self.directory),
            limiter: Arc::clone(&self.limiter),
            buckets: Arc::clone(&self.buckets),
            clock: Arc::clone(&self.clock),
            timeline: self.timeline,
            plans: Arc::clone(&self.plans),
            alone: Arc::clone(&self.alone),
        }
    }

    /// The limiter's time now.
    pub(super) fn nanos(&self) -> Nanos {
        self.timeline.nanos(self.clock.now())
    }
}

/// The quota that `payer` has of its own: its client's, or that of callers whom nobody knows; none of a client who is
/// gone, and none in a policy where it has none of its own.
pub(super) fn owner(payer: Payer, unknown: Quota, own: &HashMap<Payer, Quota>) -> Option<Quota> {
    match (payer.policy(), payer.client_number()) {
        (None, None) => Some(unknown),
        _ => own.get(&payer).copied(),
    }
}

/// The database, as another process would name it: after it was opened, by whatever path, it is the same one.
pub(super) fn database_name(path: Option<&Path>) -> Option<String> {
    Some(path?.canonicalize().ok()?.display().to_string())
}

/// Tells other nodes who has asked this one most of late, or, when `true`, been refused most, and over how many seconds.
fn told_talkers(tally: Arc<Tally>, clock: Arc<dyn Clock>) -> Box<dyn Fn(bool) -> Option<String> + Send + Sync> {
    Box::new(move |limited| {
        let by = if limited { TalkersBy::Limited } else { TalkersBy::Requests };
        serde_json::to_string(&tally.top_talkers(by, usize::MAX, clock.wall())).ok()
    })
}
