//! Who a caller would be, and what it would get, step by step: for operators who ask why.
//!
//! The answer comes out of the same functions that real requests go through, so that it cannot say one thing while the
//! proxy does another. Only the bucket is looked at where a request would take from it, and nothing is counted. Keys
//! are not told.

use std::net::IpAddr;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::limit::{Nanos, Payer, Standing, Telling};
use crate::proxy::gate::admit::Account;
use crate::proxy::gate::admit::Gate;
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::headers::X_FORWARDED_FOR;
use crate::proxy::gate::identify::{Caller, KeySource, Recognised, Walk, identify, origin};
use crate::proxy::gate::own_lines::OwnLines;
use crate::proxy::gate::rate_headers;
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::{RETRY_AFTER, Rejection};
use crate::telemetry::Explanation;

/// How many bytes of `X-Forwarded-For` are shown.
const SHOWN: usize = 256;

impl Explanation {
    /// Adds the headers that say how the bucket stands after the request: `Retry-After` to a refusal, and the rate
    /// headers if answers have them, as they tell it `at` that time.
    pub(in crate::proxy) fn write_headers(&mut self, rate: bool, telling: Telling, at: SystemTime) {
        let Some(standing) = self.standing.as_ref().map(|standing| standing.after_take()) else { return };
        let mut headers = HeaderMap::new();
        let standings = Standings { refused: self.decision == Some("limited"), telling, at, ..(&standing).into() };
        if standings.refused {
            headers.line(&RETRY_AFTER, standings.retry_after());
        }
        if rate {
            rate_headers::write(&mut headers, standings);
        }
        let pairs =
            headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        self.headers = pairs.collect();
    }
}

/// A request that nobody has sent.
#[derive(Clone, Copy, Debug)]
pub struct SupposedRequest<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The certificate that is shown in the handshake.
    pub certificate: Option<&'a ShownCertificate>,
    /// The host and the path that it asks for; none when its route does not matter.
    pub target: Option<(&'a str, &'a str)>,
}

impl Gate<'_> {
    /// Who would send such a request over a connection from `peer` at `now`, and what it would get.
    pub fn explain(&self, supposed: SupposedRequest<'_>, peer: IpAddr, now: Nanos) -> Explanation {
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
            upstream: None,
            refusal: None,
            headers: Vec::new(),
        };
        match identify(headers, (peer, certificate, now), self.identity, self.directory) {
            Ok(caller) => self.explain_caller(&caller, supposed, now, &mut explained),
            Err(rejection) => {
                explained.step("two different API keys were sent");
                explained.refuse(rejection);
            }
        }
        explained
    }

    fn explain_caller(&self, caller: &Caller, supposed: SupposedRequest<'_>, now: Nanos, explained: &mut Explanation) {
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
        self.explain_limit(caller, pays, now, explained);
        if caller.unknown_key && explained.refusal.is_none() {
            explained.step("a key that no client has is refused: identity.unknown_api_key is reject");
            explained.refuse(Rejection::UnknownApiKey);
        }
        if let Some(to) = to {
            explained.lead(to.map(|to| to.pool.name()));
        }
    }

    fn explain_limit(&self, caller: &Caller, pays: bool, now: Nanos, explained: &mut Explanation) {
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
                let standing = limiter.peek(key, quota, now);
                explained.standing = Some(standing);
                let anonymous = caller.client.is_none().then(|| self.payer(caller.address)).and_then(Payer::anonymous);
                explained.step(bucket(anonymous, self.identity.ipv6_prefix, &standing));
                if standing.remaining() > 0 {
                    explained.step("the request would take a token");
                    "allowed"
                } else {
                    let wait = standing.retry_after();
                    explained.step(format!("there is no whole token; the next is there after {wait} s at most"));
                    explained.refuse(Rejection::RateLimited(wait));
                    "limited"
                }
            }
        };
        explained.decision = Some(decision);
    }
}

impl Explanation {
    /// Tells where its route leads.
    fn lead(&mut self, upstream: Option<&str>) {
        let Some(upstream) = upstream else {
            self.step("no route matches its host and path");
            if self.refusal.is_none() {
                self.refuse(Rejection::NoRoute);
            }
            return;
        };
        self.step(format!("its route leads to the upstream {upstream}"));
        self.upstream = Some(upstream.to_owned());
    }

    fn step(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    fn refuse(&mut self, rejection: Rejection) {
        self.refusal = Some((rejection.status().as_u16(), rejection.message().into_owned()));
    }
}

/// The steps to the caller's address.
fn whence(headers: &HeaderMap, peer: IpAddr, address: IpAddr, walk: Option<Walk>) -> Vec<String> {
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
    let list = (!lines.is_empty()).then(|| end(&lines.join(&b", "[..])));
    let Some(walk) = walk else {
        let ignored = list.map_or("", |_| ", so its X-Forwarded-For is ignored");
        return vec![format!("the connection comes from {peer}, which is not a trusted proxy{ignored}")];
    };
    let reached = match (list, walk) {
        (None, _) => format!("there is no X-Forwarded-For, so {address} counts as the caller's address"),
        (Some(list), Walk::Untrusted) => {
            format!("X-Forwarded-For: {list} → {address} is the rightmost untrusted address")
        }
        (Some(list), Walk::End) => {
            format!("X-Forwarded-For: {list} → all are trusted proxies, so the leftmost counts, {address}")
        }
        (Some(list), Walk::Broken) => {
            format!("X-Forwarded-For: {list} → ends, from the right, at what is no address; {address} before it counts")
        }
    };
    vec![format!("the connection comes from {peer}, which is a trusted proxy"), reached]
}

/// The end of a list as text, as far as it is worth showing: the walk begins there.
fn end(list: &[u8]) -> String {
    let (ellipsis, shown) = match list.len().checked_sub(SHOWN) {
        None | Some(0) => ("", list),
        Some(start) => ("…", &list[start..]),
    };
    format!("{ellipsis}{}", String::from_utf8_lossy(shown))
}

/// How a bucket stands, and whose it is: that of the first of these addresses, or a client's.
fn bucket(anonymous: Option<IpAddr>, ipv6_prefix: u8, standing: &Standing) -> String {
    let whose = match anonymous {
        None => "mode limit".to_owned(),
        Some(IpAddr::V4(address)) => format!("the default limit, for {address}"),
        Some(IpAddr::V6(first)) => format!("the default limit, for {first}/{ipv6_prefix}"),
    };
    let quota = standing.quota();
    let (capacity, rate) = (quota.capacity(), quota.rate().to_f64());
    // Cut off, not rounded: 0.9999 tokens are not one.
    let tokens = (standing.tokens().to_f64() * 1000.0).floor() / 1000.0;
    let shared = if standing.is_overflow() { ", shared with others for want of room" } else { "" };
    format!("{whose}: capacity {capacity}, {rate} tokens a second, {tokens} tokens now{shared}")
}

#[cfg(test)]
mod tests;
