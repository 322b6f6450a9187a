//! Certificates from an authority that speaks ACME (RFC 8555), asked for and renewed by the listeners themselves.
//!
//! The problem: a certificate that is renewed by another program needs that program, its timer and its place for
//! challenges; and whoever forgets one of them finds out when the certificate has expired.
//!
//! The rules. A listener with `acme` presents what an [`AcmeKeeper`] has for its names: at first a certificate that is
//! made here, which no client believes, then the authority's. What an authority gave for other lists of names goes before
//! one that is made here, if it is valid and has some of the names. It is asked again when two thirds of a life are over.
//! Challenges are answered by the listeners: HTTP-01 by any of them, whatever else it does with requests, TLS-ALPN-01
//! (RFC 8737) by the handshakes of those with `acme`. What is asked by HTTP-01 of one node of a fleet is answered by all of
//! them; what TLS-ALPN-01 asks is not: a handshake waits for nobody. Where there is a plain listener both are tried in turn, HTTP-01
//! first; else TLS-ALPN-01 alone. A failure is told, and waited upon: a minute, then twice as long each time, six hours
//! at most, well below what authorities allow.
//!
//! Pairs and accounts are kept beside the database, for their owner alone, each in one file, so that there is never
//! half of one. Who asks has a lock there, so that of several
//! processes over one directory one asks, and the others take up what it got, as they do with any renewed pair. Without
//! a database they are in memory, and the next process asks anew.
//!
//! The protocol is `instant-acme`'s: orders, nonces and signatures are not written by hand. Refused: wildcards, which
//! only DNS-01 proves.

mod challenges;
mod elsewhere;
mod keeper;
mod order;
mod settings;
mod storage;

pub(super) use challenges::ACME_PROTOCOL;
pub use challenges::{CHALLENGE_PATH, Challenges};
pub use elsewhere::AnswerBoard;
pub use keeper::{AcmeKeeper, AcmeNews};
pub use settings::{AcmeListener, AcmeSettings};
