//! Which of two kinds of text a client prefers (RFC 9110 section 12.5.1).
//!
//! The metrics are the only thing that there is in two kinds. Who says nothing, or likes both alike, gets Prometheus' own
//! format, which everything reads; so does who likes neither, as that is more use than a refusal.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::telemetry::TextFormat;

/// The format of the metrics that a client with these headers prefers.
pub(in crate::admin) fn metrics_format(headers: &HeaderMap) -> TextFormat {
    let open = quality(headers, ("application", "openmetrics-text", "1.0.0"));
    let plain = quality(headers, ("text", "plain", "0.0.4"));
    if open > plain { TextFormat::OpenMetrics } else { TextFormat::Prometheus }
}

/// How much a client likes this type, subtype and version, in thousandths: what the range says that tells most of it.
fn quality(headers: &HeaderMap, of: (&str, &str, &str)) -> u16 {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|range| covers(range, of)).max().map_or(0, |(_, quality)| quality)
}

/// How much of this type a range tells, and how much it is liked; none where the range is of others, or senseless.
fn covers(range: &str, (kind, subtype, version): (&str, &str, &str)) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let (asked_kind, asked_subtype) = parts.next()?.split_once('/')?;
    let mut told = match (asked_kind, asked_subtype) {
        ("*", "*") => 0,
        (asked, "*") if asked.eq_ignore_ascii_case(kind) => 1,
        (asked, of) if asked.eq_ignore_ascii_case(kind) && of.eq_ignore_ascii_case(subtype) => 2,
        _ => return None,
    };
    let mut quality = 1_000;
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        if name.eq_ignore_ascii_case("q") {
            quality = weight(value)?;
        } else if name.eq_ignore_ascii_case("version") {
            (value.trim_matches('"') == version).then_some(())?;
            told += 1;
        }
    }
    Some((told, quality))
}

/// A weight from 0 to 1 with up to three digits, in thousandths (RFC 9110 section 12.4.2).
fn weight(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    let is_right = matches!(whole, "0" | "1") && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{whole}{digits:0<3}").parse().ok().filter(|_| is_right)?;
    (thousandths <= 1_000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(lines: &[&str]) -> TextFormat {
        metrics_format(&lines.iter().map(|line| (ACCEPT, line.parse().unwrap())).collect())
    }

    #[test]
    fn openmetrics_is_for_who_prefers_it() {
        // What Prometheus 2.42, 3.5, and Grafana's Alloy say.
        let asked = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let of_three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for lines in [
            &[asked][..],
            &[of_three],
            &["application/openmetrics-text"],
            &["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8 ; Q=0.001"],
            &["text/plain;q=0.9", "application/*"],
            &["*/*, text/plain;q=0.5"],
            &["*/*;q=0.2,text/plain;version=0.0.4;q=0,text/plain;q=0.9"],
            &["application/openmetrics-text;q=.5,application/*;q=0.5,text/*;q=0.4"],
        ] {
            assert_eq!(preferred(lines), TextFormat::OpenMetrics, "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/plain"],
            &["application/json"],
            &["text/plain, application/openmetrics-text"],
            &["application/openmetrics-text;version=0.0.1"],
            &["application/openmetrics-text;version=2.0.0,*/*;q=0.1"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=1.5"],
            &["application/openmetrics-text;q=1.001"],
            &["application/openmetrics-text;q=0.0001"],
            &["application/openmetrics-text;q"],
            &["application/openmetrics-text;q=\u{fe}"],
            &["application/openmetrics-text;q=0.3,text/*;q=0.300"],
            &["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"],
        ] {
            assert_eq!(preferred(lines), TextFormat::Prometheus, "{lines:?}");
        }
    }
}
