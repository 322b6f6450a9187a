//! The series of one name, in the format that was asked for.
//!
//! The library writes OpenMetrics, in which a counter's help and type go by its name without `_total`. The format that
//! Prometheus has always read wants them under the whole name. So there counters are announced as such, under their
//! whole name, and their values are written as a gauge's are: name, labels, number, and nothing put on.
//!
//! It lets nobody make an exemplar but by observing into a histogram of its own. So exemplars are put into its text.

use std::fmt::{Error, Result, Write};
use std::time::SystemTime;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::upstream::{DURATIONS, DurationExemplar, TrafficTotals};

/// The latency of requests.
pub(super) const DURATION: &str = "tollgate_request_duration_seconds";

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' text format, version 0.0.4, which everything reads.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What families are written with.
#[derive(Debug)]
pub(super) struct Pen<'e> {
    pub(super) encoder: DescriptorEncoder<'e>,
    pub(super) format: TextFormat,
}

/// The series of one name.
#[derive(Debug)]
pub(super) struct Family<'e> {
    encoder: MetricEncoder<'e>,
    /// Whether the library is to put `_total` on its name.
    is_cut: bool,
}

impl<'e> Family<'e> {
    fn of(
        pen: &'e mut Pen<'_>,
        (name, is_cut): (&'e str, bool),
        help: &str,
        kind: MetricType,
    ) -> std::result::Result<Self, Error> {
        let encoder = pen.encoder.encode_descriptor(name, help, None, kind)?;
        Ok(Family { encoder, is_cut })
    }

    /// One whose name ends in `_total`.
    pub(super) fn counter(pen: &'e mut Pen<'_>, name: &'e str, help: &str) -> std::result::Result<Self, Error> {
        let cut = name.strip_suffix("_total").filter(|_| pen.format == TextFormat::OpenMetrics);
        Self::of(pen, (cut.unwrap_or(name), cut.is_some()), help, MetricType::Counter)
    }

    pub(super) fn gauge(pen: &'e mut Pen<'_>, name: &'e str, help: &str) -> std::result::Result<Self, Error> {
        Self::of(pen, (name, false), help, MetricType::Gauge)
    }

    pub(super) fn histogram(pen: &'e mut Pen<'_>, name: &'e str, help: &str) -> std::result::Result<Self, Error> {
        Self::of(pen, (name, false), help, MetricType::Histogram)
    }

    /// The value of a name without labels.
    pub(super) fn bare(mut self, value: u64) -> Result {
        write(&mut self.encoder, self.is_cut, value)
    }

    pub(super) fn value(&mut self, labels: &impl EncodeLabelSet, value: u64) -> Result {
        write(&mut self.encoder.encode_family(labels)?, self.is_cut, value)
    }

    /// The histogram of a name without labels, from what is in each bucket alone.
    pub(super) fn bare_buckets(mut self, sum: f64, buckets: &[(f64, u64)]) -> Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }

    pub(super) fn durations(&mut self, labels: &impl EncodeLabelSet, totals: &TrafficTotals) -> Result {
        let ends = DURATIONS.iter().map(|end| end.as_secs_f64()).chain([f64::INFINITY]);
        let buckets: Vec<_> = ends.zip(totals.durations).collect();
        // From the buckets, so that it is their sum also while requests are being counted.
        let count = totals.durations.iter().sum();
        let sum = totals.time.as_secs_f64();
        self.encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// This text with exemplars behind the buckets of [`DURATION`], which come in the same order.
pub(super) fn with_exemplars(text: &str, mut exemplars: impl Iterator<Item = Option<DurationExemplar>>) -> String {
    let mut all = String::with_capacity(text.len());
    for line in text.lines() {
        all.push_str(line);
        let bucket = line.strip_prefix(DURATION).is_some_and(|rest| rest.starts_with("_bucket{"));
        if bucket && let Some(DurationExemplar { trace, duration, end }) = exemplars.next().flatten() {
            let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let duration = duration.as_secs_f64();
            let _ = write!(all, " # {{trace_id=\"{trace:032x}\"}} {duration} {end:.3}");
        }
        all.push('\n');
    }
    all
}

fn write(encoder: &mut MetricEncoder<'_>, is_cut: bool, value: u64) -> Result {
    if is_cut { encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None) } else { encoder.encode_gauge(&value) }
}
