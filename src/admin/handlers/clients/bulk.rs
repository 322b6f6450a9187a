//! Changes of many clients in one transaction: what operators keep in git goes in with one call.
//!
//! Every item is read before anything is changed, and everything that is wrong with any of them is told at once. A JSON
//! array is read item by item, so that a large body is not held a second time as a tree.
//!
//! What a body costs is bounded three times: by its bytes, by the values of one item, and by the number of items. An
//! item that was read takes some 250 bytes, half a gigabyte for as many as there may be, and its addresses and its note
//! some twice their room in the text.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use log::info;
use tokio::time::timeout;

use super::describe::{ClientItem, LocalQuery};
use super::fields::Draft;
use super::quotas;
use super::wire::{ChangedView, DifferenceView};
use super::write::late;
use crate::admin::api::Api;
use crate::admin::api::access::Actor;
use crate::admin::api::body::{self, BodyLimits};
use crate::admin::api::error::{ErrorBody, MAX_FIELDS};
use crate::admin::api::json::{self, Value};
use crate::admin::api::query::Query;
use crate::admin::api::reads::blocking;
use crate::admin::api::{ApiError, FieldError, respond};
use crate::client::{ClientId, Plans};
use crate::store::{Batch, BatchItem, Difference};

/// How long the transaction may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many items one body may have; more clients go in with several bodies.
const MAX_ITEMS: usize = 2_000_000;

/// Applies many clients
///
/// All or none of them. Each item makes or replaces the client of its name, as `PUT /clients/{client_id}` does.
#[utoipa::path(
    put,
    path = "/clients",
    operation_id = "apply_clients",
    tag = "clients",
    params(
        ("dry_run" = Option<String>, Query, pattern = "^(0|1|true|false)$",
            description = "Find out what would change, and change nothing"),
        ("prune" = Option<String>, Query, pattern = "^(0|1|true|false)$",
            description = "Delete the clients that are not among the items"),
        LocalQuery,
    ),
    request_body(
        description = "A JSON array of clients, or one client a line; at most 256 MiB and 2000000 clients",
        content((Vec<ClientItem> = "application/json"), (String = "application/x-ndjson")),
    ),
    responses(
        (status = 200, description = "What was changed, or would be", body = DifferenceView),
        (status = 400, description = "The body is not JSON", body = ErrorBody),
        (status = 408, description = "The body took longer than 300 s, or stopped for 10 s", body = ErrorBody),
        (status = 409, description = "Two clients would have one API key or address", body = ErrorBody),
        (status = 413, description = "The body is longer than 256 MiB", body = ErrorBody),
        (status = 415, description = "The body's type is not JSON", body = ErrorBody),
        (status = 422, description = "Fields are wrong, of which the first 100 are named, or there are too many clients", body = ErrorBody),
        (status = 503, description = "The store cannot be written, or the fleet's store cannot be reached", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn apply(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let mut query = Query::of(request.uri(), &["dry_run", "prune", "local"])?;
    let (dry_run, prune, local) = (query.flag("dry_run"), query.flag("prune"), query.flag("local"));
    query.finish()?;
    let by = Actor::of(&request);
    let _place = api.reads.import().await?;
    let text = body::read(request, BodyLimits::BULK).await?;
    let plans = api.parts.plans.load_full();
    let items = blocking(move || read(text, &plans, MAX_ITEMS)).await??;
    let (at, progress) = (api.parts.clock.wall(), Arc::default());
    *api.importing.lock() = Arc::downgrade(&progress);
    let batch = Batch { items, prune, dry_run, local, by: by.clone(), at, progress };
    let reply = api.parts.repository.apply(batch);
    // Logged even when whoever asked has gone meanwhile.
    let applied = tokio::spawn(async move {
        let difference = timeout(PATIENCE, reply.wait()).await.unwrap_or_else(|_| Err(late()))?;
        blocking(move || {
            let mut view = view(&difference, dry_run);
            let written = difference.changes.iter().filter_map(|change| change.after.as_ref());
            let warned = written.flat_map(|record| {
                let warnings = quotas::warnings(&api, &record.profile).into_iter();
                warnings.map(|warning| format!("{}: {warning}", record.id))
            });
            view.warnings = warned.take(MAX_FIELDS).collect();
            let DifferenceView { created, changed, deleted, .. } = &view;
            if !dry_run {
                let (created, changed, deleted) = (created.len(), changed.len(), deleted.len());
                info!("clients: {created} created, {changed} updated, {deleted} deleted by {by}, in bulk");
            }
            respond::json(StatusCode::OK, &view)
        })
        .await
    });
    applied.await.unwrap_or_else(|_| Err(late().into()))
}

fn view(difference: &Difference, dry_run: bool) -> DifferenceView {
    let mut view = DifferenceView { dry_run, unchanged: difference.unchanged, ..DifferenceView::default() };
    for change in &difference.changes {
        match (&change.before, &change.after) {
            (None, Some(after)) => view.created.push(after.id.to_string()),
            (Some(before), None) => view.deleted.push(before.id.to_string()),
            (Some(before), Some(after)) => view.changed.push(ChangedView::new(before, after)),
            (None, None) => {}
        }
    }
    view
}

/// Reads a JSON array, or one object a line, of at most so many items.
fn read(text: Bytes, plans: &Plans, most: usize) -> Result<Vec<BatchItem>, ApiError> {
    let mut reading =
        BulkReading { plans, items: Vec::new(), places: HashMap::new(), count: 0, most, errors: Vec::new(), untold: 0 };
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        json::parse_array(&text, |value| reading.item(value, None))?;
        return reading.finish();
    }
    for (line, text) in (1_usize..).zip(text.split(|byte| *byte == b'\n')) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        reading.item(json::parse_line(text, line)?, Some(line))?;
    }
    // No lines at all are a lost file rather than the wish to have no clients; `[]` says that.
    if reading.count == 0 {
        return Err(ApiError::bad_request("The body is empty; a JSON array or one JSON object a line was expected"));
    }
    reading.finish()
}

