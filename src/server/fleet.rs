//! This server as a node of a fleet: what joins it, follows it, asks for tokens, and leaves.
//!
//! It has a runtime of its own, one thread, which lives from before the clients are read until the last token is given
//! back: no request and no service waits for the store's connections, nor they for them.
//!
//! A node that has had the fleet's clients serves a second after it began to ask for what is new, whatever is there then:
//! it knows them but for some, and the rest comes while it serves. A node that has not takes all of them in before it
//! serves, however many there are: to it they would be strangers. When the store does not answer within [`JOINING`] it
//! serves what its database has, and joins later. Its secret, of which bits the names of buckets are made in
//! the store, becomes the fleet's when it first joins; that is why the database is opened again then.

mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::ready;
use log::{info, warn};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

pub(super) use self::view::show;
use super::error::ServerError;
use crate::admin::FleetFigures;
use crate::client::Quota;
use crate::clock::Clock;
use crate::fleet::gather::Gatherer;
use crate::fleet::nodes::Nodes;
use crate::fleet::registry::{FOREIGN, TakingIn};
use crate::fleet::sums::{FleetSums, OwnFigures};
use crate::fleet::untold::Untold;
use crate::fleet::{
    Asker, BucketChange, BucketChanges, ClientRegistry, FleetSettings, JoinOutcome, LinkError, Names, OpenChallenges,
    StoreAddress, StoreLink, bucket,
};
use crate::limit::shared::leases::{LeaseSettings, Leases};
use crate::limit::shared::{FleetPart, SharedLimiter};
use crate::limit::{CallerTurns, KeyMaker, Payer, Reach, SharedTurns, Striped};
use crate::store::BucketStore;
use crate::store::sqlite::Sqlite;
use crate::telemetry::{Talk, TalkersBy};
use crate::tls::AnswerBoard;

/// How long a start waits for the fleet to answer, and for the next of its clients.
const JOINING: Duration = Duration::from_secs(5);
/// How long a look at buckets may take.
const LOOK: Duration = Duration::from_millis(250);
/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(1);

/// This server's part of a fleet. A clone is the same.
#[derive(Clone)]
pub(super) struct FleetPlace(Arc<PlaceParts>);

struct PlaceParts {
    runtime: Mutex<Option<Runtime>>,
    stop: watch::Sender<bool>,
    settings: FleetSettings,
    link: StoreLink,
    names: Names,
    node: String,
    registry: ClientRegistry,
    /// What makes the fleet's keys.
    keys: Arc<KeyMaker>,
    leases: Arc<Leases>,
    turns: Arc<SharedTurns>,
    changes: Arc<BucketChanges>,
    file: Sqlite,
    clock: Arc<dyn Clock>,
    late: Mutex<LateParts>,
}

/// What is there once the limiter is.
#[derive(Default)]
struct LateParts {
    nodes: Option<Arc<Nodes>>,
    asker: Option<Arc<Asker>>,
    /// What asks the other nodes.
    gatherer: Option<Arc<Gatherer>>,
    untold: Option<(Untold, Arc<Gatherer>)>,
}

impl FleetPlace {
    /// Joins the fleet of `settings` with the clients in `file`, which is open; `reopen` opens it again, and `taking` hears
    /// how far it is while it takes in all that the fleet has.
    ///
    /// # Errors
    /// When the fleet has other clients than this node, or the file cannot take them in.
    pub(super) fn join(
        settings: &FleetSettings,
        file: &mut Sqlite,
        reopen: impl Fn() -> Result<Sqlite, ServerError>,
        (clock, taking): (&Arc<dyn Clock>, TakingIn<'_>),
    ) -> Result<Self, ServerError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("fleet").enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let (stop, stopping) = watch::channel(false);
        let link = StoreLink::new(settings, Arc::clone(clock));
        let running = link.clone();
        runtime.spawn(async move { running.run(stopping).await });
        let mut registry = ClientRegistry::new(link.clone(), file.clone(), &settings.prefix);
        let own = file.secret();
        let met = runtime.block_on(meet(&registry, &link, &settings.store, taking))?;
        let (reach, secret) = (met.map_or(settings.when_unreachable.into(), |_| Reach::Joined), met.unwrap_or(own));
        if secret != own {
            file.clone().close();
            *file = reopen()?;
            registry = ClientRegistry::new(link.clone(), file.clone(), &settings.prefix);
        }
        file.publish_through(registry.publisher());
        let following = (registry.clone(), stop.subscribe());
        runtime.spawn(async move { following.0.run(following.1).await });
        let (node, known) = (node_name(settings, file)?, known_nodes(file));
        let part = FleetPart::new(&node, known.iter().map(String::as_str));
        let leases = Leases::new(lease_settings(settings), part, reach);
        let (keys, names) = (Arc::new(KeyMaker::new(secret)), Names::new(&settings.prefix));
        let (to, of) = ((link.clone(), names.clone()), (Arc::clone(&keys), Arc::clone(&leases)));
        let changes = BucketChanges::new(to, of, file.clone(), Arc::clone(clock));
        let parts = PlaceParts {
            runtime: Mutex::new(Some(runtime)),
            stop,
            settings: settings.clone(),
            link,
            names,
            node,
            registry,
            keys,
            changes,
            turns: SharedTurns::new(Arc::clone(&leases)),
            leases,
            file: file.clone(),
            clock: Arc::clone(clock),
            late: Mutex::default(),
        };
        Ok(FleetPlace(Arc::new(parts)))
    }

