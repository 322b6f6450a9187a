//! Requests and answers that were thought of, each for a rule of its own.

/// The request line and the lines of the header, without `Connection`; and the body.
pub(super) type Asked = (&'static str, &'static str);

pub(super) const GET: Asked = ("GET /a%2Fb?c=d HTTP/1.1\r\nHost: a.example:80", "");
pub(super) const HEAD: Asked = ("HEAD / HTTP/1.1\r\nHost: a", "");
pub(super) const POST: Asked = ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "hello");

pub(super) fn requests() -> Vec<Asked> {
    vec![
        GET,
        HEAD,
        POST,
        ("PUT /x HTTP/1.1\r\nHost: a\r\ncontent-length: 005", "hello"),
        ("DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2", "hi"),
        ("POST /x HTTP/1.1\r\nHost: a", ""),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ""),
        ("M-SEARCH //x/../?? HTTP/1.1\r\nHOST: [::1]:8080", ""),
        ("GET / HTTP/1.1\r\nHost:", ""),
        ("GET / HTTP/1.1\r\nX-Many: 1\r\nhost: a\r\nx-many:2\r\nX-EMPTY:\r\nCookie: a=b\r\nCookie: c=d", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nX-Tab: \t a \tb \t\r\nX_Under: \u{e4}", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\nForwarded: for=c\r\nVia: 1.1 d\r\nDate: never", ""),
        ("\r\nGET / HTTP/1.1\r\nHost: a", ""),
    ]
}

pub(super) fn answers() -> Vec<Vec<u8>> {
    let many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    let too_many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X-Many: 1\r\n".repeat(300));
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    let long_chunk =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9C40\r\n{}\r\n0\r\n\r\n", "x".repeat(40_000));
    let texts = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\n\r\n",
        "HTTP/1.1 404 Nothing Here\r\nContent-Length: 5\r\nSet-Cookie: a\r\nX-A: b\r\nSet-Cookie: c\r\n\r\nhello",
        "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 599 Odd\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 500 No\r\nContent-Length: 5\r\nX-Empty:\r\nX-Spaces:  \t a  b \t \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, x-a, set-cookie\r\nX-A: b\r\nSet-Cookie: c\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nTrailer: x\r\nTE: y\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nProxy-Authenticate: x\r\nProxy-Connection: y\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n002\r\nlo\r\n0\r\nX-Trailer: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello, and the end",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello, and the end",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        // Answers that are none.
        "",
        "HTTP/1.1 200 OK\r\nX-Half: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-Nul: \0\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "hello",
        // Answers that end too early.
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    let texts = texts.into_iter().map(str::to_owned).chain([many, too_many, long, long_chunk]);
    texts.map(String::into_bytes).collect()
}
