//! The kinds of values that a key can have: what is wanted, how it is read, and what an editor is told.

mod account;
mod acme;
mod address;
mod affinity;
mod choice;
mod fields;
mod filled;
mod fleet;
mod header;
mod kind;
mod number;
mod optional;
mod otlp;
mod path;
mod period;
mod policy;
mod retry;
mod text;

pub(super) use account::{GroupName, UserName};
pub(super) use acme::{AcmeContact, AcmeDirectory, AcmeDomain};
pub(super) use address::{AdminAddress, BackendPeer, CertificateName, Listen, Network, Peer};
pub(super) use affinity::{CookieName, HashedBy};
pub(super) use choice::{CheckType, Choice, ClientCerts, PolicyMode};
pub(super) use fields::LineField;
pub(super) use filled::{Filled, filled};
pub(super) use fleet::{LeaseTime, StoreKey, StoreWait};
pub(super) use header::{AnyText, HeaderField, HeaderPiece, HeaderText, Pattern, SaidText};
pub(super) use kind::{ValueKind, describe};
pub(super) use number::{BackendWeight, Connections, Expect, Flag, Fraction, PerSec, Size, Threshold, Whole};
pub(super) use optional::{OrAuto, OrNone, OrNull};
pub(super) use otlp::OtlpAddress;
pub(super) use path::{DatabasePath, DirectoryPath, EventsPath, LogPath, PemPath, SecretPath, StatePath, TokenPath};
pub(super) use period::{Pause, Period, Tick, WholeSeconds};
pub(super) use policy::{Cost, PolicyName, PolicyPayer, RequestMethod};
pub(super) use retry::RetryCauses;
pub(super) use text::{CheckPath, GrpcService, Header, PoolName, RouteHost, RoutePath};
