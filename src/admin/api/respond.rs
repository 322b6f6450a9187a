//! Every answer that is a success.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Serialize, Serializer};

use crate::limit::Tokens;

/// An answer with a JSON body. No cache may keep it: it tells how things stand now, and may hold a new key.
pub(in crate::admin) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    // Wire types have string keys and no failing parts, so this is never the other case.
    let text = serde_json::to_vec(body).unwrap_or_default();
    with_type(status, "application/json", Body::from(text))
}

/// An answer with a body of another type.
pub(in crate::admin) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The nodes of the fleet whose figures are not in an answer.
#[derive(Debug, Default)]
pub(in crate::admin) struct MissingNodes(pub(in crate::admin) Vec<String>);

impl MissingNodes {
    /// Says so in a header of the answer, if there is any.
    pub(in crate::admin) fn tell(&self, response: &mut Response) {
        let names = HeaderValue::from_str(&self.0.join(", "));
        if let (false, Ok(names)) = (self.0.is_empty(), names) {
            response.headers_mut().insert(HeaderName::from_static("nodes-missing"), names);
        }
    }
}

/// 204: done, nothing to say.
pub(in crate::admin) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Writes a number as a person would: the shortest decimal, and a whole one without `.0`.
///
/// # Errors
/// Those of the serializer.
pub(in crate::admin) fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole numbers up to 2⁵³ are exact in both.
    if number.fract() == 0.0 && (0.0..9e15).contains(number) {
        serializer.serialize_u64(*number as u64)
    } else {
        serializer.serialize_f64(*number)
    }
}

/// As [`number`], for one that may be missing.
///
/// # Errors
/// Those of the serializer.
pub(in crate::admin) fn optional_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// Tokens for people: to a thousandth, rounded down, so that nobody is told of a token that is not there yet.
pub(in crate::admin) fn thousandths(tokens: Tokens) -> f64 {
    let (whole, fraction) = tokens.parts();
    // Below 2⁵³, so exact.
    (u64::from(whole) * 1_000 + fraction / 1_000_000_000_000_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Numbers(#[serde(serialize_with = "number")] f64, #[serde(serialize_with = "optional_number")] Option<f64>);

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(10.0, "10"), (0.7, "0.7"), (1e9, "1000000000"), (0.0, "0"), (12_345.678, "12345.678")] {
            assert_eq!(serde_json::to_string(&Numbers(value, Some(value))).unwrap(), format!("[{text},{text}]"));
        }
        assert_eq!(serde_json::to_string(&Numbers(0.5, None)).unwrap(), "[0.5,null]");
    }

    #[test]
    fn tokens_are_rounded_down() {
        for (whole, fraction, shown) in
            [(87, 500_000_000_000_000_000, 87.5), (0, 999_999_999_999_999_999, 0.999), (1_000_000_000, 0, 1e9)]
        {
            assert_eq!(thousandths(Tokens::from_parts(whole, fraction)), shown);
        }
    }
}
