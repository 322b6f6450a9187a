//! What an exchange needs beside the request.

use std::net::IpAddr;

use crate::proxy::exchange::run::Sheet;

/// What a connection may keep of a buffer while it is silent.
const SMALL: usize = 4 << 10;

/// What one connection needs for its requests, kept so that it is made once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Desk {
    pub(in crate::proxy) sheet: Sheet,
    /// What the client gets.
    pub(in crate::proxy) out: Vec<u8>,
}

impl Desk {
    /// Lets go of what a large exchange has left behind, before a silence that may be long.
    pub(in crate::proxy) fn tidy(&mut self) {
        for buffer in [&mut self.sheet.request, &mut self.out] {
            if buffer.capacity() > SMALL {
                *buffer = Vec::new();
            }
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Origin {
    /// The address at the other end of the connection.
    pub(in crate::proxy) peer: IpAddr,
    /// Whether it is TLS.
    pub(in crate::proxy) secure: bool,
}
