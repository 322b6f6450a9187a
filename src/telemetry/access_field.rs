//! What an access line can tell of a request, by name.

/// One thing that an access line can tell of a request. What each holds is said where the
/// [record](super::AccessRecord) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessField {
    /// When the request arrived.
    Ts,
    /// Its id.
    RequestId,
    /// The client's name.
    ClientId,
    /// The caller's address.
    ClientIp,
    /// How the caller was recognised.
    Identity,
    /// The method.
    Method,
    /// The host that was asked for.
    Host,
    /// The path.
    Path,
    /// The version of HTTP.
    Protocol,
    /// The version of TLS.
    TlsVersion,
    /// The page that it came from, as its client says.
    Referer,
    /// The program that sent it, as that says.
    UserAgent,
    /// The status of the answer.
    Status,
    /// The status of gRPC.
    GrpcStatus,
    /// How long it took.
    DurationMs,
    /// Bytes of its body.
    BytesIn,
    /// Bytes of its answer's body.
    BytesOut,
    /// The pool.
    Upstream,
    /// The last backend.
    Backend,
    /// How many backends were tried.
    Attempts,
    /// What the limiter said.
    Limit,
    /// The tokens that are left.
    Tokens,
    /// What has refused it.
    LimitedBy,
    /// What would have refused it.
    Shadow,
    /// The trace that it belongs to.
    TraceId,
    /// What went wrong.
    Error,
}

impl AccessField {
    /// All of them by their names.
    pub const ALL: [(&'static str, AccessField); 26] = [
        ("ts", AccessField::Ts),
        ("request_id", AccessField::RequestId),
        ("client_id", AccessField::ClientId),
        ("client_ip", AccessField::ClientIp),
        ("identity", AccessField::Identity),
        ("method", AccessField::Method),
        ("host", AccessField::Host),
        ("path", AccessField::Path),
        ("protocol", AccessField::Protocol),
        ("tls_version", AccessField::TlsVersion),
        ("referer", AccessField::Referer),
        ("user_agent", AccessField::UserAgent),
        ("status", AccessField::Status),
        ("grpc_status", AccessField::GrpcStatus),
        ("duration_ms", AccessField::DurationMs),
        ("bytes_in", AccessField::BytesIn),
        ("bytes_out", AccessField::BytesOut),
        ("upstream", AccessField::Upstream),
        ("backend", AccessField::Backend),
        ("attempts", AccessField::Attempts),
        ("limit", AccessField::Limit),
        ("tokens", AccessField::Tokens),
        ("limited_by", AccessField::LimitedBy),
        ("shadow", AccessField::Shadow),
        ("trace_id", AccessField::TraceId),
        ("error", AccessField::Error),
    ];

    /// Whether it is looked for among the lines of the request's header.
    pub(super) fn is_of_header(self) -> bool {
        matches!(self, AccessField::Referer | AccessField::UserAgent)
    }
}

/// A field of a line in JSON, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedField {
    /// Which one.
    pub field: AccessField,
    /// Its name in the line: letters, digits, and `_`, `.`, `-`, `@`.
    pub name: String,
}
