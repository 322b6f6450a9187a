use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use pingora_http::RequestHeader;

use super::*;
use crate::client::{Client, ClientId, Directory, KeyDigest, Mode, Quota, Recorder};
use crate::clock::{Clock, ManualClock, Timeline};
use crate::limit::exact::Exact;
use crate::limit::{CallerTurns, Charge, Gauges, Key, KeyMaker, Limiter, Payer, Telling, Upkeep};
use crate::proxy::exchange::parts::ProxyParts;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::gate::admit::{Admission, Asked, Destination};
use crate::proxy::gate::identify::{Identity, UnknownKey};
use crate::proxy::gate::policies::Policies;
use crate::proxy::gate::policy_settings::{PolicyCost, PolicyKey, PolicySettings};
use crate::proxy::gate::rules::{RateRules, Rules};
use crate::proxy::gate::settings::Limits;
use crate::route::{RequestMatch, RouteTable};
use crate::telemetry::{AccessLog, AccessLogSettings, Tally};

const SECOND: Nanos = 1_000_000_000;

struct World {
    identity: Identity,
    directory: Directory,
    limiter: Exact,
    keys: KeyMaker,
    turns: Arc<CallerTurns>,
    recorder: Recorder,
    policies: Option<Arc<Policies>>,
    routes: RouteTable<Destination>,
    limits: Limits,
}

impl World {
    /// The same, with a policy of each kind, of which the last is on trial.
    fn with_policies(unknown_api_key: UnknownKey) -> Self {
        let world = World::new(unknown_api_key);
        let policy = |name: &str, key, capacity, cost| PolicySettings {
            name: name.to_owned(),
            matches: RequestMatch::default(),
            key,
            quota: Quota::new(capacity, 1.0).unwrap(),
            cost,
            max_buckets: NonZeroUsize::MIN,
            shadow: name == "trial",
        };
        let tokens = |cost| PolicyCost::Tokens(NonZeroU32::new(cost).unwrap());
        let header = HeaderName::from_static("x-forwarded-for");
        let settings = vec![
            policy("dear", PolicyKey::Client, 4, tokens(2)),
            policy("listed", PolicyKey::Header(header), 9, tokens(3)),
            policy("told", PolicyKey::All, 9, PolicyCost::AnswerHeader(HeaderName::from_static("x-cost"))),
            policy("trial", PolicyKey::Address, 1, tokens(1)),
        ];
        let terms: Vec<_> = settings.iter().map(PolicySettings::terms).collect();
        let tallies = Tally::default().set_policies(settings.iter().map(|policy| policy.name.as_str()));
        let policies = Policies::new(settings, world.limiter.set_policies(&terms, 0), tallies);
        World { policies, ..world }
    }

    /// Proxies are trusted in 10.0.0.0/8; anonymous callers have 2 tokens and get 1 a second.
    fn new(unknown_api_key: UnknownKey) -> Self {
        let client = |uid, name: &str, mode, networks: &[&str], key: Option<&str>| {
            let (id, quota) = (ClientId::parse(name).unwrap(), Quota::new(100, 10.0).unwrap());
            let addresses = networks.iter().map(|network| network.parse().unwrap()).collect();
            let api_key = key.map(|key| KeyDigest::of(key.as_bytes()));
            Arc::new(Client { mode, addresses, api_key, ..Client::new(uid, id, quota) })
        };
        let default_quota = Quota::new(2, 1.0).unwrap();
        let trusted_proxies = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        World {
            identity: Identity { trusted_proxies, unknown_api_key, ..Identity::default() },
            directory: Directory::new([
                client(1, "alice", Mode::Limit, &[], Some("alice-key")),
                client(2, "office", Mode::Limit, &["203.0.113.0/24", "2001:db8:7::/48"], None),
                client(3, "free", Mode::Unlimited, &[], Some("free-key")),
                client(4, "banned", Mode::Blocked, &["198.51.100.0/24"], None),
                client(5, "device", Mode::Limit, &[], Some("cert-san:device")),
            ])
            .unwrap(),
            keys: KeyMaker::new(1),
            limiter: Exact::new(100, default_quota, 0),
            turns: Arc::default(),
            recorder: Recorder::default(),
            policies: None,
            routes: RouteTable::new([]),
            limits: Limits::default(),
        }
    }

