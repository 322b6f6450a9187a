//! Who a caller would be, and what it would get: the question of whoever is paged because "we get 429".
//!
//! The proxy's own code finds the answer, so it cannot be another one than a request gets. It takes no token, counts
//! nothing and opens no bucket. A key in the question is looked up and forgotten; no answer and no log holds it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};

use crate::admin::api::Api;
use crate::admin::api::BodyFields;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::json::{Value, shown};
use crate::admin::api::parts::Question;
use crate::admin::api::query::Query;
use crate::admin::api::{ApiError, body, respond};
use crate::client::{KeyDigest, Mode};
use crate::telemetry::{ExplainedPolicy, Explanation};

/// The most header names of one question, and the most values of each.
const MAX_NAMES: usize = 128;
const MAX_VALUES: usize = 16;

/// Who would this be?
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Question, example = json!({"address": "203.0.113.7", "headers": {"x-api-key": "user1"}}))]
#[expect(dead_code, reason = "the shape of the body, for the API's description; it is read field by field")]
pub(in crate::admin) struct QuestionBody {
    /// The address at the other end of the connection, without a port.
    #[schema(schema_with = address_schema)]
    address: String,
    /// The request's header fields: of each name its value, or an array of its values.
    #[schema(schema_with = headers_schema, required = false)]
    headers: Option<BTreeMap<String, Vec<String>>>,
    /// What the certificate that is shown in the handshake is known by, its fingerprint first, then its names: one, or
    /// an array of them.
    #[schema(schema_with = certificate_schema, required = false)]
    certificate: Option<Vec<String>>,
    /// The host that the request asks for; that of its headers when it is not given. With it or a path, the route
    /// counts, too.
    #[schema(example = "api.example.com", required = false)]
    host: Option<String>,
    /// The path that it asks for, `/` unless given.
    #[schema(example = "/v1/users", pattern = "^/", required = false)]
    path: Option<String>,
    /// The method by which it asks, `GET` unless given. Policies may go by it.
    #[schema(example = "POST", pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", required = false)]
    method: Option<String>,
}

fn certificate_schema() -> Schema {
    let name =
        || ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(cert:([0-9A-Fa-f]:?){64}|cert-san:.+)$"));
    let names = ArrayBuilder::new().items(name()).max_items(Some(MAX_VALUES));
    AnyOfBuilder::new().item(name()).item(names).examples(["cert-san:device.example"]).build().into()
}

fn address_schema() -> Schema {
    let of =
        |format: &str| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom(format.into())));
    AnyOfBuilder::new().item(of("ipv4")).item(of("ipv6")).examples(["203.0.113.7"]).build().into()
}

fn headers_schema() -> Schema {
    let text = |pattern: &str| ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    let value = || text("^[^\\x00-\\x08\\x0a-\\x1f\\x7f]*$");
    let values = ArrayBuilder::new().items(value()).max_items(Some(MAX_VALUES));
    let either = Schema::from(AnyOfBuilder::new().item(value()).item(values));
    ObjectBuilder::new()
        .property_names(Some(text("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")))
        .additional_properties(Some(RefOr::T(either)))
        .max_properties(Some(MAX_NAMES))
        .examples([serde_json::json!({"x-api-key": "user1", "x-forwarded-for": ["198.51.100.4", "203.0.113.9"]})])
        .build()
        .into()
}

/// Who it would be, and what it would get.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(in crate::admin) struct ExplanationBody {
    /// How that was found out, step by step, in words.
    steps: Vec<String>,
    /// The trusted proxy whose `X-Forwarded-For` was believed; null when the connection is not from one.
    #[schema(required)]
    trusted_proxy: Option<String>,
    /// The address that counts as the caller's.
    #[schema(example = "203.0.113.7")]
    client_ip: String,
    /// The header that an API key was read from; null when there was none.
    #[schema(example = "x-api-key", required)]
    api_key_from: Option<String>,
    /// The client; null when the caller is none.
    #[schema(example = "user1", required)]
    client_id: Option<String>,
    /// What the client was recognised by: `api_key`, `certificate`, `address`, or `anonymous` when it was not.
    #[schema(pattern = "^(api_key|certificate|address|anonymous)$", example = "api_key")]
    matched_by: &'static str,
    /// The client's address or network that matched; null when it was not recognised by one.
    #[schema(example = json!(null), required)]
    network: Option<String>,
    /// The client's mode: `limit`, `unlimited` or `blocked`; null when the caller is none.
    #[schema(example = "limit", required)]
    mode: Option<&'static str>,
    /// The capacity of the bucket that is asked; null when none is.
    #[schema(required)]
    capacity: Option<u32>,
    /// The tokens a second that come back to it; null when none is asked.
    #[serde(serialize_with = "respond::optional_number")]
    #[schema(required)]
    rate_per_sec: Option<f64>,
    /// The tokens in it now, rounded down to 3 decimals; null when none is asked.
    #[serde(serialize_with = "respond::optional_number")]
    #[schema(required)]
    tokens: Option<f64>,
    /// What the limiter would say: `allowed`, `limited`, `blocked` or `unlimited`; `unavailable` while the fleet's store is
    /// away and `fleet.when_unreachable` is `refuse`; null when it would not be asked.
    #[schema(example = "allowed", required)]
    decision: Option<&'static str>,
    /// What would refuse it: the name of a policy, `default` for the caller's own bucket, or `max_concurrent`; null
    /// when it would not be limited.
    #[schema(example = json!(null), required)]
    limited_by: Option<String>,
    /// The policies that the request meets, in their order; those of `/` when neither host nor path were asked about.
    policies: Vec<ExplainedPolicyBody>,
    /// How many of the caller's requests may run at once; null when there is no bound.
    #[schema(example = json!(null), required)]
    max_concurrent: Option<u32>,
    /// How many of them run now; null when there is no bound.
    #[schema(example = json!(null), required)]
    running: Option<u32>,
    /// The upstream that its route leads to: of several the first, or the one that its client stays with; null when
    /// none matches, or neither host nor path were asked about.
    #[schema(example = json!(null), required)]
    upstream: Option<String>,
    /// All upstreams that its route leads to, with their weights.
    upstreams: Vec<UpstreamShare>,
    /// What a request would be answered now.
    answer: ExplainedAnswer,
}

