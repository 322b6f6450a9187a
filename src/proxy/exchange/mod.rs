//! Requests that were let in, served without Pingora's request loop; and those that were not, answered.
//!
//! The problem: for each request Pingora's loop builds two header maps, a peer, a session, two queues and some ten
//! boxed futures, and starts a task that watches the connection afterwards. That is most of what a small request costs,
//! and nothing of it is needed for one that asks for nothing but an answer.
//!
//! The rule: every request goes directly. Its lines are looked at where they are, what the backend gets is written into
//! one buffer, what the client gets into another. Its body, if it has one, has arrived together with its header
//! (`arrived`), or is sent on as it comes ([`relay`]). What it asks for beyond an answer (a word before its body,
//! another protocol), and lines that are not for its backend, cost only those requests that have them ([`takes`]).
//! With `direct: false` all but those that may change their protocol go by Pingora's loop: see
//! [`pingora`](crate::proxy::pingora).
//!
//! Who sends a request, whether it is let in and to which pool is found out before its way is chosen
//! ([`Proxy::admit`](proxy::Proxy::admit)), once. One that is not let in is answered here and at once, whichever way it
//! would have gone.
//!
//! Which of the two a body is, is known when an [`Exchange`](run::Exchange) is compiled ([`rest`]): a request without
//! one pays nothing for those that have one.
//!
//! Both ways ask the same functions which backend gets a request, what a failure means, and whether it may be sent once
//! more, read an answer by the same rules, and end in the same line of the log and the same counters. They share the
//! connections to backends.
//!
//! An answer is passed on as it comes. Its header and what of its body came with it leave in one write.
//!
//! A request that asks for another protocol ([`upgrade`]) goes the same way, up to a 101. Then both connections are a
//! [`tunnel`], which counts as one request until it ends. Pingora's loop serves none: it may cut what a backend sends
//! right behind its 101 (Pingora issue 946), has one timeout for a read and for a silence, and ends both directions
//! with the first.

pub(in crate::proxy) mod asking;
pub(in crate::proxy) mod client;
pub(in crate::proxy) mod context;
pub(in crate::proxy) mod counts;
pub(in crate::proxy) mod course;
pub(in crate::proxy) mod failure;
pub(in crate::proxy) mod grpc;
pub(in crate::proxy) mod http1;
pub(in crate::proxy) mod http2;
pub(in crate::proxy) mod interim;
pub(in crate::proxy) mod outcome;
pub(in crate::proxy) mod parts;
pub(in crate::proxy) mod progress;
pub(in crate::proxy) mod proxy;
pub(in crate::proxy) mod refused;
pub(in crate::proxy) mod relay;
pub(in crate::proxy) mod request;
pub(in crate::proxy) mod rest;
pub(in crate::proxy) mod run;
pub(in crate::proxy) mod scratch;
pub(in crate::proxy) mod sending;
pub(in crate::proxy) mod takes;
pub(in crate::proxy) mod tunnel;
pub(in crate::proxy) mod untaken;
pub(in crate::proxy) mod upgrade;
pub(in crate::proxy) mod waits;
