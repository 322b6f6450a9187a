//! Who changes a client, and whether the fleet is needed for it.

use axum::extract::Request;

use crate::admin::api::ApiError;
use crate::admin::api::access::Actor;
use crate::admin::api::query::Query;

/// Who changes a client, and how.
pub(super) struct Author {
    /// For the history.
    pub(super) by: String,
    /// Whether it may be changed here alone when the fleet's store cannot be reached.
    pub(super) local: bool,
}

impl Author {
    /// That of a request whose query says nothing else.
    pub(super) fn of(request: &Request) -> Result<Self, ApiError> {
        let mut query = Query::of(request.uri(), &["local"])?;
        let local = query.flag("local");
        query.finish()?;
        Ok(Author { by: Actor::of(request), local })
    }
}
