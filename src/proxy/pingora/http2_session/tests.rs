use h2::client::{self, ResponseFuture, SendRequest};
use http::Request;
use http::header::DATE;
use pingora_core::ErrorSource;
use pingora_core::protocols::http::custom::server::Session;
use tokio::io::duplex;

use super::*;
use crate::clock::SystemClock;
use crate::proxy::downstream::budget::WindowBudget;
use crate::proxy::downstream::http2::windows::Windows;
use crate::proxy::downstream::pace::Waited;

/// Not long, and long enough for what happens at once.
const SHORT: Duration = Duration::from_millis(50);

/// A client, and a server that hands out its requests as sessions.
struct Pair {
    client: SendRequest<Bytes>,
    sessions: tokio::sync::mpsc::Receiver<(Http2Session, oneshot::Receiver<Upload>)>,
    /// What the latest session leaves of its body.
    left: Option<oneshot::Receiver<Upload>>,
}

/// A connection whose client takes `window` bytes of an answer before it reads.
async fn connect(window: u32) -> Pair {
    let (near, far) = duplex(1 << 16);
    let (sender, sessions) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let (parts, body) = request.into_parts();
            let windows = Windows::new(Arc::new(WindowBudget::new()));
            let body = Upload::new(body, &windows, None, Waited::new(Arc::new(SystemClock)));
            let (leave, left) = oneshot::channel();
            let session =
                Http2Session::new(parts.into(), (body, None), (respond, Arc::default()), Arc::default(), leave);
            sender.send((session, left)).await.unwrap_or_else(|_| panic!("nobody takes the session"));
        }
    });
    let (client, connection) = client::Builder::new().initial_window_size(window).handshake(near).await.unwrap();
    tokio::spawn(connection);
    Pair { client, sessions, left: None }
}

impl Pair {
    async fn open(&mut self, method: &str, end: bool) -> (ResponseFuture, SendStream<Bytes>, Http2Session) {
        let request = Request::builder().method(method).uri("https://a/").body(()).unwrap();
        let (answer, stream) = self.client.clone().ready().await.unwrap().send_request(request, end).unwrap();
        let (session, left) = self.sessions.recv().await.unwrap();
        self.left = Some(left);
        (answer, stream, session)
    }
}

fn header(status: u16, length: Option<usize>) -> Box<ResponseHeader> {
    let mut header = ResponseHeader::build(status, None).unwrap();
    header.insert_header(CONNECTION, "close").unwrap();
    if let Some(length) = length {
        header.insert_header(CONTENT_LENGTH, length).unwrap();
    }
    Box::new(header)
}

fn what(error: &Error) -> (&ErrorType, &ErrorSource) {
    (error.etype(), error.esource())
}

