//! Policies: more buckets that a request must pay into, beside its caller's own.
//!
//! A policy says which requests it is for, by host, path, method and header ([`MatchTable`]); whose bucket pays, the
//! client's, the address's, everybody's or that of a header's value; how much; and what. A request pays into its
//! caller's own bucket and those of all policies that it meets in one step, all or none: whoever is refused by one of
//! them has paid into none. Who pays into no bucket of his own (an unlimited client, a route with `limit: false`) pays
//! into none of a policy.
//!
//! A policy in the mode `shadow` is on trial: it takes what it would take of the requests that are let in, and says
//! which of them it would have refused. It hinders nothing, also no other trial, and answers say nothing of it.
//!
//! What a request costs may be what its answer says. Then it is let in while one whole token is there, none is taken,
//! and the cost is taken when the answer's header comes, into debt if need be. So what is under way when a bucket runs
//! out is let through, and the bucket makes up for it. An answer that says nothing costs nothing, as do our own. One
//! that says what is no whole number up to a billion, or two things, costs nothing either, and is counted. The header
//! goes no further. It is read and taken from final answers, not from 1xx and not from trailers.
//!
//! Paths count as they were sent, and also as they are with their percent escapes read, their double slashes as one and
//! their dot segments gone: the backend may see them so, and an escape is no way around a limit.
//!
//! Refused: to reserve a token for a cost that is told later, which a client of ten tokens and slow answers would run
//! out of though it spends nothing; to charge a default where the answer is silent, as backends say nothing when they
//! fail.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;
use smallvec::{SmallVec, smallvec};

use crate::client::{Client, Quota};
use crate::limit::{
    Bucket, Charge, Claim, Claims, Decision, KeyMaker, Limiter, Nanos, Payer, PolicyId, PolicySlot, Standing,
    StoreAnswers, are_allowed,
};
use crate::proxy::gate::policy_settings::{PolicyCost, PolicyKey, PolicySettings, put_terms};
use crate::proxy::wire::lines::Fields;
use crate::route::{MatchTable, MatchedRequest};
use crate::telemetry::{PolicyTally, PolicyVerdict};

mod look;

/// The most that an answer may say it costs.
const MOST_COST: u32 = 1_000_000_000;

/// A policy in force.
#[derive(Debug)]
struct Policy {
    settings: PolicySettings,
    id: PolicyId,
    slot: PolicySlot,
    tally: Arc<PolicyTally>,
    /// What answers tell of its terms: they are the same in each, but where a client has its own.
    told: Box<[u8]>,
}

/// All policies in force.
#[derive(Debug)]
pub struct Policies {
    table: MatchTable,
    all: Box<[Policy]>,
}

/// The numbers of policies that a request meets, in their order.
pub(super) type MetPolicies = SmallVec<[u32; 6]>;

impl Policies {
    /// These policies, each with its place in the limiter and what is counted of it; none when there are none.
    pub fn new(
        settings: Vec<PolicySettings>,
        slots: Vec<PolicySlot>,
        tallies: Vec<Arc<PolicyTally>>,
    ) -> Option<Arc<Self>> {
        let table = MatchTable::new(settings.iter().map(|policy| &policy.matches));
        let parts = settings.into_iter().zip(slots).zip(tallies);
        let policy = |((settings, slot), tally): ((PolicySettings, _), _)| {
            let (id, mut told) = (PolicyId::of(&settings.name), Vec::new());
            let standing = Standing::new(Bucket::full(settings.quota, 0), settings.quota, 0);
            put_terms(&settings.name, &standing, &mut told);
            Policy { settings, id, slot, tally, told: told.into() }
        };
        let all: Box<[_]> = parts.map(policy).collect();
        (!all.is_empty()).then(|| Arc::new(Policies { table, all }))
    }

