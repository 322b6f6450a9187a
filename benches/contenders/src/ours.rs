//! tollgate's limiter of one node among many, with what feeds it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tollgate::clock::{Clock, SystemClock, Timeline};
use tollgate::fleet::{Asker, FleetSettings, Names, StoreLink, StoreTls, WhenUnreachable};
use tollgate::limit::shared::leases::{LeaseSettings, Leases};
use tollgate::limit::shared::{FleetPart, SharedLimiter};
use tollgate::limit::turns::shared::SharedTurns;
use tollgate::limit::{Charge, Decision, KeyMaker, Limiter, Reach, StoreAnswers, Striped, StripedSettings};

use crate::{Fallible, Quota, Way};

/// One node.
pub struct Ours {
    limiter: Arc<SharedLimiter>,
    link: StoreLink,
    keys: Arc<KeyMaker>,
    quota: tollgate::client::Quota,
    time: Timeline,
    _stop: watch::Sender<bool>,
}

impl Way for Ours {
    const NAME: &'static str = "tollgate";

    async fn open(url: &str, instance: usize, of: usize, quota: Quota) -> Fallible<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (time, timeout) = (Timeline::new(&*clock), Duration::from_millis(25));
        let settings = FleetSettings {
            store: url.parse()?,
            password_file: None,
            tls: StoreTls::default(),
            prefix: "tollgate".to_owned(),
            node: None,
            lease: Duration::from_millis(100),
            timeout,
            max_asks: NonZeroUsize::new(1024).ok_or("more than none")?,
            when_unreachable: WhenUnreachable::Share,
        };
        let link = StoreLink::new(&settings, Arc::clone(&clock));
        let (stop, stopping) = watch::channel(false);
        let running = (link.clone(), stopping.clone());
        tokio::spawn(async move { running.0.run(running.1).await });
        link.state().wait_for(|state| state.is_reachable()).await?;
        let names: Vec<String> = (0..of).map(|instance| format!("node-{instance}")).collect();
        let name = &names[instance];
        let lease = LeaseSettings { lease: settings.lease, timeout, max_asks: settings.max_asks.get() };
        let part = FleetPart::new(name, names.iter().map(String::as_str));
        let leases = Leases::new(lease, part, Reach::Joined);
        let quota = tollgate::client::Quota::new(quota.capacity.into(), f64::from(quota.rate))?;
        let view = StripedSettings {
            max_buckets: NonZeroUsize::new(100_000).ok_or("more than none")?,
            stripes: None,
            default_quota: quota,
        };
        let view = Striped::new(view, time.nanos(clock.now()));
        let limiter = Arc::new(SharedLimiter::new(view, Arc::clone(&leases)));
        let keys = Arc::new(KeyMaker::new(7));
        let asker = Asker::new(
            (link.clone(), Names::new(&settings.prefix), name),
            (Arc::clone(&limiter), Arc::clone(&leases), SharedTurns::new(leases)),
            (Arc::clone(&keys), Arc::clone(&keys)),
            settings.when_unreachable,
            (clock, time),
        );
        tokio::spawn(async move { asker.run(stopping).await });
        Ok(Ours { limiter, link, keys, quota, time, _stop: stop })
    }

    async fn decide(&self, client: usize) -> bool {
        let charge = Charge::one(self.keys.client(client as u64 + 1), self.quota);
        let decision = self.limiter.take(&charge, self.now());
        if !matches!(decision, Decision::Undecided(_)) {
            return decision.is_allowed();
        }
        // As a request of the proxy waits.
        let mut asked = StoreAnswers::default();
        if let Some(mut pending) = self.limiter.ask(&[charge], self.now()) {
            let limit = pending.limit();
            asked.last = timeout(limit, pending.answered(&mut asked)).await != Ok(true);
        }
        self.limiter.judge(&[charge.into()], &mut asked, self.now())[0].is_allowed()
    }

    fn trips(&self) -> Option<u64> {
        Some(self.link.figures().seconds.iter().sum())
    }
}

impl Ours {
    fn now(&self) -> u64 {
        self.time.nanos(SystemClock.now())
    }
}