    /// The limiter of this node, over what `view` holds.
    pub(super) fn limiter(&self, view: Striped) -> Arc<SharedLimiter> {
        Arc::new(SharedLimiter::new(view, Arc::clone(&self.0.leases)))
    }

    /// The turns of this node's callers.
    pub(super) fn turns(&self) -> CallerTurns {
        CallerTurns::Shared(Arc::clone(&self.0.turns))
    }

    /// Has `limiter` fed, whose keys `own` makes, and answers other nodes by `figures`.
    pub(super) fn feed(&self, limiter: &Arc<SharedLimiter>, own: &Arc<KeyMaker>, figures: OwnFigures) {
        let (parts, timeline) = (&self.0, figures.timeline);
        let same = own.of(Payer::client(1)) == parts.keys.of(Payer::client(1));
        let fleet = if same { own } else { &parts.keys };
        let asker = Asker::new(
            (parts.link.clone(), parts.names.clone(), &parts.node),
            (Arc::clone(limiter), Arc::clone(&parts.leases), Arc::clone(&parts.turns)),
            (Arc::clone(own), Arc::clone(fleet)),
            parts.settings.when_unreachable,
            (Arc::clone(&parts.clock), timeline),
        );
        let (leases, clock) = (Arc::clone(&parts.leases), Arc::clone(&parts.clock));
        let leased = Box::new(move || leases.leased(timeline.nanos(clock.now())));
        let (leases, file, node) = (Arc::clone(&parts.leases), parts.file.clone(), parts.node.clone());
        let heard = Box::new(move |names: &[String]| {
            leases.set_part(FleetPart::new(&node, names.iter().map(String::as_str)));
            drop(file.keep_fleet_note(KNOWN, &names.join(" ")));
        });
        let time = (Arc::clone(&parts.clock), timeline);
        let untold = Untold::new(Arc::clone(&parts.leases), Arc::clone(own), time);
        let (version, telling) = (env!("CARGO_PKG_VERSION"), untold.clone());
        let known = known_nodes(&parts.file);
        let named = (parts.node.as_str(), version, parts.file.place(parts.clock.boot().map_or(0, |boot| boot.id)));
        let nodes =
            Nodes::new(parts.link.clone(), &parts.names, named, known, Arc::clone(&parts.clock), (leased, heard));
        let nodes = Arc::new(nodes);
        let gatherer = Arc::new(Gatherer::new(
            (parts.link.clone(), parts.names.clone(), &parts.node),
            Arc::clone(&nodes),
            Arc::clone(&parts.clock),
            Box::new(move |question| {
                telling.answer(question).unwrap_or_else(|| Box::pin(ready(figures.answer(question))))
            }),
        ));
        if let Some(runtime) = &*parts.runtime.lock() {
            let running = (Arc::clone(&gatherer), parts.stop.subscribe());
            runtime.spawn(async move { running.0.run(running.1).await });
            let running = (Arc::clone(&asker), parts.stop.subscribe());
            runtime.spawn(async move { running.0.run(running.1).await });
            let running = (Arc::clone(&nodes), parts.stop.subscribe());
            runtime.spawn(async move { running.0.run(running.1).await });
            runtime.spawn(tell(self.clone()));
        }
        let untold = Some((untold, Arc::clone(&gatherer)));
        *parts.late.lock() = LateParts { nodes: Some(nodes), asker: Some(asker), gatherer: Some(gatherer), untold };
    }

    /// Where all nodes see what certificate authorities ask of each.
    pub(super) fn challenges(&self) -> Box<dyn AnswerBoard> {
        Box::new(OpenChallenges::new(self.0.link.clone(), &self.0.names))
    }

    /// Has the store told from now on what was done to buckets here alone: once it is known what of them is owed.
    pub(super) fn tell_changes(&self) {
        if let Some(runtime) = &*self.0.runtime.lock() {
            let running = (Arc::clone(&self.0.changes), self.0.stop.subscribe());
            runtime.spawn(async move { running.0.run(running.1).await });
        }
    }

    /// What changes buckets in the store.
    pub(super) fn changes(&self) -> &BucketChanges {
        &self.0.changes
    }

    /// Has all nodes tell what is to be told before a change of buckets.
    pub(super) async fn tell_before(&self, change: &BucketChange) {
        let asking = self.0.late.lock().untold.clone();
        if let Some((untold, others)) = asking {
            untold.before(change, &others).await;
        }
    }