/// The items as they are read.
struct BulkReading<'p> {
    /// The plans that there are.
    plans: &'p Plans,
    items: Vec<BatchItem>,
    places: HashMap<ClientId, ItemPlace>,
    count: usize,
    most: usize,
    errors: Vec<FieldError>,
    untold: usize,
}

/// Where an item stands: its number from 0 on, and its line from 1 on.
type ItemPlace = (usize, Option<usize>);

impl BulkReading<'_> {
    /// Reads one item, and collects what is wrong with it.
    ///
    /// # Errors
    /// 422 when it is one too many.
    fn item(&mut self, value: Value, line: Option<usize>) -> Result<(), ApiError> {
        if self.count == self.most {
            let message = format!("must have at most {} items; send the others in further bodies", self.most);
            return Err(ApiError::field("body", message));
        }
        let place = (self.count, line);
        self.count += 1;
        match Draft::read_item(value, self.plans, &format!("[{}].", place.0)) {
            Ok(draft) => self.keep(draft, place),
            Err(errors) => errors.into_iter().for_each(|error| self.wrong(error, line)),
        }
        Ok(())
    }

    fn keep(&mut self, draft: Draft, place: ItemPlace) {
        let (Some(id), keys) = (draft.id.clone(), draft.keys.clone()) else { return };
        if let Some((other, other_line)) = self.places.get(&id) {
            let message = format!("is {id}, which is that of [{other}]{} already", in_line(*other_line));
            return self.wrong(FieldError::new(format!("[{}].client_id", place.0), message), place.1);
        }
        if let Some(profile) = draft.replace() {
            self.places.insert(id.clone(), place);
            let of_plan = profile.plan.as_ref().and_then(|plan| self.plans.get(plan));
            self.items.push(BatchItem { id, profile, keys, of_plan });
        }
    }

    fn wrong(&mut self, mut error: FieldError, line: Option<usize>) {
        if self.errors.len() < MAX_FIELDS {
            error.message.push_str(&in_line(line));
            self.errors.push(error);
        } else {
            self.untold += 1;
        }
    }

    fn finish(self) -> Result<Vec<BatchItem>, ApiError> {
        if self.errors.is_empty() { Ok(self.items) } else { Err(ApiError::some_fields(self.errors, self.untold)) }
    }
}

