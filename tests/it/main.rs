//! End-to-end tests: the real binary, real backends in processes of their own, real sockets.
//!
//! One binary, one file for each promise. They are written from the contract, not from the code.

#[cfg(test)]
mod accept_queues;
#[cfg(test)]
mod access_log;
#[cfg(test)]
mod access_times;
#[cfg(test)]
mod acme;
#[cfg(test)]
mod admin_access;
#[cfg(test)]
mod admin_info;
#[cfg(test)]
mod admin_place;
#[cfg(test)]
mod affinity;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod backend_proxy_protocol;
#[cfg(test)]
mod backend_tls;
#[cfg(test)]
mod backend_unix;
#[cfg(test)]
mod backpressure;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod balancing_simulation;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod both_ways;
#[cfg(test)]
mod candidates;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod check;
#[cfg(test)]
mod client_certificates;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clients_command;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod database_faults;
#[cfg(test)]
mod delayed_acknowledgement;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod direct;
#[cfg(test)]
mod early_answers;
#[cfg(test)]
mod early_lines;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod events;
#[cfg(test)]
mod events_stuck;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod fleet_acme;
#[cfg(test)]
mod fleet_clients;
#[cfg(test)]
mod fleet_config;
#[cfg(test)]
mod fleet_join;
#[cfg(test)]
mod fleet_kills;
#[cfg(test)]
mod fleet_limits;
#[cfg(test)]
mod fleet_names;
#[cfg(test)]
mod fleet_nodes;
#[cfg(test)]
mod fleet_owed;
#[cfg(test)]
mod fleet_partition;
#[cfg(test)]
mod fleet_relay;
#[cfg(test)]
mod fleet_store_away;
mod fleet_store_away_tokens;
#[cfg(test)]
mod fleet_store_away_told;
#[cfg(test)]
mod fleet_stores;
#[cfg(test)]
mod fleet_sums;
#[cfg(test)]
mod fleet_turns;
#[cfg(test)]
mod foreign_files;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod grpc_answers;
#[cfg(test)]
mod grpcio;
#[cfg(test)]
mod h2c;
#[cfg(test)]
mod half_close;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod harness_itself;
#[cfg(test)]
mod health;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod http2_backend_rules;
#[cfg(test)]
mod http2_backends;
#[cfg(test)]
mod http2_hostile_backend;
#[cfg(test)]
mod http2_rules;
#[cfg(test)]
mod http2_slow;
#[cfg(test)]
mod http2_unseen;
#[cfg(test)]
mod http2_uploads;
#[cfg(test)]
mod idle_closing;
#[cfg(test)]
mod interim;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod log_readers;
#[cfg(test)]
mod max_concurrent;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod otlp;
#[cfg(test)]
mod outliers;
#[cfg(test)]
mod own_answers;
#[cfg(test)]
mod own_standing;
#[cfg(test)]
mod page;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod policy_costs;
#[cfg(test)]
mod policy_exactness;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod reasons;
#[cfg(test)]
mod redirect_to_https;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod reload_anything;
#[cfg(test)]
mod reload_keys;
#[cfg(test)]
mod reload_load;
#[cfg(test)]
mod reload_meanwhile;
#[cfg(test)]
mod reload_tls;
#[cfg(test)]
mod resilience;
#[cfg(test)]
mod retry_on;
#[cfg(test)]
mod route_rules;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod several_keys;
#[cfg(test)]
mod shared_database;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod statuses;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod tickets;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod told_lengths;
#[cfg(test)]
mod told_policies;
#[cfg(test)]
mod top;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod trailers;
#[cfg(test)]
mod tunnel;
#[cfg(test)]
mod two_servers;
#[cfg(test)]
mod untaken_sections;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upgrade_before;
#[cfg(test)]
mod upgrade_fails;
#[cfg(test)]
mod upgrade_refused;
#[cfg(test)]
mod webdav;
#[cfg(test)]
mod websocket;
#[cfg(test)]
mod websocket_browser;
#[cfg(test)]
mod websocket_http2;
#[cfg(test)]
mod who_and_where;

/// Not a test: the process of a scripted backend, started by [`harness::backend`] with a variable that says so.
#[cfg(test)]
#[test]
fn backend_process() {
    if let Ok(spec) = std::env::var(harness::scripted::SPEC) {
        harness::scripted::serve(&spec);
    }
}
