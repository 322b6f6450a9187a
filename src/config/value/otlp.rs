//! Where spans are sent to.

use std::sync::Arc;

use serde_yaml::Value;

use super::kind::ValueKind;
use super::web;

/// What is below the address of a collector for traces, by OTLP's own rule.
const PATH: &str = "/v1/traces";

/// The address of a collector, without TLS. One that ends with [`PATH`] has it already.
#[derive(Debug)]
pub(in crate::config) struct OtlpAddress;

impl ValueKind for OtlpAddress {
    type Checked = Arc<str>;
    const WANTED: &str = "an address that begins with http://, such as http://127.0.0.1:4318";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^http://[^?#@]+$", "examples": ["http://127.0.0.1:4318"]}"#;

    fn read(value: &Value) -> Option<Arc<str>> {
        let text = value.as_str()?;
        check(text).ok()?;
        let base = text.trim_end_matches('/');
        Some(if base.ends_with(PATH) { base.into() } else { format!("{base}{PATH}").into() })
    }

    fn hint(refused: &Value) -> Option<String> {
        check(refused.as_str()?).err().flatten().map(str::to_owned)
    }
}

fn check(text: &str) -> Result<(), Option<&'static str>> {
    web::check(text, "http")?;
    if text.contains(['?', '#']) { Err(Some("it must hold no ? and no #")) } else { Ok(()) }
}
