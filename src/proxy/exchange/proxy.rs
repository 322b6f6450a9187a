//! What decides on requests, whichever way they go.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use http::HeaderMap;

use crate::client::{Directory, KeyDigest, Mode};
use crate::clock::Clock;
use crate::limit::{Nanos, PendingAnswers};
use crate::proxy::backend::answer::Answer;
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::parts::ProxyParts;
use crate::proxy::exchange::{counts, refused};
use crate::proxy::gate::admit::{Admission, Asked, Gate};
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::explain::{RateTelling, SupposedRequest};
use crate::proxy::gate::headers::{TRACEPARENT, X_REQUEST_ID};
use crate::proxy::gate::identify::{Recognised, identify};
use crate::proxy::gate::policies::{PaidPolicies, ToldCosts};
use crate::proxy::gate::rate_headers::Standings;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::gate::rules::{RateRules, Rules};
use crate::proxy::gate::settings::Limits;
use crate::proxy::gate::site::SiteAnswer;
use crate::proxy::gate::standing;
use crate::proxy::wire::lines::Fields;
use crate::telemetry::{AccessLog, Explanation, RequestTrace, Tally};
use crate::upstream::{Protocol, Transport};

/// The longest that a client may take no byte of its answer; nginx's `send_timeout`.
pub(in crate::proxy) const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What decides on requests, whichever way they go. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy {
    pub(in crate::proxy) inner: Arc<ProxyParts>,
}

impl Proxy {
    /// A proxy of these parts.
    pub fn new(parts: ProxyParts) -> Self {
        Proxy { inner: Arc::new(parts) }
    }

    /// What the configuration says now.
    pub(in crate::proxy) fn rules(&self) -> Guard<Arc<Rules>> {
        self.inner.rules.load()
    }

    pub(in crate::proxy) fn limits(&self) -> Limits {
        self.rules().limits
    }

    pub(in crate::proxy) fn access_log(&self) -> &AccessLog {
        &self.inner.access_log
    }

    pub(in crate::proxy) fn tally(&self) -> &Arc<Tally> {
        &self.inner.tally
    }

    pub(in crate::proxy) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(in crate::proxy) fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    /// Now.
    pub(in crate::proxy) fn arrival(&self) -> Arrival {
        Arrival { at: self.clock().now(), wall: self.clock().wall() }
    }

    /// Decides on a request, before it is known which way it goes, and on each once: who sends it, whether it is let
    /// in, and to which pool. What is found out goes into `ctx`, and so does why it is not let in. That is counted and
    /// kept for whoever asks, and the name that a trusted proxy gave the request is taken over.
    ///
    /// The bucket is asked at the present moment, not at the one when the request began: a header that comes slowly
    /// must not buy tokens of the past.
    ///
    /// Where somebody else has to be asked first, what is to be waited for; then it is decided again.
    pub(in crate::proxy) fn admit(
        &self,
        asked: Asked<'_, impl Fields>,
        ctx: &mut Context,
    ) -> Option<Box<PendingAnswers>> {
        let (rules, fields, target) = (self.rules(), asked.fields, asked.target);
        if let Some(rate) = rules.rate {
            (ctx.rate_headers, ctx.telling, ctx.close_after) = (rate.headers, rate.telling, rate.close_after);
        }
        ctx.underscores = rules.identity.underscores;
        ctx.direct = rules.direct;
        let directory = self.inner.directory.load();
        let of_itself = rules.self_service && target.path == standing::PATH;
        if of_itself && self.tells_standing((&rules, &directory), &asked, ctx) {
            take_over_names(&rules, fields, ctx);
            return None;
        }
        ctx.decided = self.clock().now();
        let now = self.inner.timeline.nanos(ctx.decided);
        let admitted =
            self.gate(&rules, &directory).admit(asked, (ctx.peer, ctx.started_wall), now, &mut ctx.admission);
        if admitted == Err(Rejection::LimitsUnavailable)
            && let Some(asking) = self.ask(ctx, now)
        {
            return Some(asking);
        }
        // The loop knows backends of HTTP/1.1 alone.
        ctx.direct |= ctx.protocol() != Protocol::Http1;
        counts::decided(self.tally(), ctx, rules.identity.ipv6_prefix);
        take_over_names(&rules, fields, ctx);
        if of_itself && matches!(admitted, Ok(()) | Err(Rejection::NoRoute | Rejection::BodyTooLarge(_))) {
            self.tell_standing((&rules, &directory), target.method, ctx);
            return None;
        }
        if let Err(rejection) = admitted.map_err(|rejection| rules.as_told(rejection)) {
            ctx.rejection = Some(rejection);
            if rejection == Rejection::TooManyAtOnce {
                self.tally().too_many_at_once();
            }
            if let Some(refused) = refused::of(target, ctx, rejection) {
                self.inner.decisions.record(refused);
            }
        }
        None
    }

