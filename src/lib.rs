//! tollgate: an HTTP edge proxy on Pingora that balances load over health-checked backends.
//!
//! The modules stand on floors; a module imports only from floors below its own. `tests/floors.rs` reads the sources
//! and fails when one does not, so this table cannot drift from the code.
//!
//! | floor | module | holds |
//! |---|---|---|
//! | 0 | [`clock`] | the time, as a seam |
//! | 0 | `decimal` | numbers and addresses as text |
//! | 0 | [`client`] | who calls and what they may spend; finding them by key or address |
//! | 0 | [`limit`] | token buckets, one for each caller |
//! | 0 | [`route`] | host and path to pool name |
//! | 1 | [`tls`] | certificates with their keys, and what a listener does its handshakes with |
//! | 1 | [`upstream`] | pools of backends, their health, and the selectors that choose among them |
//! | 2 | [`store`] | clients and their history, saved buckets: in a SQLite file, or in memory |
//! | 3 | [`proxy`] | the way of one request, directly or through Pingora's hooks, and every answer of our own |
//! | 3 | [`telemetry`] | the access log, the event log, the metrics, the latest refusals |
//! | 4 | [`admin`] | the admin API: its server, its handlers, what goes over the wire |
//! | 4 | [`process`] | the process: daemon, pid file, privileges, sockets, the channel of a hand-over |
//! | 5 | [`config`] | what the file says, checked into what the server is built from |
//! | 5 | [`server`] | building everything, services and their order, signals, drain |
//! | 6 | [`cli`] | arguments and exit codes |

pub mod admin;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
mod decimal;
pub mod limit;
pub mod process;
pub mod proxy;
pub mod route;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
