//! Every answer that is not a success: what the caller sees, and where a cause becomes a status.

use http::StatusCode;

/// What is wrong with one field of a body or one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Its path, such as `capacity` or `[3].addresses[0]`.
    pub field: String,
    /// What is allowed, such as "must be a whole number from 1 to 1000000000".
    pub message: String,
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
