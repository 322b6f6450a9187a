//! The description of this API, made from the code: each handler says what it takes and answers, and what every call
//! has in common is added here, in one place.
//!
//! `docs/openapi.json` holds a copy for people and for generators of clients; a test keeps it equal, and `make openapi`
//! writes it anew.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Description, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::api::error::ErrorBody;
use super::api::{Api, respond};
use super::handlers::{clients, decisions, explain, fleet, live, reload, series, status, top, upstreams};

/// The name of the security scheme.
const BEARER: &str = "bearer";

/// An answer of many calls: its status, which calls, and why.
type CommonAnswer = (&'static str, fn(&Operation) -> bool, &'static str);

/// What calls can be answered whatever they are about.
const EVERYWHERE: &[CommonAnswer] = &[
    ("400", every, "The request cannot be read"),
    ("401", wants_token, "The token is missing or wrong"),
    (
        "403",
        every,
        "The token is a viewer's and this is a write, or no token is set and the Host is no loopback name or the request comes \
         from another site's page",
    ),
    ("408", has_body, "The body took too long to arrive"),
    ("413", has_body, "The body is too large"),
    ("415", has_body, "The body's Content-Type is not JSON"),
    ("503", every, "Too many connections, or the store cannot do this now; `message` says why"),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tollgate admin API",
        description = "Clients and their limits, edited while traffic flows; what the proxy does and why.\n\nErrors are \
                       `{\"code\":N,\"message\":\"…\"}`, with `errors` that name each wrong field for 422. With a token set, \
                       everything but `/healthz`, `/readyz` and the page's files wants `Authorization: Bearer TOKEN`; a \
                       viewer's token reads, explains and simulates, and gets 403 for the rest.",
        license(name = "Apache-2.0", url = "https://www.apache.org/licenses/LICENSE-2.0"),
    ),
    paths(
        clients::read::list,
        clients::write::create,
        clients::bulk::apply,
        clients::read::get,
        clients::write::replace,
        clients::write::merge,
        clients::write::delete,
        clients::tokens::reset,
        clients::read::history,
        clients::changes::list,
        clients::tokens::grant,
        clients::write::promote,
        clients::recorded::recommend,
        clients::recorded::simulate,
        clients::key_calls::make_key,
        clients::key_calls::delete_key,
        clients::write::rollback,
        explain::explain,
        decisions::list,
        live::live,
        series::series,
        top::top,
        upstreams::list,
        upstreams::change,
        status::status,
        fleet::fleet,
        reload::reload,
        status::healthz,
        status::readyz,
        status::metrics,
        describe,
    ),
    components(schemas(ErrorBody)),
    security(("bearer" = [])),
    tags(
        (name = "clients", description = "Who may spend how much"),
        (name = "traffic", description = "Why a caller got what it got"),
        (name = "upstreams", description = "Where requests go"),
        (name = "server", description = "How the server is"),
    ),
    modifiers(&InCommon),
)]
struct Document;

/// Adds what every call has in common.
struct InCommon;

impl Modify for InCommon {
    fn modify(&self, description: &mut Description) {
        let components = description.components.get_or_insert_default();
        let bearer = Http::builder().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("One of the tokens of `admin.token_file`, or `TOLLGATE_ADMIN_TOKEN`"));
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
        for operation in description.paths.paths.values_mut().flat_map(operations) {
            for (status, concerns, why) in EVERYWHERE {
                if concerns(operation) && !operation.responses.responses.contains_key(*status) {
                    operation.responses.responses.insert((*status).to_owned(), error(why));
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

fn every(_: &Operation) -> bool {
    true
}

fn has_body(operation: &Operation) -> bool {
    operation.request_body.is_some()
}

/// Whether it wants a token: all do that do not say otherwise.
fn wants_token(operation: &Operation) -> bool {
    operation.security.is_none()
}

fn error(why: &str) -> RefOr<utoipa::openapi::Response> {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
    RefOr::T(ResponseBuilder::new().description(why).content("application/json", body).build())
}

/// The description as JSON, with a line feed behind it.
pub(super) fn document() -> String {
    // Its keys are strings, which is all that can fail.
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Describes this API
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "server",
    responses((status = 200, description = "This document", body = serde_json::Value)),
)]
pub(super) async fn describe(State(api): State<Arc<Api>>) -> Response {
    respond::with_type(StatusCode::OK, "application/json", Body::from(api.description.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn value() -> Value {
        serde_json::from_str(&document()).unwrap()
    }

    /// `UPDATE=1` in the environment writes the copy anew, which is what `make openapi` does.
    #[test]
    fn the_committed_copy_is_the_one_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == document(), "docs/openapi.json is not what the code says: run `make openapi`");
    }

    /// Every operation: its path, its method, and what is said of it.
    fn described() -> Vec<(String, String, Value)> {
        let document = value();
        let paths = document["paths"].as_object().unwrap();
        let one = |(path, item): (&String, &Value)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(|(method, it)| (path.clone(), method.to_uppercase(), it.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(one).collect()
    }

    #[test]
    fn every_call_is_described() {
        let described: BTreeSet<_> =
            described().into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
        let promised = [
            "GET /clients",
            "POST /clients",
            "PUT /clients",
            "GET /clients/{client_id}",
            "PUT /clients/{client_id}",
            "PATCH /clients/{client_id}",
            "DELETE /clients/{client_id}",
            "POST /clients/{client_id}/reset",
            "GET /clients/{client_id}/history",
            "GET /changes",
            "POST /clients/{client_id}/keys",
            "DELETE /clients/{client_id}/keys/{key_id}",
            "POST /clients/{client_id}/rollback",
            "POST /clients/{client_id}/grant",
            "POST /clients/{client_id}/promote",
            "GET /clients/{client_id}/recommend",
            "POST /clients/{client_id}/simulate",
            "POST /explain",
            "GET /decisions",
            "GET /live",
            "GET /series",
            "GET /top",
            "GET /upstreams",
            "PATCH /upstreams/{name}/backends/{address}",
            "GET /status",
            "GET /fleet",
            "POST /config/reload",
            "GET /healthz",
            "GET /readyz",
            "GET /metrics",
            "GET /openapi.json",
        ];
        assert_eq!(described, promised.iter().map(|call| (*call).to_owned()).collect());
    }

    #[test]
    fn every_call_says_what_it_is_and_how_it_fails() {
        let mut ids = BTreeSet::new();
        for (path, method, operation) in described() {
            let call = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{call}: no summary");
            assert!(ids.insert(operation["operationId"].to_string()), "{call}: an operationId of another");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{call}");
            let open = ["/healthz", "/readyz"].contains(&path.as_str());
            let responses = operation["responses"].as_object().unwrap();
            assert_eq!(responses.contains_key("401"), !open, "{call}");
            assert!(responses.contains_key("403") && responses.contains_key("503"), "{call}");
            assert_eq!(responses.contains_key("415"), !operation["requestBody"].is_null(), "{call}");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Error", "{call}: {status}");
            }
        }
    }

    #[test]
    fn references_lead_somewhere_and_descriptions_are_there() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (document, mut found) = (value(), BTreeSet::new());
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap_or(&Value::Null);
            assert!(target["description"].is_string(), "{reference} leads nowhere, or says nothing of itself");
        }
        assert_eq!(document["components"]["securitySchemes"][BEARER]["scheme"], "bearer");
        assert_eq!(document["security"], serde_json::json!([{BEARER: []}]));
    }
}