    fn gate(&self) -> Gate<'_> {
        Gate {
            identity: &self.identity,
            directory: &self.directory,
            limiter: Some((&self.limiter, Quota::new(2, 1.0).unwrap())),
            turns: (&self.turns, None),
            recorder: &self.recorder,
            keys: &self.keys,
            policies: self.policies.as_ref(),
            routes: &self.routes,
            limits: &self.limits,
        }
    }

    fn explain(&self, peer: &str, lines: &[(&'static str, &str)]) -> Explanation {
        self.gate().explain(supposed(&headers(lines)), peer.parse().unwrap(), (0, SystemTime::UNIX_EPOCH), None)
    }
}

/// A request with these headers, of which nothing else is known.
fn supposed(headers: &HeaderMap) -> SupposedRequest<'_> {
    SupposedRequest { headers, certificate: None, method: "GET", target: None }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn the_way_through_a_trusted_proxy_to_a_network() {
    let world = World::new(UnknownKey::ByAddress);
    world.limiter.reset(Key::client(2), Quota::new(100, 10.0).unwrap(), 0);
    for _ in 0..13 {
        assert!(world.limiter.take(&Charge::one(Key::client(2), Quota::new(100, 10.0).unwrap()), 0).is_allowed());
    }
    let lines = [("x-forwarded-for", "1.1.1.1, 203.0.113.7"), ("x-forwarded-for", "10.0.0.2"), ("x-api-key", "secret")];
    let explained = world.gate().explain(
        supposed(&headers(&lines)),
        "::ffff:10.0.0.1".parse().unwrap(),
        (SECOND / 20, SystemTime::UNIX_EPOCH),
        None,
    );
    assert_eq!(
        explained.steps,
        [
            "the connection comes from 10.0.0.1, which is a trusted proxy",
            "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2 → 203.0.113.7 is the rightmost untrusted address",
            "an API key was read from the header x-api-key",
            "no client has this key, so the caller goes by its address",
            "client office matches by its network 203.0.113.0/24",
            "mode limit: capacity 100, 10 tokens a second, 87.5 tokens now",
            "the request would take a token",
        ]
    );
    assert_eq!(explained.trusted_proxy, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(explained.client_ip, "203.0.113.7".parse::<IpAddr>().unwrap());
    assert_eq!(explained.api_key_from.as_deref(), Some("x-api-key"));
    assert_eq!(explained.client_id.unwrap().as_str(), "office");
    assert_eq!((explained.network.as_deref(), explained.identity), (Some("203.0.113.0/24"), "address"));
    assert_eq!((explained.mode, explained.decision, explained.refusal), (Some(Mode::Limit), Some("allowed"), None));
    assert_eq!(explained.standing.unwrap().remaining(), 87);
}

#[test]
fn each_end_of_the_walk_has_its_words() {
    let world = World::new(UnknownKey::ByAddress);
    for (peer, list, address, step) in [
        ("10.0.0.1", None, "10.0.0.1", "there is no X-Forwarded-For, so 10.0.0.1 counts as the caller's address"),
        (
            "10.0.0.1",
            Some("10.0.0.3, 10.0.0.2"),
            "10.0.0.3",
            "X-Forwarded-For: 10.0.0.3, 10.0.0.2 → all are trusted proxies, so the leftmost counts, 10.0.0.3",
        ),
        (
            "10.0.0.1",
            Some("192.0.2.9, unknown, 10.0.0.2"),
            "10.0.0.2",
            "X-Forwarded-For: 192.0.2.9, unknown, 10.0.0.2 → ends, from the right, at what is no address; \
             10.0.0.2 before it counts",
        ),
        ("192.0.2.1", None, "192.0.2.1", "the connection comes from 192.0.2.1, which is not a trusted proxy"),
        (
            "192.0.2.1",
            Some("203.0.113.7"),
            "192.0.2.1",
            "the connection comes from 192.0.2.1, which is not a trusted proxy, so its X-Forwarded-For is ignored",
        ),
    ] {
        let lines: Vec<_> = list.into_iter().map(|list| ("x-forwarded-for", list)).collect();
        let explained = world.explain(peer, &lines);
        assert!(explained.steps.iter().any(|said| said == step), "{step}: {:?}", explained.steps);
        assert_eq!(explained.client_ip.to_string(), address);
        assert_eq!(explained.trusted_proxy.is_some(), peer == "10.0.0.1");
    }
    let long = world.explain("10.0.0.1", &[("x-forwarded-for", &format!("{}192.0.2.9", "1.1.1.1, ".repeat(1000)))]);
    let step = &long.steps[1];
    assert!(
        step.len() < 400 && step.starts_with("X-Forwarded-For: …") && step.contains("1.1.1.1, 192.0.2.9 →"),
        "{step}"
    );
}

#[test]
fn anonymous_callers_have_the_default() {
    let world = World::new(UnknownKey::ByAddress);
    let explained = world.explain("192.0.2.1", &[]);
    assert_eq!(
        explained.steps,
        [
            "the connection comes from 192.0.2.1, which is not a trusted proxy",
            "no API key was sent",
            "no client has the address 192.0.2.1, so the caller is anonymous",
            "the default limit, for 192.0.2.1: capacity 2, 1 tokens a second, 2 tokens now",
            "the request would take a token",
        ]
    );
    assert_eq!((explained.identity, explained.mode, explained.client_id), ("anonymous", None, None));
    let v6 = world.explain("2001:db8:1:2:3::", &[]);
    let limit = "the default limit, for 2001:db8:1:2::/64: capacity 2, 1 tokens a second, 2 tokens now";
    assert!(v6.steps.iter().any(|step| step == limit), "{:?}", v6.steps);
}

#[test]
fn refusals_are_those_of_real_requests() {
    let refusal = |world: &World, peer: &str, lines: &[(&'static str, &str)]| {
        let explained = world.explain(peer, lines);
        let told = explained.steps.join("\n");
        assert!(!["alice-key", "free-key", "some-key"].iter().any(|key| told.contains(key)), "{told}");
        (explained.decision, explained.refusal.map(|(status, message)| format!("{status} {message}")))
    };
    let (by_address, reject) = (World::new(UnknownKey::ByAddress), World::new(UnknownKey::Reject));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(refusal(&by_address, "198.51.100.1", &[]), (Some("blocked"), some("403 Client is blocked")));
    let two = [("x-api-key", "alice-key"), ("authorization", "Bearer free-key")];
    assert_eq!(refusal(&by_address, "192.0.2.1", &two), (None, some("400 Bad request")));
    assert_eq!(by_address.explain("192.0.2.1", &two).steps[1], "two different API keys were sent");
    assert_eq!(refusal(&by_address, "192.0.2.1", &[("x-api-key", "some-key")]), (Some("allowed"), None));
    let unknown = refusal(&reject, "192.0.2.1", &[("authorization", "Bearer some-key")]);
    assert_eq!(unknown, (Some("allowed"), some("401 Unknown API key")));
    assert_eq!(refusal(&reject, "192.0.2.1", &[("x-api-key", "free-key")]), (Some("unlimited"), None));
    for _ in 0..2 {
        let key = reject.keys.key(Payer::address([192, 0, 2, 1].into(), 64));
        assert!(reject.limiter.take(&Charge::one(key, Quota::new(2, 1.0).unwrap()), 0).is_allowed());
    }
    let limited = refusal(&reject, "192.0.2.1", &[("x-api-key", "some-key")]);
    assert_eq!(limited, (Some("limited"), some("429 Rate limit exceeded")), "the bucket is asked first");
    let bearer = by_address.explain("192.0.2.1", &[("authorization", "Bearer alice-key")]);
    assert_eq!((bearer.api_key_from.as_deref(), bearer.identity), (Some("authorization"), "api_key"));
    let off = Gate { limiter: None, ..by_address.gate() }.explain(
        supposed(&HeaderMap::new()),
        [192, 0, 2, 1].into(),
        (0, SystemTime::UNIX_EPOCH),
        None,
    );
    assert_eq!((off.decision, off.standing, off.refusal), (None, None, None));
    assert_eq!(off.steps.last().unwrap(), "nobody is limited: rate_limit.enabled is false");
}

#[test]
fn certificates_count_as_for_real_requests_and_where_they_do_not_it_is_said() {
    let mut world = World::new(UnknownKey::ByAddress);
    let explain = |world: &World, name: &str| {
        let shown = ShownCertificate::known_by(vec![KeyDigest::of(name.as_bytes())]);
        let none = HeaderMap::new();
        let asked = SupposedRequest { certificate: Some(&shown), target: Some(("a", "/x")), ..supposed(&none) };
        world.gate().explain(asked, [203, 0, 113, 9].into(), (0, SystemTime::UNIX_EPOCH), None)
    };
    let said = |explained: &Explanation, step: &str| explained.steps.iter().any(|said| said == step);
    let off = explain(&world, "cert-san:device");
    assert!(said(&off, "nobody is known by a certificate: identity.client_certificates is false"), "{:?}", off.steps);
    assert_eq!(off.identity, "address");
    world.identity.client_certificates = true;
    assert!(said(&explain(&world, "cert-san:other"), "no client has this certificate"));
    let known = explain(&world, "cert-san:device");
    assert!(said(&known, "client device has this certificate"), "{:?}", known.steps);
    assert_eq!((known.identity, known.decision, known.upstream), ("certificate", Some("allowed"), None));
    assert_eq!(known.refusal, Some((404, "No route matches".to_owned())));
}

#[test]
fn a_proxy_explains_with_its_own_clients_buckets_and_time() {
    let (world, clock) = (World::new(UnknownKey::ByAddress), Arc::new(ManualClock::new()));
    let (timeline, limiter) = (Timeline::new(clock.as_ref()), Arc::new(world.limiter));
    let settings = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    let rules = Rules {
        self_service: false,
        answers: None,
        identity: world.identity,
        policies: None,
        rate: Some(RateRules {
            default: Quota::new(2, 1.0).unwrap(),
            headers: true,
            max_concurrent: None,
            telling: Telling::default(),
            close_after: None,
        }),
        routes: world.routes,
        limits: world.limits,
        listeners: [].into(),
        direct: true,
        tracing: None,
    };
    let proxy = Proxy::new(ProxyParts {
        rules: Arc::new(ArcSwap::from_pointee(rules)),
        directory: Arc::new(ArcSwap::from_pointee(world.directory)),
        limiter: Arc::clone(&limiter) as _,
        keys: Arc::new(KeyMaker::new(1)),
        access_log: AccessLog::new(&settings).unwrap().0,
        decisions: Arc::default(),
        tally: Arc::default(),
        transport: Arc::new(crate::upstream::Transport::new(0, std::num::NonZeroUsize::MIN, false)),
        turns: Arc::default(),
        recorder: Arc::default(),
        untaken: crate::proxy::UntakenAnswers::default(),
        challenges: Arc::default(),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        timeline,
    });
    let quota = Quota::new(100, 10.0).unwrap();
    while limiter.take(&Charge::one(Key::client(1), quota), timeline.nanos(clock.now())).is_allowed() {}
    let key = headers(&[("x-api-key", "alice-key")]);
    let decision = || proxy.explain([192, 0, 2, 1].into(), &key, &[], ("GET", None)).decision;
    assert_eq!(decision(), Some("limited"));
    clock.advance(Duration::from_millis(100));
    assert_eq!((decision(), decision()), (Some("allowed"), Some("allowed")));
}

/// Whatever the caller and however much it has spent: first the explanation, then the request, and the two agree.
#[test]
fn what_is_explained_is_what_happens_and_costs_nothing() {
    for unknown in [UnknownKey::ByAddress, UnknownKey::Reject] {
        let worlds = [World::new(unknown), World::with_policies(unknown)];
        for world in worlds.iter().flat_map(|world| [world; 4]) {
            for peer in ["10.0.0.1", "192.0.2.1", "203.0.113.9", "198.51.100.1", "2001:db8:7::1", "2001:db8::1"] {
                for key in [None, Some("alice-key"), Some("free-key"), Some("nobody's-key")] {
                    for list in [None, Some("203.0.113.7"), Some("192.0.2.7, junk")] {
                        explain_and_ask(world, peer, key, list);
                    }
                }
            }
        }
    }
}

fn explain_and_ask(world: &World, peer: &str, key: Option<&str>, list: Option<&str>) {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    key.iter().for_each(|key| head.insert_header("x-api-key", *key).unwrap());
    list.iter().for_each(|list| head.insert_header("x-forwarded-for", *list).unwrap());
    let peer = peer.parse().unwrap();
    let used = || world.directory.by_key(&KeyDigest::of(b"alice-key"), SystemTime::UNIX_EPOCH).unwrap().usage.allowed();
    let before = (world.limiter.buckets(), world.limiter.in_policies(), used());
    let asked = SupposedRequest { target: Some(("", "/")), ..supposed(&head.headers) };
    let told = Some(RateTelling { headers: true, telling: Telling::default(), at: SystemTime::UNIX_EPOCH });
    let explained = world.gate().explain(asked, peer, (0, SystemTime::UNIX_EPOCH), told);
    assert_eq!(explained, world.gate().explain(asked, peer, (0, SystemTime::UNIX_EPOCH), told), "nothing is taken");
    assert_eq!((world.limiter.buckets(), world.limiter.in_policies(), used()), before, "nothing is counted");

    let mut admission = Admission::default();
    let outcome = world.gate().admit(Asked::by(&head), (peer, SystemTime::UNIX_EPOCH), 0, &mut admission);
    let real = outcome.err().map(|rejection| (rejection.status().as_u16(), rejection.message().into_owned()));
    assert_eq!(explained.refusal, real, "{:?}", explained.steps);
    assert_eq!(explained.decision, admission.limit.map(|limit| limit.name()));
    let standings = admission.standings();
    let by = standings.as_ref().and_then(|all| Some(all.refused_by()?.0.to_owned()));
    assert_eq!(explained.limited_by, by, "{:?}", explained.steps);
    let lines = standings.map(|all| rate_lines(&all, true, true)).unwrap_or_default();
    assert_eq!(explained.headers, lines, "{:?}", explained.steps);
    let caller = admission.caller.unwrap();
    assert_eq!((explained.client_ip, explained.identity), (caller.address, caller.identity()));
    assert_eq!(explained.client_id, caller.client.map(|(client, _)| client.id.clone()));
}
