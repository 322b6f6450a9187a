//! Every metric with its name, its help and its labels, written out when somebody asks. A test reads the whole text by
//! the rules of each format.

use std::collections::BTreeMap;
use std::fmt::Result;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::family::{DURATION, Family, Pen};
use super::{EventLog, IntroductionFault, PolicyVerdict, PoolTraffic, SeatLimit, Sources, Verdict};
use crate::upstream::Backend;
use crate::upstream::health::HealthStatus;

impl Sources {
    /// All of them, with these requests by pool.
    pub(super) fn write(&self, encoder: &mut Pen<'_>, traffic: &[PoolTraffic]) -> Result {
        Self::traffic(encoder, traffic)?;
        self.retries(encoder)?;
        self.backpressure(encoder)?;
        self.limits(encoder)?;
        self.policies(encoder)?;
        self.backends(encoder)?;
        self.server(encoder)?;
        self.fleet(encoder)?;
        self.certificates(encoder)
    }

    /// Requests by pool, those that reached none first.
    pub(super) fn by_pool(&self) -> Vec<PoolTraffic> {
        let all = self.parts.pools.all();
        let pools = all.iter().map(|pool| (pool.name(), pool.traffic()));
        let traffic = std::iter::once(("", self.parts.tally.unrouted())).chain(pools).map(|(upstream, traffic)| {
            PoolTraffic { upstream: upstream.to_owned(), totals: traffic.totals(), exemplars: traffic.exemplars() }
        });
        traffic.collect()
    }

    fn traffic(encoder: &mut Pen<'_>, traffic: &[PoolTraffic]) -> Result {
        let mut family = Family::counter(
            encoder,
            "tollgate_requests_total",
            "Requests that ended, by upstream (empty: refused before one was found) and status (0: no answer).",
        )?;
        for PoolTraffic { upstream, totals, .. } in traffic {
            for (status, count) in &totals.statuses {
                family.value(&[("upstream", upstream.as_str()), ("status", &status.to_string())], *count)?;
            }
        }
        let mut family = Family::histogram(
            encoder,
            DURATION,
            "Time from the first byte of a request to the end of its answer, by upstream.",
        )?;
        for PoolTraffic { upstream, totals, .. } in traffic {
            family.durations(&[("upstream", upstream.as_str())], totals)?;
        }
        Ok(())
    }

