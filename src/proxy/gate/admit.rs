//! Whether a request is let in, and to which pool: plain values in, plain values out, so that it is tested without a
//! socket.
//!
//! Identity comes first, then the bucket, then where the route leads: a request that leads nowhere costs a token too,
//! or whoever is out of tokens could go on asking for what is not there. On a route with `limit: false` nobody pays but
//! those who are refused for their key; who is blocked stays so. What the [policies](crate::proxy::gate::policies) take
//! is taken with the caller's own token, all or none.
//!
//! Long because it is the gate, with what goes in and what comes out.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName};
use pingora_http::RequestHeader;

use crate::client::{Client, Directory, Mode, Quota, Recorder, Usage};
use crate::limit::{CallerTurns, Charge, Decision, Key, KeyMaker, Limiter, Nanos, Payer, Standing, StoreAnswers, Turn};
use crate::proxy::gate::affinity::Affinity;
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::changes::RouteChanges;
use crate::proxy::gate::grpc::is_grpc;
use crate::proxy::gate::identify::{Caller, Identity, identify};
use crate::proxy::gate::policies::{PaidPolicies, Policies};
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::settings::Limits;
use crate::proxy::gate::split::PoolSplit;
use crate::proxy::wire::lines::Fields;
use crate::route::{MatchedRequest, RouteTable};
use crate::upstream::Pool;

mod turns;

/// What decides on requests.
pub struct Gate<'a> {
    /// How callers are told apart.
    pub identity: &'a Identity,
    /// Who they may be.
    pub directory: &'a Directory,
    /// Their buckets, and the quota of those whom nobody knows; `None` when nobody is limited.
    pub limiter: Option<(&'a dyn Limiter, Quota)>,
    /// How many of their requests run, and how many may where a client has no bound of its own.
    pub turns: (&'a Arc<CallerTurns>, Option<NonZeroU32>),
    /// What is recorded of clients.
    pub recorder: &'a Recorder,
    /// What makes the keys of their buckets.
    pub keys: &'a KeyMaker,
    /// What they pay beside; most often nothing.
    pub policies: Option<&'a Arc<Policies>>,
    /// Where requests go.
    pub routes: &'a RouteTable<Destination>,
    /// How large they may be.
    pub limits: &'a Limits,
}

/// Where a route leads, and what holds for its requests.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The pool that serves them; the first where there are several.
    pub pool: Arc<Pool>,
    /// Several pools with their shares, where there are.
    pub split: Option<Arc<PoolSplit>>,
    /// The largest body that they may have, in bytes; `None` is the one of the limits.
    pub max_body: Option<u64>,
    /// For each read from their backend; `None` is the one of the pool.
    pub read_timeout: Option<Duration>,
    /// Whether they pay into a bucket.
    pub limit: bool,
    /// What is changed of them and of their answers; most often nothing.
    pub changes: Option<Arc<RouteChanges>>,
}

impl From<Arc<Pool>> for Destination {
    /// With nothing of its own.
    fn from(pool: Arc<Pool>) -> Self {
        Destination { pool, split: None, max_body: None, read_timeout: None, limit: true, changes: None }
    }
}

/// What of a request its admission depends on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, F> {
    /// Its header.
    pub fields: &'a F,
    /// What it asks for.
    pub target: RequestTarget<'a>,
    /// The length of its body, when the header tells it.
    pub length: Option<u64>,
    /// The certificate that was shown in the handshake of its connection.
    pub certificate: Option<&'a ShownCertificate>,
}

impl<'a> Asked<'a, HeaderMap> {
    /// What `head` asks.
    pub fn by(head: &'a RequestHeader) -> Self {
        let (target, length) = (RequestTarget::of(head), announced_length(head));
        Asked { fields: &head.headers, target, length, certificate: None }
    }
}

