//! Reading the configuration file again.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use super::ApiError;

/// Reads the configuration file again
///
/// Not possible while running: a restart reads it.
#[utoipa::path(
    post,
    path = "/config/reload",
    tag = "server",
    responses((status = 501, description = "Not possible while running", body = super::error::ErrorBody)),
)]
pub(super) async fn reload(_request: Request) -> Result<Response, ApiError> {
    let message =
        "Not implemented: restart tollgate to read its configuration again; no request is lost when you upgrade";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}
