//! gRPC: the backend, which is the benchmark itself once more, and what h2load cannot do, streams of many messages.
//!
//! Each message of a stream has a frame of its own, as servers send that have one message at a time, and is looked at
//! when it comes: its length and its number. Of the calls that h2load makes only the lengths are known, so a few are
//! made here before, of which everything is looked at.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use crate::case::{CALL, MESSAGES};
use crate::connect;
use crate::load::Place;
use crate::parse::{self, MARK, Measured};
use crate::process::Launch;
use crate::stop::{Fallible, Stop, now};

/// The first argument of the process that is the load.
pub(crate) const ARGUMENT: &str = "--calls";
/// The first argument of the process that is the backend.
pub(crate) const BACKEND: &str = "--calls-backend";

/// Where a call comes back as it was sent.
pub(crate) const ECHO: &str = "/bench.Calls/Echo";
/// Where many messages come from.
const DOWN: &str = "/bench.Calls/Down";
/// Where many messages go.
const UP: &str = "/bench.Calls/Up";

/// What a message of gRPC has before its bytes: that it is not compressed, and its length.
const PREFIX: usize = 5;
/// The length of a message of a stream, in bytes.
const LENGTH: usize = 64;
/// What may be sent ahead on a stream, and on all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 16 << 20);
/// What is given to a stream at once.
const AHEAD: usize = 64 << 10;
/// The most streams that the backend takes on a connection, as nginx.
const STREAMS: u32 = 128;

/// The message of a call, as it is sent.
pub(crate) fn call() -> Bytes {
    framed(&[b'x'; CALL])
}