fn in_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeyChange;

    fn read(text: Bytes) -> Result<Vec<BatchItem>, ApiError> {
        super::read(text, &Plans::default(), MAX_ITEMS)
    }

    fn wrong(text: &str) -> (u16, String, Vec<(String, String)>) {
        let error = read(Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
        let errors = error.errors.into_iter().map(|error| (error.field, error.message)).collect();
        (error.status.as_u16(), error.message, errors)
    }

    #[test]
    fn an_array_and_lines_are_the_same() {
        let (a, b) = (
            r#"{"client_id":"a","capacity":1,"rate_per_sec":1}"#,
            r#"{"client_id":"b","capacity":2,"rate_per_sec":1,"version":7}"#,
        );
        let array = read(format!(" [{a},\n{b}]").into()).unwrap();
        assert_eq!(array, read(format!("\n{a}\r\n\n{b}").into()).unwrap());
        let ids: Vec<_> = array.iter().map(|item| (item.id.as_str(), item.keys == KeyChange::Keep)).collect();
        assert_eq!(ids, [("a", true), ("b", true)]);
        assert_eq!(read("[]".into()), Ok(vec![]));
    }

    #[test]
    fn everything_wrong_is_told_with_its_place() {
        let (status, message, errors) = wrong(
            "{\"client_id\":\"a\",\"capacity\":0,\"rate_per_sec\":1}\n\n\
             {\"client_id\":\"b\",\"capacity\":1,\"rate_per_sec\":1,\"generate_api_key\":true}\n\
             {\"client_id\":\"c\",\"capacity\":1,\"rate_per_sec\":1}\n\
             {\"client_id\":\"c\",\"capacity\":1,\"rate_per_sec\":1}\n3",
        );
        assert_eq!(status, 422);
        assert_eq!(message, "[0].capacity: must be a whole number from 1 to 1000000000 (line 1) (and 3 more)");
        let fields: Vec<_> = errors.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["[0].capacity", "[1].generate_api_key", "[3].client_id", "[4]"]);
        assert_eq!(errors[2].1, "is c, which is that of [2] (line 4) already (line 5)");
        assert_eq!(errors[3].1, "must be a JSON object (line 6)");
    }

    #[test]
    fn a_hundred_are_told_and_the_rest_is_counted() {
        let (_, _, errors) = wrong(&format!("[{}3]", "{},".repeat(50)));
        assert_eq!(errors.len(), 101);
        assert_eq!(errors[100], ("body".to_owned(), "51 more fields are wrong".to_owned()));
    }

    #[test]
    fn an_item_and_a_body_have_bounds() {
        let zeros = format!("[{}0]", "0,".repeat(5_000));
        let told = |text: String| wrong(&text).1;
        let most = "at most 4096 are allowed, arrays and objects counted too";
        assert_eq!(told(format!("[{{}},{zeros}]")), format!("The item [1] has too many values; {most}"));
        assert_eq!(told(format!("{{}}\n\n{{\"note\":{zeros}}}")), format!("Line 3 has too many values; {most}"));
        let addresses: Vec<_> = (0..1000).map(|n| format!("\"10.0.{}.{}\"", n / 250, n % 250)).collect();
        let full =
            format!(r#"{{"client_id":"a","capacity":1,"rate_per_sec":1,"addresses":[{}]}}"#, addresses.join(","));
        assert_eq!(read(full.into()).unwrap()[0].profile.addresses.len(), 1000, "a client has as many as it may");

        let items: Vec<_> =
            (0..4).map(|n| format!(r#"{{"client_id":"c{n}","capacity":1,"rate_per_sec":1}}"#)).collect();
        for (left, right, between) in [("[", "]", ","), ("", "", "\n")] {
            let of = |count: usize| Bytes::from(format!("{left}{}{right}", items[..count].join(between)));
            assert_eq!(super::read(of(3), &Plans::default(), 3).map(|items| items.len()), Ok(3));
            let error = super::read(of(4), &Plans::default(), 3).unwrap_err();
            let expected = "body: must have at most 3 items; send the others in further bodies";
            assert_eq!((error.status.as_u16(), error.message.as_str()), (422, expected));
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for (text, message) in [
            ("", "The body is empty; a JSON array or one JSON object a line was expected"),
            (" \n", "The body is empty; a JSON array or one JSON object a line was expected"),
            ("[{}", "The body is not JSON: EOF while parsing a list at line 1 column 3"),
            ("[{}] x", "The body is not JSON: trailing characters at line 1 column 6"),
            ("{}\n{\"a\":}", "Line 2 is not JSON: expected value at column 6"),
        ] {
            let (status, told, _) = wrong(text);
            assert_eq!((status, told.as_str()), (400, message), "{text:?}");
        }
        assert_eq!(
            read(Bytes::from_static(b"{}\n{\"a\":\"\xff\"}")).unwrap_err().message,
            "Line 2 is not JSON: not UTF-8 at byte 7"
        );
        assert_eq!(
            read(Bytes::from_static(b"[\xff]")).unwrap_err().message,
            "The body is not JSON: not UTF-8 at byte 2"
        );
    }
}
