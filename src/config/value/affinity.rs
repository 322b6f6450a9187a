//! What ties a request to a backend.

use std::sync::Arc;

use serde_yaml::Value;

use super::kind::ValueKind;
use crate::upstream::HashBy;

/// What requests are told apart by.
#[derive(Debug)]
pub(in crate::config) struct HashedBy;

impl ValueKind for HashedBy {
    type Checked = HashBy;
    const WANTED: &str = "client, address, path, header:NAME such as header:X-User, or cookie:NAME such as cookie:id";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^(client|address|path|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$", "examples": ["client", "header:X-User", "cookie:id"]}"#;

    fn read(value: &Value) -> Option<HashBy> {
        Some(match value.as_str()? {
            "client" => HashBy::Client,
            "address" => HashBy::Address,
            "path" => HashBy::Path,
            other => match other.split_once(':')? {
                ("header", name) => HashBy::Header(name.parse().ok()?),
                ("cookie", name) if is_token(name) => HashBy::Cookie(name.to_owned()),
                _ => return None,
            },
        })
    }
}

/// The name of a cookie.
#[derive(Debug)]
pub(in crate::config) struct CookieName;

impl ValueKind for CookieName {
    type Checked = Arc<str>;
    const WANTED: &str = "the name of a cookie, such as tg_backend, of at most 64 characters";
    const SCHEMA: &str =
        r#"{"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$", "examples": ["tg_backend"]}"#;

    fn read(value: &Value) -> Option<Arc<str>> {
        value.as_str().filter(|name| is_token(name) && name.len() <= 64).map(Arc::from)
    }
}

/// Whether it can be the name of a cookie (RFC 6265 section 4.1.1).
fn is_token(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_part)
}
