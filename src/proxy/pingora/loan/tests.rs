//! What a loan passes on, and what comes back with it.

use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::clock::SystemClock;
use crate::proxy::wire::chunked::Chunked;

fn lend(stream: DuplexStream, body: Body) -> (Loan, Lender) {
    // Nobody stops these servers: the last value stays.
    let shutdown = tokio::sync::watch::channel(false).1;
    let waited = Waited::new(Arc::new(SystemClock));
    Loan::new((Box::new(stream), HalfClose::Gone), body, BytesMut::new(), waited, Arc::new(shutdown))
}

#[tokio::test]
async fn an_upgraded_connection_passes_everything_on_in_order() {
    let (mut client, server) = duplex(64);
    client.write_all(b"early").await.unwrap();
    let (mut loan, lender) = lend(server, Body::Length(0));
    let mut bytes = [0; 5];
    tokio::select! {
        biased;
        _ = loan.read(&mut bytes) => panic!("nothing is to be read before the upgrade"),
        () = std::future::ready(()) => {}
    }
    loan.set_upgraded();
    client.write_all(b"late").await.unwrap();
    loan.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"early");
    loan.read_exact(&mut bytes[..4]).await.unwrap();
    assert_eq!(&bytes[..4], b"late");
    drop(loan);
    assert!(!lender.take_back().unwrap().complete, "no request follows on it");
}

#[tokio::test]
async fn the_lender_sees_what_was_written_and_flushed() {
    let (_client, server) = duplex(64);
    let (mut loan, lender) = lend(server, Body::Length(0));
    assert_eq!((lender.written(), lender.is_flushed()), (0, true));
    loan.write_all(b"hello").await.unwrap();
    assert_eq!((lender.written(), lender.is_flushed()), (5, false));
    loan.flush().await.unwrap();
    assert_eq!((lender.written(), lender.is_flushed()), (5, true));
}

#[tokio::test]
async fn a_loan_reads_no_further_than_its_request() {
    let (mut client, server) = duplex(64);
    client.write_all(b"bodyGET /next").await.unwrap();
    let (mut loan, lender) = lend(server, Body::Length(4));
    let mut body = BytesMut::with_capacity(64);
    assert_eq!(loan.read_buf(&mut body).await.unwrap(), 4);
    assert_eq!(&body[..], b"body");
    let mut more = [0; 8];
    tokio::select! {
        biased;
        _ = loan.read(&mut more) => panic!("it read into the next request"),
        () = std::future::ready(()) => {}
    }
    drop(loan);
    assert_eq!(&lender.take_back().unwrap().ahead[..], b"GET /next");
}

#[tokio::test]
async fn a_body_that_is_none_is_an_error_and_noted() {
    let (mut client, server) = duplex(64);
    client.write_all(b"5\nhello").await.unwrap();
    let (mut loan, _lender) = lend(server, Body::Chunked(Chunked::new()));
    assert_eq!(loan.read(&mut [0; 32]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(loan.is_malformed());
}

#[tokio::test]
async fn the_end_of_the_connection_is_seen_after_the_body() {
    let (client, server) = duplex(64);
    drop(client);
    let (mut loan, _lender) = lend(server, Body::Length(0));
    assert_eq!(loan.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_noted_comes_back_with_the_connection() {
    let (_client, server) = duplex(64);
    let (loan, lender) = lend(server, Body::Length(1));
    loan.set_reusable();
    drop(loan);
    let returned = lender.take_back().unwrap();
    assert!(returned.reusable && !returned.complete, "a byte of the request is still to come");
}
