//! Reading the configuration file again.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use log::info;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::api::Api;
use crate::admin::api::access::Actor;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::parts::{ReloadRefused, Reloaded};
use crate::admin::api::query::Query;
use crate::admin::api::{ApiError, FieldError, respond};

/// What those are told whose configuration is wrong.
const REFUSED: &str = "The configuration was not reloaded; the old one stays in force";

/// What a reload changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reload)]
pub(in crate::admin) struct ReloadBody {
    /// What changed, a sentence each; empty when nothing did.
    #[schema(example = json!(["upstreams changed: app"]))]
    changed: Vec<String>,
}

/// Reads the configuration file again
///
/// All or nothing, and without losing a request: what is answered with 200 is in force, and with 422 nothing of the
/// file is. A reload that has begun goes on when whoever asked for it has gone.
#[utoipa::path(
    post,
    path = "/config/reload",
    tag = "server",
    responses(
        (status = 200, description = "The file is in force", body = ReloadBody),
        (status = 422, description = "The file is wrong, or changes what only a restart can change; `errors` lists every \
            problem by the path of its key", body = ErrorBody),
        (status = 503, description = "The server hands over or stops, so it takes no other file", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn reload(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    info!("reload asked for by {}", Actor::of(&request));
    // This future is dropped when the caller hangs up, and half a reload must not be.
    let ended = tokio::spawn((api.parts.reload)()).await;
    let Ok(ended) = ended else {
        return Err(ApiError::unavailable("The reload broke off; the log of events may say why"));
    };
    let Reloaded { changed } = ended.map_err(refused)?;
    Ok(respond::json(StatusCode::OK, &ReloadBody { changed }))
}

/// 422 with every problem (the file is the operator's own, so its length is bound enough), or 503.
fn refused(refused: ReloadRefused) -> ApiError {
    match refused {
        ReloadRefused::Wrong(problems) => {
            let errors = problems.into_iter().map(|(field, message)| FieldError { field, message }).collect();
            ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message: REFUSED.to_owned(), errors }
        }
        ReloadRefused::NotNow(reason) => ApiError::unavailable(format!("{REFUSED}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::admin::fixture::Fixture;

    #[tokio::test]
    async fn what_changed_is_told() {
        let changed = || vec!["upstreams changed: app".to_owned(), "limits changed".to_owned()];
        let fixture =
            Fixture::reloading(Box::new(move || Box::pin(std::future::ready(Ok(Reloaded { changed: changed() })))));
        for body in ["", "{}", "not even JSON"] {
            let answer = fixture.call("POST", "/config/reload", body).await;
            assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({ "changed": changed() })));
        }
        let nothing = Fixture::new().call("POST", "/config/reload", "").await;
        assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (200, r#"{"changed":[]}"#));
    }

    #[tokio::test]
    async fn every_problem_is_told() {
        let problems: Vec<_> =
            (0..150).map(|at| (format!("listeners[{at}].address"), "is no address".into())).collect();
        let told = problems.clone();
        let fixture = Fixture::reloading(Box::new(move || {
            Box::pin(std::future::ready(Err(ReloadRefused::Wrong(problems.clone()))))
        }));
        let answer = fixture.call("POST", "/config/reload", "").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"], answer.errors()), (422, &json!(422), told));
        assert_eq!(answer.json()["message"], "The configuration was not reloaded; the old one stays in force");
        let parameter = fixture.call("POST", "/config/reload?dry_run=1", "").await;
        assert_eq!((parameter.status.as_u16(), parameter.errors()[0].0.as_str()), (422, "dry_run"));
    }

    #[tokio::test]
    async fn that_it_is_not_the_time_is_no_fault_of_the_file() {
        let fixture = Fixture::reloading(Box::new(|| {
            Box::pin(std::future::ready(Err(ReloadRefused::NotNow("the server is draining".to_owned()))))
        }));
        let answer = fixture.call("POST", "/config/reload", "").await;
        let message = "The configuration was not reloaded; the old one stays in force: the server is draining";
        assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({ "code": 503, "message": message })));
    }

    #[tokio::test]
    async fn whoever_hangs_up_does_not_stop_it() {
        let (begun, mut begins) = mpsc::channel(1);
        let (go_on, goes_on) = mpsc::channel(1);
        let (done, mut ends) = mpsc::channel(1);
        let goes_on = Mutex::new(Some(goes_on));
        let fixture = Fixture::reloading(Box::new(move || {
            let (begun, done, mut goes_on) = (begun.clone(), done.clone(), goes_on.lock().take().unwrap());
            Box::pin(async move {
                begun.send(()).await.unwrap();
                goes_on.recv().await.unwrap();
                done.send(()).await.unwrap();
                Ok(Reloaded::default())
            })
        }));
        tokio::select! {
            answer = fixture.call("POST", "/config/reload", "") => panic!("too early: {answer:?}"),
            _ = begins.recv() => {}
        }
        go_on.send(()).await.unwrap();
        timeout(Duration::from_secs(30), ends.recv()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_an_answer() {
        let fixture = Fixture::reloading(Box::new(|| Box::pin(async { panic!("on purpose") })));
        let answer = fixture.call("POST", "/config/reload", "").await;
        assert_eq!(answer.status.as_u16(), 503);
    }
}