    /// What `request` meets of them.
    pub(super) fn met(&self, request: &impl MatchedRequest) -> MetPolicies {
        let mut met = MetPolicies::new();
        self.table.find(request, &mut |number| met.push(number));
        let path = request.path();
        if let Cow::Owned(plain) = plain(path) {
            self.table.find(&PlainPath { request, path: &plain }, &mut |number| met.push(number));
        }
        if met.len() > 1 {
            met.sort_unstable();
            met.dedup();
        }
        met
    }

    fn get(&self, number: u32) -> &Policy {
        &self.all[number as usize]
    }
}

/// A request with its path as a backend may see it.
struct PlainPath<'r, R> {
    request: &'r R,
    path: &'r str,
}

impl<R: MatchedRequest> MatchedRequest for PlainPath<'_, R> {
    fn host(&self) -> &str {
        self.request.host()
    }

    fn path(&self) -> &str {
        self.path
    }

    fn method(&self) -> &str {
        self.request.method()
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.request.values(name, each);
    }
}

/// The path with its escapes read, its double slashes as one and its dot segments gone; the same where it has none.
fn plain(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let odd =
        |at: usize| matches!(bytes[at], b'%') || bytes[at] == b'/' && matches!(bytes.get(at + 1), Some(b'/' | b'.'));
    if !(0..bytes.len()).any(odd) {
        return path.into();
    }
    let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut read, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                read.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                read.push(byte);
                at += 1;
            }
        }
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in read.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty() && *segment != b".") {
        match segment {
            b".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut plain = String::with_capacity(read.len());
    for segment in segments {
        plain.push('/');
        plain.push_str(&String::from_utf8_lossy(segment));
    }
    plain.into()
}

/// What a request has to do with policies.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct PaidPolicies {
    policies: Arc<Policies>,
    /// Those whose costs answers tell, whether they were paid or not.
    costs: SmallVec<[u32; 2]>,
    /// What it was to pay.
    paid: SmallVec<[PolicyPayment; 2]>,
}

/// What a request was to pay into a bucket of a policy, and what was said to it.
#[derive(Clone, Copy, Debug)]
struct PolicyPayment {
    policy: u32,
    charge: Charge,
    decision: Decision,
}

impl PaidPolicies {
    /// What a request meets, before anything is paid; none when that is nothing.
    pub(super) fn of(policies: &Arc<Policies>, request: &impl MatchedRequest) -> Option<(Box<Self>, MetPolicies)> {
        let met = policies.met(request);
        if met.is_empty() {
            return None;
        }
        let told = |number: &u32| matches!(policies.get(*number).settings.cost, PolicyCost::AnswerHeader(_));
        let costs = met.iter().copied().filter(told).collect();
        Some((Box::new(PaidPolicies { policies: Arc::clone(policies), costs, paid: SmallVec::new() }), met))
    }

    /// Whether nothing is left to do for it.
    pub(super) fn is_idle(&self) -> bool {
        self.costs.is_empty() && self.paid.is_empty()
    }

    /// Asks for what a caller has to pay into its own bucket and those of the policies that are `met`; how its own
    /// stands, and whether the request may go on.
    pub(super) fn pay(
        &mut self,
        (limiter, keys): (&dyn Limiter, &KeyMaker),
        (own, met): (Charge, &[u32]),
        who: (Option<&Client>, Payer, &impl Fields),
        (known, now): (Option<&mut StoreAnswers>, Nanos),
    ) -> Result<(Standing, bool), Box<[Charge]>> {
        let (claims, asked) = self.claims(keys, (own, met), who);
        let decisions = match known {
            Some(known) => limiter.judge(&claims, known, now),
            None if asked.is_empty() => smallvec![limiter.take(&own, now)],
            None => limiter.take_all(&claims, now),
        };
        if decisions.iter().any(Decision::is_undecided) {
            let undecided = claims.iter().zip(&decisions).filter(|(_, decision)| decision.is_undecided());
            return Err(undecided.map(|(claim, _)| claim.charge).collect());
        }
        let goes = are_allowed(&claims, &decisions);
        self.paid.reserve_exact(asked.len());
        for ((number, claim), decision) in asked.into_iter().zip(&claims[1..]).zip(&decisions[1..]) {
            let policy = self.policies.get(number);
            match decision.is_allowed() {
                true if goes => policy.tally.count(PolicyVerdict::Allowed),
                // A trial has not refused what another one did.
                false if goes || !policy.settings.shadow => policy.tally.count(PolicyVerdict::Limited),
                _ => {}
            }
            if goes || !policy.settings.shadow {
                self.paid.push(PolicyPayment { policy: number, charge: claim.charge, decision: *decision });
            }
        }
        Ok((*decisions[0].standing(), goes))
    }

