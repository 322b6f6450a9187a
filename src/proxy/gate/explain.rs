//! Who a caller would be, and what it would get, step by step: for operators who ask why.
//!
//! The answer comes out of the same functions that real requests go through, so that it cannot say one thing while the
//! proxy does another. Only the bucket is looked at where a request would take from it, and nothing is counted. Keys
//! are not told. While a fleet's store is away, what is told of a bucket is how the whole of it stands, and what is decided
//! is what this node would do.

use std::net::IpAddr;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName};

use crate::limit::{Charge, Limiter, Nanos, NoTurn, Payer, Telling};
use crate::proxy::gate::admit::{Account, Destination, Gate};
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::identify::{Caller, KeySource, Recognised, identify, origin};
use crate::proxy::gate::own_lines::OwnLines;
use crate::proxy::gate::policies::{MetPolicies, PaidPolicies};
use crate::proxy::gate::policy_settings::OWN;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::{RETRY_AFTER, Rejection};
use crate::proxy::wire::lines::Fields;
use crate::route::MatchedRequest;
use crate::telemetry::Explanation;
use words::{bucket, whence, without_store};

mod words;

/// A request that nobody has sent.
#[derive(Clone, Copy, Debug)]
pub struct SupposedRequest<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The certificate that is shown in the handshake.
    pub certificate: Option<&'a ShownCertificate>,
    /// Its method.
    pub method: &'a str,
    /// The host and the path that it asks for; none when its route does not matter. Then policies are those of `/`.
    pub target: Option<(&'a str, &'a str)>,
}

impl MatchedRequest for SupposedRequest<'_> {
    fn host(&self) -> &str {
        let said = || self.headers.get(HOST)?.to_str().ok();
        self.target.map(|(host, _)| host).or_else(said).unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.target.map_or("/", |(_, path)| path)
    }

    fn method(&self) -> &str {
        self.method
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.headers.all_of(name).for_each(each);
    }
}

/// How answers tell of rates.
#[derive(Clone, Copy, Debug)]
pub struct RateTelling {
    /// Whether they have the rate headers.
    pub headers: bool,
    /// What those say of time.
    pub telling: Telling,
    /// The time of day.
    pub at: SystemTime,
}