/// A policy that the request meets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplainedPolicy)]
struct ExplainedPolicyBody {
    /// Its name.
    #[schema(example = "writes")]
    name: String,
    /// Whose bucket pays: `client`, `address`, `all` or `header:NAME`.
    #[schema(example = "client")]
    key: String,
    /// The capacity of that bucket; the client's own one in the policy, where it has one.
    capacity: u32,
    /// The tokens a second that come back to it.
    #[serde(serialize_with = "respond::number")]
    rate_per_sec: f64,
    /// The tokens in it now, rounded down to 3 decimals; null when the request lacks the header that the policy goes
    /// by, and pays nothing.
    #[serde(serialize_with = "respond::optional_number")]
    #[schema(required)]
    tokens: Option<f64>,
    /// What the request costs; null when its answer says that.
    #[schema(required)]
    cost: Option<u32>,
    /// The header in which its answer says what it costs; null when that is known before.
    #[schema(example = json!(null), required)]
    cost_header: Option<String>,
    /// Whether there is enough for the request, while the fleet's store is away in this node's share; null when it pays
    /// nothing.
    #[schema(required)]
    enough: Option<bool>,
    /// `enforce`, or `shadow` for one that is on trial and refuses nothing.
    #[schema(example = "enforce")]
    mode: &'static str,
}

/// An upstream that a route leads to.
#[derive(Debug, Serialize, ToSchema)]
struct UpstreamShare {
    /// Its name.
    #[schema(example = "app")]
    name: String,
    /// Its weight among those of the route.
    #[schema(example = 9)]
    weight: u32,
}

impl From<ExplainedPolicy> for ExplainedPolicyBody {
    fn from(policy: ExplainedPolicy) -> Self {
        ExplainedPolicyBody {
            name: policy.name,
            key: policy.key,
            capacity: policy.quota.capacity().get(),
            rate_per_sec: policy.quota.rate().to_f64(),
            tokens: policy.standing.map(|standing| respond::thousandths(standing.tokens())),
            cost: policy.cost,
            cost_header: policy.cost_header,
            enough: policy.standing.map(|_| policy.enough),
            mode: if policy.shadow { "shadow" } else { "enforce" },
        }
    }
}

/// What a request would be answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Answer)]
struct ExplainedAnswer {
    /// The status of the refusal; null when the request would go on to its route, whose backend then answers.
    #[schema(example = json!(null), required)]
    status: Option<u16>,
    /// The refusal's message, or that the request goes on.
    #[schema(example = "Goes on to its route")]
    message: String,
    /// The rate headers and the `Retry-After` that the answer would carry.
    #[schema(example = json!({"RateLimit": "\"default\";r=99;t=10"}))]
    headers: BTreeMap<String, String>,
}

impl ExplanationBody {
    fn new(explanation: Explanation) -> Self {
        let quota = explanation.standing.map(|standing| standing.quota());
        let (status, message) = match explanation.refusal {
            Some((status, message)) => (Some(status), message),
            None => (None, "Goes on to its route".to_owned()),
        };
        ExplanationBody {
            steps: explanation.steps,
            trusted_proxy: explanation.trusted_proxy.map(|address| address.to_string()),
            client_ip: explanation.client_ip.to_string(),
            api_key_from: explanation.api_key_from,
            client_id: explanation.client_id.map(|id| id.to_string()),
            matched_by: explanation.identity,
            network: explanation.network,
            mode: explanation.mode.map(Mode::name),
            capacity: quota.map(|quota| quota.capacity().get()),
            rate_per_sec: quota.map(|quota| quota.rate().to_f64()),
            tokens: explanation.standing.map(|standing| respond::thousandths(standing.tokens())),
            decision: explanation.decision,
            limited_by: explanation.limited_by,
            policies: explanation.policies.into_iter().map(ExplainedPolicyBody::from).collect(),
            max_concurrent: explanation.at_once.map(|(most, _)| most),
            running: explanation.at_once.map(|(_, running)| running),
            upstream: explanation.upstream,
            upstreams: explanation.upstreams.into_iter().map(|(name, weight)| UpstreamShare { name, weight }).collect(),
            answer: ExplainedAnswer { status, message, headers: explanation.headers.into_iter().collect() },
        }
    }
}

