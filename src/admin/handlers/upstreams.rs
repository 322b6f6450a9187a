//! Pools and their backends: how they stand, and what an operator may change until the next start.

mod wire;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use log::info;

use self::wire::{BackendBody, ChangeBody, PoolBody, UpstreamsBody};
use crate::admin::api::Api;
use crate::admin::api::BodyFields;
use crate::admin::api::access::Actor;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::json::Value;
use crate::admin::api::query::Query;
use crate::admin::api::{ApiError, body, percent, respond};
use crate::upstream::{AdminState, ConnectAddress, MAX_WEIGHT, Pool, PoolOverview, SetBackendError};

/// How many names a message lists.
const LISTED: usize = 20;

/// Lists upstreams
///
/// Every pool with its backends: their state, how busy they are, and what their last check found.
#[utoipa::path(
    get,
    path = "/upstreams",
    operation_id = "list_upstreams",
    tag = "upstreams",
    responses(
        (status = 200, description = "The pools", body = UpstreamsBody),
        (status = 422, description = "A query parameter was given; there are none", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let items = (api.parts.pools)().iter().map(|pool| PoolBody::new(pool.overview())).collect();
    Ok(respond::json(StatusCode::OK, &UpstreamsBody { items }))
}

/// Drains a backend, or changes its weight
///
/// Holds until the next start, when the configuration counts again.
#[utoipa::path(
    patch,
    path = "/upstreams/{name}/backends/{address}",
    operation_id = "change_backend",
    tag = "upstreams",
    params(
        ("name" = String, Path, description = "The pool's name", example = "app", min_length = 1),
        ("address" = String, Path,
            description = "The backend's `address:port` or `unix:/path`, or the `name:port` of the configuration",
            example = "127.0.0.1:9001", min_length = 1),
    ),
    request_body(content = ChangeBody),
    responses(
        (status = 200, description = "How the backend stands now", body = BackendBody),
        (status = 400, description = "The path cannot be decoded, or the body is not JSON", body = ErrorBody),
        (status = 404, description = "There is no such pool or backend", body = ErrorBody),
        (status = 409, description = "The name stands for several backends; `message` lists their addresses",
            body = ErrorBody),
        (status = 422, description = "A field is wrong", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn change(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let (name, address) = target(request.uri().path())?;
    let by = Actor::of(&request);
    let pools = (api.parts.pools)();
    let pool = find_pool(&pools, &name)?;
    let overview = pool.overview();
    let address = find_backend(&overview, &address)?;
    let (state, weight) = read_change(body::read_json(request).await?)?;
    let backend = pool.set_backend(&address, state, weight).map_err(|error| match error {
        SetBackendError::NoSuchBackend { .. } => no_backend(&overview, &address.to_string()),
        SetBackendError::Weight(_) => ApiError::field("weight", weight_rule()),
    })?;
    info!("upstream {name}: backend {address} changed by {by}: {}, weight {}", backend.state, backend.weight);
    Ok(respond::json(StatusCode::OK, &BackendBody::new(backend)))
}

/// The pool's name and the backend's address in a path.
fn target(path: &str) -> Result<(String, String), ApiError> {
    let decoded = |segment: Option<&str>| {
        let segment = segment.unwrap_or_default();
        percent::decode(segment).map_err(|wrong| ApiError::bad_request(format!("The path segment {segment} {wrong}")))
    };
    // "", "upstreams", the name, "backends", the address
    let mut segments = path.split('/').skip(2);
    let name = decoded(segments.next())?;
    Ok((name, decoded(segments.nth(1))?))
}

fn find_pool<'a>(pools: &'a [Arc<Pool>], name: &str) -> Result<&'a Arc<Pool>, ApiError> {
    pools.iter().find(|pool| pool.name() == name).ok_or_else(|| {
        let names = listed(pools.iter().map(|pool| pool.name().to_owned()));
        ApiError::not_found(format!("There is no upstream {name}; there are {names}"))
    })
}

/// Which backend is meant: by its own address, or by a configured name that has just one address.
fn find_backend(pool: &PoolOverview, given: &str) -> Result<ConnectAddress, ApiError> {
    let exact = given.parse::<ConnectAddress>().ok();
    let mut addresses = pool.backends.iter().map(|backend| &backend.address);
    if let Some(address) = addresses.find(|address| Some(*address) == exact.as_ref()) {
        return Ok(address.clone());
    }
    let named = pool.backends.iter().filter(|backend| backend.configured.eq_ignore_ascii_case(given));
    let named: Vec<_> = named.map(|backend| &backend.address).collect();
    match named.as_slice() {
        [] => Err(no_backend(pool, given)),
        [one] => Ok((*one).clone()),
        several => {
            let addresses = listed(several.iter().map(ToString::to_string));
            let message = format!("{given} stands for several backends now; name one by its address: {addresses}");
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

fn no_backend(pool: &PoolOverview, given: &str) -> ApiError {
    let name = &pool.name;
    if pool.unresolved.iter().any(|unresolved| unresolved.eq_ignore_ascii_case(given)) {
        return ApiError::not_found(format!(
            "Backend {given} of upstream {name} has no address now: it does not resolve"
        ));
    }
    let known = pool.backends.iter().map(|backend| backend.address.to_string()).chain(pool.unresolved.iter().cloned());
    ApiError::not_found(format!("Upstream {name} has no backend {given}; it has {}", listed(known)))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// What is to become of a backend.
fn read_change(body: Value) -> Result<(Option<AdminState>, Option<NonZeroU32>), ApiError> {
    let mut fields = BodyFields::new(body, "", &["state", "weight"]);
    let state = fields.read("state", |value| match value {
        Value::String(state) if state == "drain" => Ok(AdminState::Drain),
        Value::String(state) if state == "up" => Ok(AdminState::Up),
        _ => Err("must be \"drain\" or \"up\"".to_owned()),
    });
    let weight = fields.read("weight", |value| match value {
        Value::Number(number) => number.as_u64().and_then(to_weight).ok_or_else(weight_rule),
        _ => Err(weight_rule()),
    });
    fields.finish()?;
    if state.is_none() && weight.is_none() {
        return Err(ApiError::field("body", "must have state (\"drain\" or \"up\"), weight, or both"));
    }
    Ok((state, weight))
}

fn to_weight(number: u64) -> Option<NonZeroU32> {
    u32::try_from(number).ok().filter(|weight| *weight <= MAX_WEIGHT).and_then(NonZeroU32::new)
}

fn weight_rule() -> String {
    format!("must be a whole number from 1 to {MAX_WEIGHT}")
}

#[cfg(test)]
mod tests;
