//! Who gets in, and who does not.

use axum::body::Body;

use super::*;

fn request(target: &str, headers: &[(&str, &str)]) -> Request {
    let start = http::Request::builder().uri(target);
    headers.iter().fold(start, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap()
}

fn tokens() -> Doorkeeper {
    let token = |name: &str, secret: &str, viewer| Token { name: name.to_owned(), secret: secret.to_owned(), viewer };
    let tokens = vec![token("ops", "first-secret", false), token("ci", "second", false), token("eve", "third", true)];
    Doorkeeper::new(Access::Tokens(tokens))
}

#[test]
fn a_token_gives_its_holder_a_name() {
    let admit = |authorization: &str| {
        let headers = [("host", "admin.example"), ("authorization", authorization)];
        tokens().admit(&request("/clients", &headers)).map(|actor| actor.name).map_err(|error| error.status.as_u16())
    };
    assert_eq!(admit("Bearer first-secret"), Ok("ops".to_owned()));
    assert_eq!(admit("bearer  second"), Ok("ci".to_owned()));
    for wrong in ["Bearer", "Bearer ", "Bearer first", "Bearer first-secret2", "Basic second", "second", ""] {
        assert_eq!(admit(wrong), Err(401), "{wrong}");
    }
    let host = ("host", "admin.example");
    assert_eq!(tokens().admit(&request("/clients", &[host])).unwrap_err().status, 401);
    let two = [host, ("authorization", "Bearer second"), ("authorization", "Bearer second")];
    assert_eq!(tokens().admit(&request("/clients", &two)).unwrap_err().status, 401);
    for open in ["/healthz", "/readyz", "/", "/ui/main.js"] {
        assert!(tokens().admit(&request(open, &[host])).is_ok());
    }
    assert!(!format!("{:?}", tokens()).contains("secret"));
}

#[test]
fn a_viewer_reads_explains_and_simulates_and_changes_nothing() {
    let admit = |secret: &str, method: &str, target: &str| {
        let bearer = format!("Bearer {secret}");
        let mut request = request(target, &[("host", "admin.example"), ("authorization", &bearer)]);
        *request.method_mut() = method.parse().unwrap();
        tokens().admit(&request).map(|actor| (actor.name, actor.viewer)).map_err(|error| error.status.as_u16())
    };
    let reads = [("GET", "/clients"), ("HEAD", "/clients/a"), ("GET", "/metrics"), ("OPTIONS", "/status")];
    let questions = [("POST", "/explain"), ("POST", "/clients/a/simulate"), ("POST", "/clients/a/b/simulate?x=y")];
    for (method, target) in reads.into_iter().chain(questions) {
        assert_eq!(admit("third", method, target), Ok(("eve".to_owned(), true)), "{method} {target}");
    }
    for (method, target) in [
        ("POST", "/clients"),
        ("PUT", "/clients"),
        ("PUT", "/clients/simulate"),
        ("PUT", "/clients/a/simulate"),
        ("PATCH", "/clients/a"),
        ("DELETE", "/clients/a/keys/1"),
        ("POST", "/clients/a/simulate/reset"),
        ("POST", "/clients/a?x=/simulate"),
        ("POST", "/config/reload"),
        ("PUT", "/explain"),
        ("PATCH", "/upstreams/app/backends/127.0.0.1:1"),
        ("BREW", "/clients"),
    ] {
        assert_eq!(admit("third", method, target), Err(403), "{method} {target}");
        assert_eq!(admit("second", method, target), Ok(("ci".to_owned(), false)), "{method} {target}");
    }
}

#[test]
fn another_access_counts_from_the_next_request_on() {
    let only =
        |secret: &str| Access::Tokens(vec![Token { name: "ops".to_owned(), secret: secret.to_owned(), viewer: false }]);
    let access = Arc::new(ArcSwap::from_pointee(only("old")));
    let entrance = Entrance::new(Arc::clone(&access));
    let admit = |secret: &str| {
        let bearer = format!("Bearer {secret}");
        entrance.admit(&request("/clients", &[("host", "127.0.0.1"), ("authorization", &bearer)])).is_ok()
    };
    assert!(admit("old") && !admit("new"));
    access.store(Arc::new(only("new")));
    assert!(admit("new") && !admit("old"));
    access.store(Arc::new(Access::Loopback));
    assert!(entrance.admit(&request("/clients", &[("host", "127.0.0.1")])).is_ok());
    access.store(Arc::new(only("old")));
    assert!(admit("old") && !admit("new"));
}

#[test]
fn without_a_token_the_host_must_be_loopback() {
    let admit = |host: &str| Doorkeeper::Loopback.admit(&request("/healthz", &[("host", host)])).is_ok();
    for host in ["127.0.0.1", "127.0.0.1:9901", "127.9.9.9", "localhost", "LOCALHOST:80", "[::1]", "[::1]:9901"] {
        assert!(admit(host), "{host}");
    }
    for host in [
        "",
        "evil.example",
        "evil.example:9901",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "::1",
        "[127.0.0.1]",
        "127.0.0.1:x",
        "127.0.0.1:99999",
        "localhost@evil.example",
        "2130706433",
    ] {
        assert!(!admit(host), "{host}");
    }
    let absolute = request("http://evil.example/clients", &[("host", "127.0.0.1")]);
    assert_eq!(Doorkeeper::Loopback.admit(&absolute).unwrap_err().status, 403);
    let two = request("/clients", &[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
    assert_eq!(Doorkeeper::Loopback.admit(&two).unwrap_err().status, 400);
    assert_eq!(Doorkeeper::Loopback.admit(&request("/clients", &[])).unwrap_err().status, 400);
}

#[test]
fn over_a_socket_nobody_is_asked_and_over_tls_an_origin_is_another_one() {
    let anyone = Doorkeeper::new(Access::Anyone);
    let actor = anyone.admit(&request("/clients", &[("host", "whatever")])).unwrap();
    assert_eq!(actor.name, "socket");
    let admit = |origin: &str| {
        let mut request = request("/clients", &[("host", "127.0.0.1:9901"), ("origin", origin)]);
        request.extensions_mut().insert(OverTls);
        Doorkeeper::Loopback.admit(&request).is_ok()
    };
    assert!(admit("https://127.0.0.1:9901") && !admit("http://127.0.0.1:9901"));
}

#[test]
fn an_old_request_is_no_way_around() {
    let admit = |target: &str, headers: &[(&str, &str)]| {
        let mut request = request(target, headers);
        *request.version_mut() = Version::HTTP_10;
        Doorkeeper::Loopback.admit(&request).map_err(|error| error.status.as_u16()).map(drop)
    };
    assert_eq!(admit("/clients", &[]), Ok(()));
    assert_eq!(admit("/clients", &[("sec-fetch-site", "same-origin")]), Ok(()));
    assert_eq!(admit("http://127.0.0.1:9901/clients", &[("origin", "http://127.0.0.1:9901")]), Ok(()));
    assert_eq!(admit("http://evil.example/clients", &[]), Err(403));
    assert_eq!(admit("http://127.0.0.1:9901/clients", &[("origin", "http://evil.example")]), Err(403));
    for origin in ["http://evil.example", "http://127.0.0.1:9901", "http://", "null", ""] {
        assert_eq!(admit("/clients", &[("origin", origin)]), Err(403), "{origin}");
    }
    assert_eq!(admit("/clients", &[("sec-fetch-site", "cross-site")]), Err(403));
    assert_eq!(admit("/clients", &[("host", "localhost"), ("host", "localhost")]), Err(400));
}

#[test]
fn without_a_token_pages_of_others_are_refused() {
    let admit = |name: &str, value: &str| {
        let headers = [("host", "127.0.0.1:9901"), (name, value)];
        Doorkeeper::Loopback.admit(&request("/clients", &headers)).map_err(|error| error.status.as_u16()).is_ok()
    };
    assert!(admit("origin", "http://127.0.0.1:9901"));
    for origin in
        ["null", "", "http://evil.example", "http://127.0.0.1:8080", "https://127.0.0.1:9901", "http://localhost:9901"]
    {
        assert!(!admit("origin", origin), "{origin}");
    }
    assert!(!admit("sec-fetch-site", "cross-site"));
    assert!(admit("sec-fetch-site", "same-origin") && admit("sec-fetch-site", "none"));
}