/// Explains a caller
///
/// Says who the sender of such a request is, by which rule, what its limit is, and what it would be answered now. Takes
/// no token.
#[utoipa::path(
    post,
    path = "/explain",
    operation_id = "explain",
    tag = "traffic",
    request_body = QuestionBody,
    responses(
        (status = 200, description = "Who it is, and what it would get", body = ExplanationBody),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "A field is wrong", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn explain(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let question = question(body::read_json(request).await?)?;
    let explanation = (api.parts.explain)(&question);
    Ok(respond::json(StatusCode::OK, &ExplanationBody::new(explanation)))
}

/// Reads a question.
///
/// # Errors
/// 422 with everything that is wrong with it.
fn question(body: Value) -> Result<Question, ApiError> {
    let mut fields = BodyFields::new(body, "", &["address", "headers", "certificate", "host", "path", "method"]);
    let address = fields.require("address", |value| match &value {
        Value::String(text) => text.parse::<IpAddr>().map_err(|_| ADDRESS.to_owned()),
        _ => Err(ADDRESS.to_owned()),
    });
    let mut headers = HeaderMap::new();
    match fields.take("headers") {
        None => {}
        Some(Value::Object(given)) => headers = read_headers(given, &mut fields),
        Some(_) => fields.wrong("headers", "must be an object of strings or arrays of strings"),
    }
    let certificate = fields.read("certificate", |value| certificate(value).ok_or_else(|| CERTIFICATE.to_owned()));
    let host = fields.read("host", |value| match value {
        Value::String(host) => Ok(host),
        _ => Err("must be a string".to_owned()),
    });
    let path = fields.read("path", |value| match value {
        Value::String(path) if path.starts_with('/') => Ok(path),
        _ => Err("must be a path that starts with /".to_owned()),
    });
    let method = fields.read("method", |value| match value {
        Value::String(method) if Method::from_bytes(method.as_bytes()).is_ok() => Ok(method),
        _ => Err("must be a method, such as \"POST\"".to_owned()),
    });
    let errors = fields.into_errors();
    let method = method.unwrap_or_else(|| Method::GET.as_str().to_owned());
    let target = (host.is_some() || path.is_some()).then(|| {
        let said = || Some(headers.get(HOST)?.to_str().ok()?.to_owned());
        let path = path.unwrap_or_else(|| "/".to_owned());
        (host.or_else(said).unwrap_or_default(), path.split('?').next().unwrap_or_default().to_owned())
    });
    match address {
        Some(address) if errors.is_empty() => {
            Ok(Question { address, headers, certificate: certificate.unwrap_or_default(), method, target })
        }
        _ => Err(ApiError::fields(errors)),
    }
}

const CERTIFICATE: &str = "must be cert: and a SHA-256 fingerprint or cert-san: and a name, or an array of at most 16";

fn certificate(value: Value) -> Option<Vec<KeyDigest>> {
    let names = match value {
        Value::Array(names) => names,
        one => vec![one],
    };
    let known_by = |name: &Value| match name {
        Value::String(name) => KeyDigest::of_certificate(name.as_bytes()),
        _ => None,
    };
    names.iter().map(known_by).collect::<Option<Vec<_>>>().filter(|names| names.len() <= MAX_VALUES)
}

const ADDRESS: &str = "must be an IP address without a port, such as \"203.0.113.7\" or \"2001:db8::7\"";

fn read_headers(given: Vec<(String, Value)>, fields: &mut BodyFields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if given.len() > MAX_NAMES {
        fields.wrong("headers", format!("must be at most {MAX_NAMES} names"));
        return headers;
    }
    for (name, value) in given {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            let allowed = "has no valid name: letters, digits and !#$%&'*+-.^_`|~ are allowed";
            fields.wrong(&format!("headers.{}", shown(&name)), allowed);
            continue;
        };
        let (values, several) = match value {
            Value::Array(values) => (values, true),
            one => (vec![one], false),
        };
        if values.len() > MAX_VALUES {
            fields.wrong(&format!("headers.{name}"), format!("must be at most {MAX_VALUES} values"));
            continue;
        }
        for (index, value) in values.into_iter().enumerate() {
            match header_value(value) {
                Ok(value) => drop(headers.append(&header, value)),
                Err(message) if several => fields.wrong(&format!("headers.{name}[{index}]"), message),
                Err(message) => fields.wrong(&format!("headers.{name}"), message),
            }
        }
    }
    headers
}

fn header_value(value: Value) -> Result<HeaderValue, &'static str> {
    let Value::String(text) = value else { return Err("must be a string or an array of strings") };
    // White space around a value is not part of it (RFC 9110 section 5.5).
    let text = text.trim_matches([' ', '\t']);
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "must not have control characters")
}

#[cfg(test)]
mod tests;
