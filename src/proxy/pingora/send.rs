//! Answers of our own by Pingora's sessions.

use http::Method;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora_core::Result;
use pingora_core::protocols::http::HttpTask;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::proxy::exchange::rest::DISCARD;
use crate::proxy::gate::grpc::AnswerForm;
use crate::proxy::gate::rejection::{LINGER, Rejection, ToldOfRequest, bytes_of};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::pingora::loan::Loan;

/// Answers `session` with `rejection`, and with what is `told` of its request. Does nothing when an answer has begun
/// already.
///
/// # Errors
/// When the client is gone.
pub(in crate::proxy) async fn send(
    session: &mut Session,
    (rejection, form): (Rejection, AnswerForm),
    request_id: &RequestId,
    told: ToldOfRequest<'_>,
) -> Result<()> {
    let begun = session.response_written().is_some_and(|written| !written.status.is_informational());
    if begun || session.was_upgraded() {
        return Ok(());
    }
    let body = rejection.body_of(form, request_id, told);
    let mut header = ResponseHeader::build(rejection.told_status(form), Some(6))?;
    rejection.write(form, &mut header, &body, request_id, told);
    // A 408 is sent because the client's bytes stopped coming: there is nothing to read to the end.
    let over_http2 = session.as_downstream().is_custom();
    let keep = over_http2 || (rejection != Rejection::RequestTimeout && is_worth_reading(session));
    session.set_close_on_response_before_downstream_finish(false);
    if !keep || Loan::of(session).is_some_and(Loan::is_last) {
        session.set_keepalive(None);
    }
    if over_http2 && form == AnswerForm::Grpc {
        // Its status stands in the frame that ends the stream.
        session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Header(Box::new(header), true)]).await?;
    } else {
        if form == AnswerForm::Grpc {
            header.insert_header(CONTENT_LENGTH, 0)?;
        }
        session.write_response_header(Box::new(header), false).await?;
        let body = Some(bytes_of(body)).filter(|_| session.req_header().method != Method::HEAD);
        session.write_response_body(body, true).await?;
    }
    if keep {
        session.set_total_drain_timeout(Some(LINGER));
        if let Err(error) = session.drain_request_body().await {
            if let Some(loan) = Loan::of(session) {
                loan.set_exhausted();
            }
            return Err(error);
        }
        if session.get_keepalive().is_some()
            && let Some(loan) = Loan::of(session)
        {
            loan.set_reusable();
        }
    }
    Ok(())
}

/// Whether the rest of the request's body is little enough to read it for the sake of the connection.
fn is_worth_reading(session: &mut Session) -> bool {
    if Loan::of(session).is_some_and(Loan::is_malformed) {
        return false;
    }
    if session.is_body_done() {
        return true;
    }
    let header = session.req_header();
    let length = header.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // A client that expects 100 (Continue) may never send its body after another answer.
    !header.headers.contains_key(EXPECT) && length.is_some_and(|length| length <= DISCARD)
}
