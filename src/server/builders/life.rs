//! The life: how the server takes over, hands over, stops, and what is done after the last request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use parking_lot::Mutex;

use crate::client::Quota;
use crate::config::Config;
use crate::limit::{Charge, Payer};
use crate::process::{ListenAddress, Process, clear_away};
use crate::proxy::Tunnels;
use crate::server::asks::Stop;
use crate::server::buckets;
use crate::server::conductor::{self, Conductor};
use crate::server::core::{Core, database_name, owner};
use crate::server::fleet::FleetPlace;
use crate::server::handover::{Estate, Predecessor, Successor, TakeOver, Told, Underway};
use crate::server::lifecycle::State;
use crate::server::logs::Logs;
use crate::server::reload::Reloader;
use crate::server::services::LogGuard;

/// From where a server comes.
pub(in crate::server) struct Descent {
    /// The database, as another process would name it.
    database: Option<String>,
    /// The quota of callers whom nobody knows.
    unknown: Quota,
    /// The longest a stop waits for requests in flight.
    grace_period: Duration,
    /// Where the admin API listens, if it does.
    admin: Option<ListenAddress>,
    /// The process, when the server is all of one.
    process: Option<Arc<Process>>,
    /// What it takes over from, and the quotas of clients by their keys.
    inheritance: Option<(Successor, HashMap<Payer, Quota>)>,
}

impl Descent {
    pub(in crate::server) fn new(
        config: &Config,
        process: Option<Arc<Process>>,
        inheritance: Option<(Successor, HashMap<Payer, Quota>)>,
    ) -> Self {
        let database = database_name(config.database.as_deref());
        let (unknown, grace_period) = (config.rate_limit.quota, config.pingora.grace_period);
        let admin = config.admin.as_ref().map(|admin| admin.address.clone());
        Descent { database, unknown, grace_period, admin, process, inheritance }
    }

    /// What is done once clients get in: it takes over, or serves at once.
    fn begins(self, core: &Core, told: &Arc<Told>) -> Box<dyn FnOnce() + Send + Sync> {
        let Descent { database, unknown, process, inheritance, .. } = self;
        let Some((successor, quotas)) = inheritance else {
            let lifecycle = core.lifecycle.clone();
            return Box::new(move || {
                lifecycle.advance(State::Ready);
                if let Some(process) = process {
                    process.serves("serving");
                }
            });
        };
        let of_now = core.clone();
        let take_over = TakeOver {
            buckets: Arc::clone(&core.buckets),
            told: Arc::clone(told),
            now: Box::new(move || of_now.nanos()),
            quota: Box::new(move |payer| owner(payer, unknown, &quotas)),
            database,
            series: Arc::clone(&core.series),
            process: process.expect("only a whole process takes over from another one"),
            lifecycle: core.lifecycle.clone(),
        };
        // Sync for want of anything that is not: it is called once.
        let both = Mutex::new((take_over, successor));
        Box::new(move || {
            let (take_over, successor) = both.into_inner();
            take_over.begin(successor);
        })
    }
}

/// How a server begins and ends.
pub(in crate::server) struct Life {
    /// What is done once clients get in.
    pub(in crate::server) begins: Box<dyn FnOnce() + Send + Sync>,
    pub(in crate::server) conductor: Conductor,
    pub(in crate::server) ending: Ending,
}

impl Life {
    pub(in crate::server) fn new(
        core: &Core,
        origin: Descent,
        (told, given): (Arc<Told>, Receiver<Charge>),
        (tunnels, reloader, guard): (Arc<Tunnels>, Arc<Reloader>, LogGuard),
        stop: &Stop,
    ) -> Self {
        let process = origin.process.clone();
        let predecessor = process.as_ref().map(|process| {
            Arc::new(Predecessor {
                process: Arc::clone(process),
                sockets: core.sockets.clone(),
                tls: Arc::clone(&core.tls),
                estate: Estate { buckets: Arc::clone(&core.buckets), told: Arc::clone(&told), given: given.into() },
                database: origin.database.clone(),
                clients: Arc::clone(&core.store.clients),
                sticky: core.sticky,
                series: Arc::clone(&core.series),
                lifecycle: core.lifecycle.clone(),
                clock: Arc::clone(&core.clock),
            })
        });
        let underway = Arc::default();
        let conductor = Conductor {
            lifecycle: core.lifecycle.clone(),
            stop: stop.clone(),
            traffic: core.traffic.clone(),
            tunnels,
            pools: Some(Arc::clone(&core.pools)),
            logs: Logs { access_log: core.access_log.clone(), process: process.clone() },
            reloader: Some(reloader),
            grace_period: origin.grace_period,
            predecessor,
            underway: Arc::clone(&underway),
        };
        let ending = Ending { underway, core: core.clone(), guard, admin: origin.admin.clone(), process };
        Life { begins: origin.begins(core, &told), conductor, ending }
    }
}

/// What is to be done when all services have ended.
pub(in crate::server) struct Ending {
    /// The hand-over after which it leaves.
    underway: Arc<Mutex<Option<Underway>>>,
    core: Core,
    /// Keeps the access log's writer running.
    guard: LogGuard,
    /// Where the admin API listened, if it did.
    admin: Option<ListenAddress>,
    process: Option<Arc<Process>>,
}

impl Ending {
    /// Does it. Blocks the thread. The event log ends later, since all of it writes to that.
    pub(in crate::server) fn finish(self, stop: &Stop) {
        let underway = self.underway.lock().take();
        let Core { buckets, store, fleet, spans, traffic, clock, .. } = self.core;
        conductor::finish(stop, move || {
            fleet.iter().for_each(FleetPlace::leave);
            // What the fleet could not be told the successor tells.
            if let Some(underway) = underway {
                underway.finish(clock.as_ref());
            }
            buckets::save_at_stop(&buckets);
            store.close();
        });
        // Requests that were cut have lines and spans, too.
        conductor::cut_requests_end(&traffic);
        // Both may wait, and have something to say.
        spans.stop();
        let guard = self.guard.lock().take();
        drop(guard);
        // Whoever serves has the pid file: a successor, or the predecessor of one that came to nothing.
        if !self.process.as_ref().is_some_and(|process| process.is_replaced()) {
            self.admin.iter().for_each(clear_away);
        }
        if let Some(process) = self.process {
            process.release_pid_file();
        }
    }
}