impl Gate<'_> {
    /// Who would send such a request over a connection from `peer` at `now`, and what it would get, with the headers
    /// that its answer would have beside those of a backend where it is known how those are told.
    pub fn explain(
        &self,
        supposed: SupposedRequest<'_>,
        peer: IpAddr,
        (now, wall): (Nanos, SystemTime),
        told: Option<RateTelling>,
    ) -> Explanation {
        let SupposedRequest { headers, certificate, .. } = supposed;
        let (client_ip, walk) = origin(headers, peer, self.identity);
        let peer = peer.to_canonical();
        let mut explained = Explanation {
            steps: whence(headers, peer, client_ip, walk),
            trusted_proxy: walk.map(|_| peer),
            client_ip,
            api_key_from: None,
            client_id: None,
            network: None,
            identity: "anonymous",
            mode: None,
            standing: None,
            decision: None,
            limited_by: None,
            policies: Vec::new(),
            at_once: None,
            upstream: None,
            upstreams: Vec::new(),
            refusal: None,
            headers: Vec::new(),
        };
        match identify(headers, (peer, certificate, wall), self.identity, self.directory) {
            Ok(caller) => self.explain_caller(&caller, supposed, (now, told), &mut explained),
            Err(rejection) => {
                explained.step("two different API keys were sent");
                explained.refuse(rejection);
            }
        }
        explained
    }

    fn explain_caller(
        &self,
        caller: &Caller,
        supposed: SupposedRequest<'_>,
        when: (Nanos, Option<RateTelling>),
        explained: &mut Explanation,
    ) {
        explained.identity = caller.identity();
        explained.api_key_from = caller.key.map(|source| match source {
            KeySource::Header => self.identity.api_key_header.as_str().to_owned(),
            KeySource::Bearer => AUTHORIZATION.as_str().to_owned(),
        });
        let key = match &explained.api_key_from {
            Some(header) => format!("an API key was read from the header {header}"),
            None => "no API key was sent".to_owned(),
        };
        explained.step(key);
        let by_key = matches!(caller.client, Some((_, Recognised::ApiKey)));
        if caller.key.is_some() && !by_key {
            explained.step("no client has this key, so the caller goes by its address");
        }
        let by_certificate = matches!(caller.client, Some((_, Recognised::Certificate)));
        match supposed.certificate {
            Some(_) if !self.identity.client_certificates => {
                explained.step("nobody is known by a certificate: identity.client_certificates is false");
            }
            Some(_) if !by_key && !by_certificate => explained.step("no client has this certificate"),
            _ => {}
        }
        match &caller.client {
            Some((client, how)) => {
                explained.client_id = Some(client.id.clone());
                explained.mode = Some(client.mode);
                match how {
                    Recognised::ApiKey => explained.step(format!("client {} has this key", client.id)),
                    Recognised::Certificate => explained.step(format!("client {} has this certificate", client.id)),
                    Recognised::Address(network) => {
                        explained.network = Some(network.to_string());
                        explained.step(format!("client {} matches by its network {network}", client.id));
                    }
                }
            }
            None => explained.step(format!("no client has the address {}, so the caller is anonymous", caller.address)),
        }
        let to = supposed.target.map(|(host, path)| self.routes.find(host, path));
        // As when a request is let in.
        let pays = caller.unknown_key || to.flatten().is_none_or(|to| to.limit);
        self.explain_limit((caller, pays), &supposed, when, explained);
        self.explain_turns(caller, pays, when.1, explained);
        if caller.unknown_key && explained.refusal.is_none() {
            explained.step("a key that no client has is refused: identity.unknown_api_key is reject");
            explained.refuse(Rejection::UnknownApiKey);
        }
        if let Some(to) = to {
            explained.lead(to, supposed.headers);
        }
    }

    fn explain_limit(
        &self,
        (caller, pays): (&Caller, bool),
        supposed: &SupposedRequest<'_>,
        when: (Nanos, Option<RateTelling>),
        explained: &mut Explanation,
    ) {
        let decision = match self.account(caller) {
            Account::Bucket(..) if !pays => {
                explained.step("its route has limit: false, so the request would cost nothing");
                return;
            }
            Account::None => {
                explained.step("nobody is limited: rate_limit.enabled is false");
                return;
            }
            Account::Blocked => {
                explained.step("mode blocked: the request would be refused");
                explained.refuse(Rejection::Blocked);
                "blocked"
            }
            Account::Unlimited => {
                explained.step("mode unlimited: the request would cost nothing");
                "unlimited"
            }
            Account::Bucket(limiter, key, quota) => {
                let own = *limiter.foresee(&[Charge::one(key, quota).into()], when.0)[0].standing();
                explained.standing = Some(own);
                let anonymous = caller.client.is_none().then(|| self.payer(caller.address)).and_then(Payer::anonymous);
                explained.step(bucket(anonymous, self.identity.ipv6_prefix, &own));
                self.explain_payment(caller, supposed, (limiter, Charge::one(key, quota)), when, explained)
            }
        };
        explained.decision = Some(decision);
    }

    /// Tells what the request would pay, its own charge and those of policies; what the limiter would say.
    fn explain_payment(
        &self,
        caller: &Caller,
        supposed: &SupposedRequest<'_>,
        (limiter, charge): (&dyn Limiter, Charge),
        (now, told): (Nanos, Option<RateTelling>),
        explained: &mut Explanation,
    ) -> &'static str {
        let met = self.policies.and_then(|policies| PaidPolicies::of(policies, supposed));
        let (mut paid, met) = met.map_or_else(|| (None, MetPolicies::new()), |(paid, met)| (Some(paid), met));
        let (own, goes) = match &mut paid {
            None => {
                let own = limiter.foresee(&[charge.into()], now)[0];
                (own, own.is_allowed())
            }
            Some(paid) => {
                let client = caller.client.as_ref().map(|(client, _)| &**client);
                let who = (client, self.payer(caller.address), supposed.headers);
                let (own, goes, policies) = paid.look((limiter, self.keys), (charge, &met), who, now);
                explained.policies = policies;
                (own, goes)
            }
        };
        let policies: Vec<_> = explained.policies.iter().map(ToString::to_string).collect();
        explained.steps.extend(policies);
        let reach = limiter.reach();
        explained.steps.extend(without_store(reach));
        if own.is_undecided() {
            return explained.unavailable();
        }
        let mut standing = *own.standing();
        match own.is_allowed() {
            true if goes && standing.is_enough() => {
                explained.step("the request would take a token");
                standing = standing.after_take();
            }
            true if goes => explained.step("there is no whole token, and the request would be let in all the same"),
            true => {}
            false if standing.is_elsewhere() => explained.step("it is too small to divide, and another node gives it"),
            false => {
                let wait = standing.retry_after();
                explained.step(format!("there is no whole token; the next is there after {wait} s at most"));
            }
        }
        let RateTelling { headers, telling, at } =
            told.unwrap_or(RateTelling { headers: false, telling: Telling::default(), at: SystemTime::UNIX_EPOCH });
        let standings = Standings { own: &standing, paid: paid.as_deref(), refused: !goes, telling, at };
        explained.headers = rate_lines(&standings, headers, told.is_some());
        if goes {
            return "allowed";
        }
        let by = standings.refused_by().map(|(name, _)| name);
        explained.limited_by = by.or((!own.is_allowed()).then_some(OWN)).map(ToOwned::to_owned);
        if let Some(name) = explained.limited_by.as_deref().filter(|name| *name != OWN) {
            let step = format!("policy {name} would refuse it, and nothing would be taken");
            explained.step(step);
        }
        explained.refuse(Rejection::RateLimited(standings.retry_after()));
        "limited"
    }

    /// Tells how many of its caller's requests run, where that is bounded. That is asked before the buckets are.
    fn explain_turns(&self, caller: &Caller, pays: bool, told: Option<RateTelling>, explained: &mut Explanation) {
        let Some(most) = self.most_at_once(caller, pays) else { return };
        let running = self.turns.0.taken(self.key_of(caller));
        explained.at_once = Some((most.get(), running));
        explained.step(format!("at most {most} of its requests run at once, and {running} do"));
        match self.turns.0.foresee(self.key_of(caller), most) {
            Ok(()) => return,
            Err(NoTurn::Unknown) => {
                explained.decision = Some(explained.unavailable());
                return;
            }
            // Who has no token either is told of that.
            Err(NoTurn::Full) if explained.standing.is_some_and(|own| !own.is_enough()) => return,
            Err(NoTurn::Full) => {}
        }
        if running < most.get() {
            explained.step("which is this node's share while the fleet's store is away");
        }
        explained.decision = Some("limited");
        explained.limited_by = Some("max_concurrent".to_owned());
        explained.refuse(Rejection::TooManyAtOnce);
        let own = explained.standing.zip(told);
        let lines = own.map(|(own, RateTelling { headers, telling, at })| {
            rate_lines(&Standings { refused: true, telling, at, ..(&own).into() }, headers, false)
        });
        explained.headers = lines.unwrap_or_default();
        explained.headers.push(("retry-after".to_owned(), "1".to_owned()));
    }
}