    /// Asks whether the request may run, and then what its buckets stand at; `None` when it has waited long enough, or
    /// nobody can be asked.
    #[cold]
    fn ask(&self, ctx: &mut Context, now: Nanos) -> Option<Box<PendingAnswers>> {
        let Admission { asked, turn, undecided, .. } = &mut ctx.admission;
        if asked.as_ref().is_some_and(|asked| asked.last) {
            return None;
        }
        let of_turn = asked.as_mut().and_then(|asked| self.inner.turns.ask(asked));
        let asking = of_turn.or_else(|| self.inner.limiter.ask(undecided, now))?;
        ctx.admission = Admission { asked: asked.take(), turn: turn.take(), ..Admission::default() };
        Some(Box::new(asking))
    }

    /// Answers a caller that asks how it stands; not one that shows a key that no client has, or that is refused.
    #[cold]
    fn tells_standing(&self, of: (&Rules, &Directory), asked: &Asked<'_, impl Fields>, ctx: &mut Context) -> bool {
        let from = (ctx.peer, asked.certificate, ctx.started_wall);
        let Ok(caller) = identify(asked.fields, from, &of.0.identity, of.1) else { return false };
        let is_guess = caller.key.is_some() && !matches!(caller.client, Some((_, Recognised::ApiKey)));
        let is_blocked = caller.client.as_ref().is_some_and(|(client, _)| client.mode == Mode::Blocked);
        ctx.admission.caller = Some(caller).filter(|_| !is_guess && !is_blocked);
        if ctx.admission.caller.is_none() {
            return false;
        }
        self.tell_standing(of, asked.target.method, ctx);
        true
    }

    /// Answers the caller, who asked by this method how it stands.
    #[cold]
    fn tell_standing(&self, (rules, directory): (&Rules, &Directory), method: &str, ctx: &mut Context) {
        let (gate, now) = (self.gate(rules, directory), self.nanos());
        let Some(caller) = &ctx.admission.caller else { return };
        ctx.rejection = Some(Rejection::NotForStanding);
        if matches!(method, "GET" | "HEAD") {
            let told = gate.tell_standing(caller, ctx.telling, now);
            ctx.rejection = Some(told.as_ref().map_or(Rejection::LimitsUnavailable, |_| Rejection::Standing));
            ctx.location = told.map(|told| told.into_bytes().into());
        }
        ctx.admission.pool = None;
    }

    /// Has a request for `asked` of `host` answered with a redirection to HTTPS at `port`. Whoever asks costs nothing,
    /// so no bucket pays; who it is, is found out for the log.
    pub(in crate::proxy) fn redirect(
        &self,
        fields: &impl Fields,
        (host, asked): (&str, &[u8]),
        port: NonZeroU16,
        ctx: &mut Context,
    ) {
        let rules = self.rules();
        let caller =
            identify(fields, (ctx.peer, None, ctx.started_wall), &rules.identity, &self.inner.directory.load());
        ctx.rejection = Some(match caller {
            Ok(caller) => {
                ctx.admission.caller = Some(caller);
                ctx.location = https(host, asked, port);
                let nowhere = Rejection::BadRequest("no host that could be sent to HTTPS");
                ctx.location.as_ref().map_or(nowhere, |_| Rejection::UseHttps)
            }
            Err(rejection) => rejection,
        });
        take_over_names(&rules, fields, ctx);
    }

    /// Who would send a request with these headers over a connection from `peer`, over which a certificate was shown
    /// that is known by these credentials, how that is found out, and what the request would get at the present moment,
    /// by its `method`, and with a `target`, a host and a path, also on its route. Goes the way of a real request, but
    /// takes no token and counts nothing.
    pub fn explain(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        certificate: &[KeyDigest],
        (method, target): (&str, Option<(&str, &str)>),
    ) -> Explanation {
        let rules = self.rules();
        let certificate = (!certificate.is_empty()).then(|| ShownCertificate::known_by(certificate.to_vec()));
        let supposed = SupposedRequest { headers, certificate: certificate.as_ref(), method, target };
        let told = rules.rate.map(|rate| {
            let RateRules { headers, telling, .. } = rate;
            RateTelling { headers, telling, at: self.clock().wall() }
        });
        self.gate(&rules, &self.inner.directory.load()).explain(
            supposed,
            peer,
            (self.nanos(), self.clock().wall()),
            told,
        )
    }

