//! Sends spans to a collector, by OTLP over HTTP, in protobuf.
//!
//! What a span says is by OpenTelemetry's conventions for HTTP, and what is ours begins with `tollgate.`. It is written
//! by `opentelemetry-otlp`, and goes out by the client that tollgate has anyhow, without TLS: a collector stands beside
//! it. A batch that is not taken within five seconds is not sent again: whoever cannot take it will not take it with
//! the next one besides.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_trait::async_trait;
use http::uri::Authority;
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId as OtlpSpanId, TraceId as OtlpTraceId};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::runtime::{Builder, Runtime};

use super::parent::SpanId;
use super::queue::{QueuedSpan, SpanQueue};
use super::spans::{AttemptSpan, RequestSpan};
use crate::upstream::ConnectAddress;

/// How long spans gather before they are sent.
const GATHER: Duration = Duration::from_millis(500);
/// The most requests that are told of at once.
const BATCH: usize = 256;
/// The longest that sending a batch takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most of an answer that is read.
const LARGEST_ANSWER: u64 = 64 << 10;
/// The most bytes of what a stranger says.
const LONGEST: usize = 1_024;

/// The methods that are told by name; any other one is `_OTHER`.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Sends what comes, until it is to stop, and then what waits.
pub(super) fn send_all(spans: &Receiver<QueuedSpan>, queue: &SpanQueue) {
    let runtime = match Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => return log::warn!("traces: they are not sent: {error}"),
    };
    let mut collector: Option<Collector> = None;
    let mut more = false;
    loop {
        let mut batch: Vec<(Arc<str>, Box<RequestSpan>)> = Vec::new();
        if !queue.is_stopping() {
            match spans.recv() {
                Ok(QueuedSpan::Request(to, span)) => batch.push((to, span)),
                Ok(QueuedSpan::Stop) => continue,
                Err(_) => return,
            }
            if !more {
                std::thread::park_timeout(GATHER);
            }
        }
        while batch.len() < BATCH
            && let Ok(next) = spans.try_recv()
        {
            if let QueuedSpan::Request(to, span) = next {
                batch.push((to, span));
            }
        }
        if batch.is_empty() {
            return;
        }
        // Whatever waits behind a full batch has waited long enough.
        more = batch.len() == BATCH;
        for part in batch.chunk_by(|one, next| one.0 == next.0) {
            let (to, count) = (&part[0].0, part.iter().map(|(_, span)| span.count()).sum());
            if collector.as_ref().is_none_or(|collector| collector.to != *to) {
                collector = Collector::new(to);
            }
            let spans = part.iter().flat_map(|(_, span)| told(span)).collect();
            match &collector {
                Some(collector) if collector.take(&runtime, spans) => queue.count_exported(count),
                _ => queue.count_dropped(count),
            }
        }
    }
}

/// Who takes spans.
struct Collector {
    to: Arc<str>,
    exporter: SpanExporter,
}

impl Collector {
    fn new(to: &Arc<str>) -> Option<Self> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        let agent = agent.proxy(None).max_redirects(0).build().into();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(PlainClient(agent))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&**to)
            .with_timeout(TIMEOUT)
            .with_retry_policy(RetryPolicy::disabled())
            .build();
        let mut exporter = exporter.inspect_err(|error| log::warn!("traces: {to}: {error}")).ok()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty().with_service_name("tollgate").with_attribute(version);
        exporter.set_resource(&resource.build());
        Some(Collector { to: Arc::clone(to), exporter })
    }

    /// Whether it took these.
    fn take(&self, runtime: &Runtime, spans: Vec<SpanData>) -> bool {
        let taken = runtime.block_on(self.exporter.export(spans));
        taken.inspect_err(|error| log::warn!("traces: {} did not take them: {error}", self.to)).is_ok()
    }
}

/// The client of HTTP that tollgate has anyhow. It blocks, which its thread may.
#[derive(Debug)]
struct PlainClient(ureq::Agent);