/// The lines that tell of rates, and when to come back.
fn rate_lines(standings: &Standings<'_>, rate: bool, told: bool) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    if standings.refused && told {
        headers.line(&RETRY_AFTER, standings.retry_after());
    }
    if rate {
        rate_headers::write(&mut headers, *standings);
    }
    let pairs = headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    pairs.collect()
}

impl Explanation {
    /// Tells where its route leads, if it has one.
    fn lead(&mut self, to: Option<&Destination>, headers: &HeaderMap) {
        let Some(to) = to else {
            self.step("no route matches its host and path");
            if self.refusal.is_none() {
                self.refuse(Rejection::NoRoute);
            }
            return;
        };
        let shares = to.split.iter().flat_map(|split| split.shares());
        self.upstreams = shares.map(|(pool, weight)| (pool.name().to_owned(), weight)).collect();
        let stays = to.split.as_ref().and_then(|split| split.stays(headers));
        let upstream = stays.unwrap_or(&to.pool).name();
        self.upstream = Some(upstream.to_owned());
        if self.upstreams.is_empty() {
            self.upstreams.push((upstream.to_owned(), 1));
            return self.step(format!("its route leads to the upstream {upstream}"));
        }
        let all: u64 = self.upstreams.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let shares = self.upstreams.iter().map(|(name, weight)| format!("{name} ({weight} of {all})"));
        let shares = shares.collect::<Vec<_>>().join(", ");
        self.step(format!("its route leads to the upstreams {shares}"));
        if stays.is_some() {
            self.step(format!("its client stays with the upstream {upstream}, by its cookie"));
        }
    }

    fn step(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    /// Refuses it, as the limiter says nothing; what it says then.
    fn unavailable(&mut self) -> &'static str {
        self.refuse(Rejection::LimitsUnavailable);
        self.headers = vec![("retry-after".to_owned(), "1".to_owned())];
        "unavailable"
    }

    fn refuse(&mut self, rejection: Rejection) {
        self.refusal = Some((rejection.status().as_u16(), rejection.message().into_owned()));
    }
}

#[cfg(test)]
mod tests;
