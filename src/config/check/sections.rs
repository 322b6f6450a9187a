//! The sections whose keys have nothing to do with each other.

use std::collections::HashMap;
use std::time::Duration;

use super::lists::{sections, seen_at};
use super::policies;
use crate::client::{PlanName, Plans, Quota};
use crate::config::overrides::Overrides;
use crate::config::problem::KeyPath;
use crate::config::report::Level;
use crate::config::shape::{AccessLogKeys, HistoryKeys, IdentityKeys, LimitKeys, PlanKeys, RateLimitKeys};
use crate::config::value::OrNone;
use crate::config::written::{List, Section, Written};
use crate::limit::{RateLimit, Telling};
use crate::proxy::{Identity, Limits, PolicySettings};
use crate::store::HistoryRules;
use crate::telemetry::{AccessLogFormat, AccessLogSettings, AccessLogTarget};

pub(super) fn identity(top: &mut Level<'_>, key: Written<Section<IdentityKeys>>) -> Identity {
    let (keys, mut at) = top.section("identity", key);
    let default = Identity::default();
    let proxies_at = at.at.key("trusted_proxies");
    let proxies = at.take("trusted_proxies", keys.trusted_proxies).unwrap_or_default();
    let proxies =
        proxies.into_iter().enumerate().filter_map(|(index, proxy)| at.report.take(&proxies_at.item(index), proxy));
    let trusted_proxies = proxies.collect();
    Identity {
        api_key_header: at.or("api_key_header", keys.api_key_header, default.api_key_header),
        unknown_api_key: at.or("unknown_api_key", keys.unknown_api_key, default.unknown_api_key),
        trusted_proxies,
        ipv6_prefix: at.or("ipv6_prefix", keys.ipv6_prefix, default.ipv6_prefix),
        underscores: at.or("underscores", keys.underscores, default.underscores),
        forward_api_key: at.or("forward_api_key", keys.forward_api_key, default.forward_api_key),
        client_certificates: at.or("client_certificates", keys.client_certificates, default.client_certificates),
    }
}

pub(super) fn history(top: &mut Level<'_>, key: Written<Section<HistoryKeys>>) -> HistoryRules {
    let (keys, mut at) = top.section("history", key);
    let default = HistoryRules::default();
    HistoryRules {
        keep: at.or("keep", keys.keep, default.keep),
        age: at.take("days", keys.days).map_or(default.age, |days| Duration::from_secs(days * 24 * 60 * 60)),
    }
}

pub(super) fn rate_limit(
    top: &mut Level<'_>,
    key: Written<Section<RateLimitKeys>>,
) -> (RateLimit, Vec<PolicySettings>) {
    let (keys, mut at) = top.section("rate_limit", key);
    let default = RateLimit::default();
    let quota = at.take("default", keys.default).and_then(|keys| {
        let mut at = at.below("default");
        let capacity = at.need("capacity", keys.capacity);
        let rate = at.need("rate_per_sec", keys.rate_per_sec);
        Quota::from_parts(capacity?, rate?).ok()
    });
    let policies = policies::of_file(&mut at, keys.policies);
    let buckets = RateLimit {
        enabled: at.or("enabled", keys.enabled, default.enabled),
        quota: quota.unwrap_or(default.quota),
        max_buckets: at.or("max_buckets", keys.max_buckets, default.max_buckets),
        refill_interval: at.or("refill_interval", keys.refill_interval, default.refill_interval),
        persist_interval: at.or("persist_interval", keys.persist_interval, default.persist_interval),
        headers: at.or("headers", keys.headers, default.headers),
        max_concurrent: at.take("max_concurrent", keys.max_concurrent).flatten(),
        record: {
            let (keys, mut at) = at.section("record", keys.record);
            at.or("clients", keys.clients, default.record)
        },
        telling: Telling {
            reset: at.or("reset_header", keys.reset_header, default.telling.reset),
            longest: at.take("max_retry_after", keys.max_retry_after).flatten(),
        },
        close_after: at.take("close_after", keys.close_after).flatten(),
        self_service: at.or("self_service", keys.self_service, default.self_service),
    };
    (buckets, policies)
}

pub(super) fn plans(top: &mut Level<'_>, key: Written<List<Section<PlanKeys>, 0>>) -> Plans {
    let (items, mut seen) = (sections(top, "plans", key, false).unwrap_or_default(), HashMap::new());
    let plan = |(at, keys): (KeyPath, Option<PlanKeys>)| {
        let (mut at, keys) = (Level { report: &mut *top.report, at }, keys?);
        let name = at.need("name", keys.name);
        if let Some(first) = name.as_ref().and_then(|name| seen_at(&mut seen, name.clone(), &at.at)) {
            let name = name.as_deref().unwrap_or_default();
            at.add("name", format!("must be a name of its own, but {name:?} is the name of {first}"));
        }
        let (capacity, rate) = (at.need("capacity", keys.capacity), at.need("rate_per_sec", keys.rate_per_sec));
        Some((PlanName::parse(&name?)?, Quota::from_parts(capacity?, rate?).ok()?))
    };
    items.into_iter().filter_map(plan).collect()
}

pub(super) fn limits(top: &mut Level<'_>, key: Written<Section<LimitKeys>>) -> Limits {
    let (keys, mut at) = top.section("limits", key);
    let default = Limits::default();
    let of_an_address = at.take("max_connections_per_address", keys.max_connections_per_address);
    Limits {
        max_body: at.or("max_body", keys.max_body, default.max_body),
        header_timeout: at.or("header_timeout", keys.header_timeout, default.header_timeout),
        keepalive_timeout: at.or("keepalive_timeout", keys.keepalive_timeout, default.keepalive_timeout),
        abort_on_half_close: at.or("abort_on_half_close", keys.abort_on_half_close, default.abort_on_half_close),
        max_connections: at.take("max_connections", keys.max_connections).flatten(),
        max_connections_per_address: of_an_address.flatten(),
        body_timeout: at.or("body_timeout", keys.body_timeout, default.body_timeout),
        min_body_rate: at.or("min_body_rate", keys.min_body_rate, default.min_body_rate),
    }
}

pub(super) fn access_log(
    top: &mut Level<'_>,
    key: Written<OrNone<Section<AccessLogKeys>>>,
    overrides: &Overrides,
) -> AccessLogSettings {
    let default = AccessLogSettings::default();
    if matches!(key, Written::Given(None)) {
        return AccessLogSettings { target: None, ..default };
    }
    let (keys, mut at) = (top.take("access_log", key).flatten().unwrap_or_default(), top.below("access_log"));
    let mut target = at.or("path", keys.path, default.target);
    if let Some(AccessLogTarget::File(path)) = &mut target {
        *path = overrides.locate(std::mem::take(path));
    }
    let format = at.or("format", keys.format, default.format);
    let sample = at.or("sample", keys.sample, default.sample);
    let fields_at = at.at.key("fields");
    let fields = at.take("fields", keys.fields).flatten();
    if fields.is_some() && format == AccessLogFormat::Text {
        at.add("fields", "counts for format: json alone; a line of text is what nginx calls combined");
    }
    let fields = fields.map(|items| {
        let mut seen = HashMap::new();
        let items = items.into_iter().enumerate().filter_map(|(index, item)| {
            let place = fields_at.item(index);
            let item = at.report.take(&place, item)?;
            if let Some(first) = seen_at(&mut seen, item.name.clone(), &place) {
                at.report
                    .add(&place, format!("must have a name of its own, but {:?} is the name of {first}", item.name));
            }
            Some(item)
        });
        items.collect()
    });
    AccessLogSettings { target, format, sample, fields }
}
