//! Reading a request's body: as long as it may be, within the time it may take, and without long silences.
//!
//! A large body may take minutes, and holds a place while it does. Whoever stops sending in the middle must not hold it
//! as long, so each piece has to come soon after the one before.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::ApiError;
use super::json::{self, Value};

/// How long nothing of a body may come.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a body may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct BodyLimits {
    /// In bytes.
    pub(in crate::admin) bytes: usize,
    /// From its first byte to its last.
    pub(in crate::admin) time: Duration,
}

impl BodyLimits {
    /// Of every call but one: 1 MiB, 30 s.
    pub(in crate::admin) const ORDINARY: BodyLimits = BodyLimits { bytes: 1 << 20, time: Duration::from_secs(30) };
    /// Of a bulk import: 256 MiB, 300 s.
    pub(in crate::admin) const BULK: BodyLimits = BodyLimits { bytes: 256 << 20, time: Duration::from_secs(300) };
}

/// Reads the body of `request`, which must be of a type that [`json::check_content_type`] takes.
///
/// # Errors
/// 415, 413 when it is too long, 408 when it takes too long or stops, 400 when it breaks off.
pub(in crate::admin) async fn read(request: axum::extract::Request, limits: BodyLimits) -> Result<Bytes, ApiError> {
    json::check_content_type(request.headers().get(CONTENT_TYPE))?;
    let body = request.into_body();
    let announced = body.size_hint().lower();
    if usize::try_from(announced).is_ok_and(|announced| announced <= limits.bytes) {
        match timeout(limits.time, collect(body, limits.bytes)).await {
            Ok(read) => read,
            Err(_) => Err(too_slow()),
        }
    } else {
        Err(too_large(limits.bytes))
    }
}

/// Reads the body of `request` as JSON.
///
/// # Errors
/// As [`read`], and 400 when it is no JSON.
pub(in crate::admin) async fn read_json(request: axum::extract::Request) -> Result<Value, ApiError> {
    json::parse(&read(request, BodyLimits::ORDINARY).await?)
}

/// As [`read_json`], and an object without fields where there is no body.
///
/// # Errors
/// As [`read_json`].
pub(in crate::admin) async fn read_json_if_any(request: axum::extract::Request) -> Result<Value, ApiError> {
    if request.body().size_hint().exact() == Some(0) {
        return Ok(Value::Object(Vec::new()));
    }
    read_json(request).await
}

async fn collect(mut body: Body, max: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("The body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(too_large(max));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "Request timeout")
}

fn too_large(max: usize) -> ApiError {
    let message = format!("Request body too large; at most {max} bytes are allowed here");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
