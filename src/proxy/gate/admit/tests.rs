use super::*;
use crate::client::{ClientId, KeyDigest};
use crate::limit::exact::Exact;
use crate::limit::{Gauges, KeyMaker, Upkeep};
use crate::proxy::gate::identify::UnknownKey;
use crate::route::{HostPattern, PathPrefix};
use crate::upstream::{Balance, HashKey, HealthSettings, PoolSettings, Timeouts};

const SECOND: Nanos = 1_000_000_000;

struct World {
    identity: Identity,
    directory: Directory,
    limiter: Exact,
    keys: KeyMaker,
    turns: Arc<CallerTurns>,
    recorder: Recorder,
    default: Quota,
    routes: RouteTable<Destination>,
    limits: Limits,
}

impl World {
    /// Anonymous callers have 2 tokens and get 1 a second; `limited` has 5, `free` is unlimited, `banned` is blocked.
    fn new() -> Self {
        let default = Quota::new(2, 1.0).unwrap();
        let client = |uid, name: &str, mode| {
            let (id, quota) = (ClientId::parse(name).unwrap(), Quota::new(5, 1.0).unwrap());
            let api_key = Some(KeyDigest::of(name.as_bytes()));
            Arc::new(Client { mode, api_key, ..Client::new(uid, id, quota) })
        };
        let clients =
            [client(1, "limited", Mode::Limit), client(2, "free", Mode::Unlimited), client(3, "banned", Mode::Blocked)];
        let pool = Pool::new(PoolSettings {
            name: "app".into(),
            balance: Balance::named("hash").unwrap(),
            backends: Vec::new(),
            health: HealthSettings::default(),
            retries: 0,
            timeouts: Timeouts::default(),
            ..PoolSettings::default()
        });
        let route =
            (HostPattern::parse("api.example.com").unwrap(), PathPrefix::parse("/v1").unwrap(), Arc::new(pool).into());
        World {
            identity: Identity::default(),
            directory: Directory::new(clients).unwrap(),
            keys: KeyMaker::new(1),
            limiter: Exact::new(100, default, 0),
            default,
            turns: Arc::default(),
            recorder: Recorder::default(),
            routes: RouteTable::new([route]),
            limits: Limits { max_body: 1000, ..Limits::default() },
        }
    }

    fn gate(&self) -> Gate<'_> {
        Gate {
            identity: &self.identity,
            directory: &self.directory,
            limiter: Some((&self.limiter, self.default)),
            turns: (&self.turns, None),
            recorder: &self.recorder,
            keys: &self.keys,
            policies: None,
            routes: &self.routes,
            limits: &self.limits,
        }
    }

    fn admit(&self, key: &str, now: Nanos) -> (Result<(), Rejection>, Admission) {
        admit(&self.gate(), "/v1", &[("host", "api.example.com"), ("x-api-key", key)], now)
    }
}

fn admit(
    gate: &Gate<'_>,
    target: &str,
    headers: &[(&'static str, &str)],
    now: Nanos,
) -> (Result<(), Rejection>, Admission) {
    let mut head = RequestHeader::build("POST", target.as_bytes(), None).unwrap();
    headers.iter().for_each(|(name, value)| head.insert_header(*name, *value).unwrap());
    let mut admission = Admission::default();
    (gate.admit(Asked::by(&head), ([192, 0, 2, 1].into(), SystemTime::UNIX_EPOCH), now, &mut admission), admission)
}

#[test]
fn the_route_decides_where_to() {
    let world = World::new();
    world.limiter.set_default_quota(Quota::new(1000, 1.0).unwrap(), 0);
    let outcome = |target: &str, host: &str| admit(&world.gate(), target, &[("host", host)], 0).0;
    assert_eq!(outcome("/v1/users?id=1", "api.example.com:8080"), Ok(()));
    assert_eq!(outcome("http://api.example.com/v1", "api.example.com"), Ok(()));
    assert_eq!(outcome("/v2", "api.example.com"), Err(Rejection::NoRoute));
    assert_eq!(outcome("/v1", "www.example.com"), Err(Rejection::NoRoute));
}

#[test]
fn a_rule_that_goes_by_the_caller_is_told_its_client_or_else_its_address() {
    let world = World::new();
    let key = |api_key: &str, address: IpAddr| {
        let mut head = RequestHeader::build("GET", b"/v1", None).unwrap();
        head.insert_header("host", "api.example.com").unwrap();
        head.insert_header("x-api-key", api_key).unwrap();
        let mut admission = Admission::default();
        world.gate().admit(Asked::by(&head), (address, SystemTime::UNIX_EPOCH), 0, &mut admission).unwrap();
        admission.affinity.unwrap().key
    };
    let of = |bytes: &[u8]| Some(HashKey::of(bytes));
    let (v4, v6): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap());
    assert_eq!((key("limited", v4), key("limited", v6)), (of(b"limited"), of(b"limited")));
    assert_eq!(key("nobody's", v4), of(&[192, 0, 2, 1]));
    assert_ne!(key("nobody's", v6), key("nobody's", "2001:db8:1::1".parse().unwrap()));
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let world = World::new();
    let outcome = |length, kind| {
        let lines =
            [("host", "api.example.com"), ("content-length", length), ("x-api-key", "free"), ("content-type", kind)];
        admit(&world.gate(), "/v1", &lines, 0).0
    };
    let too_large = Err(Rejection::BodyTooLarge(1000));
    assert_eq!((outcome("1000", "text/plain"), outcome("1001", "text/plain")), (Ok(()), too_large));
    assert_eq!(outcome("1001", "application/grpc"), Ok(()));
}

#[test]
fn each_caller_has_a_bucket_of_its_own() {
    let world = World::new();
    for _ in 0..5 {
        assert_eq!(world.admit("limited", 0).0, Ok(()));
    }
    assert_eq!(world.admit("limited", 0).0, Err(Rejection::RateLimited(1)));
    assert_eq!(world.admit("", 0).0, Ok(()), "the anonymous bucket is another one");
    assert_eq!(world.admit("limited", SECOND).0, Ok(()), "Retry-After was true");
}

#[test]
fn a_new_key_for_each_request_is_no_way_around() {
    let world = World::new();
    let outcomes: Vec<_> = (0..10).map(|n| world.admit(&format!("key{n}"), 0).0.is_ok()).collect();
    assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 2);
}

