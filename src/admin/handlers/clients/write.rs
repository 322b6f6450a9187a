//! The changes of one client.
//!
//! A change is answered after it is on disk. What is checked against the present state (a condition, a name that must
//! be free) is checked within the write, by the function that is handed to the repository.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use log::info;
use tokio::time::timeout;

use super::author::Author;
use super::condition::Condition;
use super::describe::{
    ClientInput, ClientName, ClientPatch, ClientReplacement, ConditionHeaders, LocalQuery, MatchHeaders, RollbackInput,
};
use super::fields::Draft;
use super::keys::Call;
use super::secret::Secret;
use super::wire::ClientView;
use super::{path, quotas, standing};
use crate::admin::api::error::ErrorBody;
use crate::admin::api::json::Value;
use crate::admin::api::{Api, ApiError, BodyFields, body, percent, respond};
use crate::client::{ClientId, KeyId};
use crate::store::{Action, Change, Committed, Edit, HistoryEntry, Profile, Record, Refusal, WriteError};

/// How long a change may take. The store gives up long before.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a client
///
/// Answered after it is on disk; it counts from the next request on.
#[utoipa::path(
    post,
    path = "/clients",
    operation_id = "create_client",
    tag = "clients",
    params(LocalQuery),
    request_body = ClientInput,
    responses(
        (status = 201, description = "It was made", body = ClientView, headers(
            ("Location" = String, description = "Its path"),
            ("ETag" = String, description = "Its version in quotes"),
        )),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 409, description = "The name, API key or address is another client's", body = ErrorBody),
        (status = 422, description = "A field is wrong; all wrong fields are named", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn create(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let author = Author::of(&request)?;
    let draft = Draft::read(body::read_json(request).await?, Call::Create, &api.parts.plans.load())?;
    let id = draft.id.clone().ok_or_else(incomplete)?;
    let (keys, secret) = (draft.keys.clone(), draft.secret.clone());
    let profile = draft.replace().ok_or_else(incomplete)?;
    let wanted = id.clone();
    let edit = move |record: Option<&Record>| match record {
        Some(_) => Err(Refusal::Exists(wanted.clone())),
        None => {
            let api_keys = keys.clone().of(&[]).map_err(Refusal::of_keys(&wanted))?;
            Ok(Some(Profile { api_keys, ..profile.clone() }))
        }
    };
    let committed = change(&api, author, id, false, Box::new(edit)).await?;
    changed(&api, committed, secret.map(Made::short), StatusCode::CREATED).await
}

/// Makes or replaces a client
///
/// Fields that are left out are at their defaults, except the API key, which stays. Fields that only answers have are
/// passed over.
#[utoipa::path(
    put,
    path = "/clients/{client_id}",
    operation_id = "replace_client",
    tag = "clients",
    params(ClientName, LocalQuery, ConditionHeaders),
    request_body = ClientReplacement,
    responses(
        (status = 200, description = "It was replaced", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 201, description = "It was made", body = ClientView, headers(
            ("Location" = String, description = "Its path"),
            ("ETag" = String, description = "Its version in quotes"),
        )),
        (status = 400, description = "The body is not JSON, or a header or the path is malformed", body = ErrorBody),
        (status = 409, description = "The API key or an address is another client's", body = ErrorBody),
        (status = 412, description = "If-Match or If-None-Match does not hold", body = ErrorBody),
        (status = 422, description = "A field is wrong; all wrong fields are named", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn replace(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let draft = Draft::read(body::read_json(request).await?, Call::Replace, &api.parts.plans.load())?;
    same_name(&id, draft.id.as_ref())?;
    let (keys, secret) = (draft.keys.clone(), draft.secret.clone());
    let profile = draft.replace().ok_or_else(incomplete)?;
    let (wanted, plans) = (id.clone(), api.parts.plans.load_full());
    let edit = move |record: Option<&Record>| {
        condition.check(&wanted, record)?;
        let before = record.map(|record| &record.profile);
        // One that is gone stays with whoever has it, and comes to nobody else.
        if let Some(gone) = profile.plan.as_ref().filter(|name| plans.get(name).is_none())
            && before.is_none_or(|before| before.plan.as_ref() != Some(gone))
        {
            return Err(Refusal::NoPlan(gone.clone()));
        }
        let api_keys =
            keys.clone().of(before.map_or(&[], |before| &before.api_keys)).map_err(Refusal::of_keys(&wanted))?;
        let of_plan = profile.plan.as_ref().and_then(|plan| plans.get(plan));
        let profile = Profile { api_keys, ..profile.clone() };
        Ok(Some(if let Some(before) = before { profile.keeping_own(before, of_plan) } else { profile }))
    };
    let committed = change(api, author, id, false, Box::new(edit)).await.map_err(unmet)?;
    let status = if committed.before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
    changed(api, committed, secret.map(Made::short), status).await
}

/// Changes a client
///
/// A JSON merge patch (RFC 7396): fields that are left out stay, `null` puts one back to its default.
#[utoipa::path(
    patch,
    path = "/clients/{client_id}",
    operation_id = "change_client",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    request_body(content((ClientPatch = "application/merge-patch+json"), (ClientPatch = "application/json"))),
    responses(
        (status = 200, description = "It was changed", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 400, description = "The body is not JSON, or a header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 409, description = "The API key or an address is another client's", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "A field is wrong; all wrong fields are named", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn merge(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let draft = Draft::read(body::read_json(request).await?, Call::Merge, &api.parts.plans.load())?;
    same_name(&id, draft.id.as_ref())?;
    let secret = draft.secret.clone();
    let plans = api.parts.plans.load_full();
    let edit = move |record: &Record| draft.clone().merge(record, &plans).map(Some);
    let committed = change_existing(api, author, (id, condition), edit).await?;
    changed(api, committed, secret.map(Made::short), StatusCode::OK).await
}

/// Deletes a client
///
/// Its history stays, and it can be rolled back to what it was.
#[utoipa::path(
    delete,
    path = "/clients/{client_id}",
    operation_id = "delete_client",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    responses(
        (status = 204, description = "It was deleted"),
        (status = 400, description = "A header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is unknown", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn delete(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    change_existing(api, author, (id, condition), |_| Ok(None)).await?;
    Ok(respond::no_content())
}

/// Puts a client back to an earlier version
///
/// It becomes what it was after that change, its API key included; a deleted client comes back. That is a change of its
/// own.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/rollback",
    operation_id = "roll_back_client",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    request_body = RollbackInput,
    responses(
        (status = 200, description = "The client", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 400, description = "The body is not JSON, or a header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There never was such a client", body = ErrorBody),
        (status = 409, description = "The API key or an address is another client's by now", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "There is no such version, or it is a deletion", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn rollback(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let mut fields = BodyFields::new(body::read_json(request).await?, "", &["version"]);
    let version = fields.require("version", |value| {
        match value {
            Value::Number(number) => number.as_u64().filter(|version| *version > 0),
            _ => None,
        }
        .ok_or_else(|| "must be a whole number from 1 on, the version of a change in the history".to_owned())
    });
    fields.finish()?;
    let profile = profile_after(api, &id, version.ok_or_else(incomplete)?).await?;
    let wanted = id.clone();
    let edit = move |record: Option<&Record>| condition.check(&wanted, record).map(|()| Some(profile.clone()));
    let committed = change(api, author, id, true, Box::new(edit)).await.map_err(unmet)?;
    changed(api, committed, None, StatusCode::OK).await
}

/// Puts a client's candidate in force
///
/// The quota that it was tried with is its own from the next request on, keeping what was spent; it has a candidate and
/// a plan no more.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/promote",
    operation_id = "promote_client_candidate",
    tag = "clients",
    params(ClientName, LocalQuery, MatchHeaders),
    responses(
        (status = 200, description = "The client", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"))),
        (status = 400, description = "A header or the path is malformed", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 409, description = "It has no candidate", body = ErrorBody),
        (status = 412, description = "If-Match does not hold", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is unknown", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn promote(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let (id, condition, author) = head(raw, &request)?;
    let edit = |record: &Record| {
        let quota = record.profile.candidate.ok_or_else(|| Refusal::NoCandidate(record.id.clone()))?;
        Ok(Some(Profile { quota, plan: None, candidate: None, ..record.profile.clone() }))
    };
    let committed = change_existing(api, author, (id, condition), edit).await?;
    changed(api, committed, None, StatusCode::OK).await
}

/// What the client `id` was after the change `version`. That never changes, so it may be looked up before the write.
async fn profile_after(api: &Arc<Api>, id: &ClientId, version: u64) -> Result<Profile, ApiError> {
    let (repository, wanted) = (Arc::clone(&api.parts.repository), id.clone());
    let find = move || -> Result<HistoryEntry, ApiError> {
        let found = repository.history(&wanted, Some(version.saturating_add(1)), 1)?;
        match found.into_iter().find(|entry| entry.version == version) {
            Some(entry) => Ok(entry),
            None if repository.history(&wanted, None, 1)?.is_empty() => Err(Refusal::Missing(wanted).into()),
            None => Err(Refusal::NoSuchVersion { id: wanted, version }.into()),
        }
    };
    let entry = api.reads.run(find).await?;
    let deleted = || ApiError::field("version", format!("version {version} is the deletion of client {id}"));
    entry.after.ok_or_else(deleted)
}

/// What a change needs besides its body.
pub(super) fn head(raw: &str, request: &Request) -> Result<(ClientId, Condition, Author), ApiError> {
    let id = path::id(raw)?;
    let author = Author::of(request)?;
    Ok((id, Condition::of(request.headers())?, author))
}

fn same_name(id: &ClientId, other: Option<&ClientId>) -> Result<(), ApiError> {
    match other {
        Some(other) if other != id => {
            Err(ApiError::field("client_id", format!("must be {id}, as in the path; a client keeps its name")))
        }
        _ => Ok(()),
    }
}

/// Carries out a change of a client that has to be there and to meet `condition`.
pub(super) async fn change_existing(
    api: &Arc<Api>,
    author: Author,
    (id, condition): (ClientId, Condition),
    edit: impl Fn(&Record) -> Result<Option<Profile>, Refusal> + Send + 'static,
) -> Result<Committed, ApiError> {
    let wanted = id.clone();
    let edit = move |record: Option<&Record>| {
        let record = record.ok_or_else(|| Refusal::Missing(wanted.clone()))?;
        condition.check(&wanted, Some(record))?;
        edit(record)
    };
    change(api, author, id, false, Box::new(edit)).await.map_err(unmet_if_exists)
}

/// Carries out a change and logs it, even when whoever asked has gone meanwhile.
async fn change(
    api: &Arc<Api>,
    Author { by, local }: Author,
    id: ClientId,
    rollback: bool,
    edit: Edit,
) -> Result<Committed, WriteError> {
    let change = Change { id: id.clone(), by: by.clone(), at: api.parts.clock.wall(), rollback, local, edit };
    let reply = api.parts.repository.change(change);
    let carried_out = tokio::spawn(async move {
        let committed = timeout(PATIENCE, reply.wait()).await.unwrap_or_else(|_| Err(late()))?;
        if let Some(action) = committed.action {
            let version = committed.after.as_ref().map(|record| format!(", version {}", record.version));
            info!("client {id}: {} by {by}{}", past(action), version.unwrap_or_default());
        }
        Ok(committed)
    });
    carried_out.await.unwrap_or_else(|_| Err(late()))
}

/// What a write is answered that takes longer than anybody waits.
pub(super) fn late() -> WriteError {
    WriteError::Unavailable(crate::store::StoreError(
        "it did not answer in time; whether the change was kept is not known".to_owned(),
    ))
}

/// What was done, for the log.
fn past(action: Action) -> &'static str {
    match action {
        Action::Create => "created",
        Action::Update => "updated",
        Action::Delete => "deleted",
        Action::Rollback => "rolled back",
    }
}

/// A key that was made and is shown, and its id where it is one of several.
pub(super) struct Made {
    pub(super) secret: Secret,
    pub(super) id: Option<KeyId>,
}

impl Made {
    /// The key that is given as `api_key`.
    fn short(secret: Secret) -> Self {
        Made { secret, id: None }
    }
}

/// The answer that shows what a client has become.
pub(super) async fn changed(
    api: &Api,
    committed: Committed,
    mut made: Option<Made>,
    status: StatusCode,
) -> Result<Response, ApiError> {
    // No edit above turns a client into none and gets here.
    let record = committed.after.ok_or_else(incomplete)?;
    let mut location = format!("/clients/{}", percent::encode_segment(record.id.as_str()));
    if let Some(id) = made.as_ref().and_then(|made| made.id.as_ref()) {
        location.push_str(&format!("/keys/{id}"));
    }
    let tell = |view: &mut ClientView| {
        view.warnings = quotas::warnings(api, &record.profile);
        if let Some(Made { secret, id }) = made.take() {
            view.api_key = Some(secret.reveal());
            view.key_id = id.map(|id| id.to_string());
        }
    };
    let mut response = standing::show(api, status, &record, tell).await;
    if let (StatusCode::CREATED, Ok(location)) = (status, HeaderValue::from_str(&location)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A condition that does not hold is 412, whatever it is that does not hold.
fn unmet(error: WriteError) -> ApiError {
    match error {
        WriteError::Refused(refusal @ (Refusal::Missing(_) | Refusal::Exists(_))) => {
            ApiError::precondition(ApiError::from(refusal).message)
        }
        error => error.into(),
    }
}

/// As [`unmet`], where a client that is missing is 404.
fn unmet_if_exists(error: WriteError) -> ApiError {
    match error {
        WriteError::Refused(Refusal::Missing(_)) => error.into(),
        error => unmet(error),
    }
}

/// For what the checks before have ruled out.
pub(super) fn incomplete() -> ApiError {
    ApiError::field("body", "must have a client_id, a capacity and a rate_per_sec")
}
