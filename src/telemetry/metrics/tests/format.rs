//! Reads Prometheus' text format, version 0.0.4, or OpenMetrics, version 1.0.0, by its rules, and panics at the first
//! breach.
//!
//! Stricter than Prometheus itself: every name has help and a type, in this order, once and before its samples; no
//! series comes twice; counters end in `_total`, in OpenMetrics without it in help and type, and are whole; histograms are cumulative, end with `+Inf`, and count
//! what it counts; exemplars are there in OpenMetrics alone, behind buckets, each within its bucket's end.

use std::collections::{BTreeMap, BTreeSet};

use crate::telemetry::TextFormat;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The series of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: Kind,
    samples: Vec<Sample>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What stands behind a bucket.
#[derive(Debug, PartialEq)]
pub(super) struct Exemplar {
    /// The labels of the bucket.
    pub(super) bucket: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
    pub(super) seconds: f64,
}

/// A whole text.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) families: Vec<Family>,
    pub(super) exemplars: Vec<Exemplar>,
    is_open: bool,
}

impl Text {
    #[track_caller]
    pub(super) fn read(text: &str) -> Self {
        Text::read_as(TextFormat::Prometheus, text)
    }

    #[track_caller]
    pub(super) fn read_as(format: TextFormat, text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'), "lines end with a line feed, the last one too");
        let is_open = format == TextFormat::OpenMetrics;
        let mut read = Text { is_open, ..Text::default() };
        let text = if is_open { text.strip_suffix("# EOF\n").expect("the end is marked") } else { text };
        let mut help: Option<&str> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!words.trim().is_empty() && !words.contains('\\'), "{line}");
                assert!(help.replace(name).is_none(), "the type comes after the help: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(help.take(), Some(name), "the help comes before the type: {line}");
                read.begin(name, kind);
            } else {
                assert!(!line.starts_with('#') && help.is_none(), "neither help, type nor sample: {line}");
                let (sample, exemplar) = sample(line);
                if let Some(exemplar) = exemplar {
                    read.take_exemplar(&sample, exemplar);
                }
                read.take(sample);
            }
        }
        assert!(help.is_none(), "help without a type");
        read.families.iter().for_each(Family::check);
        read
    }

    /// The value of the series with exactly these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut samples = self.families.iter().flat_map(|family| &family.samples);
        samples.find(|sample| sample.name == name && sample.labels == labels).map(|sample| sample.value)
    }

    /// What it says, whatever the format.
    pub(super) fn samples(&self) -> Vec<&Sample> {
        self.families.iter().flat_map(|family| &family.samples).collect()
    }

    fn begin(&mut self, name: &str, kind: &str) {
        assert!(is_name(name, true), "{name}");
        assert!(self.families.iter().all(|family| family.name != name), "{name} comes twice");
        let kind = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => panic!("{name} is of type {other}"),
        };
        assert_eq!(kind == Kind::Counter && !self.is_open, name.ends_with("_total"), "{name}");
        self.families.push(Family { name: name.to_owned(), kind, samples: Vec::new() });
    }

    fn take_exemplar(&mut self, bucket: &Sample, text: &str) {
        assert!(self.is_open && bucket.name.ends_with("_bucket"), "{bucket:?} # {text}");
        let (of, seconds) = text.rsplit_once(' ').unwrap_or_else(|| panic!("no time: {text}"));
        let of = format!("exemplar{of}");
        let (of, inner) = sample(&of);
        let length: usize = of.labels.iter().map(|(label, value)| label.chars().count() + value.chars().count()).sum();
        assert!(length <= 128 && inner.is_none(), "{text}");
        let end = bucket.labels["le"].replace("+Inf", "inf").parse().unwrap();
        assert!(of.value <= end, "{bucket:?} # {text}");
        let seconds = seconds.parse().unwrap_or_else(|_| panic!("no time: {text}"));
        let bucket = bucket.labels.clone();
        self.exemplars.push(Exemplar { bucket, labels: of.labels, value: of.value, seconds });
    }

    fn take(&mut self, sample: Sample) {
        let family = self.families.last_mut().unwrap_or_else(|| panic!("{} comes before its type", sample.name));
        let suffix = sample.name.strip_prefix(&family.name).unwrap_or_else(|| panic!("{} is not here", sample.name));
        let suffixes: &[&str] = match family.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Counter if self.is_open => &["_total"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        assert!(suffixes.contains(&suffix), "{}", sample.name);
        family.samples.push(sample);
    }
}

