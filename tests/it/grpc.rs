//! gRPC end to end: a client and a server of another make, with the proxy between them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use h2::Reason;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response as HttpResponse};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

use crate::harness::http2_backend::{Call, Http2Backend};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{self, NOW, write_pair};
use crate::harness::{PATIENCE, eventually};

const MOST: usize = 8 << 20;

/// Messages that are their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The service of the tests, and how many of its calls run.
#[derive(Clone, Debug, Default)]
struct Tested(Arc<AtomicUsize>);

/// A call that runs.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl tonic::server::NamedService for Tested {
    const NAME: &'static str = "test.Tested";
}

impl Service<http::Request<Body>> for Tested {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.0));
        Box::pin(async move {
            let mut grpc =
                tonic::server::Grpc::new(Raw).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
            let path = request.uri().path().to_owned();
            Ok(match path.rsplit('/').next().unwrap() {
                "Echo" => {
                    let echo = |request: Request<Bytes>| async move {
                        let _running = running;
                        Ok::<_, Status>(Response::new(request.into_inner()))
                    };
                    grpc.unary(once(echo), request).await
                }
                "Fail" => {
                    let fail = |_: Request<Bytes>| async move {
                        Err::<Response<Bytes>, _>(Status::not_found("no such thing"))
                    };
                    grpc.unary(once(fail), request).await
                }
                "Hang" => {
                    let hang = |_: Request<Bytes>| async move {
                        let _running = running;
                        std::future::pending::<Result<Response<Bytes>, Status>>().await
                    };
                    grpc.unary(once(hang), request).await
                }
                _ => {
                    let chat = |request: Request<Streaming<Bytes>>| async move {
                        Ok::<_, Status>(Response::new(chat(request.into_inner(), running)))
                    };
                    grpc.streaming(once(chat), request).await
                }
            })
        })
    }
}

/// A service for one call.
fn once<R, S, F: Future<Output = Result<S, Status>>>(
    serve: impl FnOnce(R) -> F,
) -> impl Service<R, Response = S, Error = Status, Future = F> {
    let mut serve = Some(serve);
    service_fn(move |request| serve.take().expect("one call")(request))
}

/// Echoes each message, and at the end says how many there were.
fn chat(messages: Streaming<Bytes>, running: Running) -> Messages {
    let state = (Some(messages), 0_u32, running);
    Box::pin(stream::unfold(state, |(messages, count, running)| async move {
        let mut messages = messages?;
        match messages.message().await {
            Ok(Some(message)) => Some((Ok(message), (Some(messages), count + 1, running))),
            Ok(None) => Some((Ok(Bytes::from(count.to_string())), (None, count, running))),
            Err(status) => Some((Err(status), (None, count, running))),
        }
    }))
}

struct Tries {
    runtime: Runtime,
    server: Tollgate,
    service: Tested,
    client: Grpc<Channel>,
}

fn channel(address: SocketAddr) -> Channel {
    let connect = service_fn(move |_: http::Uri| async move {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(tls::config(rustls::ALL_VERSIONS, &["h2"]));
        let tls = connector.connect(ServerName::try_from(tls::NAME).unwrap(), tcp).await?;
        Ok::<_, std::io::Error>(TokioIo::new(tls))
    });
    Endpoint::from_static("http://test.example").connect_with_connector_lazy(connect)
}

/// The calls that are never answered have a pool of their own, whose answers are waited for longer.
fn proxy(address: SocketAddr, keys: &str) -> Tollgate {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    let keys = format!("protocol: h2, {NO_CHECK}{}{keys}", if keys.is_empty() { "" } else { ", " });
    let limits = "limits: {max_body: 1KiB, body_timeout: 1s}";
    let slow = format!("protocol: h2, {NO_CHECK}, read_timeout: 3s, retries: 0");
    let routes = "routes: [{path: /test.Tested/Hang, upstream: slow}, {path: /, upstream: app}]";
    let setup = Setup::default().pool("app", &[address], &keys).pool("slow", &[address], &slow);
    setup.line(routes).line(limits).tls(dir.path()).start()
}

fn tries(keys: &str) -> Tries {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, service) = (listener.local_addr().unwrap(), Tested::default());
    let served = service.clone();
    runtime.spawn(async move {
        let incoming = stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(tcp, _)| tcp), listener))
        });
        Server::builder().add_service(served).serve_with_incoming(incoming).await.unwrap();
    });
    let server = proxy(address, keys);
    let _entered = runtime.enter();
    let client = Grpc::new(channel(server.address)).max_decoding_message_size(MOST).max_encoding_message_size(MOST);
    drop(_entered);
    Tries { runtime, server, service, client }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/test.Tested/{method}")).unwrap()
}