impl<F: Fields> MatchedRequest for Asked<'_, F> {
    fn host(&self) -> &str {
        self.target.host
    }

    fn path(&self) -> &str {
        self.target.path
    }

    fn method(&self) -> &str {
        self.target.method
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.fields.all_of(name).for_each(each);
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct RequestTarget<'a> {
    /// The method.
    pub method: &'a str,
    /// The host, with its port when it names one; empty when it names none.
    pub host: &'a str,
    /// The path, without a query.
    pub path: &'a str,
}

impl<'a> RequestTarget<'a> {
    /// What `head` asks for.
    pub fn of(head: &'a RequestHeader) -> Self {
        RequestTarget { method: head.method.as_str(), host: host(head), path: head.uri.path() }
    }
}

/// What was found out about a request on its way in, as far as it got.
#[derive(Debug, Default)]
pub struct Admission {
    /// Who sent it.
    pub caller: Option<Caller>,
    /// What the limiter said of its caller's own bucket; that it is limited also when a policy has refused it.
    pub limit: Option<Limit>,
    /// What it has to do with policies; most often nothing.
    pub(in crate::proxy) paid: Option<Box<PaidPolicies>>,
    /// Whether the quota that its client is tried with would have let it in; `None` where there is none.
    pub candidate: Option<bool>,
    /// Its part in how many of its caller's run, where that is bounded: given back with it.
    pub turn: Option<Turn>,
    /// The pool that serves it.
    pub pool: Option<Arc<Pool>>,
    /// The largest body that it may have, in bytes; known with its pool.
    pub max_body: u64,
    /// For each read from its backend, where the pool's does not count.
    pub read_timeout: Option<Duration>,
    /// What is changed of it and of its answer.
    pub changes: Option<Arc<RouteChanges>>,
    /// What it has by which its backend is chosen, where the pool asks for it.
    pub affinity: Option<Box<Affinity>>,
    /// What it has asked about its buckets, where they are not this process' alone.
    pub asked: Option<Box<StoreAnswers>>,
    /// What it is to ask.
    pub(in crate::proxy) undecided: Box<[Charge]>,
}

impl Admission {
    /// How the buckets stand that it pays into, when it has any.
    pub(in crate::proxy) fn standings(&self) -> Option<Standings<'_>> {
        let limit = self.limit.as_ref()?;
        let (own, refused) = (limit.standing()?, matches!(limit, Limit::Limited(_)));
        Some(Standings { paid: self.paid.as_deref(), refused, ..own.into() })
    }

    /// Whether its answer tells what it costs.
    pub(in crate::proxy) fn has_costs(&self) -> bool {
        self.paid.as_ref().is_some_and(|paid| paid.has_costs())
    }
}

/// What the limiter said of a request; or what it is to ask first.
type Limited = Result<Option<Limit>, Box<[Charge]>>;

/// What the limiter said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It took a token; its bucket stands like this.
    Allowed(Standing),
    /// There was none, or too many of its caller's run.
    Limited(Standing),
    /// Its client is blocked.
    Blocked,
    /// Its client is not limited.
    Unlimited,
}

impl Limit {
    /// How the bucket stands, when there is one.
    pub fn standing(&self) -> Option<&Standing> {
        match self {
            Limit::Allowed(standing) | Limit::Limited(standing) => Some(standing),
            Limit::Blocked | Limit::Unlimited => None,
        }
    }

    /// As the access log names it.
    pub fn name(&self) -> &'static str {
        match self {
            Limit::Allowed(_) => "allowed",
            Limit::Limited(_) => "limited",
            Limit::Blocked => "blocked",
            Limit::Unlimited => "unlimited",
        }
    }
}

