//! Writes metrics for who scrapes them: Prometheus' text format 0.0.4, and OpenMetrics 1.0 for who asks for it.

use std::fmt::{Result, Write};

use super::histogram::{BUCKETS, Histogram};
use super::names::Metric;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, which everybody reads.
    Text,
    /// The standard that grew out of it.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics where it is named and not liked less than plain text.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let liking = |media_type: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let likings = ranges.filter_map(|mut range| {
                (range.next()?.eq_ignore_ascii_case(media_type)).then_some(())?;
                let quality = range.find_map(|parameter| parameter.strip_prefix("q="));
                quality.map_or(Some(1.0), |quality| quality.parse().ok())
            });
            likings.fold(0.0, f64::max)
        };
        let open = liking("application/openmetrics-text");
        if open > 0.0 && open >= liking("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What stands at the end of everything.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    /// A bound of a histogram as a label: OpenMetrics wants numbers to look like numbers with a point.
    fn write_bound(self, bound: f64, out: &mut String) -> Result {
        match self {
            Self::Text => write!(out, "{bound}"),
            Self::OpenMetrics => write!(out, "{bound:?}"),
        }
    }
}

/// Labels as they are written between the braces.
pub(super) fn labels(labels: &[super::LabelValue]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

/// Writes what a histogram's metric is.
pub(super) fn write_head(metric: &Metric, out: &mut String) -> Result {
    writeln!(out, "# HELP {0} {1}\n# TYPE {0} histogram", metric.name, metric.help)
}

/// Writes one series of it.
pub(super) fn write_series(
    metric: &Metric,
    labels: &str,
    histogram: &Histogram,
    format: Format,
    out: &mut String,
) -> Result {
    let name = metric.name;
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    let held = histogram.held();
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, count) in BUCKETS.iter().zip(held.buckets) {
        write!(out, "{name}_bucket{{{labels}{comma}le=\"")?;
        format.write_bound(*bound, out)?;
        writeln!(out, "\"}} {count}")?;
    }
    let count = held.count;
    writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{open}{labels}{close} {}", held.seconds)?;
    writeln!(out, "{name}_count{open}{labels}{close} {count}")
}

/// The exporter's text, which has counters and gauges and is Prometheus' own, in a format.
pub(super) fn translated(text: &str, format: Format, out: &mut String) {
    for line in text.lines() {
        // OpenMetrics knows no empty line, and a family of counters without the end that its samples have.
        let head = (format == Format::OpenMetrics).then(|| line.strip_prefix("# ")).flatten();
        let words = head.and_then(|head| {
            let (word, rest) = head.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((word, name.strip_suffix("_total")?, rest))
        });
        match words {
            Some((word, name, rest)) => out.extend(["# ", word, " ", name, " ", rest, "\n"]),
            None if line.is_empty() => {}
            None => out.extend([line, "\n"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn a_scraper_gets_what_it_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let check = |accept, expected| assert_eq!(Format::accepted(accept), expected, "{accept}");
        check(prometheus, Format::OpenMetrics);
        check("application/openmetrics-text", Format::OpenMetrics);
        check("text/plain, application/openmetrics-text;q=0.9", Format::Text);
        check("application/openmetrics-text;q=0", Format::Text);
        for any in ["", "*/*", "text/html", "application/openmetrics-text;q=x"] {
            check(any, Format::Text);
        }
    }

    #[test]
    fn a_value_of_a_label_cannot_end_it() {
        let written = labels(&[(names::QUEUE, "a\"b\\c\nd".to_owned()), ("x", "y".to_owned())]);
        assert_eq!(written, r#"queue="a\"b\\c\nd",x="y""#);
    }

    #[test]
    fn a_histogram_is_as_both_specifications_want_it() {
        let times = Histogram::default();
        times.record(1.5);
        let written = |labels: &str, format| {
            let mut text = String::new();
            write_head(&names::BACKEND_WAIT, &mut text).unwrap();
            write_series(&names::BACKEND_WAIT, labels, &times, format, &mut text).unwrap();
            text
        };
        let text = written("a=\"b\"", Format::Text);
        for line in [
            "# TYPE fjord_backend_wait_seconds histogram\n",
            "fjord_backend_wait_seconds_bucket{a=\"b\",le=\"1\"} 0\n",
            "fjord_backend_wait_seconds_bucket{a=\"b\",le=\"2.5\"} 1\n",
            "fjord_backend_wait_seconds_bucket{a=\"b\",le=\"+Inf\"} 1\n",
            "fjord_backend_wait_seconds_sum{a=\"b\"} 1.5\n",
            "fjord_backend_wait_seconds_count{a=\"b\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let text = written("", Format::OpenMetrics);
        assert!(text.contains("fjord_backend_wait_seconds_bucket{le=\"1.0\"} 0\n"), "{text}");
    }

    #[test]
    fn a_family_of_counters_has_no_end_in_openmetrics() {
        let text = "# HELP a_total Says a_total once.\n# TYPE a_total counter\na_total{x=\"# y_total z\"} 3\n\n# TYPE b gauge\nb 1\n";
        let written = |format| {
            let mut out = String::new();
            translated(text, format, &mut out);
            out
        };
        assert_eq!(written(Format::Text), text.replace("\n\n", "\n"));
        assert_eq!(
            written(Format::OpenMetrics),
            "# HELP a Says a_total once.\n# TYPE a counter\na_total{x=\"# y_total z\"} 3\n# TYPE b gauge\nb 1\n"
        );
    }
}