impl Tries {
    fn unary(&self, method: &str, request: Request<Bytes>) -> Result<Bytes, Status> {
        let mut client = self.client.clone();
        self.runtime.block_on(async {
            client.ready().await.unwrap();
            client.unary(request, path(method), Raw).await.map(Response::into_inner)
        })
    }
}

/// A stream of messages that are given one by one.
fn given() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, impl Stream<Item = Bytes> + Send + 'static) {
    let (give, take) = tokio::sync::mpsc::unbounded_channel();
    (give, stream::unfold(take, |mut take| async { Some((take.recv().await?, take)) }))
}

#[test]
fn calls_with_one_message_each_way() {
    let tries = tries("");
    for bytes in [0, 100, 4 << 20] {
        let message = Bytes::from(vec![b'x'; bytes]);
        let answer = tries.unary("Echo", Request::new(message.clone())).unwrap();
        assert!(answer == message, "{} of {bytes}", answer.len());
    }
    let failed = tries.unary("Fail", Request::new(Bytes::new())).unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::NotFound, "no such thing"));
    let lines = tries.server.access_lines(4);
    let statuses: Vec<_> = lines.iter().map(|line| (line["status"].clone(), line["grpc_status"].clone())).collect();
    assert_eq!(statuses, [0, 0, 0, 5].map(|status| (200.into(), status.into())), "{lines:?}");
    assert!(eventually(PATIENCE, || tries.service.0.load(Ordering::SeqCst) == 0));
}

#[test]
fn both_sides_stream_and_each_ends_by_itself() {
    let tries = tries("");
    let mut client = tries.client.clone();
    tries.runtime.block_on(async {
        client.ready().await.unwrap();
        let (give, messages) = given();
        give.send(Bytes::from("0")).unwrap();
        let mut answers = client.streaming(Request::new(messages), path("Chat"), Raw).await.unwrap().into_inner();
        for number in 0..200 {
            assert_eq!(answers.message().await.unwrap().unwrap(), number.to_string());
            give.send(Bytes::from((number + 1).to_string())).unwrap();
        }
        drop(give);
        assert_eq!(answers.message().await.unwrap().unwrap(), "200");
        assert_eq!(answers.message().await.unwrap().unwrap(), "201", "the count, after the client has ended");
        assert_eq!(answers.message().await.unwrap(), None);
        assert!(answers.trailers().await.unwrap().is_some());
    });
    assert_eq!(tries.server.access_lines(1)[0]["grpc_status"], 0);
}

#[test]
fn ten_thousand_messages_pass_on_one_stream() {
    let tries = tries("");
    let mut client = tries.client.clone();
    tries.runtime.block_on(async {
        client.ready().await.unwrap();
        let messages = stream::iter((0..10_000_u32).map(|number| Bytes::from(number.to_string())));
        let mut answers = client.streaming(Request::new(messages), path("Chat"), Raw).await.unwrap().into_inner();
        for number in 0..10_000_u32 {
            assert_eq!(answers.message().await.unwrap().unwrap(), number.to_string());
        }
        assert_eq!(answers.message().await.unwrap().unwrap(), "10000");
    });
}

#[test]
fn a_stream_may_be_silent_for_longer_than_any_timeout() {
    let tries = tries("read_timeout: 1s, write_timeout: 1s, idle_timeout: 1s");
    let mut client = tries.client.clone();
    tries.runtime.block_on(async {
        let mut beside = Grpc::new(channel(tries.server.address));
        client.ready().await.unwrap();
        beside.ready().await.unwrap();
        let (give, messages) = given();
        give.send(Bytes::from("a")).unwrap();
        let mut answers = client.streaming(Request::new(messages), path("Chat"), Raw).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "a");
        // How long that is, the end of another call tells: of one that waits for a header, to another pool.
        let hang = path("Hang");
        let ended = beside.unary::<_, Bytes, _>(Request::new(Bytes::new()), hang, Raw).await.unwrap_err();
        assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
        give.send(Bytes::from("b")).unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), "b");
    });
}

#[test]
fn a_client_that_gives_up_is_heard_by_the_server() {
    let tries = tries("");
    let mut client = tries.client.clone();
    let running = || tries.service.0.load(Ordering::SeqCst);
    tries.runtime.block_on(async {
        client.ready().await.unwrap();
        let (give, messages) = given();
        give.send(Bytes::from("a")).unwrap();
        let mut answers = client.streaming(Request::new(messages), path("Chat"), Raw).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "a");
        assert_eq!(running(), 1);
        drop((answers, give));
    });
    assert!(eventually(PATIENCE, || running() == 0), "the stream goes on");
    let call = tries.runtime.spawn({
        let mut client = tries.client.clone();
        async move {
            client.ready().await.unwrap();
            client.unary::<_, Bytes, _>(Request::new(Bytes::new()), path("Hang"), Raw).await.map(drop)
        }
    });
    assert!(eventually(PATIENCE, || running() == 1));
    call.abort();
    assert!(eventually(PATIENCE, || running() == 0), "the call goes on");
}

