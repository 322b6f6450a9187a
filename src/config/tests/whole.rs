//! Each section written out in full, with its defaults or as an example shows it: whoever copies such a file has one
//! that is valid.

use super::{START, check, lines};
use crate::config::load::load_text;
use crate::config::{Config, Overrides};
use crate::upstream::Check;

/// What is read of `text`, where the files that it names are there.
fn read(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    std::fs::create_dir_all(directory.path().join("conf/tls")).unwrap();
    for (name, text) in [
        ("conf/tls/cert.pem", certified.cert.pem()),
        ("conf/tls/key.pem", certified.signing_key.serialize_pem()),
        ("a.pem", certified.cert.pem()),
        ("a.key", certified.signing_key.serialize_pem()),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let overrides = Overrides { directory: Some(directory.path().to_owned()), ..Overrides::default() };
    load_text("f.yaml", text, &overrides, &|_| None).unwrap_or_else(|problems| panic!("{:#?}", lines(Err(problems))))
}

#[test]
fn everything_with_its_default() {
    let config = read(
        "pingora: {threads: 2, daemon: false, pid_file: /run/tollgate/tollgate.pid,
  upgrade_sock: /run/tollgate/upgrade.sock, grace_period_seconds: 20}
listeners:
  - address: 0.0.0.0:8080
  - address: 0.0.0.0:8443
    tls: {cert: conf/tls/cert.pem, key: conf/tls/key.pem}
admin: {address: 127.0.0.1:9901, token_file: null}
direct: true
database: data/tollgate.db
history: {keep: 1000, days: 400}
identity: {api_key_header: x-api-key, unknown_api_key: by_address, trusted_proxies: [], ipv6_prefix: 64}
rate_limit:
  enabled: true
  default: {capacity: 100, rate_per_sec: 10}
  max_buckets: 1000000
  refill_interval: 1s
  persist_interval: 1s
  headers: true
upstreams:
  - name: app
    balance: round_robin
    backends:
      - {address: 127.0.0.1:9001, weight: 1}
    health_check:
      type: tcp
      interval: 5s
      timeout: 1s
      healthy_threshold: 1
      unhealthy_threshold: 2
      path: /
      expect: 200-399
    retries: 2
    connect_timeout: 3s
    read_timeout: 30s
    write_timeout: 30s
    idle_timeout: 50s
    tunnel_timeout: 1h
routes:
  - {host: api.example.com, path: /v1, upstream: app}
limits:
  max_body: 10MiB
  max_connections: auto
  max_connections_per_address: null
  body_timeout: 60s
  min_body_rate: 100
  abort_on_half_close: false
  header_timeout: 10s
  keepalive_timeout: 60s
access_log: {path: \"-\", format: json}
",
    );
    let smallest =
        read("listeners: [{address: 0.0.0.0:8080}]\nupstreams: [{name: app, backends: [{address: 127.0.0.1:9001}]}]\n");
    assert!(matches!(config.upstreams[0].health.check, Check::Tcp));
    assert_eq!(config.upstreams, smallest.upstreams);
    assert_eq!((config.limits, config.identity), (smallest.limits, smallest.identity));
    assert_eq!((config.rate_limit, config.history), (smallest.rate_limit, smallest.history));
    assert_eq!(config.access_log, smallest.access_log);
}

#[test]
fn backends_and_protocols() {
    let config = read(
        "upstreams:
  - name: app
    protocol: http/1.1
    tls: null
    proxy_protocol: null
    backends: [{address: 10.0.0.1:443}]
    health_check: {type: tcp}
    balance: round_robin
    hash: null
    sticky: null
    slow_start: 0s
    max_in_flight: null
    queue: {size: 0, timeout: 1s}
    retry_on: [connect, broken, timeout]
    retry_budget: {ratio: 0.2, min_per_sec: 10}
    outlier: null
listeners:
  - address: 0.0.0.0:443
    tls:
      pairs: [{cert: a.pem, key: a.key}]
      acme: null
      ticket_keys: null
      client_ca: null
      client_certs: optional
    proxy_protocol: null
    redirect_to_https: null
    h2c: false
admin:
  address: 127.0.0.1:9901
  tls: null
routes:
  - host: git.example.com
    upstream: app
    max_body: 1GiB
    read_timeout: 10m
    strip_prefix: /git
    limit: true
    request_headers: {set: {X-Env: prod, X-Client: '{client_id}'}, remove: [Cookie], edit: [{name: Destination, from: '^https:', to: 'http:'}]}
    response_headers: {set: {Strict-Transport-Security: max-age=31536000}, remove: [Server]}
identity:
  underscores: drop
  client_certificates: false
  forward_api_key: true
",
    );
    let route = &config.routes[0];
    assert_eq!(route.strip_prefix.as_ref().map(ToString::to_string).as_deref(), Some("/git"));
    assert_eq!(route.path.to_string(), "/", "what is not below the prefix goes on as it is");
}

#[test]
fn the_fleet() {
    let config = read(&format!(
        "{START}fleet:
  store: redis://USER@10.0.0.5:6379/0
  password_file: null
  tls: {{ca: null, cert: null, key: null}}
  prefix: tollgate
  node: null
  lease: 100ms
  timeout: 25ms
  max_asks: 1024
  when_unreachable: share
"
    ));
    let short = read(&format!("{START}fleet: {{store: redis://USER@10.0.0.5}}\n"));
    assert_eq!(config.fleet, short.fleet);
}

#[test]
fn policies() {
    let config = read(&format!(
        "{START}answers: {{429: {{content_type: application/json, headers: {{Access-Control-Allow-Origin: '*'}}, \
         body: '{{\"error\":{{\"code\":{{code}},\"message\":\"{{message}}\",\"retry_after\":{{retry_after}},\
         \"request_id\":\"{{request_id}}\"}}}}'}}}}
plans: [{{name: free, capacity: 100, rate_per_sec: 10}}]
rate_limit:
  policies:
    - name: writes
      match: {{hosts: [], paths: [/v1], methods: [POST, PUT], headers: {{X-Plan: free}}}}
      key: client
      capacity: 10
      rate_per_sec: 1
      cost: 1
      max_buckets: 100000
      mode: enforce
  max_concurrent: null
  self_service: false
  reset_header: epoch
  max_retry_after: null
  close_after: null
  record: {{clients: 10000}}
"
    ));
    assert_eq!((config.policies.len(), config.answers.is_some()), (1, true));
    let smallest = read(START);
    assert_eq!(config.rate_limit, smallest.rate_limit);
    assert!(read(&format!("{START}answers: null\nplans: []\nrate_limit: {{policies: []}}\n")).policies.is_empty());
}

#[test]
fn what_an_operator_sees() {
    let config = read(&format!(
        "{START}tracing: {{propagate: true, sample: 0.01, otlp: http://127.0.0.1:4318}}\n\
         access_log: {{path: \"-\", format: json, sample: 1.0, fields: null}}\n"
    ));
    assert_eq!(config.access_log, read(START).access_log);
    assert!(read(&format!("{START}tracing: null\n")).tracing.is_none());
    let some =
        read(&format!("{START}access_log: {{fields: [ts, method, path, status, referer, user_agent, protocol]}}\n"));
    assert_eq!(some.access_log.fields.map(|fields| fields.len()), Some(7));
}

/// Null is none wherever there can be none, and an empty list is one where there need be no item.
#[test]
fn nothing_is_said_by_null_and_by_an_empty_list() {
    let none = "listeners: [{address: 0.0.0.0:8080, tls: null, h2c: true}]\nroutes: []\naccess_log: null\ntracing: null\n\
                answers: null\nplans: []\nfleet: null\nupstreams: [{name: app, backends: [{address: 127.0.0.1:9001}]}]\n";
    let config = check(none).unwrap();
    assert!(config.listeners[0].tls.is_none() && config.listeners[0].rules.h2c && config.access_log.target.is_none());
    assert_eq!(config.routes, check(START).unwrap().routes);
}

/// The path that OTLP wants is added unless it is there.
#[test]
fn a_collectors_address_may_have_the_path() {
    let to =
        |otlp: &str| check(&format!("{START}tracing: {{otlp: '{otlp}'}}\n")).unwrap().tracing.unwrap().otlp.unwrap();
    for otlp in ["http://a:4318", "http://a:4318/", "http://a:4318/v1/traces", "http://a:4318/v1/traces/"] {
        assert_eq!(&*to(otlp), "http://a:4318/v1/traces", "{otlp}");
    }
    assert_eq!((&*to("http://[::1]/x"), &*to("http://a")), ("http://[::1]/x/v1/traces", "http://a/v1/traces"));
}
