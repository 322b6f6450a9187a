//! What serves connections, and what all of them share.

use std::net::IpAddr;
use std::sync::Arc;

use pingora_core::protocols::Stream;
use pingora_proxy::HttpProxy;
use pingora_timeout::timeout;
use tokio::io::AsyncWriteExt;

use crate::proxy::downstream::activity::{Activity, Busy, Tunnels};
use crate::proxy::downstream::address::peer;
use crate::proxy::downstream::arrival::Arrival;
use crate::proxy::downstream::budget::WindowBudget;
use crate::proxy::downstream::closing::close;
use crate::proxy::downstream::head;
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
        let sent = sent.then_some(body);
        self.record_refusal((rejection, form), head::request_line(head), &request_id, sent, since, peer(&stream));
        close(stream, true).await;
    }

    /// Counts and logs what was refused before it was a request; `sent` are the bytes of the answer's body, none when
    /// the client never got the answer.
    pub(in crate::proxy) fn record_refusal(
        &self,
        (rejection, form): (Rejection, AnswerForm),
        (method, path): (&str, &[u8]),
        request_id: &RequestId,
        sent: Option<usize>,
        since: Arrival,
        peer: IpAddr,
    ) {
        let status = sent.map_or(0, |_| rejection.status().as_u16());
        let duration = self.app.clock().now().saturating_duration_since(since.at);
        self.app.tally().unrouted().record(status, duration);
        self.app.access_log().record(&AccessRecord {
            request_id: request_id.as_str(),
            method,
            path,
            bytes_out: sent.unwrap_or_default() as u64,
            status,
            grpc_status: (form == AnswerForm::Grpc).then(|| u32::from(status_for(status))).filter(|_| status != 0),
            duration,
            error: Some(&rejection.reason()),
            ..AccessRecord::bare(since.wall, peer)
        });
    }
}