#[test]
fn deadlines_pass() {
    let tries = tries("");
    let mut request = Request::new(Bytes::new());
    request.set_timeout(Duration::from_millis(300));
    let failed = tries.unary("Hang", request).unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&failed.code()), "{failed:?}");
    assert!(eventually(PATIENCE, || tries.service.0.load(Ordering::SeqCst) == 0));
}

#[test]
fn a_server_that_gives_up_is_heard_by_the_client() {
    let backend = Http2Backend::new(h2::server::Builder::new(), |call| async move {
        let Call { request, mut respond, .. } = call;
        if request.uri().path().ends_with("Early") {
            return respond.send_reset(Reason::CANCEL);
        }
        let mut head = HttpResponse::new(());
        head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x01a"), false).unwrap();
        stream.send_reset(Reason::ENHANCE_YOUR_CALM);
    });
    let server = proxy(backend.address, "retries: 0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Grpc::new(channel(server.address));
        for (method, code) in [("Early", Code::Cancelled), ("Late", Code::ResourceExhausted)] {
            client.ready().await.unwrap();
            let failed = async {
                let request = Request::new(Bytes::new());
                let mut answers =
                    client.server_streaming::<_, Bytes, _>(request, path(method), Raw).await?.into_inner();
                while answers.message().await?.is_some() {}
                Ok::<_, Status>(())
            };
            assert_eq!(failed.await.unwrap_err().code(), code, "{method}");
        }
    });
}

#[test]
fn an_answer_of_trailers_alone_stays_one() {
    let backend = Http2Backend::new(h2::server::Builder::new(), |mut call| async move {
        let mut head = HttpResponse::new(());
        *head.headers_mut() = HeaderMap::from_iter([
            ("content-type".parse().unwrap(), HeaderValue::from_static("application/grpc")),
            ("grpc-status".parse().unwrap(), HeaderValue::from_static("7")),
        ]);
        call.respond.send_response(head, true).unwrap();
    });
    let server = proxy(backend.address, "");
    let mut client = crate::harness::http2::Http2::connect(server.address);
    let mut asked = crate::harness::http2::request("POST", "/test.Tested/Any");
    asked.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let (coming, _) = client.open(asked, true).unwrap();
    let answer = client.runtime.block_on(coming).unwrap();
    assert!(answer.body().is_end_stream(), "{answer:?}");
    assert_eq!(
        (&answer.headers()["grpc-status"], answer.headers().get("content-length")),
        (&HeaderValue::from_static("7"), None)
    );
    assert_eq!(server.access_lines(1)[0]["grpc_status"], 7);
}

#[test]
fn checks_ask_by_grpcs_own_protocol() {
    let serving = Arc::new(AtomicUsize::new(1));
    let status = Arc::clone(&serving);
    let backend = Http2Backend::new(h2::server::Builder::new(), move |call| {
        let status = status.load(Ordering::SeqCst) as u8;
        async move {
            let Call { request, mut respond, .. } = call;
            let (parts, mut body) = request.into_parts();
            let asked = crate::harness::http2::read_body(&mut body).await.unwrap();
            assert_eq!((parts.uri.path(), &asked[5..]), ("/grpc.health.v1.Health/Check", &b"\x0a\x03a.B"[..]));
            let mut stream = respond.send_response(HttpResponse::new(()), false).unwrap();
            stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
            stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        }
    });
    let keys = "protocol: h2, health_check: {type: grpc, service: a.B, interval: 100ms, timeout: 5s}";
    let server = Setup::default().pool("app", &[backend.address], keys).start();
    let state = || {
        let pools = server.ask("GET", "/upstreams", "").json();
        let found = &pools["items"][0]["backends"][0];
        (found["state"].as_str().unwrap_or_default().to_owned(), found["last_check"].clone())
    };
    assert!(eventually(PATIENCE, || state().0 == "up"), "{:?}", state());
    serving.store(2, Ordering::SeqCst);
    assert!(eventually(PATIENCE, || state().0 == "down"), "{:?}", state());
    assert!(state().1.to_string().contains("answered NOT_SERVING"), "{:?}", state());
    serving.store(1, Ordering::SeqCst);
    assert!(eventually(PATIENCE, || state().0 == "up"), "{:?}", state());
}
