//! The formats of `/metrics`: Prometheus' text format 0.0.4, and OpenMetrics 1.0 on request.

use std::fmt::{Result, Write};

use crate::quality_value;

use super::distribution::Distribution;
use super::names::Metric;
use super::registry::LabelValue;

/// The format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, which every scraper can read.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns OpenMetrics if `Accept` names it with at least the quality of plain text, and the
    /// text format otherwise.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let quality_of = |media_type: &str| {
            let ranges = accept.split(',').map(|range| range.split(';'));
            let qualities = ranges.filter_map(|mut range| {
                (range.next()?.trim().eq_ignore_ascii_case(media_type)).then_some(())?;
                quality_value::from_parameters(range)
            });
            qualities.max().unwrap_or(0)
        };
        let open = quality_of("application/openmetrics-text");
        if open > 0 && open >= quality_of("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the text that marks the end of a scrape.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    /// Writes a bound as the value of `le`. OpenMetrics requires a decimal point.
    fn write_bound(self, bound: f64, out: &mut String) -> Result {
        match self {
            Self::Text => write!(out, "{bound}"),
            Self::OpenMetrics => write!(out, "{bound:?}"),
        }
    }
}

/// Formats labels as they appear between braces.
fn format_labels(labels: &[LabelValue]) -> String {
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

/// Writes the help text and type of a histogram.
pub(super) fn write_head(metric: &Metric, out: &mut String) -> Result {
    writeln!(out, "# HELP {0} {1}\n# TYPE {0} histogram", metric.name, metric.help)
}

/// Writes one series of a histogram.
pub(super) fn write_series(
    metric: &Metric,
    labels: &[LabelValue],
    times: &Distribution,
    format: Format,
    out: &mut String,
) -> Result {
    let name = metric.name;
    let labels = format_labels(labels);
    let (open, close, comma) = if labels.is_empty() { ("", "", "") } else { ("{", "}", ",") };
    for (bound, count) in &times.buckets {
        write!(out, "{name}_bucket{{{labels}{comma}le=\"")?;
        format.write_bound(*bound, out)?;
        writeln!(out, "\"}} {count}")?;
    }
    let count = times.count;
    writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{open}{labels}{close} {}", times.seconds)?;
    writeln!(out, "{name}_count{open}{labels}{close} {count}")
}

/// Converts the exporter's output from Prometheus' format to `format`.
pub(super) fn convert(text: &str, format: Format) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for line in text.lines() {
        // OpenMetrics does not allow empty lines, and names counter families without the `_total`
        // suffix.
        let head = (format == Format::OpenMetrics).then(|| line.strip_prefix("# ")).flatten();
        let counter = head.and_then(|head| {
            let (keyword, rest) = head.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((keyword, name.strip_suffix("_total")?, rest))
        });
        match counter {
            Some((keyword, name, rest)) => out.extend(["# ", keyword, " ", name, " ", rest, "\n"]),
            None if line.is_empty() => {}
            None => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn the_preferred_format_is_chosen() {
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
    fn special_characters_in_label_values_are_escaped() {
        let labels = [(names::QUEUE, "a\"b\\c\nd".to_owned()), ("x", "y".to_owned())];
        assert_eq!(format_labels(&labels), r#"queue="a\"b\\c\nd",x="y""#);
    }

    #[test]
    fn histograms_follow_both_formats() {
        let times = crate::telemetry::Histogram::default();
        times.record(1.5);
        let written = |labels: &[LabelValue], format| {
            let mut text = String::new();
            write_head(&names::BACKEND_WAIT, &mut text).unwrap();
            let times = times.distribution();
            write_series(&names::BACKEND_WAIT, labels, &times, format, &mut text).unwrap();
            text
        };
        let text = written(&[("a", "b".to_owned())], Format::Text);
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
        let text = written(&[], Format::OpenMetrics);
        assert!(text.contains("fjord_backend_wait_seconds_bucket{le=\"1.0\"} 0\n"), "{text}");
    }

    #[test]
    fn openmetrics_names_counter_families_without_total() {
        let text = "# HELP a_total Says a_total once.\n# TYPE a_total counter\na_total{x=\"# y_total z\"} 3\n\n# TYPE b gauge\nb 1\n";
        assert_eq!(convert(text, Format::Text), text.replace("\n\n", "\n"));
        assert_eq!(
            convert(text, Format::OpenMetrics),
            "# HELP a Says a_total once.\n# TYPE a counter\na_total{x=\"# y_total z\"} 3\n# TYPE b gauge\nb 1\n"
        );
    }
}
