//! Reading the configuration file again.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use super::ApiError;

/// Reads the configuration file again
///
/// Not implemented yet: a restart reads it.
#[utoipa::path(
    post,
    path = "/config/reload",
    tag = "server",
    responses((status = 501, description = "Not implemented yet", body = super::error::ErrorBody)),
)]
pub(super) async fn reload(_request: Request) -> Result<Response, ApiError> {
    let message = "Not implemented yet: restart tollgate to read its configuration again";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

#[cfg(test)]
mod tests {
    use crate::admin::fixture::Fixture;

    #[tokio::test]
    async fn what_is_not_there_yet_says_what_to_do() {
        let answer = Fixture::new().call("POST", "/config/reload", "").await;
        let expected = "Not implemented yet: restart tollgate to read its configuration again";
        assert_eq!((answer.status.as_u16(), answer.json()["message"].as_str()), (501, Some(expected)));
    }
}
