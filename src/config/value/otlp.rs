//! Where spans are sent to.

use std::sync::Arc;

use http::Uri;
use serde_yaml::Value;

use super::kind::ValueKind;

/// What is below the address of a collector for traces, by OTLP's own rule.
const PATH: &str = "/v1/traces";

/// The address of a collector, without TLS.
#[derive(Debug)]
pub(in crate::config) struct OtlpAddress;

impl ValueKind for OtlpAddress {
    type Checked = Arc<str>;
    const WANTED: &str = "an address that begins with http://, such as http://127.0.0.1:4318";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^http://[^?#@]+$", "examples": ["http://127.0.0.1:4318"]}"#;

    fn read(value: &Value) -> Option<Arc<str>> {
        let text = value.as_str().filter(|text| !text.contains(['?', '#', '@']))?;
        let uri: Uri = text.parse().ok()?;
        let is_right = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
        is_right.then(|| format!("{}{PATH}", text.trim_end_matches('/')).into())
    }
}
