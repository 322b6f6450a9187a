//! The hooks over Pingora's own session, which carries no admission, and over a loan that carries one.

use std::num::NonZeroUsize;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::watch;

use super::*;
use crate::client::{Directory, Quota};
use crate::clock::{SystemClock, Timeline};
use crate::limit::exact::Exact;
use crate::limit::{KeyMaker, Telling};
use crate::proxy::downstream::pace::Waited;
use crate::proxy::exchange::parts::ProxyParts;
use crate::proxy::gate::identify::Identity;
use crate::proxy::gate::rules::{RateRules, Rules};
use crate::proxy::gate::settings::Limits;
use crate::proxy::pingora::loan::HalfClose;
use crate::proxy::wire::request_body::Body;
use crate::route::RouteTable;
use crate::telemetry::{AccessLog, AccessLogSettings};
use crate::upstream::Transport;

/// A proxy without routes, where everybody has one token.
fn proxy() -> Proxy {
    let clock = Arc::new(SystemClock);
    let quota = Quota::new(1, 0.001).unwrap();
    let rules = Rules {
        self_service: false,
        answers: None,
        identity: Identity::default(),
        policies: None,
        rate: Some(RateRules {
            default: quota,
            headers: false,
            max_concurrent: None,
            telling: Telling::default(),
            close_after: None,
        }),
        routes: RouteTable::new([]),
        limits: Limits::default(),
        listeners: [].into(),
        direct: true,
        tracing: None,
    };
    let settings = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    Proxy::new(ProxyParts {
        rules: Arc::new(ArcSwap::from_pointee(rules)),
        directory: Arc::new(ArcSwap::from_pointee(Directory::new([]).unwrap())),
        limiter: Arc::new(Exact::new(10, quota, 0)),
        keys: Arc::new(KeyMaker::new(1)),
        access_log: AccessLog::new(&settings).unwrap().0,
        decisions: Arc::default(),
        tally: Arc::default(),
        transport: Arc::new(Transport::new(0, NonZeroUsize::MIN, false)),
        timeline: Timeline::new(clock.as_ref()),
        turns: Arc::default(),
        recorder: Arc::default(),
        untaken: crate::proxy::UntakenAnswers::default(),
        challenges: Arc::default(),
        clock,
    })
}

/// A session that has read a request, and the client's side of its connection.
async fn session(wrap: impl FnOnce(DuplexStream) -> pingora_core::protocols::Stream) -> (Session, DuplexStream) {
    let (client, server) = duplex(4 << 10);
    let mut session = Session::new_h1(wrap(server));
    session.downstream_session.set_pipelined_prefix(BytesMut::from("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(session.downstream_session.read_request().await.unwrap());
    (session, client)
}

/// What the hooks up to `request_filter` say: whether the request is answered, and its context.
async fn filtered(proxy: &Proxy, session: &mut Session) -> (bool, LoopRequest) {
    let mut ctx = proxy.new_ctx();
    proxy.early_request_filter(session, &mut ctx).await.unwrap();
    (proxy.request_filter(session, &mut ctx).await.unwrap(), ctx)
}

async fn answer(session: Session, mut client: DuplexStream) -> String {
    drop(session);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_session_of_pingoras_own_is_admitted_by_the_hooks() {
    let proxy = proxy();
    for (status, rejection) in [("404 Not Found", Rejection::NoRoute), ("429 Too Many Requests", limited())] {
        let (mut session, client) = session(|stream| Box::new(stream)).await;
        let (answered, ctx) = filtered(&proxy, &mut session).await;
        assert!(answered && ctx.admission.caller.is_some());
        assert_eq!(std::mem::discriminant(&ctx.rejection.unwrap()), std::mem::discriminant(&rejection));
        let answer = answer(session, client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains(&format!("X-Request-Id: {}\r\n", ctx.request_id)), "{answer}");
    }
}

#[tokio::test]
async fn who_was_admitted_before_is_not_asked_again() {
    let proxy = proxy();
    let mut ctx = Context::new(proxy.arrival(), [192, 0, 2, 7].into());
    ctx.rejection = Some(Rejection::Internal);
    let id = ctx.request_id.clone();
    let lend = |stream: DuplexStream| -> pingora_core::protocols::Stream {
        let (shutdown, waited) = (watch::channel(false).1, Waited::new(Arc::new(SystemClock)));
        let (stream, body) = ((Box::new(stream) as _, HalfClose::Gone), Body::Length(0));
        let (loan, lender) = Loan::new(stream, body, BytesMut::new(), waited, Arc::new(shutdown));
        drop(lender);
        Box::new(loan.with_request(Vec::new(), Box::new(ctx)))
    };
    let (mut session, client) = session(lend).await;
    let (answered, ctx) = filtered(&proxy, &mut session).await;
    assert!(answered && ctx.admission.caller.is_none(), "nobody looked who it is");
    assert_eq!((ctx.peer, &ctx.request_id), ([192, 0, 2, 7].into(), &id));
    drop(client);
    // The token is still there.
    let (mut session, _client) = self::session(|stream| Box::new(stream)).await;
    assert_eq!(filtered(&proxy, &mut session).await.1.rejection, Some(Rejection::NoRoute));
}

fn limited() -> Rejection {
    Rejection::RateLimited(1)
}
