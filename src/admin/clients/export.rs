//! All clients, streamed.
//!
//! A thread of its own reads the store and waits whenever the caller reads no faster, so memory stays the same however
//! many there are. The store keeps one moment's state for the export while it lasts; so it may last only so long, and a
//! caller who reads nothing at all is given up sooner by the connection. An export that breaks off breaks the
//! connection off too: it never looks complete.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Sleep, sleep};

use super::wire::ExportView;
use crate::admin::router::Api;
use crate::admin::{ApiError, respond};
use crate::store::{ClientRepository, StoreError};

/// How much is sent at once, in bytes.
const PIECE: usize = 64 << 10;
/// How many pieces wait for the caller.
const PIECES: usize = 4;
/// How long an export may last.
const LONGEST: Duration = Duration::from_secs(300);

/// A piece of the export, its end, or why it breaks off.
type Piece = Result<Option<Bytes>, StoreError>;

/// Answers with every client, one a line.
///
/// # Errors
/// 503 when the store cannot be read, or too many exports run.
pub(super) async fn stream(api: &Arc<Api>) -> Result<Response, ApiError> {
    let place = api.reads.export().await?;
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let repository = Arc::clone(&api.parts.repository);
    // It tells through the channel how it ends; a panic closes that without a word, which is no end.
    drop(spawn_blocking(move || {
        let _place = place;
        read(&*repository, &sender);
    }));
    let first = receiver.recv().await.unwrap_or_else(broken)?;
    let body = Pieces { ended: first.is_none(), first, receiver, deadline: Box::pin(sleep(LONGEST)) };
    Ok(respond::with_type(StatusCode::OK, "application/x-ndjson", Body::new(body)))
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

/// The pieces as a body.
struct Pieces {
    first: Option<Bytes>,
    receiver: mpsc::Receiver<Piece>,
    ended: bool,
    deadline: Pin<Box<Sleep>>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            self.ended = true;
            let took = format!("the export took longer than {} s", LONGEST.as_secs());
            return Poll::Ready(Some(Err(StoreError(took))));
        }
        let piece = ready!(self.receiver.poll_recv(context)).unwrap_or_else(broken);
        self.ended = !matches!(piece, Ok(Some(_)));
        Poll::Ready(piece.transpose().map(|piece| piece.map(Frame::data)))
    }
}
