//! Every answer that is not a success: what the caller sees, and where a cause becomes a status.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::respond;
use crate::store::{Refusal, StoreError, WriteError, WrongKeys};

/// How many wrong fields are told.
pub(in crate::admin) const MAX_FIELDS: usize = 100;

/// What is wrong with one field of a body or one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Its path, such as `capacity` or `[3].addresses[0]`; `body` for the body as a whole.
    #[schema(example = "capacity")]
    pub field: String,
    /// What is allowed, such as "must be a whole number from 1 to 1000000000".
    #[schema(example = "must be a whole number from 1 to 1000000000")]
    pub message: String,
}

impl FieldError {
    /// `message` about `field`.
    pub(in crate::admin) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { field: field.into(), message: message.into() }
    }
}

/// An answer that is not a success: `{"code":N,"message":"…"}`, with `"errors":[{"field":…,"message":…}]` for 422.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status, which is also the body's `code`.
    pub status: StatusCode,
    /// The body's `message`.
    pub message: String,
    /// What is wrong with single fields; not empty only for 422.
    pub errors: Vec<FieldError>,
}

impl ApiError {
    /// An answer without fields.
    pub(in crate::admin) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), errors: Vec::new() }
    }

    /// 400: what came cannot be read.
    pub(in crate::admin) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is no such thing.
    pub(in crate::admin) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 412: it has changed since the caller looked at it, or is there although it should not be.
    pub(in crate::admin) fn precondition(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::PRECONDITION_FAILED, message)
    }

    /// 422: what came can be read, and these fields of it are wrong. The message tells of the first one; of very many,
    /// only some are told.
    pub(in crate::admin) fn fields(errors: Vec<FieldError>) -> Self {
        ApiError::some_fields(errors, 0)
    }

    /// 422: these fields are wrong, and so many more.
    pub(in crate::admin) fn some_fields(mut errors: Vec<FieldError>, mut untold: usize) -> Self {
        untold += errors.len().saturating_sub(MAX_FIELDS);
        errors.truncate(MAX_FIELDS);
        let first = errors.first().map_or_else(String::new, |error| format!("{}: {}", error.field, error.message));
        let message = match (errors.len() + untold).saturating_sub(1) {
            0 => first,
            more => format!("{first} (and {more} more)"),
        };
        if untold > 0 {
            errors.push(FieldError::new("body", format!("{untold} more fields are wrong")));
        }
        ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message, errors }
    }

    /// 422: this one field is wrong.
    pub(in crate::admin) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::fields(vec![FieldError::new(field, message)])
    }

    /// 503: not now, for this reason.
    pub(in crate::admin) fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// The body of an answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(in crate::admin) struct ErrorBody {
    /// The status.
    #[schema(example = 422)]
    code: u16,
    /// What is wrong, in words.
    #[schema(example = "capacity: must be a whole number from 1 to 1000000000")]
    message: String,
    /// What is wrong with single fields or parameters, all of them at once; only with 422.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let body = ErrorBody { code: status.as_u16(), message: self.message, errors: self.errors };
        let mut response = respond::json(status, &body);
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = sentence(&refusal);
        match refusal {
            Refusal::Missing(_) => ApiError::not_found(message),
            Refusal::Version { .. } => ApiError::precondition(message),
            Refusal::NoSuchVersion { .. } => ApiError::field("version", refusal.to_string()),
            Refusal::Keys { wrong: WrongKeys::Missing(_), .. } => ApiError::not_found(message),
            Refusal::Keys { wrong: WrongKeys::Many, .. } => ApiError::new(StatusCode::CONFLICT, message),
            Refusal::Keys { .. } => ApiError::field("api_keys", refusal.to_string()),
            Refusal::NoPlan(_) => ApiError::field("plan", refusal.to_string()),
            Refusal::HalfQuota { ref field, .. } => ApiError::field(field, refusal.to_string()),
            Refusal::ManyPolicies { .. } => ApiError::field("policies", refusal.to_string()),
            Refusal::OfPlan { .. } => ApiError::field("capacity", refusal.to_string()),
            Refusal::Name(_) => ApiError::field("client_id", refusal.to_string()),
            Refusal::Exists(_) | Refusal::NoCandidate(_) | Refusal::KeyTaken { .. } | Refusal::AddressTaken { .. } => {
                ApiError::new(StatusCode::CONFLICT, message)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        ApiError::unavailable(format!("The store is unavailable: {error}"))
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Unavailable(error) => error.into(),
            WriteError::FleetUnreachable | WriteError::FleetRefuses(_) | WriteError::FleetUnknown => {
                ApiError::unavailable(sentence(&error))
            }
        }
    }
}

/// The words with a capital letter in front.
pub(super) fn sentence(words: &impl Display) -> String {
    let mut words = words.to_string();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientId;

    fn id(name: &str) -> ClientId {
        ClientId::parse(name).unwrap()
    }

    #[test]
    fn each_cause_has_its_status() {
        let network = "10.0.0.0/8".parse().unwrap();
        for (refusal, status, message) in [
            (Refusal::Exists(id("a")), 409, "Client a exists already"),
            (Refusal::Missing(id("a")), 404, "There is no client a"),
            (Refusal::Version { id: id("a"), version: 3 }, 412, "Client a has version 3 by now"),
            (Refusal::KeyTaken { id: id("a"), other: id("b") }, 409, "The API key of a is that of client b"),
            (
                Refusal::AddressTaken { id: id("a"), other: id("b"), network },
                409,
                "The address 10.0.0.0/8 of a is that of client b",
            ),
            (
                Refusal::NoSuchVersion { id: id("a"), version: 7 },
                422,
                "version: client a has no version 7 in its history",
            ),
        ] {
            let error = ApiError::from(WriteError::from(refusal));
            assert_eq!((error.status.as_u16(), error.message.as_str()), (status, message));
        }
        let error = ApiError::from(WriteError::FleetUnreachable);
        assert_eq!((error.status.as_u16(), &*error.message), (503, "Fleet store unreachable"));
        let error = ApiError::from(WriteError::FleetRefuses("its memory is full".to_owned()));
        assert_eq!((error.status.as_u16(), &*error.message), (503, "Fleet store unreachable: its memory is full"));
        let error = ApiError::from(StoreError("data/x.db: disk full".to_owned()));
        assert_eq!((error.status.as_u16(), &*error.message), (503, "The store is unavailable: data/x.db: disk full"));
    }

    #[test]
    fn the_message_tells_of_the_first_field_and_how_many_follow() {
        let error = ApiError::fields(vec![FieldError::new("a", "is wrong"), FieldError::new("b", "is too")]);
        assert_eq!(error.message, "a: is wrong (and 1 more)");
        let response = error.into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/json");
        let headers = ApiError::unavailable("full").into_response().headers().clone();
        assert_eq!(headers["retry-after"], "1");
    }
}
