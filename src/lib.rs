//! tollgate: an HTTP edge proxy on Pingora that balances load over health-checked backends.
//!
//! The rooms stand on floors; a room uses only what lies on floors below its own, and no two files use each other in a
//! circle. `tests/floors.rs` reads the sources and fails when they do not keep that, so this table cannot drift from
//! the code; `docs/architecture-map.md` shows what each room uses.
//!
//! | floor | room | holds |
//! |---|---|---|
//! | 0 | [`clock`] | the time, as a seam |
//! | 0 | `decimal` | numbers and addresses as text |
//! | 0 | `spelling` | what an unknown word was meant to be |
//! | 0 | [`client`] | who calls and what they may spend; finding them by key or address |
//! | 0 | [`limit`] | token buckets, one for each caller |
//! | 0 | [`route`] | host and path to pool name |
//! | 1 | [`tls`] | certificates with their keys, and what a listener does its handshakes with |
//! | 1 | [`upstream`] | pools of backends, their health, and the selectors that choose among them |
//! | 2 | [`store`] | clients and their history, saved buckets: in a SQLite file, or in memory |
//! | 3 | [`fleet`] | what nodes share over Valkey or Redis: buckets, clients, each other's names |
//! | 3 | [`telemetry`] | the access log, the event log, the metrics, the latest refusals |
//! | 3 | `proxy::wire` | what HTTP/1.1 looks like: header lines, chunks, what is passed on and what is not |
//! | 3a | `proxy::gate` | who calls, what it may, where it goes, and every refusal: plain values in and out |
//! | 3b | `proxy::downstream` | connections from clients: reading heads, how many, how slow, how they end |
//! | 3c | `proxy::backend` | connections to backends: an answer and its body as they are read |
//! | 3d | `proxy::exchange` | one request from its admission to its log line: attempts, outcome, answers |
//! | 3d | `proxy::pingora` | the hooks, for what Pingora's loop serves |
//! | 3e | `proxy::service` | what listens, and which way each request goes |
//! | 3f | [`proxy`] | nothing of its own: what other rooms see of these |
//! | 4 | `admin::api` | what every handler of the admin API needs: who gets in, reading, answers, errors |
//! | 4a | `admin::handlers` | the calls of the admin API, and what goes over the wire |
//! | 4b | [`admin`] | its server, which path is which handler, its description |
//! | 4 | [`process`] | the process: daemon, pid file, privileges, sockets, the channel of a hand-over |
//! | 5 | [`config`] | what the file says, checked into what the server is built from |
//! | 5 | [`server`] | building everything, services and their order, signals, drain |
//! | 6 | [`cli`] | arguments and exit codes |
//!
//! # Words
//!
//! Each means one thing, in names, in docs and in what users read.
//!
//! | word | means |
//! |---|---|
//! | downstream | the side that requests come from |
//! | upstream | the side that they go to; in the configuration, a pool |
//! | client | whoever has a name in the registry, by a credential of its own |
//! | credential | what a client is known by: an API key, or networks |
//! | caller | whoever sent a request: a client, or an address that is nobody's |
//! | quota | how much a caller may spend: a capacity and a rate |
//! | bucket | the tokens that a caller has now |
//! | key (of a bucket) | whose bucket it is, the same after a restart |
//! | limiter | what holds the buckets and decides |
//! | stripe | a part of the limiter with a lock of its own |
//! | overflow | the buckets that callers share once there are too many of their own |
//! | decision | what the limiter says of one request |
//! | debit | what was taken from a bucket, as another process is told |
//! | route | a host and a path, and the pool that serves them |
//! | pool | backends that can stand in for each other |
//! | backend | one address that requests go to |
//! | selector | the rule by which a pool chooses |
//! | lease | a backend that was chosen, counted in flight until it is dropped |
//! | probe | one request that asks a backend whether it is well |
//! | health | what probes and requests say of a backend: up or down |
//! | ready | healthy, and not draining |
//! | drain | to take nothing new and to finish what has begun |
//! | gate | what lets a request in or does not |
//! | admission | that a request was let in, and what that settled |
//! | rejection | that it was not, and the answer to that |
//! | exchange | one request that was let in, with everything it leads to |
//! | directly | without Pingora's loop, as most requests go |
//! | peer | Pingora's word for where its loop connects to; only in `proxy` |
//! | directory | the clients in memory, never changed but replaced |
//! | repository | the clients on disk |
//! | snapshot | what was true at one moment, and is not followed |
//! | hand-over | a new process taking the sockets, connections' turns and buckets of an old one |

pub mod admin;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
mod decimal;
pub mod fleet;
pub mod limit;
pub mod process;
pub mod proxy;
pub mod route;
pub mod server;
mod spelling;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
