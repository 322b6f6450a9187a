//! Bytes on their way to a client of HTTP/1.1, and what is done while it takes none.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::clock::Alarm;

/// Sends `bytes` to the client. An error when a part of it takes longer than `limit` or it fails, or when what is done
/// `meanwhile` does.
pub(in crate::proxy) async fn write(
    stream: &mut Stream,
    bytes: &[u8],
    limit: Duration,
    mut meanwhile: impl FnMut(&mut Context<'_>, &mut Stream) -> Poll<Box<Error>>,
) -> Result<()> {
    let (mut left, mut alarm) = (bytes, Alarm::default());
    while !left.is_empty() {
        let sent = poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, left) {
            Poll::Pending => meanwhile(cx, stream).map(Err),
            sent => sent.map(Ok),
        });
        let sent = match alarm.within(limit, sent).await {
            Ok(sent) => Ok(sent?),
            Err(late) => Err(late),
        };
        left = match sent {
            Ok(Ok(0)) => return Err(Error::explain(ErrorType::WriteError, "sending an answer").into_down()),
            Ok(Ok(sent)) => &left[sent..],
            failed => return Err(not_sent(failed.map(|sent| sent.err()))),
        };
    }
    match alarm.within(limit, stream.flush()).await {
        Ok(Ok(())) => Ok(()),
        failed => Err(not_sent(failed.map(|flushed| flushed.err()))),
    }
}

fn not_sent<E>(failed: Result<Option<std::io::Error>, E>) -> Box<Error> {
    let error = match failed {
        Ok(Some(error)) => Error::because(ErrorType::WriteError, "sending an answer", error),
        Ok(None) => Error::explain(ErrorType::WriteError, "sending an answer"),
        Err(_) => Error::explain(ErrorType::WriteTimedout, "sending an answer"),
    };
    error.into_down()
}
