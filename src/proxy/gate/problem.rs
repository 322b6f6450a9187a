//! Answers of our own as problem details, for whoever asks for them.
//!
//! The rule: whoever lists `application/problem+json` in `Accept`, and likes it no less than what the answer would
//! be otherwise, gets it. A wildcard is no such wish, as everybody sends one. A refusal by a bucket is the problem
//! `quota-exceeded` of draft-ietf-httpapi-ratelimit-headers-11 with the names of the policies that refused; all others
//! are `about:blank`, which says no more than their status does, and what we say of it is their `detail`.
//!
//! Sources: RFC 9457; RFC 9110 section 12.5.1 for `Accept`.

use std::fmt::Write;

use http::StatusCode;
use http::header::ACCEPT;

use crate::proxy::wire::lines::Fields;

/// The type of the answer.
pub(in crate::proxy) const TYPE: &str = "application/problem+json";
/// What names the problem of a quota that is spent.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Whether who sent these lines wants problem details rather than an answer of type `otherwise`.
pub(in crate::proxy) fn is_wanted(fields: &impl Fields, otherwise: &[u8]) -> bool {
    let otherwise = essence(otherwise);
    let family = otherwise.iter().position(|byte| *byte == b'/').map_or(otherwise, |slash| &otherwise[..slash]);
    // How much it likes problem details, and each of what counts for the other: the more exact counts before.
    let (mut problem, mut other) = (0, [None; 3]);
    let lines = fields.all_of(&ACCEPT).flat_map(|line| line.split(|byte| *byte == b','));
    for range in lines {
        let (kind, quality) = (essence(range), quality(range));
        if kind.eq_ignore_ascii_case(TYPE.as_bytes()) {
            problem = problem.max(quality);
        }
        let fits = [
            kind.eq_ignore_ascii_case(otherwise),
            kind.strip_suffix(b"/*").is_some_and(|kind| kind.eq_ignore_ascii_case(family)),
            kind == b"*/*",
        ];
        for (fits, liked) in fits.into_iter().zip(&mut other) {
            *liked = (*liked).max(fits.then_some(quality));
        }
    }
    problem > 0 && problem >= other.into_iter().flatten().next().unwrap_or(0)
}

/// A type or a range of them without its parameters.
fn essence(range: &[u8]) -> &[u8] {
    range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The quality of a range in thousandths; what is none counts as 0, so that nobody is given what it may not want.
fn quality(range: &[u8]) -> u32 {
    let weights = range.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let Some(weight) = weights.filter_map(|weight| weight.strip_prefix(b"q=").or(weight.strip_prefix(b"Q="))).next()
    else {
        return 1000;
    };
    let (whole, fraction) = match weight {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    let digit =
        |at: usize| fraction.get(at).map_or(Some(0), |byte| byte.is_ascii_digit().then(|| u32::from(byte - b'0')));
    let (Some(tenths), Some(hundredths), Some(thousandths)) = (digit(0), digit(1), digit(2)) else { return 0 };
    (u32::from(whole - b'0') * 1000 + tenths * 100 + hundredths * 10 + thousandths).min(1000)
}

/// The body that says this of a request of this id, which these policies refused, if any did.
pub(in crate::proxy) fn body<'a>(
    status: StatusCode,
    detail: &str,
    request_id: &str,
    violated: impl Iterator<Item = &'a str>,
) -> String {
    let mut violated = violated.peekable();
    let (kind, title) = match violated.peek() {
        Some(_) => (QUOTA_EXCEEDED, "Request cannot be satisfied as assigned quota has been exceeded"),
        None => ("about:blank", status.canonical_reason().unwrap_or_default()),
    };
    let code = status.as_u16();
    let mut body = format!(r#"{{"type":"{kind}","title":"{title}","status":{code},"detail":"{detail}","request_id":"#);
    quote(request_id, &mut body);
    for (index, name) in violated.enumerate() {
        body.push_str(if index == 0 { r#","violated-policies":["# } else { "," });
        quote(name, &mut body);
    }
    body.push_str(if kind == QUOTA_EXCEEDED { "]}" } else { "}" });
    body
}

/// Appends `text` as a string of JSON.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    fn wants(accept: &[&str], otherwise: &str) -> bool {
        let mut fields = HeaderMap::new();
        for line in accept {
            fields.append(ACCEPT, line.parse().unwrap());
        }
        is_wanted(&fields, otherwise.as_bytes())
    }

    #[test]
    fn problem_details_are_for_who_asks_for_them() {
        for accept in [
            &["application/problem+json"][..],
            &["application/json, application/problem+json"],
            &["Application/Problem+JSON; charset=utf-8"],
            &["text/html", "application/problem+json;q=0.1"],
            &["application/problem+json;q=0.5, application/json;q=0.5"],
            &["application/problem+json;q=0.5, application/json;q=0.1, */*"],
            &["application/problem+json; q=1.000"],
        ] {
            assert!(wants(accept, "application/json"), "{accept:?}");
        }
        for accept in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/problem+json;q=0"],
            &["application/problem+json;q=0.000, */*;q=0"],
            &["application/problem+json;q=0.5, application/json"],
            &["application/problem+json;q=0.5, */*;q=0.6"],
            &["application/problem+json;q=0.5, application/*;q=0.6, */*;q=0.1"],
            &["application/problem+json;q=high"],
            &["application/problem+jsonx", ""],
        ] {
            assert!(!wants(accept, "application/json"), "{accept:?}");
        }
        let browser = &["text/html, application/problem+json;q=0.5"];
        assert!(!wants(browser, "text/html; charset=utf-8") && wants(browser, "application/json"));
    }

    #[test]
    fn a_problem_says_which_and_for_which_request() {
        let of = |status: StatusCode, violated: &[&'static str]| -> Value {
            serde_json::from_str(&body(status, "Words", "a\"\\b", violated.iter().copied())).unwrap()
        };
        let expected = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "Words", "request_id": "a\"\\b",
        });
        assert_eq!(of(StatusCode::NOT_FOUND, &[]), expected);
        let refused = of(StatusCode::TOO_MANY_REQUESTS, &["default", "writes"]);
        assert_eq!((&refused["type"], &refused["status"]), (&json!(QUOTA_EXCEEDED), &json!(429)));
        assert_eq!(refused["violated-policies"], json!(["default", "writes"]));
    }
}
