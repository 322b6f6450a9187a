//! Names, and parts of requests.

use http::HeaderName;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use serde_yaml::Value;

use super::kind::ValueKind;
use crate::route::{HostPattern, PathPrefix, RouteError};

/// The name of a pool: short, and the same in a log, a path and a metric.
#[derive(Debug)]
pub(in crate::config) struct PoolName;

impl ValueKind for PoolName {
    type Checked = String;
    const WANTED: &str = "a name of 1 to 64 characters of A-Z, a-z, 0-9, . _ and -";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| (1..=64).contains(&text.len()))?;
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)).then(|| text.to_owned())
    }
}

/// What a check asks for.
#[derive(Debug)]
pub(in crate::config) struct CheckPath;

impl ValueKind for CheckPath {
    type Checked = String;
    const WANTED: &str = "a path that starts with /, such as /health, without spaces or #";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^/[!-\"$-~]*$"}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| text.starts_with('/'))?;
        text.bytes().all(|b| b.is_ascii_graphic() && b != b'#').then(|| text.to_owned())
    }
}

/// The name of a gRPC service.
#[derive(Debug)]
pub(in crate::config) struct GrpcService;

impl ValueKind for GrpcService {
    type Checked = String;
    const WANTED: &str = "the name of a gRPC service, such as app.v1.Users, of at most 200 characters";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[!-~]{0,200}$"}"#;

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| text.len() <= 200)?;
        text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.to_owned())
    }
}

/// The host of a route.
#[derive(Debug)]
pub(in crate::config) struct RouteHost;

impl ValueKind for RouteHost {
    type Checked = HostPattern;
    const SCHEMA: &str = r#"{"type": "string", "examples": ["api.example.com", "*.example.com"]}"#;

    fn wanted() -> String {
        RouteError::Host.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<HostPattern> {
        HostPattern::parse(value.as_str()?).ok()
    }
}

/// The path of a route.
#[derive(Debug)]
pub(in crate::config) struct RoutePath;

impl ValueKind for RoutePath {
    type Checked = PathPrefix;
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^/", "examples": ["/", "/v1"]}"#;

    fn wanted() -> String {
        RouteError::Path.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<PathPrefix> {
        PathPrefix::parse(value.as_str()?).ok()
    }
}

/// The name of a header.
#[derive(Debug)]
pub(in crate::config) struct Header;

impl ValueKind for Header {
    type Checked = HeaderName;
    const WANTED: &str = "the name of a header that holds nothing else, such as x-api-key";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["x-api-key"]}"#;

    fn read(value: &Value) -> Option<HeaderName> {
        let name: HeaderName = value.as_str()?.parse().ok()?;
        let taken =
            [AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
        (!taken.contains(&name) && !name.as_str().starts_with("x-forwarded-")).then_some(name)
    }

    fn hint(refused: &Value) -> Option<String> {
        let bearer = refused.as_str()?.eq_ignore_ascii_case("authorization");
        bearer.then(|| "`Authorization: Bearer KEY` is read in any case".to_owned())
    }
}
