//! What happens now, an event a second, for the page and for whoever wants to look on.
//!
//! Each event is the sample that the [series](super::series) keeps, written once however many look on. An onlooker who
//! reads slowly misses events and gets the latest. The stream ends when the API closes, at once: no stop and no upgrade
//! waits for an open page, which asks again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use tokio::sync::watch;

use super::series::SampleBody;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::{Api, ApiError, Stopping, respond};
use crate::telemetry::Sample;

/// The type of a stream of events.
const EVENTS: &str = "text/event-stream";

/// Shows what happens, an event a second
///
/// Server-sent events whose `data` is the sample of the second that is over, as [`GET /series`](#get_series) has it. An
/// `EventSource` cannot send a token; read it with `fetch`.
#[utoipa::path(
    get,
    path = "/live",
    operation_id = "watch_live",
    tag = "traffic",
    responses(
        (status = 200, description = "Events, for as long as they are read and the server runs",
            content((SampleBody = "text/event-stream"))),
        (status = 422, description = "A query parameter was given; there are none", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn live(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let (followed, stopping) = (api.parts.series.follow(), Box::pin(Stopping::of(&request)));
    // So that whoever asks knows at once that it is heard.
    let first = Some(Bytes::from_static(b": tollgate\n\n"));
    let events = stream::unfold((followed, stopping, first), async |(mut followed, mut stopping, first)| {
        if let Some(first) = first {
            return Some((Ok::<_, std::convert::Infallible>(first), (followed, stopping, None)));
        }
        let event = tokio::select! {
            biased;
            () = &mut stopping => None,
            event = next(&mut followed) => event,
        };
        Some((Ok(event?), (followed, stopping, None)))
    });
    Ok(respond::with_type(StatusCode::OK, EVENTS, Body::from_stream(events)))
}

/// The next event; none when there will be no more.
async fn next(followed: &mut watch::Receiver<Option<Sample>>) -> Option<Bytes> {
    loop {
        followed.changed().await.ok()?;
        let Some(sample) = *followed.borrow_and_update() else { continue };
        let data = serde_json::to_string(&SampleBody::new(&sample)).unwrap_or_default();
        return Some(format!("data: {data}\n\n").into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;
    use crate::admin::fixture::Fixture;
    use crate::telemetry::CountedSoFar;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn each_second_is_an_event_until_the_api_closes() {
        let fixture = Fixture::new();
        let (stop, closing) = watch::channel(false);
        let mut answer = fixture.open("/live", closing).await;
        assert_eq!(answer.headers()["content-type"], EVENTS);
        let frame = async |body: &mut Body| {
            let frame = timeout(PATIENCE, body.frame()).await.expect("no event");
            frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
        };
        assert_eq!(frame(answer.body_mut()).await.as_deref(), Some(": tollgate\n\n"));
        fixture.series.take(10, CountedSoFar::default(), 0);
        fixture.series.take(11, CountedSoFar { statuses: vec![(200, 2)], ..CountedSoFar::default() }, 5);
        let event = frame(answer.body_mut()).await.unwrap();
        let data = event.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["at"], &data["answers"]["2xx"], &data["in_flight"]), (&11.into(), &2.into(), &5.into()));
        stop.send(true).unwrap();
        assert_eq!(frame(answer.body_mut()).await, None);
        assert_eq!(fixture.call("GET", "/live?x=1", "").await.status, 422);
    }
}