    /// What asks for what all nodes and the store know of clients.
    pub(super) fn figures(&self) -> Option<FleetFigures> {
        let sums = Arc::new(FleetSums::new(self.0.late.lock().gatherer.clone()?));
        let (usage, recorded, talkers, place) = (Arc::clone(&sums), Arc::clone(&sums), sums, self.clone());
        Some(FleetFigures {
            usage: Box::new(move |credentials| {
                let sums = Arc::clone(&usage);
                Box::pin(async move { sums.usage(credentials).await })
            }),
            recorded: Box::new(move |(credential, from)| {
                let sums = Arc::clone(&recorded);
                Box::pin(async move { sums.recorded(credential, from).await })
            }),
            talkers: Box::new(move |by| {
                let sums = Arc::clone(&talkers);
                Box::pin(async move {
                    let (told, missing) = sums.talkers::<(Vec<Talk>, u64)>(by == TalkersBy::Limited).await;
                    let seconds = told.iter().map(|(_, seconds)| *seconds).max().unwrap_or(0);
                    (told.into_iter().flat_map(|(talks, _)| talks).collect(), seconds, missing)
                })
            }),
            tokens: Box::new(move |buckets| {
                let place = place.clone();
                Box::pin(async move { place.tokens(&buckets).await })
            }),
        })
    }

    /// The thousandths of tokens in buckets, as the store has them. While this node goes by its share, that is not what
    /// it gives.
    async fn tokens(&self, buckets: &[(Payer, Quota)]) -> Vec<Option<u64>> {
        if self.0.leases.reach() != Reach::Joined {
            return vec![None; buckets.len()];
        }
        let call = |(payer, quota): &(Payer, Quota)| bucket::peek(&self.0.names, self.0.keys.of(*payer), *quota);
        let calls: Vec<_> = buckets.iter().map(call).collect();
        let answers = self.0.link.calls(&calls, LOOK).await;
        answers.into_iter().map(|answer| bucket::read_thousandths(&answer.ok()?).ok()).collect()
    }

    /// Gives back what is held and leaves; blocks the thread.
    pub(super) fn leave(&self) {
        let Some(runtime) = self.0.runtime.lock().take() else { return };
        let asker = self.0.late.lock().asker.clone();
        let _ = self.0.stop.send(true);
        runtime.block_on(async {
            if let Some(asker) = asker {
                let _ = timeout(LEAVING, asker.finish()).await;
            }
        });
        runtime.shutdown_timeout(LEAVING);
    }
}

/// The secret of the fleet, when its store can be asked now.
async fn meet(
    registry: &ClientRegistry,
    link: &StoreLink,
    store: &StoreAddress,
    taking: TakingIn<'_>,
) -> Result<Option<u128>, ServerError> {
    match registry.join_at_start(JOINING, taking).await {
        Ok(JoinOutcome::Joined { secret }) => Ok(Some(secret)),
        Ok(JoinOutcome::Foreign) => Err(failed(&FOREIGN)),
        Ok(JoinOutcome::Unreachable) => {
            let why = link.state().borrow().why().map_or_else(|| LinkError::TimedOut.reason(), LinkError::reason);
            warn!("fleet: the store at {store} is unreachable ({why}); serving with the clients of the database");
            Ok(None)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ServerError {
    ServerError::Failed(format!("fleet: {error}"))
}

/// Says, in a line each, when the store goes and when it comes.
async fn tell(place: FleetPlace) {
    let mut state = place.0.link.state();
    let mut now = state.borrow_and_update().clone();
    loop {
        match now.is_reachable() {
            true => info!("fleet: joined as {}; the store at {} answers", place.0.node, place.0.settings.store),
            false => {
                let reason = now.why().map(LinkError::reason).unwrap_or_default();
                let meanwhile = match Reach::from(place.0.settings.when_unreachable) {
                    Reach::Refuse => "nobody is let in who has a limit",
                    Reach::Allow => "everybody is let in",
                    _ => "this node gives its share of every limit",
                };
                warn!("fleet: the store at {} is unreachable ({reason}); {meanwhile}", place.0.settings.store);
            }
        }
        let was = now.is_reachable();
        // As it changed: it may have changed again until the next look.
        let Ok(changed) = state.wait_for(|state| state.is_reachable() != was).await else { return };
        now = changed.clone();
    }
}

/// How leases are held by the settings.
fn lease_settings(settings: &FleetSettings) -> LeaseSettings {
    LeaseSettings { lease: settings.lease, timeout: settings.timeout, max_asks: settings.max_asks.get() }
}

/// The note of this node's name, and of those that it knows.
const NODE: &str = "node";
const KNOWN: &str = "nodes";

/// This node's name: that of the settings, or the one that the database keeps.
fn node_name(settings: &FleetSettings, file: &Sqlite) -> Result<String, ServerError> {
    if let Some(name) = &settings.node {
        return Ok(name.clone());
    }
    let kept = file.fleet_note(NODE).map_err(|error| ServerError::Failed(error.to_string()))?;
    Ok(kept.unwrap_or_else(|| {
        let made = format!("node-{:08x}", fastrand::u32(..));
        drop(file.keep_fleet_note(NODE, &made));
        made
    }))
}

fn known_nodes(file: &Sqlite) -> Vec<String> {
    let kept = file.fleet_note(KNOWN).ok().flatten().unwrap_or_default();
    kept.split_whitespace().map(str::to_owned).collect()
}