impl Gate<'_> {
    /// Decides on a request by what it asks, which came at `now` (nanoseconds since the Unix epoch, as the limiter
    /// counts them; `wall` by the clock on the wall) over a connection from `peer`. What is found out on the way is written into `admission`, also when
    /// the request is not let in, and the client's usage is counted.
    ///
    /// # Errors
    /// Why it is not let in.
    ///
    /// Long because it is what befalls a request, in its order.
    pub fn admit(
        &self,
        asked: Asked<'_, impl Fields>,
        (peer, wall): (IpAddr, SystemTime),
        now: Nanos,
        admission: &mut Admission,
    ) -> Result<(), Rejection> {
        let from = (peer, asked.certificate, wall);
        let caller = admission.caller.insert(identify(asked.fields, from, self.identity, self.directory)?);
        let to = self.routes.find(asked.target.host, asked.target.path);
        // Keys could be guessed without end where that costs nothing.
        let pays = caller.unknown_key || to.is_none_or(|to| to.limit);
        let asks = (&mut admission.turn, &mut admission.asked);
        let turn = match self.turn(caller, pays, asks, now) {
            Ok(turn) => turn,
            Err(rejection @ Rejection::LimitsUnavailable) => return Err(rejection),
            Err(rejection) => {
                admission.limit = self.without_turn(caller, now);
                return Err(admission.limit.and_then(Limit::without_token).unwrap_or(rejection));
            }
        };
        let policies = self.policies.and_then(|policies| PaidPolicies::of(policies, &asked));
        let known = &mut admission.asked;
        let limit = match policies {
            None => self.limit(caller, pays, known, now),
            Some((mut paid, met)) => {
                let limit = self.limit_with(&mut paid, &met, (caller, asked.fields), (pays, known), now);
                admission.paid = (!paid.is_idle()).then_some(paid);
                limit
            }
        };
        admission.limit = match limit {
            Ok(limit) => limit,
            Err(undecided) => {
                admission.undecided = undecided;
                // It keeps it while it waits.
                admission.turn = turn;
                return Err(Rejection::LimitsUnavailable);
            }
        };
        if let Some((client, _)) = &caller.client {
            admission.candidate = self.try_candidate(client, pays, now);
            self.count(&client.usage, admission.limit, now);
        }
        match admission.limit {
            Some(Limit::Blocked) => return Err(Rejection::Blocked),
            Some(Limit::Limited(standing)) => {
                let longest = admission.standings().map_or(standing.retry_after(), |all| all.retry_after());
                return Err(Rejection::RateLimited(longest));
            }
            Some(Limit::Allowed(_) | Limit::Unlimited) | None => {}
        }
        if caller.unknown_key {
            return Err(Rejection::UnknownApiKey);
        }
        let to = to.ok_or(Rejection::NoRoute)?;
        let max_body = to.max_body.unwrap_or(self.limits.max_body);
        admission.turn = turn;
        let pool = match &to.split {
            None => &to.pool,
            Some(split) => split.pool(asked.fields).unwrap_or(&to.pool),
        };
        admission.pool = Some(Arc::clone(pool));
        (admission.max_body, admission.read_timeout) = (max_body, to.read_timeout);
        admission.changes.clone_from(&to.changes);
        admission.affinity = Affinity::of(pool, caller, (asked.fields, asked.target.path));
        match asked.length {
            Some(length) if length > max_body && !is_grpc(asked.fields) => Err(Rejection::BodyTooLarge(max_body)),
            _ => Ok(()),
        }
    }

    /// What the limiter says of a request of `caller`, who `pays` for it or not.
    #[inline]
    fn limit(&self, caller: &Caller, pays: bool, asked: &mut Option<Box<StoreAnswers>>, now: Nanos) -> Limited {
        Ok(Some(match self.account(caller) {
            Account::None => return Ok(None),
            Account::Bucket(..) if !pays => return Ok(None),
            Account::Blocked => Limit::Blocked,
            Account::Unlimited => Limit::Unlimited,
            Account::Bucket(limiter, key, quota) => {
                let charge = Charge::one(key, quota);
                let decision = match asked {
                    None => limiter.take(&charge, now),
                    Some(asked) => limiter.judge(&[charge.into()], asked, now)[0],
                };
                match decision {
                    Decision::Allowed(standing) => Limit::Allowed(standing),
                    Decision::Refused(standing) => Limit::Limited(standing),
                    Decision::Undecided(_) => return Err([charge].into()),
                }
            }
        }))
    }

    /// The same of one that meets policies.
    #[cold]
    fn limit_with(
        &self,
        paid: &mut PaidPolicies,
        met: &[u32],
        (caller, fields): (&Caller, &impl Fields),
        (pays, asked): (bool, &mut Option<Box<StoreAnswers>>),
        now: Nanos,
    ) -> Limited {
        let Account::Bucket(limiter, key, quota) = self.account(caller) else {
            return self.limit(caller, pays, asked, now);
        };
        if !pays {
            return Ok(None);
        }
        let client = caller.client.as_ref().map(|(client, _)| &**client);
        let who = (client, self.payer(caller.address), fields);
        let own = (Charge::one(key, quota), met);
        let (own, goes) = paid.pay((limiter, self.keys), own, who, (asked.as_deref_mut(), now))?;
        Ok(Some(if goes { Limit::Allowed(own) } else { Limit::Limited(own) }))
    }

    /// The key of the caller's own bucket, and of its turns.
    pub(super) fn key_of(&self, caller: &Caller) -> Key {
        let anonymous = || self.keys.key(self.payer(caller.address));
        caller.client.as_ref().map_or_else(anonymous, |(client, _)| Key::client(client.uid))
    }

    /// Whether the quota that a client is tried with would let a request in; that quota pays, and refuses nothing.
    /// Only where the one in force decides. `None` where there is none.
    fn try_candidate(&self, client: &Client, pays: bool, now: Nanos) -> Option<bool> {
        let candidate = client.candidate.filter(|_| pays && client.mode == Mode::Limit)?;
        let (limiter, _) = self.limiter?;
        let goes = limiter.rehearse(&Charge::one(Key::candidate(client.uid), candidate), now).is_allowed();
        if !goes {
            client.usage.count_candidate_limited();
        }
        Some(goes)
    }

    /// Counts what the limiter said, whatever becomes of the request after that. Where it is not asked, nothing was
    /// decided, so the request is seen and no more, as the metrics have it.
    fn count(&self, usage: &Arc<Usage>, limit: Option<Limit>, now: Nanos) {
        self.turn_second(usage, now);
        match limit {
            Some(Limit::Allowed(_) | Limit::Unlimited) => usage.count_allowed(now),
            Some(Limit::Limited(_)) => usage.count_limited(now),
            Some(Limit::Blocked) | None => usage.count_seen(now),
        }
    }

    /// Has what was recorded of a second written down once it is over.
    #[inline]
    fn turn_second(&self, usage: &Arc<Usage>, now: Nanos) {
        if usage.is_second_over(now) {
            self.recorder.turn(usage, now);
        }
    }

    /// What the requests of a caller are charged to.
    pub(in crate::proxy) fn account(&self, caller: &Caller) -> Account<'_> {
        let client = caller.client.as_ref().map(|(client, _)| client);
        match client.map(|client| client.mode) {
            Some(Mode::Blocked) => return Account::Blocked,
            Some(Mode::Unlimited) => return Account::Unlimited,
            Some(Mode::Limit) | None => {}
        }
        let Some((limiter, default)) = self.limiter else { return Account::None };
        Account::Bucket(limiter, self.key_of(caller), client.map_or(default, |client| client.quota))
    }

    /// Who pays for an anonymous caller.
    pub(super) fn payer(&self, address: IpAddr) -> Payer {
        Payer::address(address, self.identity.ipv6_prefix)
    }
}

/// What the requests of a caller are charged to.
pub(in crate::proxy) enum Account<'g> {
    /// Nothing: they are refused.
    Blocked,
    /// Nothing: they are let in.
    Unlimited,
    /// Nothing: nobody is limited.
    None,
    /// A bucket.
    Bucket(&'g dyn Limiter, Key, Quota),
}

/// The host that the client asked for, with its port when it named one; empty when it named none.
fn host(head: &RequestHeader) -> &str {
    head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn announced_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
