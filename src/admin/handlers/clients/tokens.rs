//! The tokens of one client. What they become is no change of the client: its version stays, and there is no history of
//! it.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use log::info;
use tokio::time::timeout;

use super::author::Author;
use super::condition::Condition;
use super::describe::{ClientName, GrantInput, LocalQuery, MatchHeaders};
use super::quotas::capacity;
use super::wire::ClientView;
use super::write::{self, PATIENCE, incomplete, late};
use super::{path, read, standing};
use crate::admin::api::error::ErrorBody;
use crate::admin::api::{Api, ApiError, BodyFields, MadeWhere, body};
use crate::client::ClientId;
use crate::limit::{Payer, PolicyId};
use crate::store::{Record, Refusal};

/// What is said of a number of tokens that is none.
const WHOLE: &str = "must be a whole number from 1 to 1000000000";

/// Fills a client's buckets
///
/// It has all its tokens again, in its own bucket and in those that policies have for it; what was granted above a
/// capacity is gone. This is no change of the client: its version stays.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/reset",
    operation_id = "reset_client",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    responses(
        (status = 200, description = "The client", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 400, description = "The path cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is unknown", body = ErrorBody),
        (status = 503, description = "The store or the fleet's cannot be read or written, or the buckets are being handed over to another process", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn reset(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    let (author, condition) = (Author::of(&request)?, Condition::of(request.headers())?);
    let record = find(api, &author, &id, condition).await?;
    let parts = &api.parts;
    let payer = Payer::client(record.number);
    let in_policies = record.profile.policies.iter().map(|(name, own)| (payer.within(PolicyId::of(name)), *own));
    let own = (payer, record.profile.quota(&parts.plans.load()));
    let filled = (parts.fill)(payer, in_policies.chain([own]).collect(), author.local);
    let made = timeout(PATIENCE, filled).await.unwrap_or_else(|_| Err(late().into()))?;
    info!("client {id}: buckets filled by {}{}", author.by, told(made));
    Ok(standing::show(api, StatusCode::OK, &record, |_| ()).await)
}

/// Adds tokens to a client's bucket, once
///
/// Above its capacity if need be: what is above is spent first, and stays over edits and restarts until it is spent or
/// the bucket is reset; nothing is earned meanwhile. No bucket holds more than 1,200,000,000. This is no change of the
/// client: its version stays.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/grant",
    operation_id = "grant_client_tokens",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    request_body = GrantInput,
    responses(
        (status = 200, description = "The client", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 400, description = "The body is not JSON, or the path cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "The name is none, or a field is wrong", body = ErrorBody),
        (status = 503, description = "The store or the fleet's cannot be read or written, or the buckets are being handed over to another process", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn grant(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    let (author, condition) = (Author::of(&request)?, Condition::of(request.headers())?);
    let mut fields = BodyFields::new(body::read_json(request).await?, "", &["tokens"]);
    let tokens = fields.require("tokens", |value| {
        capacity(value)
            .ok()
            .and_then(|tokens| NonZeroU32::new(u32::try_from(tokens).ok()?))
            .ok_or_else(|| WHOLE.to_owned())
    });
    fields.finish()?;
    let tokens = tokens.ok_or_else(incomplete)?;
    let record = find(api, &author, &id, condition).await?;
    let parts = &api.parts;
    let bucket = (Payer::client(record.number), record.profile.quota(&parts.plans.load()));
    let granted = (parts.grant)(bucket, tokens, author.local);
    let made = timeout(PATIENCE, granted).await.unwrap_or_else(|_| Err(late().into()))?;
    info!("client {id}: {tokens} tokens granted by {}{}", author.by, told(made));
    Ok(standing::show(api, StatusCode::OK, &record, |_| ()).await)
}

/// The client, where `condition` holds. Of a fleet's that is known once all is seen that other nodes have done: so it is
/// looked for by a change that changes nothing.
async fn find(api: &Arc<Api>, author: &Author, id: &ClientId, condition: Condition) -> Result<Record, ApiError> {
    if condition.is_none() {
        return read::find(api, id).await;
    }
    let author = Author { by: author.by.clone(), local: author.local };
    let as_it_is = |record: &Record| Ok(Some(record.profile.clone()));
    let seen = write::change_existing(api, author, (id.clone(), condition), as_it_is).await?;
    seen.after.ok_or_else(|| Refusal::Missing(id.clone()).into())
}

/// Where something was done, for the log.
fn told(made: MadeWhere) -> &'static str {
    match made {
        MadeWhere::Everywhere => "",
        MadeWhere::HereFirst => ", on this node; on all once the fleet's store can be reached",
    }
}
