//! How clients stand now: what this node knows of them, and in a fleet what all nodes and the store do.

use std::sync::Arc;
use std::time::SystemTime;

use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;

use super::condition::etag;
use super::wire::{ClientStanding, ClientView};
use crate::admin::api::Api;
use crate::admin::api::respond::{self, MissingNodes, thousandths};
use crate::client::{Client, Usage, UsageFigures, together};
use crate::limit::Payer;
use crate::store::Record;

/// These clients as they stand now.
pub(super) async fn views(api: &Api, records: &[Record]) -> (Vec<ClientView>, MissingNodes) {
    let parts = &api.parts;
    let (plans, limited) = (parts.plans.load_full(), (parts.limited)());
    let clients: Vec<Client> = records.iter().map(|record| record.client(&parts.keys, &plans)).collect();
    let directory = parts.directory.load_full();
    let usage = |client| directory.get(client).map(|client| Arc::clone(&client.usage));
    let mut figures: Vec<_> = clients.iter().map(|client| own(api, usage(client).as_deref())).collect();
    let now = parts.timeline.nanos(parts.clock.now());
    let payers: Vec<_> =
        records.iter().zip(&clients).map(|(r, client)| (Payer::client(r.number), client.quota)).collect();
    let view =
        |(payer, quota): &(Payer, _)| thousandths(parts.limiter.peek(parts.keys.key(*payer), *quota, now).tokens());
    let mut tokens: Vec<_> = payers.iter().map(|payer| limited.then(|| view(payer))).collect();
    let mut missing = MissingNodes::default();
    if let Some(fleet) = &parts.fleet_figures
        && !records.is_empty()
    {
        let credentials = clients.iter().map(|client| client.credential().unwrap_or_default()).collect();
        let stored = async { if limited { (fleet.tokens)(payers).await } else { Vec::new() } };
        let ((others, nodes), stored) = futures_util::join!((fleet.usage)(credentials), stored);
        figures.iter_mut().zip(&others).for_each(|(own, others)| own.add(others));
        for (tokens, stored) in tokens.iter_mut().zip(stored) {
            *tokens = stored.map(|thousandths| thousandths as f64 / 1_000.0).or(*tokens);
        }
        missing = MissingNodes(nodes);
    }
    let standing = tokens.into_iter().zip(figures).map(|(tokens, figures)| ClientStanding { tokens, figures });
    let views = records.iter().zip(clients).zip(standing);
    (views.map(|((record, client), standing)| ClientView::new(record, client.quota, standing)).collect(), missing)
}

/// An answer that shows a client, with its entity tag; `amend` adds what is told this once.
pub(super) async fn show(
    api: &Api,
    status: StatusCode,
    record: &Record,
    amend: impl FnMut(&mut ClientView),
) -> Response {
    let (mut views, missing) = views(api, std::slice::from_ref(record)).await;
    views.iter_mut().for_each(amend);
    let mut response = respond::json(status, &views.first());
    response.headers_mut().insert(ETAG, etag(record.version));
    missing.tell(&mut response);
    response
}

/// The requests of each second of a client from the second `from` on, the earliest first.
pub(super) async fn recorded(api: &Api, client: &Client, from: u64) -> (Vec<(u64, u32)>, MissingNodes) {
    let here = || recorded_here(api, client, from);
    let Some((fleet, credential)) = api.parts.fleet_figures.as_ref().zip(client.credential()) else {
        return (here(), MissingNodes::default());
    };
    let (others, missing) = (fleet.recorded)((credential, from)).await;
    (together([here(), others]), MissingNodes(missing))
}

/// Those of them that this process recorded.
pub(super) fn recorded_here(api: &Api, client: &Client, from: u64) -> Vec<(u64, u32)> {
    let usage = api.parts.directory.load().get(client).map(|client| Arc::clone(&client.usage));
    usage.and_then(|usage| api.parts.recorder.recorded(&usage, from)).unwrap_or_default()
}

/// What this process has counted.
fn own(api: &Api, usage: Option<&Usage>) -> UsageFigures {
    let wall = |nanos| -> SystemTime { api.parts.timeline.wall(nanos, api.parts.clock.as_ref()) };
    usage.map(|usage| UsageFigures::of(usage, wall)).unwrap_or_default()
}
