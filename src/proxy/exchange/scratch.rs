//! What an exchange needs beside the request.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::clock::Alarm;
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::wire::lines::Lines;

/// What a connection may keep of a buffer while it is silent.
const SMALL: usize = 4 << 10;

/// What is written and read on the backend's side; kept by a connection, so that it is made once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct BackendScratch {
    /// The header section that the backend gets.
    pub(in crate::proxy) request: Vec<u8>,
    /// The lines of the answer.
    pub(in crate::proxy) lines: Lines,
    /// For what is waited for on the backend's side.
    pub(in crate::proxy) alarm: Alarm,
}

/// What one connection needs for its requests, kept so that it is made once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Scratch {
    pub(in crate::proxy) backend: BackendScratch,
    /// What the client gets.
    pub(in crate::proxy) out: Vec<u8>,
    /// For what is waited for on the client's side.
    pub(in crate::proxy) alarm: Alarm,
}

impl Scratch {
    /// Lets go of what a large exchange has left behind, before a silence that may be long.
    pub(in crate::proxy) fn tidy(&mut self) {
        for buffer in [&mut self.backend.request, &mut self.out] {
            if buffer.capacity() > SMALL {
                *buffer = Vec::new();
            }
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Origin<'c> {
    /// The address at the other end of the connection.
    pub(in crate::proxy) peer: IpAddr,
    /// Whether it is TLS.
    pub(in crate::proxy) secure: bool,
    /// Of which version.
    pub(in crate::proxy) tls_version: Option<&'static str>,
    /// The port of HTTPS to which every request of it is sent.
    pub(in crate::proxy) redirect: Option<NonZeroU16>,
    /// The certificate that the client has shown.
    pub(in crate::proxy) certificate: Option<&'c ShownCertificate>,
}