/// Message `number` of a stream, as it is sent.
fn message(number: u64) -> Bytes {
    let mut bytes = [b'x'; LENGTH];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    framed(&bytes)
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// Has streams of [`MESSAGES`] come from `address`, or go `up` there, one after the other, for some seconds. Their
/// messages are what is counted; the times are those of whole streams.
///
/// # Errors
///
/// When the load fails, or says what cannot be read.
pub(crate) fn run(stop: &Stop, place: &Place, address: SocketAddr, up: bool, seconds: u64) -> Fallible<Measured> {
    let said = place.directory.join("calls.out");
    Launch::new(std::env::current_exe()?, &place.cores, place.directory.join("calls.err"))
        .args([ARGUMENT.to_owned(), address.to_string(), if up { UP } else { DOWN }.to_owned(), seconds.to_string()])
        .stdout(&said)
        .finish(stop, Duration::from_secs(seconds + 60))?;
    let said = std::fs::read_to_string(&said)?;
    parse::measured(&said).ok_or_else(|| format!("the load of calls said what cannot be read:\n{said}").into())
}

/// The process that is the load: address, path and seconds are its arguments.
///
/// # Errors
///
/// When an argument is wrong, or nothing can be connected to.
pub(crate) fn load(arguments: &[String]) -> Fallible<()> {
    let [address, path, seconds] = arguments else { return Err("address, path and seconds are needed".into()) };
    let (address, seconds): (SocketAddr, u64) = (address.parse()?, seconds.parse()?);
    let measured = runtime()?.block_on(async {
        let (mut times, mut failed, started) = (Vec::new(), 0, now());
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let mut sender = begin(tcp).await?;
        while times.is_empty() || started.elapsed() < Duration::from_secs(seconds) {
            let begun = now();
            match ask(&mut sender, path).await {
                Ok(()) => times.push(begun.elapsed().as_secs_f64() * 1e6),
                Err(error) => {
                    eprintln!("a stream: {error}");
                    failed += MESSAGES;
                    break;
                }
            }
        }
        let in_all = times.iter().sum::<f64>() / 1e6;
        let measured = Measured::of(times, in_all, 0, failed);
        Fallible::Ok(Measured { requests: measured.requests * MESSAGES, ..measured })
    })?;
    println!("{MARK}{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Makes a few calls at `address` over TLS, and looks at all that comes back.
///
/// # Errors
///
/// When one is not answered as it should be.
pub(crate) fn check(address: SocketAddr, certificates: &Path) -> Fallible<()> {
    let mut config = Arc::unwrap_or_clone(connect::config(&certificates.join("cert.pem"))?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    runtime()?.block_on(async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from(connect::NAME)?;
        let mut sender = begin(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?).await?;
        for _ in 0..10 {
            ask(&mut sender, ECHO).await?;
        }
        Ok(())
    })
}

fn runtime() -> Fallible<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Begins to speak HTTP/2.
async fn begin(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Fallible<SendRequest<Bytes>> {
    let mut options = h2::client::Builder::new();
    options.initial_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
    let (sender, connection) = options.handshake(stream).await?;
    // How it ends, its streams are told.
    tokio::spawn(async move { connection.await.is_ok() });
    Ok(sender)
}

/// One call of `path`, to its end.
async fn ask(sender: &mut SendRequest<Bytes>, path: &str) -> Fallible<()> {
    let request = Request::post(format!("http://localhost{path}"))
        .header(TE, "trailers")
        .header(CONTENT_TYPE, "application/grpc")
        .body(())?;
    let (answer, mut writer) = sender.clone().ready().await?.send_request(request, false)?;
    if path == UP {
        send(&mut writer).await?;
        writer.send_data(Bytes::new(), true)?;
    } else {
        writer.send_data(call(), true)?;
    }
    let answer = answer.await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("was answered {}", answer.status()).into());
    }
    let mut body = answer.into_body();
    if path == DOWN {
        receive(&mut body).await?;
    } else if whole(&mut body).await? != call() {
        return Err("another answer".into());
    }
    match body.trailers().await? {
        Some(trailers) if trailers.get("grpc-status").is_some_and(|status| status == "0") => Ok(()),
        trailers => Err(format!("ended by {trailers:?}").into()),
    }
}

/// Sends all messages of a stream.
async fn send(writer: &mut SendStream<Bytes>) -> Fallible<()> {
    for number in 0..MESSAGES {
        let message = message(number);
        while writer.capacity() < message.len() {
            writer.reserve_capacity(AHEAD);
            poll_fn(|cx| writer.poll_capacity(cx)).await.ok_or("the stream is closed")??;
        }
        writer.send_data(message, false)?;
    }
    Ok(())
}

/// Takes all messages of a stream.
async fn receive(body: &mut RecvStream) -> Fallible<()> {
    let (mut rest, mut number) = (BytesMut::new(), 0);
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        rest.extend_from_slice(&data);
        while rest.len() >= PREFIX + LENGTH {
            if rest.split_to(PREFIX + LENGTH) != message(number) {
                return Err(format!("another message than number {number}").into());
            }
            number += 1;
        }
    }
    if number == MESSAGES && rest.is_empty() { Ok(()) } else { Err(format!("{number} messages came").into()) }
}

/// Takes all of a body that is short.
async fn whole(body: &mut RecvStream) -> Fallible<Bytes> {
    let mut all = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all = if all.is_empty() { data } else { [all, data].concat().into() };
    }
    Ok(all)
}

/// The process that is the backend: its address is the argument. Ends with the process that started it.
///
/// # Errors
///
/// When it cannot listen.
pub(crate) fn serve(arguments: &[String]) -> Fallible<()> {
    let [address] = arguments else { return Err("an address is needed".into()) };
    let address: SocketAddr = address.parse()?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            tokio::spawn(connection(tcp));
        }
    })
}

async fn connection(tcp: TcpStream) {
    let mut options = h2::server::Builder::new();
    options.initial_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1).max_concurrent_streams(STREAMS);
    let Ok(mut connection) = options.handshake(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        // How it ends is its client's doing.
        tokio::spawn(async move { answer(request, respond).await.is_ok() });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Fallible<()> {
    let (head, mut body) = request.into_parts();
    let mut begin = || {
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        respond.send_response(response, false)
    };
    let mut writer = match head.uri.path() {
        DOWN => {
            whole(&mut body).await?;
            let mut writer = begin()?;
            send(&mut writer).await?;
            writer
        }
        UP => {
            receive(&mut body).await?;
            let mut writer = begin()?;
            writer.send_data(call(), false)?;
            writer
        }
        _ => {
            let data = whole(&mut body).await?;
            let mut writer = begin()?;
            writer.send_data(data, false)?;
            writer
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(writer.send_trailers(trailers)?)
}
