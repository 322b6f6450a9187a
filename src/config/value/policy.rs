//! What policies say of requests.

use http::{HeaderName, Method};
use serde_yaml::Value;

use super::kind::{ValueKind, of_quotes};
use crate::proxy::{OWN, PolicyCost, PolicyKey};
use crate::route::{RuleSide, RuleVerb, may};

/// The name of a policy: it stands in headers, labels and log lines.
#[derive(Debug)]
pub(in crate::config) struct PolicyName;

impl ValueKind for PolicyName {
    type Checked = String;
    const WANTED: &str = "a name of 1 to 64 characters of A-Z, a-z, 0-9, . _ and -, other than default";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "not": {"const": "default"}, "examples": ["writes"]}"#;

    fn read(value: &Value) -> Option<String> {
        super::PoolName::read(value).filter(|name| name != OWN)
    }

    fn hint(refused: &Value) -> Option<String> {
        let taken = refused.as_str() == Some(OWN);
        taken.then(|| "that is the caller's own bucket".to_owned())
    }
}

/// Whose bucket pays.
#[derive(Debug)]
pub(in crate::config) struct PolicyPayer;

impl ValueKind for PolicyPayer {
    type Checked = PolicyKey;
    const WANTED: &str = "client, address, all, or header: and the name of a header, such as header:X-Tenant";
    const SCHEMA: &str = r#"{"anyOf": [{"enum": ["client", "address", "all"]},
        {"type": "string", "pattern": "^header:[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["header:X-Tenant"]}]}"#;

    fn read(value: &Value) -> Option<PolicyKey> {
        Some(match value.as_str()? {
            "client" => PolicyKey::Client,
            "address" => PolicyKey::Address,
            "all" => PolicyKey::All,
            text => PolicyKey::Header(text.strip_prefix("header:")?.parse().ok()?),
        })
    }
}

/// What a request costs.
#[derive(Debug)]
pub(in crate::config) struct Cost;

impl Cost {
    fn header(value: &Value) -> Option<Result<HeaderName, String>> {
        let keys = value.as_mapping().filter(|keys| keys.len() == 1)?;
        let name: HeaderName = keys.get("answer_header")?.as_str()?.parse().ok()?;
        // What frames a message is nobody's to take away.
        Some(may(RuleSide::Answer, RuleVerb::Remove, &name).map(|()| name).map_err(|error| error.to_string()))
    }
}

impl ValueKind for Cost {
    type Checked = PolicyCost;
    const WANTED: &str =
        "a whole number from 1 to 1000000000, or {answer_header: NAME}, such as {answer_header: X-Cost}";
    const SCHEMA: &str = r#"{"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000000000},
        {"type": "object", "required": ["answer_header"], "additionalProperties": false, "properties": {"answer_header":
        {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["X-Cost"]}}}]}"#;

    fn read(value: &Value) -> Option<PolicyCost> {
        let tokens = value.as_u64().filter(|tokens| *tokens <= 1_000_000_000);
        let tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok()?.try_into().ok());
        tokens.map(PolicyCost::Tokens).or_else(|| Cost::header(value)?.ok().map(PolicyCost::AnswerHeader))
    }

    fn hint(refused: &Value) -> Option<String> {
        match Cost::header(refused) {
            Some(read) => read.err().map(|why| format!("that header {why}")),
            None => of_quotes::<Self>(refused),
        }
    }
}

/// A method of requests.
#[derive(Debug)]
pub(in crate::config) struct RequestMethod;

impl ValueKind for RequestMethod {
    type Checked = String;
    const WANTED: &str = "a method such as GET or POST, in its own case";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["POST"]}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str()?;
        Method::from_bytes(text.as_bytes()).ok().map(|_| text.to_owned())
    }
}