    /// What a request claims: of its caller's own bucket, and of those of the policies that are `met`, which come with
    /// their numbers.
    fn claims(
        &self,
        keys: &KeyMaker,
        (own, met): (Charge, &[u32]),
        who: (Option<&Client>, Payer, &impl Fields),
    ) -> (Claims, MetPolicies) {
        let (mut claims, mut asked) = (Claims::new(), MetPolicies::new());
        claims.push(own.into());
        for &number in met {
            let policy = self.policies.get(number);
            let Some(charge) = policy.charge(keys, who) else { continue };
            let later = matches!(policy.settings.cost, PolicyCost::AnswerHeader(_));
            claims.push(Claim { charge, later, trial: policy.settings.shadow });
            asked.push(number);
        }
        (claims, asked)
    }

    /// Those that count, with how their buckets stand.
    pub(in crate::proxy) fn enforced(&self) -> impl Iterator<Item = (&str, &Standing)> + Clone {
        let enforced = self.paid.iter().map(|payment| (&self.policies.get(payment.policy).settings, payment));
        let enforced = enforced.filter(|(settings, _)| !settings.shadow);
        enforced.map(|(settings, payment)| (settings.name.as_str(), payment.decision.standing()))
    }

    /// Appends what is told of the terms of those that count, with a comma before each.
    pub(super) fn put_terms(&self, out: &mut Vec<u8>) {
        for payment in &self.paid {
            let (policy, standing) = (self.policies.get(payment.policy), payment.decision.standing());
            if policy.settings.shadow {
                continue;
            }
            out.extend_from_slice(b", ");
            match standing.quota() == policy.settings.quota {
                true => out.extend_from_slice(&policy.told),
                false => put_terms(&policy.settings.name, standing, out),
            }
        }
    }

