//! Checks that ask over HTTP/2: for a path, or by the health protocol of gRPC.
//!
//! `grpc.health.v1.Health/Check` is one call with one small message each way, so both are written here by hand: a
//! message is a byte, its length in four, and fields of protobuf. What a server does not know is in the trailers.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};
use pingora_core::{Error, ErrorType, Result};

use crate::upstream::BackendStream;
use crate::upstream::transport::begin;

/// Who asks.
pub(super) const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");
/// The most of an answer that is looked at, in bytes.
const MOST: usize = 64 << 10;
/// SERVING, in the field `status`.
const SERVING: &[u8] = &[0x08, 1];
const PATH: &str = "/grpc.health.v1.Health/Check";

/// An answer.
struct CheckAnswer {
    status: u16,
    /// The header, and the trailers if there were any.
    fields: [HeaderMap; 2],
    body: Bytes,
}

/// Sends a request over a connection of its own, and reads its answer.
async fn ask(stream: BackendStream, request: Request<()>, body: Option<Bytes>) -> Result<CheckAnswer> {
    let (sender, connection) = begin(stream).await?;
    let driving = async {
        // How it ended, the request is told.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        asked = exchange(sender, request, body) => asked,
        () = driving => Err(none()),
    }
}

async fn exchange(mut sender: SendRequest<Bytes>, request: Request<()>, body: Option<Bytes>) -> Result<CheckAnswer> {
    let broken = |error| Error::because(ErrorType::ConnectionClosed, "asking", error).into_up();
    poll_fn(|cx| sender.poll_ready(cx)).await.map_err(broken)?;
    let (answer, mut sending) = sender.send_request(request, body.is_none()).map_err(broken)?;
    if let Some(body) = body {
        sending.send_data(body, true).map_err(broken)?;
    }
    let (head, mut coming): (_, RecvStream) = Response::into_parts(answer.await.map_err(broken)?);
    let mut body = BytesMut::new();
    while let Some(data) = coming.data().await {
        let data = data.map_err(broken)?;
        let _ = coming.flow_control().release_capacity(data.len());
        if body.len() + data.len() <= MOST {
            body.extend_from_slice(&data);
        }
    }
    let trailers = coming.trailers().await.map_err(broken)?.unwrap_or_default();
    Ok(CheckAnswer { status: head.status.as_u16(), fields: [head.headers, trailers], body: body.freeze() })
}

/// Asks for `path` over `stream`; the status.
pub(super) async fn status(stream: BackendStream, (host, path): (&str, &str)) -> Result<u16> {
    let request = request(&stream, Method::GET, host, path)?.body(()).map_err(|_| none())?;
    ask(stream, request, None).await.map(|asked| asked.status)
}

/// Asks over `stream` whether `service` serves; empty is the whole server.
///
/// # Errors
/// When it does not, in words.
pub(super) async fn serves(stream: BackendStream, (host, service): (&str, &str)) -> Result<()> {
    let request = request(&stream, Method::POST, host, PATH)?.header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(()).map_err(|_| none())?;
    judge(&ask(stream, request, Some(message(service))).await?)
}

fn request(over: &BackendStream, method: Method, host: &str, path: &str) -> Result<http::request::Builder> {
    let scheme = if let BackendStream::Plain(_) = over { "http" } else { "https" };
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().map_err(|_| none())?;
    Ok(Request::builder().method(method).uri(uri).header("user-agent", AGENT))
}

fn none() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the check is no request").into_in()
}

/// The message that asks for `service`: its one field, unless that is empty.
fn message(service: &str) -> Bytes {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            field.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&field);
    message.into()
}

/// What is wrong with an answer, if anything is.
fn judge(asked: &CheckAnswer) -> Result<()> {
    let failed = |why: String| Error::e_explain(ErrorType::HTTPStatus(asked.status), why);
    if asked.status != 200 {
        return failed(format!("answered status {}, expected a gRPC answer", asked.status));
    }
    let said = |name: &str| asked.fields.iter().find_map(|fields| fields.get(name)?.to_str().ok());
    match said("grpc-status") {
        Some("0") => {}
        Some(code) => {
            let message = said("grpc-message").map(|message| format!(": {message}")).unwrap_or_default();
            return failed(format!("answered gRPC status {code}{message}"));
        }
        None => return failed("answered without a gRPC status".to_owned()),
    }
    match asked.body.get(5..) {
        Some(SERVING) => Ok(()),
        Some([0x08, 2]) => failed("answered NOT_SERVING".to_owned()),
        Some([0x08, 3]) => failed("answered SERVICE_UNKNOWN".to_owned()),
        _ => failed("answered UNKNOWN".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_those_of_the_protocol() {
        assert_eq!(&message("")[..], b"\0\0\0\0\0");
        assert_eq!(&message("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(&message(&"x".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        let asked = |status, grpc: &'static str, body: &'static [u8]| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), grpc.parse().unwrap())]);
            judge(&CheckAnswer { status, fields: [HeaderMap::new(), trailers], body: Bytes::from_static(body) })
        };
        assert!(asked(200, "0", b"\0\0\0\0\x02\x08\x01").is_ok());
        for (status, grpc, body) in [
            (200, "0", &b"\0\0\0\0\x02\x08\x02"[..]),
            (200, "0", b"\0\0\0\0\0"),
            (200, "0", b""),
            (200, "12", b""),
            (404, "0", b"\0\0\0\0\x02\x08\x01"),
        ] {
            assert!(asked(status, grpc, body).is_err(), "{status} {grpc} {body:?}");
        }
    }
}