    /// What the site says in place of `rejection`.
    pub(in crate::proxy) fn site_answer(&self, rejection: Rejection) -> Option<Arc<SiteAnswer>> {
        self.rules().answers.as_ref()?.of(rejection.status()).map(Arc::clone)
    }

    /// Has a request with these lines answered with `rejection`, in words for whoever sent it. What is no error is told
    /// in those of HTTP alone.
    pub(in crate::proxy) fn choose_words(&self, rejection: Rejection, fields: &impl Fields, ctx: &mut Context) {
        ctx.rejection = Some(rejection);
        ctx.site = self.site_answer(rejection);
        if rejection.is_error() {
            ctx.form = rejection.form_for(fields, ctx.site.as_deref());
        }
    }

    pub(in crate::proxy) fn gate<'g>(&'g self, rules: &'g Rules, directory: &'g Directory) -> Gate<'g> {
        Gate {
            identity: &rules.identity,
            directory,
            limiter: rules.rate.map(|rate| (self.inner.limiter.as_ref(), rate.default)),
            turns: (&self.inner.turns, rules.rate.and_then(|rate| rate.max_concurrent)),
            recorder: &self.inner.recorder,
            keys: &self.inner.keys,
            policies: rules.policies.as_ref(),
            routes: &rules.routes,
            limits: &rules.limits,
        }
    }

    /// What the client is told beside an answer, after what that costs was taken.
    pub(in crate::proxy) fn told_with<'c, 'h, I: Iterator<Item = (&'h [u8], &'h [u8])>>(
        &self,
        ctx: &'c mut Context,
        answer: &Answer,
        lines: impl Fn() -> I,
    ) -> Option<Standings<'c>> {
        if ctx.admission.has_costs() && !answer.is_interim() {
            self.settle(ctx, |paid| paid.costs(lines));
        }
        ctx.told_standing()
    }

    /// Takes what the answer to a request costs, by what is read of its lines.
    #[cold]
    pub(in crate::proxy) fn settle(&self, ctx: &mut Context, costs: impl FnOnce(&PaidPolicies) -> ToldCosts) {
        if let Some(paid) = &mut ctx.admission.paid {
            let costs = costs(paid);
            ctx.decided = self.clock().now();
            paid.settle(&costs, self.inner.limiter.as_ref(), self.inner.timeline.nanos(ctx.decided));
        }
    }

    /// The limiter's time.
    pub(in crate::proxy) fn nanos(&self) -> Nanos {
        self.inner.timeline.nanos(self.clock().now())
    }
}

/// Calls a request as a trusted proxy does, and its trace as whoever sent it.
fn take_over_names(rules: &Rules, fields: &impl Fields, ctx: &mut Context) {
    if let Some(tracing) = &rules.tracing {
        ctx.trace = Some(Box::new(RequestTrace::of(fields.all_of(&TRACEPARENT), ctx.behind_proxy(), tracing)));
    }
    if ctx.behind_proxy()
        && let Some(given) = fields.all_of(&X_REQUEST_ID).next().and_then(RequestId::given)
    {
        ctx.request_id = given;
    }
}

/// The address in HTTPS of what was `asked` of `host`, which may name another port; none when it names no host.
fn https(host: &str, asked: &[u8], port: NonZeroU16) -> Option<Box<[u8]>> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let port = if port.get() == 443 { String::new() } else { format!(":{port}") };
    // `*` is no path.
    let target = if asked.starts_with(b"/") { asked } else { b"/" };
    (!name.is_empty()).then(|| [b"https://", name.as_bytes(), port.as_bytes(), target].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_keeps_host_and_target_and_names_the_port_if_it_must() {
        let to = |host: &str, asked: &str, port: u16| {
            let to = https(host, asked.as_bytes(), NonZeroU16::new(port).unwrap())?;
            Some(String::from_utf8(to.into()).unwrap())
        };
        assert_eq!(to("a.example", "/x?y=%20&z", 443).as_deref(), Some("https://a.example/x?y=%20&z"));
        assert_eq!(to("a.example:8080", "/", 8443).as_deref(), Some("https://a.example:8443/"));
        assert_eq!(to("[::1]:80", "//b.example/", 443).as_deref(), Some("https://[::1]//b.example/"));
        assert_eq!(to("[::1]", "*", 443).as_deref(), Some("https://[::1]/"));
        assert_eq!((to("", "/", 443), to(":80", "/", 443)), (None, None));
    }
}