    /// The names of those that have refused the request.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &str> {
        let refused = self.paid.iter().filter(|payment| !payment.decision.is_allowed());
        let refused = refused.map(|payment| &self.policies.get(payment.policy).settings);
        refused.filter(|settings| !settings.shadow).map(|settings| settings.name.as_str())
    }

    /// The one that has refused the request and waits longest; how its bucket stands.
    pub(super) fn refused(&self) -> Option<(&str, &Standing)> {
        let refused = self.paid.iter().filter(|payment| !payment.decision.is_allowed());
        let refused = refused.map(|payment| (&self.policies.get(payment.policy).settings, payment.decision.standing()));
        let refused = refused.filter(|(settings, _)| !settings.shadow);
        let longest = refused.reduce(|one, other| if other.1.retry_at() > one.1.retry_at() { other } else { one })?;
        Some((&longest.0.name, longest.1))
    }

    /// The names of those on trial that would have refused the request, with commas between them; none when none would.
    pub(in crate::proxy) fn shadow(&self) -> Option<String> {
        let on_trial = self.paid.iter().filter(|payment| !payment.decision.is_allowed());
        let on_trial = on_trial.map(|payment| &self.policies.get(payment.policy).settings);
        let names: Vec<_> = on_trial.filter(|policy| policy.shadow).map(|policy| policy.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Whether the answer tells a cost.
    pub(in crate::proxy) fn has_costs(&self) -> bool {
        !self.costs.is_empty()
    }

    /// What the answer with these lines costs, by policy.
    pub(in crate::proxy) fn costs<'h, I>(&self, lines: impl Fn() -> I) -> ToldCosts
    where
        I: Iterator<Item = (&'h [u8], &'h [u8])>,
    {
        let of = |number: &u32| {
            let name = self.cost_name(*number)?.as_str().as_bytes();
            let mut said = lines().filter(|(line, _)| line.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            let first = said.next()?;
            let cost = said.next().is_none().then(|| whole(first)).flatten();
            Some((*number, cost))
        };
        self.costs.iter().filter_map(of).collect()
    }

    /// Whether the client does not get the line with this name of the answer.
    pub(in crate::proxy) fn hides(&self, line: &[u8]) -> bool {
        let mut names = self.costs.iter().filter_map(|number| self.cost_name(*number));
        names.any(|name| line.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    fn cost_name(&self, number: u32) -> Option<&HeaderName> {
        match &self.policies.get(number).settings.cost {
            PolicyCost::AnswerHeader(name) => Some(name),
            PolicyCost::Tokens(_) => None,
        }
    }

    /// Takes what the answer costs.
    pub(in crate::proxy) fn settle(&mut self, costs: &ToldCosts, limiter: &dyn Limiter, now: Nanos) {
        for (number, cost) in costs {
            let Some(payment) = self.paid.iter_mut().find(|payment| payment.policy == *number) else { continue };
            let Some(cost) = cost else {
                self.policies.get(*number).tally.cost_made_no_sense();
                continue;
            };
            // Of what it would have refused a trial takes nothing.
            if let (Some(cost), true) = (NonZeroU32::new(*cost), payment.decision.is_allowed()) {
                let standing = limiter.settle(&Charge { cost, ..payment.charge }, now);
                payment.decision = Decision::Allowed(standing);
            }
        }
    }
}

/// What an answer costs, by the number of the policy; none where what it says makes no sense.
pub(in crate::proxy) type ToldCosts = SmallVec<[(u32, Option<u32>); 2]>;

impl Policy {
    /// What a caller, who is a client or pays as `payer`, has to pay into it; nothing without the header it goes by.
    fn charge(
        &self,
        keys: &KeyMaker,
        (client, payer, fields): (Option<&Client>, Payer, &impl Fields),
    ) -> Option<Charge> {
        let settings = &self.settings;
        let payer = match (&settings.key, client) {
            (PolicyKey::Client, Some(client)) => Payer::client(keys.number(client.uid)?).within(self.id),
            (PolicyKey::Client | PolicyKey::Address, _) => payer.within(self.id),
            (PolicyKey::All, _) => Payer::everybody(self.id),
            (PolicyKey::Header(name), _) => {
                let value = fields.all_of(name).next()?;
                Payer::value(self.id, keys.hash(value.trim_ascii()))
            }
        };
        let own = client.filter(|_| settings.key == PolicyKey::Client).and_then(|client| own_quota(client, self));
        let cost = match settings.cost {
            PolicyCost::Tokens(cost) => cost,
            PolicyCost::AnswerHeader(_) => NonZeroU32::MIN,
        };
        let key = keys.key_within(payer, self.slot, own.is_some());
        let quota = own.unwrap_or(settings.quota);
        // Else a client whose own bucket is smaller could never pay.
        Some(Charge { key, quota, cost: cost.min(quota.capacity()) })
    }
}

/// The quota that a client has of its own in a policy.
fn own_quota(client: &Client, policy: &Policy) -> Option<Quota> {
    let own = client.policies.iter().find(|(name, _)| **name == policy.settings.name);
    own.map(|(_, quota)| *quota)
}

/// The whole number that a header says, if it is one.
fn whole(value: &[u8]) -> Option<u32> {
    let value = value.trim_ascii();
    let digits = (1..=10).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let number: u64 = str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    u32::try_from(number).ok().filter(|number| *number <= MOST_COST)
}
