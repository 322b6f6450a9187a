//! All clients, streamed.
//!
//! A thread of its own reads the store and waits whenever the caller reads no faster, so memory stays the same however
//! many there are. The store keeps one moment's state for the export while it lasts; so it may last only so long, and a
//! caller who reads nothing at all is given up sooner by the connection. An export that breaks off breaks the
//! connection off too: it never looks complete.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::wire::ExportView;
use crate::admin::api::Api;
use crate::admin::api::{ApiError, respond};
use crate::store::{ClientRepository, StoreError};

/// How much is sent at once, in bytes.
const PIECE: usize = 64 << 10;
/// How many pieces wait for the caller.
const PIECES: usize = 4;
/// How long an export may last.
const LONGEST: Duration = Duration::from_secs(300);
/// How long it goes on once the API closes: whoever reads on gets a million lines in it, and no stop waits longer.
const LAST: Duration = Duration::from_secs(5);
/// The type of one JSON value a line.
const NDJSON: &str = "application/x-ndjson";

/// A piece of the export, its end, or why it breaks off.
type Piece = Result<Option<Bytes>, StoreError>;

/// Answers with every client, one a line. Breaks off when that takes too long, also after `stopping` is over.
///
/// # Errors
/// 503 when the store cannot be read, or too many exports run.
pub(super) async fn stream(
    api: &Arc<Api>,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, ApiError> {
    let place = api.reads.export().await?;
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let repository = Arc::clone(&api.parts.repository);
    // It tells through the channel how it ends; a panic closes that without a word, which is no end.
    drop(spawn_blocking(move || {
        let _place = place;
        read(&*repository, &sender);
    }));
    let end = Box::pin(end(stopping));
    let Some(first) = receiver.recv().await.unwrap_or_else(broken)? else {
        return Ok(respond::with_type(StatusCode::OK, NDJSON, Body::empty()));
    };
    let rest = stream::unfold(Some((receiver, end)), async |open| {
        let (mut receiver, mut end) = open?;
        let piece = tokio::select! {
            biased;
            error = &mut end => Err(error),
            piece = receiver.recv() => piece.unwrap_or_else(broken),
        };
        let piece = piece.transpose()?;
        let open = piece.is_ok().then_some((receiver, end));
        Some((piece, open))
    });
    let pieces = stream::iter([Ok(first)]).chain(rest);
    Ok(respond::with_type(StatusCode::OK, NDJSON, Body::from_stream(pieces)))
}

/// Why it breaks off, however far it is.
async fn end(stopping: impl Future<Output = ()>) -> StoreError {
    let closed = async {
        stopping.await;
        sleep(LAST).await;
    };
    StoreError(tokio::select! {
        () = sleep(LONGEST) => format!("the export took longer than {} s", LONGEST.as_secs()),
        () = closed => "the server stops".to_owned(),
    })
}

fn broken() -> Piece {
    Err(StoreError("the export broke off".to_owned()))
}

/// Reads everything and sends it in pieces, until nobody listens.
fn read(repository: &dyn ClientRepository, sender: &mpsc::Sender<Piece>) {
    let mut piece = Vec::with_capacity(PIECE + PIECE / 8);
    let read = repository.for_each(&mut |record| {
        // Writing to memory does not fail, nor has the wire type a part that cannot be written.
        let written = serde_json::to_writer(&mut piece, &ExportView::new(&record)).is_ok();
        let written = written && piece.write_all(b"\n").is_ok();
        let full = piece.len() >= PIECE;
        written && (!full || sender.blocking_send(Ok(Some(std::mem::take(&mut piece).into()))).is_ok())
    });
    // When nobody listens, nobody misses the end.
    let _ = match read {
        Ok(()) if piece.is_empty() => sender.blocking_send(Ok(None)),
        Ok(()) => sender.blocking_send(Ok(Some(piece.into()))).and_then(|()| sender.blocking_send(Ok(None))),
        Err(error) => sender.blocking_send(Err(error)),
    };
}
