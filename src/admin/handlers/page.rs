//! The page: the files that `src/admin/ui/` has.
//!
//! They need no token and hold no data; what the page shows it asks the API for, with the token that it is given.
//!
//! What a page may do is said in headers: load from here and nowhere else, run no script and use no style that stands
//! in the markup, be framed by nobody, and tell nobody where it was. A browser asks each time whether a file is still
//! the one that it has, so an upgrade is a new page at the next look.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::admin::api::query::Query;
use crate::admin::api::{Api, ApiError};

/// What the page may do.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
);

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const STYLE: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const IMAGE: HeaderValue = HeaderValue::from_static("image/svg+xml");

/// The page itself.
pub(in crate::admin) async fn index(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    answer(&api, "index.html", &request)
}

/// A file of the page.
pub(in crate::admin) async fn file(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&api, &name, &request)
}

fn answer(api: &Api, name: &str, request: &Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let file = api.page.get(name).ok_or_else(|| ApiError::not_found(format!("The page has no file {name}")))?;
    let (tag, packed) = file.packed();
    let has = |name: HeaderName, part: &str| {
        request.headers().get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(part)))
    };
    let (known, packs) = (has(IF_NONE_MATCH, tag), has(ACCEPT_ENCODING, "gzip"));
    let body = match (known, packs) {
        (true, _) => Body::empty(),
        (false, true) => Body::from(packed.clone()),
        (false, false) => Body::from(file.text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let headers = response.headers_mut();
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => HTML,
        Some((_, "js")) => SCRIPT,
        Some((_, "css")) => STYLE,
        Some((_, "svg")) => IMAGE,
        _ => TEXT,
    };
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if packs && !known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Weak, since it is the same for a file that is packed and for one that is not.
    if let Ok(tag) = HeaderValue::try_from(format!("W/\"{tag}\"")) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture::Fixture;
    use crate::admin::{Access, Token};
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn the_page_needs_no_token_and_says_what_it_may() {
        let token = Token { name: "ops".to_owned(), secret: "secret".to_owned(), viewer: false };
        let fixture = Fixture::over(std::sync::Arc::new(Memory::new()), Access::Tokens(vec![token]));
        let page = fixture.call("GET", "/", "").await;
        assert_eq!((page.status.as_u16(), &page.headers["content-type"]), (200, &HTML));
        assert_eq!(page.headers["content-security-policy"], POLICY);
        assert!(POLICY.to_str().unwrap().starts_with("default-src 'self';") && !page.text.contains("secret"));
        let tag = page.headers["etag"].to_str().unwrap();
        assert_eq!(fixture.send("GET", "/", &[("if-none-match", tag)], "").await.status, 304);
        let packed = fixture.open_with("/ui/vendor/uPlot.iife.min.js", &[("accept-encoding", "br, gzip")]).await;
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let packed = http_body_util::BodyExt::collect(packed.into_body()).await.unwrap().to_bytes();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
        assert_eq!(text, fixture.call("GET", "/ui/vendor/uPlot.iife.min.js", "").await.text);
        let script = fixture.call("GET", "/ui/main.js", "").await;
        assert_eq!((script.status.as_u16(), &script.headers["content-type"]), (200, &SCRIPT));
        for (path, status) in [("/ui/none.js", 404), ("/ui/../main.js", 404), ("/?a=b", 422), ("/clients", 401)] {
            assert_eq!(fixture.call("GET", path, "").await.status, status, "{path}");
        }
        assert_eq!(fixture.call("POST", "/", "{}").await.status, 405);
    }
}
