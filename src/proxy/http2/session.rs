//! One HTTP/2 request and its answer, as Pingora sees them.
//!
//! Pingora has a session type of its own for this. It waits for a body without an end, drops interim answers (so that
//! `expect: 100-continue` waits in vain), passes an empty last frame on as a second end of the body (Pingora issues 935
//! and 936), and answers some malformed requests with an empty body. Its seam for sessions of other protocols takes this
//! one instead.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Response};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;

use crate::proxy::head::length_of;
use crate::proxy::reject::LINGER;

/// The largest body that is kept to send the request once more; the same as for HTTP/1.
const RETRY_BUFFER: usize = 64 << 10;

/// How much of a body is read for nothing, in bytes.
const DISCARD: usize = 1 << 20;
/// The longest silence in a body that is read for nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// One request with its answer.
pub(super) struct Http2Session {
    head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// For the body of the answer, once its header is sent.
    writer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// Whether the answer is whole.
    ended: bool,
    received: usize,
    sent: usize,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
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

/// Reads what still comes of a body whose request is answered, for a while. The reset that would tell the client to stop
/// sending would reach it together with the answer, and some clients (curl 7.88) drop an answer for that. So the answer
/// comes first, most clients stop by themselves, and the others are reset.
pub(super) async fn discard(body: &mut RecvStream) {
    let mut left = DISCARD;
    let reading = async {
        while let Ok(Some(Ok(data))) = timeout(SILENCE, poll_fn(|cx| body.poll_data(cx))).await
            && data.len() < left
        {
            left -= data.len();
            // Fails only when the stream is gone, which the next read tells.
            let _ = body.flow_control().release_capacity(data.len());
        }
    };
    let _ = timeout(LINGER, reading).await;
}

impl Http2Session {
    /// The request `head` with its `body`, to be answered by `respond`, over the connection that `digest` tells of.
    pub(super) fn new(
        head: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        digest: Arc<Digest>,
    ) -> Self {
        Http2Session {
            head,
            body,
            respond,
            writer: None,
            written: None,
            ended: false,
            received: 0,
            sent: 0,
            retry: None,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    /// The next bytes of the body, never none; `None` at its end.
    async fn next_data(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(data) = poll_fn(|cx| self.body.poll_data(cx)).await else { return Ok(None) };
            let data = data.map_err(|error| gone("reading the body", error))?;
            // An empty frame says nothing, and at the end Pingora would take it for another end. h2 bounds their number.
            if !data.is_empty() {
                self.received += data.len();
                if let Some(retry) = &mut self.retry {
                    retry.write_to_buffer(&data);
                }
                // Fails only when the stream is gone, which the next read tells.
                let _ = self.body.flow_control().release_capacity(data.len());
                return Ok(Some(data));
            }
        }
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

/// Takes out what HTTP/2 has no place for (RFC 9113 section 8.2.2).
fn strip_connection_headers(header: &mut ResponseHeader) {
    let others = [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE].iter().chain(&others) {
        header.remove_header(name);
    }
}

#[async_trait]
impl Session for Http2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        within(self.read_timeout, ErrorType::ReadTimedout, self.next_data()).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        discard(&mut self.body).await;
        Ok(())
    }

    async fn write_response_header(&mut self, mut header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        strip_connection_headers(&mut header);
        if header.status.is_informational() {
            let interim = Response::from_parts(header.as_owned_parts(), ());
            return self.respond.send_informational(interim).map_err(|error| gone("writing an interim answer", error));
        }
        header.insert_header(DATE, get_cached_date())?;
        let answer = Response::from_parts(header.as_owned_parts(), ());
        let writer = self.respond.send_response(answer, end).map_err(|error| gone("writing the header", error))?;
        (self.writer, self.written, self.ended) = (Some(writer), Some(header), end);
        Ok(())
    }

    async fn write_response_header_ref(&mut self, header: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(header.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let length = data.len();
        within(self.write_timeout, ErrorType::WriteTimedout, self.send(data, end)).await?;
        self.sent += length;
        self.ended = end;
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if let (false, Some(writer)) = (self.ended, &mut self.writer) {
            writer.send_trailers(trailers).map_err(|error| gone("writing the trailers", error))?;
            self.ended = true;
        }
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut over = false;
        for task in tasks {
            over |= match task {
                HttpTask::Header(header, end) => {
                    self.write_response_header(header, end).await?;
                    end
                }
                HttpTask::Body(data, end) => {
                    if let Some(data) = data.filter(|data| !data.is_empty()) {
                        self.write_body(data, end).await?;
                    }
                    end
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
                HttpTask::UpgradedBody(..) => return Err(Error::new_str("an upgrade on HTTP/2").into_in()),
            };
        }
        if over {
            self.finish().await?;
        }
        Ok(over)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.reset(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.body.is_end_stream()
    }

    /// Ends the answer; one that is not whole is reset, so that nobody takes it for whole.
    async fn finish(&mut self) -> Result<()> {
        if self.ended || self.writer.is_none() {
            return Ok(());
        }
        if !self.is_answer_whole() {
            self.reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        self.send(Bytes::new(), true).await?;
        self.ended = true;
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        let none_announced = || self.head.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        self.received == 0 && (self.body.is_end_stream() || none_announced())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            return Err(Box::new(self.given_up().await));
        }
        self.read_body_bytes().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.received
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    /// Nothing: only Pingora's subrequests ask for it, and there are none.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY_BUFFER));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated())?.get_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
