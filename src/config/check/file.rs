//! The file as a whole.

use super::manner::Doubts;
use super::{admin, answers, fleet, listeners, process, routes, sections, tracing, upstreams};
use crate::config::overrides::Overrides;
use crate::config::problem::KeyPath;
use crate::config::report::{Level, Report};
use crate::config::settings::Config;
use crate::config::shape::FileShape;
use crate::route::Route;

/// Where clients and buckets are kept when nobody says where.
const DATABASE: &str = "data/tollgate.db";

/// Checks `file`, puts `overrides` in its place, and builds the configuration; none when anything was reported.
///
/// Long because every section of the file has its lines.
pub(in crate::config) fn check(file: Option<FileShape>, overrides: &Overrides, report: &mut Report) -> Option<Config> {
    if file.is_none() {
        require_flag(report, "--listen", "127.0.0.1:8080", overrides.listen.is_empty());
        require_flag(report, "--backend", "127.0.0.1:9001", overrides.backends.is_empty());
    }
    // A part that is overridden may be missing, but when it is there it is checked all the same.
    let needs_listeners = file.is_some() && overrides.listen.is_empty();
    let needs_upstreams = file.is_some() && overrides.backends.is_empty();
    let file = file.unwrap_or_default();

    let mut top = Level { report, at: KeyPath::default() };
    let pingora = process::of_file(&mut top, file.pingora, overrides);
    let mut listeners = listeners::of_file(&mut top, file.listeners, (needs_listeners, overrides));
    let mut admin = admin::of_file(&mut top, file.admin, overrides);
    let direct = top.or("direct", file.direct, true);
    let database = top.or("database", file.database, Some(DATABASE.into()));
    let mut doubts = Doubts::default();
    let fleet = fleet::of_file(&mut top, file.fleet, overrides, &mut doubts);
    let history = sections::history(&mut top, file.history);
    let mut upstreams = upstreams::of_file(&mut top, file.upstreams, (needs_upstreams, overrides));
    let mut routes = routes::of_file(&mut top, file.routes, upstreams.names.as_deref());
    let identity = sections::identity(&mut top, file.identity);
    let answers = answers::of_file(&mut top, file.answers);
    let (rate_limit, policies) = sections::rate_limit(&mut top, file.rate_limit);
    let plans = sections::plans(&mut top, file.plans);
    let limits = sections::limits(&mut top, file.limits);
    let access_log = sections::access_log(&mut top, file.access_log, overrides);
    let tracing = tracing::of_file(&mut top, file.tracing);

    if !overrides.listen.is_empty() {
        listeners = listeners::of_flags(report, overrides);
    }
    if let Some(address) = &overrides.admin {
        admin.move_to(report, address, overrides);
    }
    let database = overrides.database.clone().or(database).map(|path| overrides.locate(path));
    if fleet.is_some() && database.is_none() {
        let message = "must be the path of a file with `fleet`, where this node keeps the clients, not null";
        report.add(&KeyPath::default().key("database"), message);
    }
    if !overrides.backends.is_empty() {
        let pool = upstreams::of_flags(report, overrides);
        routes = vec![Route::catch_all(&pool.name)];
        upstreams.pools = vec![pool];
    }
    upstreams.balance_by(overrides.balance);
    listeners.warn_of_strangers(&identity);
    listeners.warn_of_http1_alone(&upstreams.pools);
    let (admin, mut warnings, mut lapsed) = admin.finish(report, &listeners.addresses());
    warnings.extend(listeners.warnings.into_iter().chain(upstreams.doubts.warnings).chain(doubts.warnings));
    lapsed.extend(listeners.lapsed.into_iter().chain(upstreams.doubts.lapsed).chain(doubts.lapsed));
    let config = Config {
        pingora,
        listeners: listeners.list.into_iter().map(|(_, listener)| listener).collect(),
        admin,
        direct,
        database,
        fleet,
        history,
        identity,
        plans,
        answers,
        rate_limit,
        policies,
        upstreams: upstreams.pools,
        routes,
        limits,
        access_log,
        tracing,
        warnings,
        lapsed,
    };
    report.problems.is_empty().then_some(config)
}

fn require_flag(report: &mut Report, flag: &str, example: &str, missing: bool) {
    if missing {
        let message = format!("is missing, must be given (as in {flag} {example}) when there is no configuration file");
        report.add(&KeyPath::flag(flag), message);
    }
}