#[test]
fn guessing_keys_costs_tokens() {
    let mut world = World::new();
    world.identity.unknown_api_key = UnknownKey::Reject;
    let outcomes: Vec<_> = (0..4).map(|n| world.admit(&format!("guess{n}"), 0).0.unwrap_err()).collect();
    let (unknown, limited) = (Rejection::UnknownApiKey, Rejection::RateLimited(1));
    assert_eq!(outcomes, [unknown, unknown, limited, limited]);
    assert_eq!(world.admit("limited", 0).0, Ok(()));
}

#[test]
fn what_leads_nowhere_costs_a_token_too() {
    let world = World::new();
    let outcome = || admit(&world.gate(), "/nowhere", &[("host", "a")], 0).0.unwrap_err();
    assert_eq!([outcome(), outcome(), outcome()], [Rejection::NoRoute, Rejection::NoRoute, Rejection::RateLimited(1)]);
}

#[test]
fn unlimited_and_blocked_clients_have_no_bucket() {
    let world = World::new();
    for _ in 0..100 {
        let (outcome, admission) = world.admit("free", 0);
        assert_eq!((outcome, admission.limit), (Ok(()), Some(Limit::Unlimited)));
        let (outcome, admission) = world.admit("banned", 0);
        assert_eq!((outcome, admission.limit), (Err(Rejection::Blocked), Some(Limit::Blocked)));
    }
    assert_eq!(world.limiter.buckets(), 0);
}

#[test]
fn without_a_limiter_nobody_is_limited_and_the_blocked_stay_blocked() {
    let world = World::new();
    let gate = Gate { limiter: None, ..world.gate() };
    let host = ("host", "api.example.com");
    for _ in 0..10 {
        let (outcome, admission) = admit(&gate, "/v1", &[host], 0);
        assert_eq!((outcome, admission.limit), (Ok(()), None));
    }
    assert_eq!(admit(&gate, "/v1", &[host, ("x-api-key", "banned")], 0).0, Err(Rejection::Blocked));
}

#[test]
fn what_was_found_out_is_told_also_of_refused_requests() {
    let world = World::new();
    let (outcome, admission) = world.admit("banned", 0);
    assert_eq!(outcome, Err(Rejection::Blocked));
    assert_eq!(admission.caller.unwrap().client.unwrap().0.id.as_str(), "banned");
    assert!(admission.pool.is_none());
}

#[test]
fn what_the_limiter_said_is_counted_for_each_client() {
    let world = World::new();
    let (now, host) = (1_700_000_000 * SECOND, ("host", "api.example.com"));
    let usage = |name: &str| {
        let usage = &world.directory.by_key(&KeyDigest::of(name.as_bytes()), SystemTime::UNIX_EPOCH).unwrap().usage;
        (usage.allowed(), usage.limited(), usage.last_seen())
    };
    for _ in 0..7 {
        for name in ["limited", "free", "banned", "nobody"] {
            let _ = world.admit(name, now);
        }
    }
    assert_eq!(usage("limited"), (5, 2, Some(now)));
    assert_eq!(usage("free"), (7, 0, Some(now)));
    assert_eq!(usage("banned"), (0, 0, Some(now)));
    let gate = Gate { limiter: None, ..world.gate() };
    for name in ["limited", "free", "banned"] {
        let _ = admit(&gate, "/v1", &[host, ("x-api-key", name)], now + SECOND);
    }
    assert_eq!(usage("limited"), (5, 2, Some(now + SECOND)), "without a limiter nothing is decided");
    assert_eq!(usage("free"), (8, 0, Some(now + SECOND)), "a client's own mode counts all the same");
    assert_eq!(usage("banned"), (0, 0, Some(now + SECOND)));
    let (outcome, _) = admit(&world.gate(), "/nowhere", &[host, ("x-api-key", "free")], now);
    assert_eq!((outcome, usage("free").0), (Err(Rejection::NoRoute), 9), "its limit let it through");
}
