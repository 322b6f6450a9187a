//! Running a server: its services and their order, and what is done after the last request.
//!
//! Services start in this order: telemetry, buckets, the admin API, health (ready after the first round of checks), and
//! then the listeners, so nobody gets in before it is known where requests may go. At a stop the listeners close and
//! requests finish. The admin API, which tells how far that is, ends last. Then the buckets are saved.

use std::net::SocketAddr;
use std::sync::Arc;

use log::info;
use pingora_core::server::Server as PingoraServer;
use pingora_core::services::background::{GenBackgroundService, background_service};

use super::asks::Stop;
use super::builders::{ControlPlane, DataPlane, Descent, Ending, Life, TelemetryPlane};
use super::built::Server;
use super::conductor::Conductor;
use super::error::ServerError;
use super::listening::Listening;
use super::pingora::pingora_server;
use super::services::{AcmeOrders, Certificates, Sweep};
use super::start::start_events;
use crate::telemetry::EventLog;

impl Server {
    /// Runs until it is asked to stop, and then until its requests are answered. Blocks the thread. `events` is
    /// started, unless it runs, and gets its summaries written once a second.
    ///
    /// # Errors
    /// When it stops although nobody asked it to, or there is no thread for the event log.
    pub fn run(self, stop: Stop, events: Option<EventLog>) -> Result<(), ServerError> {
        start_events(events.as_ref())?;
        let lifecycle = self.core.lifecycle.clone();
        let (pingora, conductor, ending) = self.assemble(&stop, events);
        conductor.run(pingora);
        ending.finish(&stop);
        lifecycle.failure().map_or(Ok(()), |reason| Err(ServerError::Failed(reason)))
    }

    /// All services, in Pingora's hands and in their order; what conducts them; and what is to be done when they have
    /// ended. Starts nothing.
    fn assemble(self, stop: &Stop, events: Option<EventLog>) -> (PingoraServer, Conductor, Ending) {
        let addresses = self.addresses();
        let Server { config, source, core, listeners, admin, writer, echoes, process, inheritance } = self;
        let mut pingora = pingora_server(&config.pingora);
        let (threads, is_successor) = (config.pingora.threads.get(), inheritance.is_some());

        let plain = config.listeners.iter().any(|listener| listener.tls.is_none());
        let origin = Descent::new(&config, process, inheritance);
        let telemetry = TelemetryPlane::new(&core, writer, events);
        let data = DataPlane::new(&core, &config, &pingora.configuration);
        let parts = (&data, telemetry.metrics);
        let control = ControlPlane::new(&core, (config, source), parts, (admin, addresses.clone()));
        let ends = (data.downstream.tunnels(), control.reloader, telemetry.guard);
        let life = Life::new(&core, origin, (data.told, data.given), ends, stop);

        let telemetry = pingora.add_service(background_service("telemetry", telemetry.service));
        let health = pingora.add_service(background_service("health", control.health));
        health.add_dependency(&telemetry);
        for echo in echoes {
            let echo = echo.into_service(&core.traffic.requests, (&core.sockets, &core.lifecycle));
            health.add_dependency(pingora.add_service(echo));
        }
        pingora.add_service(GenBackgroundService::new("BG buckets".to_owned(), Arc::clone(&core.buckets)));
        if let Some(admin) = control.admin {
            let admin = pingora.add_service(admin.after_a_hand_over(is_successor));
            admin.add_dependency(&telemetry);
            // Whoever finds the proxy listening finds the admin API, too.
            health.add_dependency(&admin);
        }
        let sweep = Sweep { transport: data.transport, clock: Arc::clone(&core.clock) };
        pingora.add_service(background_service("connections", sweep));
        if !core.tls.is_empty() {
            let certificates = Certificates { tls: Arc::clone(&core.tls), clock: Arc::clone(&core.clock) };
            pingora.add_service(background_service("certificates", certificates));
            pingora.add_service(background_service("acme", AcmeOrders::new(&core, plain)));
        }
        let pools = core.pools.all();
        let (backends, pools) = (pools.iter().map(|pool| pool.settings().backends.len()).sum::<usize>(), pools.len());
        let threads = (threads, &core.traffic.connections);
        let proxy = Listening::new("proxy", data.downstream, listeners, threads, (&core.sockets, &core.lifecycle));
        let begins = life.begins;
        let proxy = proxy.seated(data.seats).after_a_hand_over(is_successor).announced(move || {
            let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            info!("listening on {}; upstreams: {pools}, backends: {backends}", list.join(", "));
            begins();
        });
        pingora.add_service(proxy).add_dependency(&health);
        (pingora, life.conductor, life.ending)
    }
}
