use http::HeaderMap;
use pingora_http::ResponseHeader;

use super::*;

/// What is told of what was refused before anything was known of it.
const NOTHING: ToldOfRequest<'static> = ToldOfRequest { standing: None, refused_by: None, said: None, site: None };

#[test]
fn answers_are_json_with_their_own_status() {
    let all = [
        Rejection::BadRequest("how"),
        Rejection::UnknownApiKey,
        Rejection::Blocked,
        Rejection::RateLimited(1),
        Rejection::TooManyAtOnce,
        Rejection::NoRoute,
        Rejection::MethodNotAllowed,
        Rejection::RequestTimeout,
        Rejection::BodyTooLarge(10 << 20),
        Rejection::HeaderTooLarge,
        Rejection::Internal,
        Rejection::BadGateway,
        Rejection::NoHealthyBackend(5),
        Rejection::BackendsBusy,
        Rejection::GatewayTimeout,
        Rejection::UseHttps,
    ];
    for rejection in all {
        let body: serde_json::Value = serde_json::from_str(&rejection.body(AnswerForm::Json)).unwrap();
        assert_eq!(body["code"], rejection.status().as_u16());
        assert_eq!(body["message"], *rejection.message());
    }
}

#[test]
fn every_protocol_says_the_same() {
    let id = RequestId::random();
    let say = [
        Rejection::RateLimited(1),
        Rejection::TooManyAtOnce,
        Rejection::NoHealthyBackend(5),
        Rejection::BackendsBusy,
        Rejection::UnknownApiKey,
        Rejection::MethodNotAllowed,
        Rejection::NoRoute,
        Rejection::UseHttps,
    ];
    let told = |rejection| {
        let said = (rejection == Rejection::UseHttps).then_some(&b"https://a/b"[..]);
        ToldOfRequest { said, ..NOTHING }
    };
    for rejection in say {
        let (mut bytes, mut map) = (Vec::new(), HeaderMap::new());
        let mut of_pingora = ResponseHeader::build(rejection.status(), None).unwrap();
        rejection.write(AnswerForm::Json, &mut bytes, &rejection.body(AnswerForm::Json), &id, told(rejection));
        rejection.write(AnswerForm::Json, &mut map, &rejection.body(AnswerForm::Json), &id, told(rejection));
        rejection.write(AnswerForm::Json, &mut of_pingora, &rejection.body(AnswerForm::Json), &id, told(rejection));
        let lines = |map: &HeaderMap| -> Vec<String> {
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
        };
        let bytes = String::from_utf8(bytes).unwrap();
        let written: Vec<_> = bytes.lines().map(|line| line.split_once(": ").unwrap()).collect();
        let lower: Vec<_> = written.iter().map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
        assert_eq!((&lower, &lower), (&lines(&map), &lines(&of_pingora.headers)));
        let mut spelt = Vec::new();
        of_pingora.header_to_h1_wire(&mut spelt);
        assert_eq!(String::from_utf8(spelt).unwrap(), bytes);
    }
}

#[test]
fn an_answer_on_the_wire_is_whole() {
    let id = RequestId::random();
    let mut answer = Vec::new();
    let length = Rejection::BadRequest("how").append(AnswerForm::Json, &mut answer, &id, NOTHING, (false, true));
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(head.contains(&format!("\r\nX-Request-Id: {id}\r\n")), "{head}");
    assert_eq!((body, length), (r#"{"code":400,"message":"Bad request"}"#, body.len()));
    assert!(head.ends_with("\r\nConnection: close"), "{head}");
    let mut bodiless = Vec::new();
    assert_eq!(Rejection::RateLimited(7).append(AnswerForm::Json, &mut bodiless, &id, NOTHING, (true, false)), 0);
    let bodiless = String::from_utf8(bodiless).unwrap();
    assert!(bodiless.contains("\r\nRetry-After: 7\r\n"), "{bodiless}");
    assert!(bodiless.ends_with("\r\nConnection: keep-alive\r\n\r\n"), "{bodiless}");
    let mut told = Vec::new();
    Rejection::MethodNotAllowed.append(AnswerForm::Json, &mut told, &id, NOTHING, (false, true));
    assert!(String::from_utf8(told).unwrap().contains("\r\nAllow: GET, HEAD, POST, "));
    assert_eq!(Rejection::MethodNotAllowed.header(AnswerForm::Json, "", &id, NOTHING).headers()["allow"], ALLOWED);
    assert_eq!(
        Rejection::UnknownApiKey.header(AnswerForm::Json, "", &id, NOTHING).headers()["www-authenticate"],
        "Bearer"
    );
}

#[test]
fn grpc_is_answered_in_its_own_words() {
    let id = RequestId::given(b"r1").unwrap();
    let answer = Rejection::RateLimited(7).header(AnswerForm::Grpc, "", &id, NOTHING);
    assert_eq!(answer.status(), StatusCode::OK);
    let said = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!((said("grpc-status"), said("grpc-message")), (Some("8"), Some("Rate limit exceeded")));
    assert_eq!((said("content-type"), said("grpc-retry-pushback-ms")), (Some("application/grpc"), Some("7000")));
    assert_eq!((said("content-length"), said("x-request-id")), (None, Some("r1")));
    let mut out = Vec::new();
    assert_eq!(Rejection::Blocked.append(AnswerForm::Grpc, &mut out, &id, NOTHING, (true, true)), 0);
    let out = String::from_utf8(out).unwrap();
    let start = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 7\r\n\
                 grpc-message: Client is blocked\r\nX-Request-Id: r1\r\nContent-Length: 0\r\nDate: ";
    assert!(out.starts_with(start) && out.ends_with("\r\n\r\n"), "{out}");
}
