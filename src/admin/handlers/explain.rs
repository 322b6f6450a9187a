//! Who a caller would be, and what it would get: the question of whoever is paged because "we get 429".
//!
//! The proxy's own code finds the answer, so it cannot be another one than a request gets. It takes no token, counts
//! nothing and opens no bucket. A key in the question is looked up and forgotten; no answer and no log holds it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
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
use crate::client::Mode;
use crate::telemetry::Explanation;

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
    /// What the client was recognised by: `api_key`, `address`, or `anonymous` when it was not.
    #[schema(pattern = "^(api_key|address|anonymous)$", example = "api_key")]
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
    /// What the limiter would say: `allowed`, `limited`, `blocked` or `unlimited`; null when it would not be asked.
    #[schema(example = "allowed", required)]
    decision: Option<&'static str>,
    /// What a request would be answered now.
    answer: ExplainedAnswer,
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
    let mut fields = BodyFields::new(body, "", &["address", "headers"]);
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
    let errors = fields.into_errors();
    match address {
        Some(address) if errors.is_empty() => Ok(Question { address, headers }),
        _ => Err(ApiError::fields(errors)),
    }
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::api::json::parse;
    use crate::client::{ClientId, Quota};
    use crate::limit::{Bucket, Standing, Tokens};

    fn read(text: &str) -> Result<Question, ApiError> {
        question(parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_question_has_an_address_and_headers() {
        let text =
            r#"{"address":"::1","headers":{"X-Api-Key":" k ","x-forwarded-for":["1.2.3.4","5.6.7.8"],"x-none":[]}}"#;
        let question = read(text).unwrap();
        let all = |name: &str| question.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        let (keys, hops): (Vec<_>, Vec<_>) = (all("x-api-key"), all("x-forwarded-for"));
        assert_eq!((question.address.to_string().as_str(), keys, hops), ("::1", vec!["k"], vec!["1.2.3.4", "5.6.7.8"]));
        assert!(read(r#"{"address":"203.0.113.7"}"#).unwrap().headers.is_empty());
    }

    #[test]
    fn everything_wrong_with_a_question_is_told() {
        let address = "must be an IP address without a port, such as \"203.0.113.7\" or \"2001:db8::7\"";
        let headers = "must be an object of strings or arrays of strings";
        let value = "must be a string or an array of strings";
        let name = "has no valid name: letters, digits and !#$%&'*+-.^_`|~ are allowed";
        for (text, wrong) in [
            ("[]", vec![("body", "must be a JSON object")]),
            ("{}", vec![("address", "is required")]),
            (r#"{"address":null}"#, vec![("address", address)]),
            (r#"{"address":"1.2.3.4:80"}"#, vec![("address", address)]),
            (r#"{"address":7,"headers":[]}"#, vec![("address", address), ("headers", headers)]),
            (r#"{"address":"::1","headers":null}"#, vec![("headers", headers)]),
            (r#"{"adress":"::1"}"#, vec![("adress", "is unknown; did you mean address?"), ("address", "is required")]),
            (r#"{"address":"::1","headers":{"a b":"c"}}"#, vec![("headers.\"a b\"", name)]),
            (r#"{"address":"::1","headers":{"a":1}}"#, vec![("headers.a", value)]),
            (r#"{"address":"::1","headers":{"a":["b",1]}}"#, vec![("headers.a[1]", value)]),
            (r#"{"address":"::1","headers":{"a":"b\n"}}"#, vec![("headers.a", "must not have control characters")]),
        ] {
            let error = read(text).unwrap_err();
            let told: Vec<_> =
                error.errors.iter().map(|wrong| (wrong.field.as_str(), wrong.message.as_str())).collect();
            assert_eq!((error.status.as_u16(), told), (422, wrong), "{text}");
        }
    }

    #[test]
    fn no_question_has_too_many_headers() {
        let names = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("\"h{number}\":\"\"")).collect();
            read(&format!(r#"{{"address":"::1","headers":{{{}}}}}"#, names.join(",")))
        };
        assert_eq!(names(MAX_NAMES).unwrap().headers.len(), MAX_NAMES);
        assert_eq!(names(MAX_NAMES + 1).unwrap_err().message, "headers: must be at most 128 names");
        let values = |count: usize| {
            let values = vec!["\"\""; count].join(",");
            read(&format!(r#"{{"address":"::1","headers":{{"a":[{values}]}}}}"#))
        };
        assert_eq!(values(MAX_VALUES).unwrap().headers.len(), MAX_VALUES);
        assert_eq!(values(MAX_VALUES + 1).unwrap_err().message, "headers.a: must be at most 16 values");
    }

    fn explanation() -> Explanation {
        let quota = Quota::new(100, 0.5).unwrap();
        let bucket = Bucket::resume(Tokens::from_parts(87, 999_999_999_999_999_999), 0);
        Explanation {
            steps: vec!["the connection comes from 10.0.0.1, which is a trusted proxy".to_owned()],
            trusted_proxy: Some(IpAddr::from([10, 0, 0, 1])),
            client_ip: IpAddr::from([203, 0, 113, 7]),
            api_key_from: Some("x-api-key".to_owned()),
            client_id: Some(ClientId::parse("user1").unwrap()),
            network: None,
            identity: "api_key",
            mode: Some(Mode::Limit),
            standing: Some(Standing::new(bucket, quota, 0)),
            decision: Some("allowed"),
            refusal: None,
            headers: vec![("X-RateLimit-Limit".to_owned(), "100".to_owned())],
        }
    }

    #[test]
    fn an_explanation_is_told_in_full() {
        let told = |explanation| serde_json::to_value(ExplanationBody::new(explanation)).unwrap();
        let expected = json!({
            "steps": ["the connection comes from 10.0.0.1, which is a trusted proxy"],
            "trusted_proxy": "10.0.0.1", "client_ip": "203.0.113.7", "api_key_from": "x-api-key", "client_id": "user1",
            "matched_by": "api_key", "network": null, "mode": "limit", "capacity": 100, "rate_per_sec": 0.5,
            "tokens": 87.999, "decision": "allowed",
            "answer": {"status": null, "message": "Goes on to its route", "headers": {"X-RateLimit-Limit": "100"}},
        });
        assert_eq!(told(explanation()), expected);
        let blocked = Explanation {
            mode: Some(Mode::Blocked),
            standing: None,
            decision: Some("blocked"),
            refusal: Some((403, "Client is blocked".to_owned())),
            headers: Vec::new(),
            ..explanation()
        };
        let told = told(blocked);
        assert_eq!(
            [&told["mode"], &told["capacity"], &told["tokens"]],
            [&json!("blocked"), &json!(null), &json!(null)]
        );
        assert_eq!(told["answer"], json!({"status": 403, "message": "Client is blocked", "headers": {}}));
    }
}