#[async_trait]
impl HttpClient for PlainClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let (parts, mut body) = self.0.run(Request::from_parts(parts, &body[..]))?.into_parts();
        let body = body.with_config().limit(LARGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

/// The spans of a request.
fn told(request: &RequestSpan) -> Vec<SpanData> {
    let method = METHODS.into_iter().find(|known| *known == request.method).unwrap_or("_OTHER");
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.path", clipped(&request.path)),
        KeyValue::new("client.address", request.address.to_canonical().to_string()),
        KeyValue::new("tollgate.request_id", clipped(&request.request_id)),
    ];
    let scheme = request.secure.map(|secure| if secure { "https" } else { "http" });
    attributes.extend(scheme.map(|scheme| KeyValue::new("url.scheme", scheme)));
    let asked = request.host.parse::<Authority>().ok();
    let host = asked.as_ref().map_or(&*request.host, Authority::host).to_owned();
    attributes.extend(asked.and_then(|asked| Some(KeyValue::new("server.port", i64::from(asked.port_u16()?)))));
    let texts = [
        ("server.address", Some(&host).filter(|host| !host.is_empty())),
        ("tollgate.client", request.client.as_ref()),
        ("tollgate.upstream", request.upstream.as_ref()),
    ];
    attributes.extend(texts.into_iter().filter_map(|(key, text)| Some(KeyValue::new(key, clipped(text?)))));
    attributes.extend(request.limit.map(|limit| KeyValue::new("tollgate.limit", limit)));
    let failed = request.status == 0 || request.status >= 500;
    let status = outcome(&mut attributes, request.status, request.error.as_deref(), failed);
    let parent = request.parent.map_or(OtlpSpanId::INVALID, id);
    let times = (request.start, request.end);
    let server = span(request, (request.own.span, parent), (SpanKind::Server, method), times, (attributes, status));
    let attempts = request.attempts.iter().enumerate();
    let attempts = attempts.map(|(number, attempt)| attempt_span(request, method, number, attempt));
    std::iter::once(server).chain(attempts).collect()
}

fn attempt_span(request: &RequestSpan, method: &'static str, number: usize, attempt: &AttemptSpan) -> SpanData {
    let mut attributes = vec![KeyValue::new("http.request.method", method)];
    match &attempt.backend {
        ConnectAddress::Tcp(address) => {
            attributes.push(KeyValue::new("server.address", address.ip().to_string()));
            attributes.push(KeyValue::new("server.port", i64::from(address.port())));
        }
        ConnectAddress::Unix(path) => attributes.push(KeyValue::new("server.address", path.to_string())),
    }
    if number > 0 {
        attributes.push(KeyValue::new("http.request.resend_count", number as i64));
    }
    let failed = attempt.error.is_some() || attempt.status == 0 || attempt.status >= 400;
    let status = outcome(&mut attributes, attempt.status, attempt.error.as_deref(), failed);
    let times = (attempt.start, attempt.end.unwrap_or(request.end));
    let ids = (attempt.id, id(request.own.span));
    SpanData {
        parent_span_is_remote: false,
        ..span(request, ids, (SpanKind::Client, method), times, (attributes, status))
    }
}

/// Tells how it ended, by the conventions.
fn outcome(attributes: &mut Vec<KeyValue>, status: u16, error: Option<&str>, failed: bool) -> Status {
    if status != 0 {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if !failed {
        return Status::Unset;
    }
    let kind = if status == 0 { "no_answer".to_owned() } else { status.to_string() };
    attributes.push(KeyValue::new("error.type", kind));
    Status::error(error.map(clipped).unwrap_or_default())
}

fn span(
    request: &RequestSpan,
    (own, parent): (SpanId, OtlpSpanId),
    (span_kind, name): (SpanKind, &'static str),
    (start_time, end_time): (std::time::SystemTime, std::time::SystemTime),
    (attributes, status): (Vec<KeyValue>, Status),
) -> SpanData {
    let trace = OtlpTraceId::from_bytes(request.own.trace.bytes());
    SpanData {
        span_context: SpanContext::new(trace, id(own), TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: request.parent.is_some(),
        span_kind,
        name: name.into(),
        start_time,
        end_time: end_time.max(start_time),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("tollgate").build(),
    }
}

fn id(span: SpanId) -> OtlpSpanId {
    OtlpSpanId::from_bytes(span.bytes())
}

/// The start of a text that may be long.
fn clipped(text: &(impl AsRef<str> + ?Sized)) -> String {
    let text = text.as_ref();
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}
