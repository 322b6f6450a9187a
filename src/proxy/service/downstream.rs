//! What serves connections, and what all of them share.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use pingora_core::protocols::Stream;
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::AsyncWriteExt;

use crate::proxy::downstream::activity::{Activity, Busy, Tunnels};
use crate::proxy::downstream::address::{peer, tls_version};
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::downstream::budget::WindowBudget;
use crate::proxy::downstream::closing::close;
use crate::proxy::downstream::head;
use crate::proxy::downstream::head::RequestLine;
use crate::proxy::downstream::http2::unseen::Unseen;
use crate::proxy::downstream::pace::Waited;
use crate::proxy::downstream::patience::Patience;
use crate::proxy::downstream::seats::{Seat, Seats};
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::gate::grpc::{AnswerForm, status_for};
use crate::proxy::gate::rejection::{LINGER, Rejection, ToldOfRequest};
use crate::proxy::gate::request_id::RequestId;
use crate::telemetry::AccessRecord;
use crate::tls::TlsListeners;

/// Serves connections: one for all listeners of a proxy.
pub struct Downstream {
    pub(in crate::proxy) proxy: Arc<HttpProxy<Proxy>>,
    pub(in crate::proxy) app: Proxy,
    pub(in crate::proxy) tls: Arc<TlsListeners>,
    pub(in crate::proxy) activity: Arc<Activity>,
    pub(in crate::proxy) patience: Arc<Patience>,
    pub(in crate::proxy) tunnels: Arc<Tunnels>,
    /// What the windows of all connections in HTTP/2 may grow by.
    pub(in crate::proxy) budget: Arc<WindowBudget>,
    pub(in crate::proxy) seats: Arc<Seats>,
    /// Counts the requests that h2 resets unseen.
    pub(in crate::proxy) unseen: Unseen,
}

/// What came is not a request.
pub(in crate::proxy) struct HeadRefusal {
    pub(in crate::proxy) rejection: Rejection,
    pub(in crate::proxy) since: Arrival,
    /// It is work until it is answered.
    pub(in crate::proxy) _busy: Busy,
}

/// Why nothing comes of what a client began to ask.
pub(in crate::proxy) const GONE: &str = "the client went before all of its header was there";

/// What is known of what was refused, or lost, before it was a request.
pub(in crate::proxy) struct EarlyEnd<'e> {
    /// The address at the other end of its connection.
    pub(in crate::proxy) peer: IpAddr,
    /// The version of TLS there.
    pub(in crate::proxy) tls_version: Option<&'static str>,
    /// What it said first.
    pub(in crate::proxy) line: RequestLine<'e>,
    /// In which form it was answered.
    pub(in crate::proxy) form: AnswerForm,
    /// Its id.
    pub(in crate::proxy) request_id: RequestId,
    /// The status and the bytes of the answer's body; none when the client never got one.
    pub(in crate::proxy) sent: Option<(StatusCode, usize)>,
    /// Why it came to nothing.
    pub(in crate::proxy) why: &'e str,
    /// When it began to come.
    pub(in crate::proxy) since: Arrival,
}

impl<'e> EarlyEnd<'e> {
    /// Of one that came over this connection and was not answered.
    fn over(stream: &Stream, why: &'e str, since: Arrival) -> Self {
        Self::from(peer(stream), tls_version(stream), why, since)
    }

    /// The same, from that address over that version of TLS.
    pub(in crate::proxy) fn from(
        peer: IpAddr,
        tls_version: Option<&'static str>,
        why: &'e str,
        since: Arrival,
    ) -> Self {
        let (line, form, request_id, sent) = (RequestLine::UNKNOWN, AnswerForm::Json, RequestId::random(), None);
        EarlyEnd { peer, tls_version, line, form, request_id, sent, why, since }
    }
}

/// What becomes of a connection behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum After {
    /// It takes another one.
    Next,
    /// It is closed.
    Close,
    /// It is closed once the client has stopped sending, or may have.
    ReadAndClose,
}

