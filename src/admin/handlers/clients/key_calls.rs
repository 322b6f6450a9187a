//! The API keys of one client, one at a time, so that a key is replaced by another without an outage.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use super::describe::{ClientName, KeyInput, LocalQuery, MatchHeaders};
use super::secret::Secret;
use super::wire::ClientView;
use super::write::{Made, change_existing, changed, head};
use super::{keys, path};
use crate::admin::api::error::ErrorBody;
use crate::admin::api::{Api, ApiError, BodyFields, body, respond};
use crate::client::{ApiKey, KeyId, credential};
use crate::store::{Profile, Record, Refusal, with_key, without_key};

/// Makes a further API key of a client
///
/// It is shown in this one answer. Both the old and the new key count, until one is deleted or ends. The name of a
/// client that has neither keys nor addresses, which is its credential, becomes its key `primary`, or its address.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/keys",
    operation_id = "make_client_key",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    request_body(content = Option<KeyInput>),
    responses(
        (status = 201, description = "The client, with the key and its id", body = ClientView, headers(
            ("Location" = String, description = "The key's path"),
            ("ETag" = String, description = "The client's version in quotes"),
        )),
        (status = 400, description = "The body is not JSON, or a header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 409, description = "It has five keys already", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "A field is wrong; all wrong fields are named", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn make_key(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let mut fields = BodyFields::new(body::read_json_if_any(request).await?, "", &["expires_at"]);
    let expires_at = fields.read("expires_at", keys::moment).flatten();
    let now = api.parts.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if expires_at.is_some_and(|end| end <= now) {
        fields.wrong("expires_at", format!("must be a moment that is to come; it is {}", keys::written(now)));
    }
    fields.finish()?;
    let (secret, key) = (Secret::generate()?, KeyId::fresh());
    let new = ApiKey { id: key.clone(), digest: secret.digest(), expires_at };
    let edit = move |record: &Record| {
        let mut profile = record.profile.clone();
        if profile.api_keys.is_empty() && profile.addresses.is_empty() {
            // Its name is its credential, and counts beside the new key until it is deleted.
            let (key, addresses) = credential(&record.id);
            (profile.api_keys, profile.addresses) = (key.map(ApiKey::primary).into_iter().collect(), addresses);
        }
        profile.api_keys = with_key(&profile.api_keys, new.clone()).map_err(Refusal::of_keys(&record.id))?;
        Ok(Some(profile))
    };
    let committed = change_existing(api, author, (id, condition), edit).await?;
    changed(api, committed, Some(Made { secret, id: Some(key) }), StatusCode::CREATED).await
}

/// Deletes an API key of a client
///
/// It counts no more from the next request on. A client that is left without keys and addresses has its name for a
/// credential.
#[utoipa::path(
    delete,
    path = "/clients/{client_id}/keys/{key_id}",
    operation_id = "delete_client_key",
    tag = "clients",
    params(
        ClientName,
        ("key_id" = String, Path, pattern = "^[A-Za-z0-9_-]{1,32}$",
            description = "The key's id; `primary` is the one that was given as `api_key`", example = "primary"),
        LocalQuery,
        MatchHeaders,
    ),
    responses(
        (status = 204, description = "It was deleted"),
        (status = 400, description = "A header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There is no such client, or it has no such key", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "The name or the id is none, or a parameter is unknown", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn delete_key(
    api: &Arc<Api>,
    (raw, key): (&str, &str),
    request: Request,
) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let key = path::key(key)?;
    let edit = move |record: &Record| {
        let api_keys = without_key(&record.profile.api_keys, &key).map_err(Refusal::of_keys(&record.id))?;
        Ok(Some(Profile { api_keys, ..record.profile.clone() }))
    };
    change_existing(api, author, (id, condition), edit).await?;
    Ok(respond::no_content())
}