#[tokio::test]
async fn a_body_that_stalls_is_waited_for_no_longer_than_asked() {
    let mut pair = connect(1 << 16).await;
    let (_answer, mut stream, mut session) = pair.open("POST", false).await;
    session.set_read_timeout(Some(SHORT));
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    assert_eq!(session.read_body_or_idle(false).await.unwrap().as_deref(), Some(&b"hello"[..]));
    let error = session.read_body_or_idle(false).await.unwrap_err();
    assert_eq!(what(&error), (&ErrorType::ReadTimedout, &ErrorSource::Downstream));
    assert!(!session.is_body_done() && session.body_bytes_read() == 5);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_waited_for_no_longer_than_asked() {
    let mut pair = connect(10).await;
    let (answer, _stream, mut session) = pair.open("GET", true).await;
    session.set_write_timeout(Some(SHORT));
    session.write_response_header(header(200, None), false).await.unwrap();
    let error = session.write_body(Bytes::from(vec![b'x'; 100]), true).await.unwrap_err();
    assert_eq!(what(&error), (&ErrorType::WriteTimedout, &ErrorSource::Downstream));
    drop(session);
    let mut body = answer.await.unwrap().into_body();
    // What was sent may still come, and then no end.
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    panic!("half an answer ended as a whole one");
}

#[tokio::test]
async fn an_empty_last_frame_is_the_end_and_nothing_else() {
    let mut pair = connect(1 << 16).await;
    let (_answer, mut stream, mut session) = pair.open("POST", false).await;
    stream.send_data(Bytes::new(), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    session.enable_retry_buffering();
    assert_eq!(session.read_body_bytes().await.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(session.read_body_bytes().await.unwrap(), None);
    assert!(session.is_body_done());
    assert_eq!(session.get_retry_buffer().as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_client_that_gives_up_is_noticed() {
    let mut pair = connect(1 << 16).await;
    let (_answer, mut stream, mut session) = pair.open("GET", true).await;
    stream.send_reset(Reason::CANCEL);
    let error = session.read_body_or_idle(true).await.unwrap_err();
    assert_eq!(what(&error), (&ErrorType::ConnectionClosed, &ErrorSource::Downstream));
    let (_answer, mut stream, mut session) = pair.open("POST", false).await;
    session.write_response_header(header(200, None), false).await.unwrap();
    stream.send_reset(Reason::CANCEL);
    let error = session.read_body_or_idle(false).await.unwrap_err();
    assert_eq!(what(&error), (&ErrorType::ConnectionClosed, &ErrorSource::Downstream));
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_reset() {
    let mut pair = connect(1 << 16).await;
    for (sent, whole) in [(&b"hello"[..], true), (b"hell", false)] {
        let (answer, _stream, mut session) = pair.open("GET", true).await;
        session.write_response_header(header(200, Some(5)), false).await.unwrap();
        session.write_body(Bytes::from_static(sent), false).await.unwrap();
        session.finish().await.unwrap();
        // A reset may overtake what was not sent yet, the header included.
        let Ok(answer) = answer.await else {
            assert!(!whole, "{sent:?}");
            continue;
        };
        assert!(!answer.headers().contains_key(CONNECTION) && answer.headers().contains_key(DATE));
        let mut body = answer.into_body();
        let mut last = body.data().await;
        while let Some(Ok(_)) = last {
            last = body.data().await;
        }
        assert_eq!(last.is_none(), whole, "{sent:?}: {last:?}");
    }
    // The answer to HEAD has no body to be whole.
    let (answer, _stream, mut session) = pair.open("HEAD", true).await;
    session.write_response_header(header(200, Some(5)), false).await.unwrap();
    session.finish().await.unwrap();
    let mut body = answer.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        assert!(data.unwrap().is_empty());
    }
}

#[tokio::test]
async fn interim_answers_go_before_the_final_one() {
    let mut pair = connect(1 << 16).await;
    let (mut answer, _stream, mut session) = pair.open("POST", false).await;
    session.write_response_header(header(100, None), false).await.unwrap();
    assert!(session.response_written().is_none());
    let interim = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((interim.status().as_u16(), interim.headers().len()), (100, 0));
    session.write_response_header(header(204, None), true).await.unwrap();
    // Only the first final one counts.
    session.write_response_header(header(200, None), false).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 204);
}

#[tokio::test]
async fn what_comes_after_the_answer_is_read_for_a_while_and_no_more() {
    let mut pair = connect(1 << 16).await;
    let (answer, mut stream, mut session) = pair.open("POST", false).await;
    session.write_response_header(header(200, Some(0)), true).await.unwrap();
    assert!(session.is_body_done() && session.read_body_bytes().await.unwrap().is_none(), "nobody asks for the body");
    assert_eq!(answer.await.unwrap().status(), 200);
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        loop {
            stream.reserve_capacity(16 << 10);
            let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return sent };
            let _ = stream.send_data(Bytes::from(vec![b'x'; room]), false);
            sent += room;
        }
    });
    drop(session);
    pair.left.take().unwrap().await.unwrap().discard().await;
    let sent = sending.await.unwrap();
    assert!((1 << 17..64 << 20).contains(&sent), "{sent} bytes");
}