impl Downstream {
    /// Serves with `proxy`, whose hooks are `app`; over TLS where `tls` says so; counts
    /// its work in `activity`. When the server stops, silent connections end as `patience` says. Each
    /// has one of the `seats`, which it was let in for.
    pub fn new(
        (proxy, app): (HttpProxy<Proxy>, Proxy),
        tls: Arc<TlsListeners>,
        (activity, patience): (Arc<Activity>, Arc<Patience>),
        seats: Arc<Seats>,
    ) -> Self {
        let unseen = Unseen::new(Arc::clone(app.tally()));
        Downstream {
            proxy: Arc::new(proxy),
            app,
            tls,
            activity,
            patience,
            tunnels: Arc::default(),
            budget: Arc::new(WindowBudget::new()),
            seats,
            unseen,
        }
    }

    /// Those of its connections that speak another protocol by now.
    pub fn tunnels(&self) -> Arc<Tunnels> {
        Arc::clone(&self.tunnels)
    }

    /// What counts how long is waited.
    pub(in crate::proxy) fn waited(&self) -> Waited {
        Waited::new(Arc::clone(&self.app.inner.clock))
    }

    /// Closes a connection, which keeps its seat meanwhile unless somebody else needs it.
    pub(in crate::proxy) async fn leave(&self, seat: &Seat, closing: impl Future<Output = ()> + Send) {
        seat.silent(self.app.clock().now());
        tokio::select! {
            () = closing => {}
            () = seat.told() => {}
        }
    }

    /// Answers what is not a request, and closes.
    pub(in crate::proxy) async fn refuse(
        &self,
        mut stream: Stream,
        head: &[u8],
        HeadRefusal { rejection, since, _busy }: HeadRefusal,
    ) {
        let request_id = RequestId::random();
        // Of its lines nothing is certain.
        let (mut answer, form) = (Vec::new(), AnswerForm::Json);
        let site = self.app.site_answer(rejection);
        let told = ToldOfRequest { site: site.as_deref(), ..ToldOfRequest::default() };
        let body = rejection.append(form, &mut answer, &request_id, told, (false, !head::is_for_head(head)));
        let sent = timeout(LINGER, async {
            stream.write_all(&answer).await?;
            stream.flush().await
        });
        let sent = matches!(sent.await, Ok(Ok(())));
        let sent = sent.then_some((rejection.status(), body));
        let line = head::request_line(head).unwrap_or(RequestLine::UNKNOWN);
        self.record_early(EarlyEnd {
            form,
            line,
            request_id,
            sent,
            ..EarlyEnd::over(&stream, &rejection.reason(), since)
        });
        close(stream, true).await;
    }

    /// Records a request of which no more came than this beginning of its `head`, if it is one.
    pub(in crate::proxy) fn record_lost(&self, stream: &Stream, head: &[u8], why: &str, since: Arrival) {
        if let Some(line) = head::request_line(head) {
            self.record_early(EarlyEnd { line, ..EarlyEnd::over(stream, why, since) });
        }
    }

    /// Counts and logs what was refused, or lost, before it was a request.
    pub(in crate::proxy) fn record_early(&self, end: EarlyEnd<'_>) {
        let EarlyEnd { peer, tls_version, line, form, request_id, sent, why, since } = end;
        let (status, bytes) = sent.map_or((0, 0), |(status, bytes)| (status.as_u16(), bytes as u64));
        let duration = self.app.clock().now().saturating_duration_since(since.at);
        self.app.tally().unrouted().record(status, duration);
        self.app.access_log().record(&AccessRecord {
            request_id: request_id.as_str(),
            method: line.method,
            path: line.target,
            protocol: line.protocol,
            tls_version,
            bytes_out: bytes,
            status,
            grpc_status: (form == AnswerForm::Grpc).then(|| u32::from(status_for(status))).filter(|_| status != 0),
            duration,
            error: Some(why),
            ..AccessRecord::bare(since.wall, peer)
        });
    }
}
