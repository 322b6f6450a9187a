//! TLS: certificates with their keys, and what listeners and transports do their handshakes with.
//!
//! The problem: a pair that is wrong must be found before the start, not by the first client; and a new certificate
//! must come into use without a connection lost.
//!
//! The rules. A [`Pair`] exists only when everything in its two files is right: both are PEM, the key belongs to the
//! certificate. One that has expired, or is not valid yet, is served with a warning: a restart must not take away what
//! ran, plain listeners least of all. A [`Terminator`] hands each new handshake the pair for the name that the client
//! asks for, as it is in that moment; connections that stand keep theirs. Renewed files are taken up by themselves
//! ([`PairWatch`]). What clients resume sessions with (the keys of `tickets`) does not belong to a pair, so a new
//! certificate does not cost every client a full handshake, and neither does a new process.
//!
//! To backends it is the other way round: an [`Originator`] says whom to believe, and shows a pair where it is asked
//! for one. Its files are read at the start and at a reload, too. `refusal` says why a handshake came to nothing.
//!
//! Offered are TLS 1.2 and 1.3 with the suites of rustls, HTTP/2 before HTTP/1.1 by ALPN, and no early data, which an
//! attacker could send again. Refused: Pingora's own loading, which panics on a bad file.

mod acme;
mod clients;
mod files;
mod flaw;
mod originator;
mod pair;
mod presented;
mod refusal;
mod terminator;
mod tickets;
mod verifier;
mod watch;

pub use acme::{AcmeKeeper, AcmeListener, AcmeNews, AcmeSettings, AnswerBoard, CHALLENGE_PATH, Challenges};
pub use clients::{ClientCertificates, ShownNames};
pub use flaw::{Flaw, Part};
pub use originator::{Origination, Originator, SystemRoots};
pub use pair::{Pair, PairFiles};
pub use refusal::{NO_TLS, refusal};
pub use terminator::{ListenerTls, Terminator, TlsListeners};
pub use tickets::{TicketKeys, TicketRing, TicketSecret};
pub use watch::{PairNews, PairWatch};