    /// Further attempts by pool.
    fn retries(&self, encoder: &mut Pen<'_>) -> Result {
        let all = self.parts.pools.all();
        let mut family = Family::counter(
            encoder,
            "tollgate_upstream_retries_total",
            "Further attempts of requests, on another backend or over another connection.",
        )?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.retries())?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_upstream_retries_denied_total",
            "Further attempts that were not made since the budget for them was spent.",
        )?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.denied_retries())?;
        }
        Ok(())
    }

    /// What pools hold back.
    fn backpressure(&self, encoder: &mut Pen<'_>) -> Result {
        let all = self.parts.pools.all();
        let mut family =
            Family::gauge(encoder, "tollgate_upstream_queue", "Requests that wait for room at a backend.")?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.queue().0 as u64)?;
        }
        let mut family =
            Family::counter(encoder, "tollgate_upstream_queued_total", "Requests that waited for room at a backend.")?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.queue().1)?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_upstream_busy_total",
            "Requests that were told that all backends are busy.",
        )?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.queue().2)?;
        }
        let mut family = Family::gauge(
            encoder,
            "tollgate_upstream_panic",
            "Whether ejected backends get requests, as less than half of all are well.",
        )?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], u64::from(pool.is_in_panic()))?;
        }
        let mut family = Family::counter(encoder, "tollgate_upstream_panics_total", "How often that came about.")?;
        for pool in all.iter() {
            family.value(&[("upstream", pool.name())], pool.panics())?;
        }
        Ok(())
    }

    /// What the limiter decided, and its buckets.
    fn limits(&self, encoder: &mut Pen<'_>) -> Result {
        let mut family = Family::counter(
            encoder,
            "tollgate_ratelimit_decisions_total",
            "Requests on which the rate limiter decided.",
        )?;
        for verdict in Verdict::ALL {
            family.value(&[("decision", verdict.name())], self.parts.tally.verdicts(verdict))?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_candidate_decisions_total",
            "Requests that the candidate of a client would have let in or refused.",
        )?;
        for (goes, decision) in [(true, "allowed"), (false, "limited")] {
            family.value(&[("decision", decision)], self.parts.tally.trials(goes))?;
        }
        Family::counter(
            encoder,
            "tollgate_concurrency_limited_total",
            "Requests that were refused, as too many of their caller's were in flight.",
        )?
        .bare(self.parts.tally.refused_at_once())?;
        let limiter = &self.parts.limiter;
        Family::gauge(encoder, "tollgate_ratelimit_buckets", "Token buckets in use; full ones are not kept.")?
            .bare(limiter.buckets() as u64)?;
        Family::counter(
            encoder,
            "tollgate_ratelimit_overflow_total",
            "Requests that shared the overflow bucket, as all others were in use.",
        )?
        .bare(limiter.overflowed())
    }

    /// What policies decided, and their buckets.
    fn policies(&self, encoder: &mut Pen<'_>) -> Result {
        let all = self.parts.tally.policies();
        let mut family = Family::counter(
            encoder,
            "tollgate_policy_decisions_total",
            "Requests that a policy let in, or refused; in the mode shadow, would have.",
        )?;
        for policy in &all {
            for verdict in PolicyVerdict::ALL {
                let labels = [("policy", policy.name.as_str()), ("decision", verdict.name())];
                family.value(&labels, policy.verdicts(verdict))?;
            }
        }
        let gauges = all.iter().map(|policy| (policy.name.as_str(), self.parts.limiter.of_policy(policy.id)));
        let gauges: Vec<_> = gauges.collect();
        let mut family =
            Family::gauge(encoder, "tollgate_policy_buckets", "Token buckets of a policy; full ones are not kept.")?;
        for (name, gauge) in &gauges {
            family.value(&[("policy", *name)], gauge.buckets as u64)?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_policy_overflow_total",
            "Requests that shared a policy's overflow bucket, as all its others were in use.",
        )?;
        for (name, gauge) in &gauges {
            family.value(&[("policy", *name)], gauge.overflowed)?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_policy_cost_errors_total",
            "Answers whose cost in a policy made no sense, and which cost nothing.",
        )?;
        for policy in &all {
            family.value(&[("policy", policy.name.as_str())], policy.senseless_costs())?;
        }
        Ok(())
    }

    /// Backends, each with its upstream.
    ///
    /// Long because it is one family after another.
    fn backends(&self, encoder: &mut Pen<'_>) -> Result {
        let all = self.parts.pools.all();
        let backends =
            all.iter().flat_map(|pool| pool.backends().into_iter().map(move |backend| (pool.name(), backend)));
        let backends: Vec<_> =
            backends.map(|(upstream, backend)| (upstream, backend.address().to_string(), backend)).collect();
        let each = |mut family: Family<'_>, value: fn(&Backend) -> u64| {
            backends.iter().try_for_each(|(upstream, address, backend)| {
                family.value(&[("upstream", *upstream), ("backend", address)], value(backend))
            })
        };
        each(
            Family::gauge(
                encoder,
                "tollgate_backend_up",
                "Whether health checks say that the backend is up (1) or not (0), also while it drains.",
            )?,
            |backend| u64::from(backend.status() == HealthStatus::Up),
        )?;
        each(
            Family::gauge(encoder, "tollgate_backend_ejected", "Whether the backend is left out for what it answers.")?,
            |backend| u64::from(backend.ejections().0),
        )?;
        each(
            Family::counter(
                encoder,
                "tollgate_backend_ejections_total",
                "How often the backend was left out for what it answered.",
            )?,
            |backend| backend.ejections().1,
        )?;
        each(
            Family::counter(
                encoder,
                "tollgate_backend_retries_total",
                "Requests that the backend was given after they had failed elsewhere or over another connection.",
            )?,
            Backend::retries,
        )?;
        each(Family::gauge(encoder, "tollgate_backend_in_flight", "Requests that the backend holds.")?, |backend| {
            backend.in_flight() as u64
        })?;
        each(
            Family::counter(
                encoder,
                "tollgate_backend_requests_total",
                "Requests that the backend was given, each attempt of a request counted.",
            )?,
            Backend::requests,
        )?;
        each(
            Family::counter(
                encoder,
                "tollgate_backend_failures_total",
                "Requests that the backend failed: no connection, or one that broke or was too slow.",
            )?,
            Backend::failures,
        )?;
        let mut family = Family::counter(
            encoder,
            "tollgate_health_transitions_total",
            "Changes of a backend's health, by what it became.",
        )?;
        for (upstream, address, backend) in &backends {
            let (up, down) = backend.transitions();
            for (to, count) in [("up", up), ("down", down)] {
                family.value(&[("upstream", *upstream), ("backend", address), ("to", to)], count)?;
            }
        }
        Ok(())
    }

    /// The server itself.
    ///
    /// Long because it is one family after another.
    fn server(&self, encoder: &mut Pen<'_>) -> Result {
        Family::gauge(encoder, "tollgate_connections", "Open connections from clients.")?
            .bare(self.parts.tally.connections() as u64)?;
        let mut family = Family::counter(
            encoder,
            "tollgate_connections_refused_total",
            "Connections that were closed at once, as there were too many and none was silent; by what was exceeded.",
        )?;
        for limit in SeatLimit::ALL {
            family.value(&[("reason", limit.name())], self.parts.tally.refusals(limit))?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_connections_closed_total",
            "Silent connections that were closed for new ones, as there were too many; by what was exceeded.",
        )?;
        for limit in SeatLimit::ALL {
            family.value(&[("reason", limit.name())], self.parts.tally.closed(limit))?;
        }
        let mut family = Family::counter(
            encoder,
            "tollgate_proxy_protocol_errors_total",
            "Connections that were closed, as the header of the PROXY protocol that is expected was not there; by why.",
        )?;
        for fault in IntroductionFault::ALL {
            family.value(&[("reason", fault.name())], self.parts.tally.strangers(fault))?;
        }
        Family::counter(
            encoder,
            "tollgate_http2_malformed_targets_total",
            "Requests in HTTP/2 that were reset unseen, as their target is no URI.",
        )?
        .bare(self.parts.tally.malformed_targets())?;
        Family::counter(
            encoder,
            "tollgate_access_log_dropped_total",
            "Access log lines that were lost, as they could not be written in time.",
        )?
        .bare(self.parts.access_log.dropped())?;
        Family::counter(
            encoder,
            "tollgate_event_log_dropped_total",
            "Event log lines that were lost, as they could not be written in time.",
        )?
        .bare(self.parts.events.as_ref().map_or(0, EventLog::dropped))?;
        Family::counter(encoder, "tollgate_spans_exported_total", "Spans that a collector has taken.")?
            .bare(self.parts.spans.exported())?;
        Family::counter(
            encoder,
            "tollgate_spans_dropped_total",
            "Spans that were lost, as no collector took them, or not in time.",
        )?
        .bare(self.parts.spans.dropped())?;
        Family::counter(encoder, "tollgate_persist_errors_total", "Failed writes of the database.")?
            .bare((self.parts.persist_errors)())?;
        let mut family =
            Family::counter(encoder, "tollgate_config_reloads_total", "Reloads of the configuration, by result.")?;
        for (result, count) in [("success", &self.reloads), ("failure", &self.failed_reloads)] {
            family.value(&[("result", result)], count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    /// The certificates of listeners.
    fn certificates(&self, encoder: &mut Pen<'_>) -> Result {
        let mut family = Family::gauge(
            encoder,
            "tollgate_certificate_expiry_timestamp_seconds",
            "When a certificate that a listener presents expires, in seconds since the Unix epoch.",
        )?;
        for (listener, terminator) in self.parts.tls.iter() {
            // Several may be of one subject: of two kinds of keys, say. What counts is the one that ends first.
            let (listener, mut ends) = (listener.to_string(), BTreeMap::<String, SystemTime>::new());
            for pair in terminator.tls().pairs {
                let end = ends.entry(pair.subject().to_owned()).or_insert_with(|| pair.ends());
                *end = pair.ends().min(*end);
            }
            for (subject, end) in &ends {
                let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                family.value(&[("listener", listener.as_str()), ("subject", subject)], end)?;
            }
        }
        Ok(())
    }
}
