//! The session in the form that Pingora asks for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use h2::Reason;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Response};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::pingora::http2_session::{
    Http2Session, RETRY_BUFFER, gone, too_much, within, without_connection_lines,
};

#[async_trait]
impl Session for Http2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        within(self.patience(), ErrorType::ReadTimedout, self.next_data()).await
    }

    /// Nothing: what is left of the body is read when the session is over.
    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, header: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        let mut parts = header.as_owned_parts();
        parts.headers = without_connection_lines(&parts.headers);
        if header.status.is_informational() {
            if !self.sections.add_interim(&parts.headers) {
                return Ok(());
            }
            let interim = Response::from_parts(parts, ());
            return self.respond.send_informational(interim).map_err(|error| gone("writing an interim answer", error));
        }
        parts.headers.insert(DATE, get_cached_date());
        if !self.sections.add(&parts.headers) {
            return Err(too_much());
        }
        let answer = Response::from_parts(parts, ());
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
            if !self.sections.add(&trailers) {
                return Err(too_much());
            }
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

    /// A body that is still coming when the answer is whole is none of the exchange any more: it is neither waited for
    /// nor is its end the client's fault.
    fn is_body_done(&mut self) -> bool {
        self.ended || self.is_body_empty() || self.is_body_taken()
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
        self.received == 0 && (self.is_body_taken() || none_announced())
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
