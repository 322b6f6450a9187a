//! One HTTP/2 request and its answer, as Pingora sees them.
//!
//! Pingora has a session type of its own for this. It waits for a body without an end, drops interim answers (so that
//! `expect: 100-continue` waits in vain), passes an empty last frame on as a second end of the body (Pingora issues 935
//! and 936), and answers some malformed requests with an empty body. Its seam for sessions of other protocols takes
//! this one instead.

mod seam;

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;
use tokio::sync::oneshot;

use crate::proxy::downstream::http2::sections::UntakenSections;
use crate::proxy::downstream::http2::upload::Upload;
use crate::proxy::downstream::pace::allowance;
use crate::proxy::gate::grpc::is_grpc;
use crate::proxy::wire::lines::length_of;

/// The largest body that is kept to send the request once more; the same as for HTTP/1.
const RETRY_BUFFER: usize = 64 << 10;

/// One request with its answer.
pub(in crate::proxy) struct Http2Session {
    head: RequestHeader,
    /// `None` only while being dropped.
    body: Option<Upload>,
    respond: SendResponse<Bytes>,
    /// Where that counts of header sections which the client does not take.
    sections: Arc<UntakenSections>,
    /// For the body of the answer, once its header is sent.
    writer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// Whether the answer is whole.
    ended: bool,
    received: usize,
    /// The fewest bytes a second that it may come at, until the answer begins.
    min_rate: Option<NonZeroU64>,
    sent: usize,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    /// Gets what is left of the body when the answer is whole.
    leave: Option<oneshot::Sender<Upload>>,
}

/// The client is gone, or reset the stream.
fn gone(what: &'static str, error: h2::Error) -> Box<Error> {
    Error::because(ErrorType::ConnectionClosed, what, error).into_down()
}

/// `work` within `limit`.
async fn within<T>(
    limit: Option<Duration>,
    late: ErrorType,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    match limit {
        None => work.await,
        Some(limit) => match timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::explain(late, format!("the client took longer than {limit:?}")).into_down()),
        },
    }
}

/// The client does not take what it has asked for.
fn too_much() -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, "the client takes no header sections").into_down()
}

impl Http2Session {
    /// The request `head` with its `body`, to be answered by `respond`, over the connection that `digest` tells of. The
    /// body has to come at `min_rate`; one that is still coming when the answer is whole goes to `leave`.
    pub(in crate::proxy) fn new(
        head: RequestHeader,
        (body, min_rate): (Upload, Option<NonZeroU64>),
        (respond, sections): (SendResponse<Bytes>, Arc<UntakenSections>),
        digest: Arc<Digest>,
        leave: oneshot::Sender<Upload>,
    ) -> Self {
        let min_rate = min_rate.filter(|_| !is_grpc(&head.headers));
        Http2Session {
            head,
            body: Some(body),
            respond,
            sections,
            writer: None,
            written: None,
            ended: false,
            received: 0,
            min_rate,
            sent: 0,
            retry: None,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            leave: Some(leave),
        }
    }

    /// The next bytes of the body, never none; `None` at its end, or when the answer is whole: then nobody asks for
    /// more.
    async fn next_data(&mut self) -> Result<Option<Bytes>> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return Ok(None) };
        let Some(data) = body.next().await else { return Ok(None) };
        let data = data.map_err(|error| gone("reading the body", error))?;
        self.received += data.len();
        if let Some(retry) = &mut self.retry {
            retry.write_to_buffer(&data);
        }
        Ok(Some(data))
    }

    /// Whether all of the body was taken.
    fn is_body_taken(&self) -> bool {
        self.body.as_ref().is_none_or(Upload::is_over)
    }

    /// How long to wait for more of the body.
    fn patience(&self) -> Option<Duration> {
        let rate = self.min_rate.filter(|_| self.written.is_none()).zip(self.body.as_ref());
        let left = rate.map(|(rate, body)| allowance(rate, self.received as u64).saturating_sub(body.waited()));
        self.read_timeout.into_iter().chain(left).min()
    }

    /// Sends as the client's windows allow.
    async fn send(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(|| Error::new_str("a body before its header").into_in())?;
        if data.is_empty() {
            return writer.send_data(data, end).map_err(|error| gone("writing the body", error));
        }
        while !data.is_empty() {
            writer.reserve_capacity(data.len());
            match poll_fn(|cx| writer.poll_capacity(cx)).await {
                Some(Ok(room)) => {
                    let part = data.split_to(room.min(data.len()));
                    let last = end && data.is_empty();
                    writer.send_data(part, last).map_err(|error| gone("writing the body", error))?;
                }
                Some(Err(error)) => return Err(gone("writing the body", error)),
                None => return Err(Error::new_down(ErrorType::ConnectionClosed)),
            }
        }
        Ok(())
    }

    /// Whether all of the body that the answer announced was sent.
    fn is_answer_whole(&self) -> bool {
        let announced = self.written.as_ref().and_then(|written| written.headers.get(CONTENT_LENGTH));
        let announced = announced.and_then(|length| length_of(length.as_bytes()));
        let bodiless = self.head.method == Method::HEAD
            || self.written.as_ref().is_some_and(|written| matches!(written.status.as_u16(), 204 | 304));
        bodiless || announced.is_none_or(|length| length == self.sent as u64)
    }

    fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.ended = true;
            self.respond.send_reset(reason);
        }
    }

    /// Waits until the client gives the stream up.
    async fn given_up(&mut self) -> Error {
        let reset = match &mut self.writer {
            Some(writer) => poll_fn(|cx| writer.poll_reset(cx)).await,
            None => poll_fn(|cx| self.respond.poll_reset(cx)).await,
        };
        let how = reset.map_or_else(|error| error.to_string(), |reason| reason.to_string());
        *Error::explain(ErrorType::ConnectionClosed, format!("the client gave the stream up: {how}")).into_down()
    }
}

impl Drop for Http2Session {
    fn drop(&mut self) {
        if let (true, Some(body), Some(leave)) = (self.ended, self.body.take(), self.leave.take())
            && !body.is_over()
        {
            // Where nobody takes it, the stream is reset at once.
            let _ = leave.send(body);
        }
    }
}

/// The lines that HTTP/2 has a place for (RFC 9113 section 8.2.2), in their order.
fn without_connection_lines(headers: &HeaderMap) -> HeaderMap {
    const OTHERS: [&str; 2] = ["keep-alive", "proxy-connection"];
    let has_place = |name: &HeaderName| {
        ![CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name) && !OTHERS.contains(&name.as_str())
    };
    // Taking one out of the map would move the last one into its place.
    headers.iter().filter(|(name, _)| has_place(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests;
