//! What is kept of a request that was not let in, for whoever asks why.
//!
//! Only refusals that say something of the caller are kept: no tokens, a blocked client, an unknown key, limits that
//! nobody can tell. All that a
//! stranger chose is clipped, so that the latest thousand take little more than a megabyte. Keys and query strings are
//! not kept.

use crate::proxy::exchange::context::Context;
use crate::proxy::gate::admit::RequestTarget;
use crate::proxy::gate::rejection::Rejection;
use crate::telemetry::Refused;

/// The most bytes that are kept of a host, a path or a method.
const CLIP: usize = 256;

/// The record of a request that gets `rejection`; none when that is for another reason than who sent it.
pub(in crate::proxy) fn of(target: RequestTarget<'_>, ctx: &Context, rejection: Rejection) -> Option<Refused> {
    let (decision, retry_after) = match rejection {
        Rejection::RateLimited(seconds) => ("limited", Some(seconds)),
        Rejection::TooManyAtOnce => ("limited", Some(1)),
        Rejection::LimitsUnavailable => ("unavailable", Some(1)),
        Rejection::Blocked => ("blocked", None),
        Rejection::UnknownApiKey => ("unknown_api_key", None),
        _ => return None,
    };
    let caller = ctx.admission.caller.as_ref()?;
    let path = target.path.split('?').next().unwrap_or_default();
    Some(Refused {
        at: ctx.started_wall,
        request_id: ctx.request_id.as_str().to_owned(),
        client_id: caller.client.as_ref().map(|(client, _)| client.id.clone()),
        client_ip: caller.address,
        identity: caller.identity(),
        decision,
        limited_by: match rejection {
            Rejection::TooManyAtOnce => Some("max_concurrent".to_owned()),
            _ => ctx.admission.standings().and_then(|all| Some(all.refused_by()?.0.to_owned())),
        },
        method: clip(target.method.as_bytes()),
        host: clip(target.host.as_bytes()),
        path: clip(path.as_bytes()),
        status: rejection.status().as_u16(),
        tokens: ctx.standing().map(|standing| standing.tokens().to_f64()),
        retry_after,
    })
}

/// The bytes as text, at most [`CLIP`] bytes of it; what is not UTF-8 is replaced.
fn clip(bytes: &[u8]) -> String {
    // Four more, so that the character in which the cut falls is whole.
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(CLIP + 4)]).into_owned();
    if text.len() > CLIP {
        let end = (0..=CLIP).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pingora_http::RequestHeader;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::proxy::downstream::arrival::Arrival;
    use crate::proxy::gate::identify::Caller;
    use crate::proxy::gate::request_id::RequestId;

    fn context() -> Context {
        let mut ctx =
            Context::new(Arrival { at: ManualClock::new().now(), wall: SystemTime::UNIX_EPOCH }, [127, 0, 0, 1].into());
        let (walk, key, unknown_key, client) = (None, None, true, None);
        ctx.admission.caller = Some(Caller { address: [192, 0, 2, 1].into(), walk, key, unknown_key, client });
        ctx.request_id = RequestId::given(b"r1").unwrap();
        ctx
    }

    #[test]
    fn refusals_of_a_caller_are_kept_without_query_and_key() {
        let mut head = RequestHeader::build("POST", b"/v1/users?token=secret", None).unwrap();
        head.insert_header("Host", "api.example.com").unwrap();
        head.insert_header("X-Api-Key", "secret").unwrap();
        let refused = of(RequestTarget::of(&head), &context(), Rejection::UnknownApiKey).unwrap();
        assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
        let Refused { request_id, method, host, path, decision, status, retry_after, .. } = refused;
        assert_eq!((request_id.as_str(), method.as_str()), ("r1", "POST"));
        assert_eq!((host.as_str(), path.as_str()), ("api.example.com", "/v1/users"));
        assert_eq!((decision, status, retry_after), ("unknown_api_key", 401, None));
        let limited = of(RequestTarget::of(&head), &context(), Rejection::RateLimited(7)).unwrap();
        assert_eq!((limited.decision, limited.status, limited.retry_after), ("limited", 429, Some(7)));
        let blocked = of(RequestTarget::of(&head), &context(), Rejection::Blocked).unwrap();
        assert_eq!((blocked.decision, blocked.status, blocked.identity), ("blocked", 403, "anonymous"));
        let unavailable = of(RequestTarget::of(&head), &context(), Rejection::LimitsUnavailable).unwrap();
        assert_eq!((unavailable.decision, unavailable.status, unavailable.retry_after), ("unavailable", 503, Some(1)));
        for other in [Rejection::NoRoute, Rejection::BodyTooLarge(1), Rejection::BadRequest("two different API keys")] {
            assert_eq!(of(RequestTarget::of(&head), &context(), other), None);
        }
    }

    #[test]
    fn what_a_stranger_chose_is_clipped() {
        let long = RequestHeader::build("GET", format!("/{}", "x".repeat(5000)).as_bytes(), None).unwrap();
        assert_eq!(of(RequestTarget::of(&long), &context(), Rejection::Blocked).unwrap().path.len(), CLIP);
        assert_eq!(clip("é".repeat(200).as_bytes()), "é".repeat(128));
        assert_eq!(clip(format!("x{}", "é".repeat(200)).as_bytes()), format!("x{}", "é".repeat(127)));
        assert_eq!(clip(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(clip(&[0xff; 300]), "\u{fffd}".repeat(85));
        assert_eq!((clip(b""), clip(b"/short")), (String::new(), "/short".to_owned()));
    }
}
