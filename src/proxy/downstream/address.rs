//! Who is at the other end of a connection.

use std::net::IpAddr;

use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream};

use crate::upstream::ClientEnds;

/// The address at the other end.
pub(in crate::proxy) fn peer(stream: &Stream) -> IpAddr {
    address_of(stream.as_ref())
}

/// The version of TLS on a connection, as web servers call it; none without TLS.
pub(in crate::proxy) fn tls_version(stream: &Stream) -> Option<&'static str> {
    match &*stream.get_ssl_digest()?.version {
        "TLSv1_2" => Some("TLSv1.2"),
        "TLSv1_3" => Some("TLSv1.3"),
        _ => None,
    }
}

/// Both ends of the connection over a socket, where they are known.
pub(in crate::proxy) fn ends(socket: &SocketDigest) -> Option<ClientEnds> {
    Some(ClientEnds { client: *socket.peer_addr()?.as_inet()?, here: *socket.local_addr()?.as_inet()? })
}

/// The address at the other end of what has a socket; unspecified when it is not known.
pub(in crate::proxy) fn address_of(stream: &(impl GetSocketDigest + ?Sized)) -> IpAddr {
    stream
        .get_socket_digest()
        .and_then(|digest| Some(digest.peer_addr()?.as_inet()?.ip().to_canonical()))
        .unwrap_or(IpAddr::from([0, 0, 0, 0]))
}