impl Family {
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            assert!(seen.insert((&sample.name, &sample.labels)), "{sample:?} comes twice");
            let whole = sample.value.fract() == 0.0 || sample.name.ends_with("_sum");
            assert!(sample.value >= 0.0 && sample.value.is_finite() && whole, "{sample:?}");
            assert_eq!(sample.labels.contains_key("le"), sample.name.ends_with("_bucket"), "{sample:?}");
        }
        if self.kind == Kind::Histogram {
            self.check_buckets();
        }
    }

    fn check_buckets(&self) {
        let with = |suffix: &str| {
            let name = format!("{}{suffix}", self.name);
            self.samples.iter().filter(move |sample| sample.name == name)
        };
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for bucket in with("_bucket") {
            let mut labels = bucket.labels.clone();
            let end = labels.remove("le").unwrap();
            let end = if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() };
            series.entry(labels).or_default().push((end, bucket.value));
        }
        for (labels, buckets) in &series {
            let rising = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            assert!(rising, "{labels:?}: {buckets:?}");
            let (last, all) = *buckets.last().unwrap();
            assert_eq!(last, f64::INFINITY, "{labels:?}");
            let count: Vec<_> = with("_count").filter(|sample| sample.labels == *labels).collect();
            assert!(matches!(count.as_slice(), [one] if one.value == all), "{labels:?}: {count:?}");
            assert_eq!(with("_sum").filter(|sample| sample.labels == *labels).count(), 1, "{labels:?}");
        }
        assert_eq!((with("_count").count(), with("_sum").count()), (series.len(), series.len()));
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut chars = name.chars();
    let start = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    chars.next().is_some_and(start) && chars.all(|c| start(c) || c.is_ascii_digit())
}

/// One line: `name{label="value",…} number`, and what may stand behind ` # `.
fn sample(line: &str) -> (Sample, Option<&str>) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label, false), "{label:?} in {line}");
            let (value, after) = quoted(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} comes twice: {line}");
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("neither comma nor brace after {label}: {line}"),
            }
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no blank before the value: {line}"));
    let (number, exemplar) = number.split_once(" # ").map_or((number, None), |(number, text)| (number, Some(text)));
    assert!(!number.contains(' '), "more than a value: {line}");
    let value = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    (Sample { name: name.to_owned(), labels, value }, exemplar)
}

/// The value up to its closing quote, and what comes behind it.
fn quoted<'t>(text: &'t str, line: &str) -> (String, &'t str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                other => panic!("{other:?} is not escaped: {line}"),
            }),
            c => value.push(c),
        }
    }
    panic!("a value without end: {line}")
}

#[test]
#[should_panic(expected = "the help comes before the type")]
fn a_type_without_help_is_seen() {
    Text::read("# TYPE a_total counter\na_total 1\n");
}

#[test]
#[should_panic(expected = "is not here")]
fn openmetrics_names_are_seen() {
    Text::read("# HELP a_b_total c\n# TYPE a_b_total counter\na_b 1\n");
}

#[test]
#[should_panic(expected = "comes twice")]
fn a_series_that_comes_twice_is_seen() {
    Text::read("# HELP a b\n# TYPE a gauge\na{b=\"1\"} 1\na{b=\"1\"} 2\n");
}

#[test]
#[should_panic(expected = "neither help, type nor sample")]
fn the_end_mark_of_openmetrics_is_seen() {
    Text::read("# HELP a b\n# TYPE a gauge\na 1\n# EOF\n");
}

#[test]
#[should_panic(expected = "neither comma nor brace")]
fn a_quote_that_is_not_escaped_is_seen() {
    Text::read("# HELP a b\n# TYPE a gauge\na{b=\"1\"2\"} 1\n");
}
