//! Formats an event as one line of JSON, directly in the buffer that is written to stdout.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::LogWriter;
use crate::telemetry::context;

/// The initial capacity of a line. This is enough for a line of the access log. Other lines are
/// shorter.
const LINE_BYTES: usize = 768;
/// The field that contains the request id. If an event sets it, the event belongs to that request
/// and not to the request that the task is serving.
const REQUEST_ID: &str = "request_id";

/// A layer that writes events as JSON. The formatter of `tracing_subscriber` would take three times
/// as long, and cannot add fields to a line.
#[derive(Debug)]
pub(super) struct JsonLayer(pub(super) LogWriter);

impl<S: Subscriber> Layer<S> for JsonLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.write_line(line(event));
    }
}

/// Formats a line: the timestamp, the level, the event's own fields, the target and the ids of the
/// request.
fn line(event: &Event<'_>) -> Vec<u8> {
    let metadata = event.metadata();
    let mut object = JsonLine { text: Vec::with_capacity(LINE_BYTES), has_request_id: false };
    object.text.push(b'{');
    object.string("timestamp", &Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true));
    object.string("level", metadata.level().as_str());
    event.record(&mut object);
    object.string("target", metadata.target());
    if !object.has_request_id
        && let Some(ids) = context::current()
    {
        object.string(REQUEST_ID, &ids.request_id);
        object.string("trace_id", ids.trace_id());
    }
    object.text.extend_from_slice(b"}\n");
    object.text
}

struct JsonLine {
    text: Vec<u8>,
    has_request_id: bool,
}

impl JsonLine {
    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        // Field names are identifiers in the code of fjord or its libraries and need no escaping.
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text.push(b'"');
        escape(&mut self.text, value);
        self.text.push(b'"');
    }

    fn plain(&mut self, name: &str, value: &impl Serialize) {
        self.name(name);
        // Serializing a number or boolean into a vector cannot fail.
        let written = serde_json::to_writer(&mut self.text, value);
        debug_assert!(written.is_ok(), "numbers and booleans can be serialized");
    }

    /// Writes thousandths in exactly the format of `plain`: with at least one decimal and no
    /// trailing zeros.
    fn thousandths(&mut self, name: &str, number: u32) {
        self.plain(name, &(number / 1000));
        let digits = [100, 10, 1].map(|unit| u8::try_from(number / unit % 10).unwrap_or_default());
        let last = digits.iter().rposition(|digit| *digit != 0).unwrap_or_default();
        self.text.push(b'.');
        self.text.extend(digits.iter().take(last + 1).map(|digit| b'0' + digit));
    }
}

/// Converts a number to thousandths if the conversion is exact. A line of the access log contains
/// many durations in ms with three decimals. Finding the shortest form of each would be the most
/// expensive part of formatting the line.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a value that does not fit becomes another number, which the comparison rejects"
)]
fn to_thousandths(value: f64) -> Option<u32> {
    let number = (value * 1000.0 + 0.5) as u32;
    ((f64::from(number) / 1000.0).to_bits() == value.to_bits()).then_some(number)
}

impl Visit for JsonLine {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.has_request_id |= field.name() == REQUEST_ID;
        self.string(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match to_thousandths(value) {
            Some(number) => self.thousandths(field.name(), number),
            None => self.plain(field.name(), &value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.has_request_id |= field.name() == REQUEST_ID;
        self.name(field.name());
        self.text.push(b'"');
        // If a `Debug` implementation fails, the rest of its text is missing, but the line remains
        // valid.
        write!(EscapingWriter(&mut self.text), "{value:?}").ok();
        self.text.push(b'"');
    }
}

/// A writer that escapes the text formatted into it.
struct EscapingWriter<'a>(&'a mut Vec<u8>);

impl fmt::Write for EscapingWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// Appends text, escaped for a JSON string (RFC 8259, section 7). Every control character is
/// escaped. Otherwise, an event could forge a second line or control the reader's terminal.
fn escape(to: &mut Vec<u8>, text: &str) {
    // The loop has no early exit, so that the compiler vectorizes it.
    let is_plain = |byte| matches!(byte, b' '..=b'~') && !is_quoted(byte);
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return to.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        match character {
            '"' | '\\' => to.extend_from_slice(&[b'\\', character as u8]),
            '\n' => to.extend_from_slice(b"\\n"),
            // Some readers treat the line and paragraph separators as line breaks. All characters
            // in this branch fit into four hexadecimal digits.
            character if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                let written = write!(to, "\\u{:04x}", u32::from(character));
                debug_assert!(written.is_ok(), "writing to a vector cannot fail");
            }
            character => {
                to.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

fn is_quoted(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::context::{LogContext, scope};

    /// Returns the lines logged by `log`, parsed as JSON.
    fn logged(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let (lines, read) = LogWriter::for_test();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(JsonLayer(lines)),
            log,
        );
        read().iter().map(|line| serde_json::from_slice(line).expect("one line of JSON")).collect()
    }

    #[test]
    fn every_event_is_valid_json() {
        let nasty = "a\"b\\c\nd\u{1b}[2J\u{7f}\u{9b}\u{2028}é🐎\0";
        let lines = logged(|| {
            tracing::info!(text = nasty, shown = %nasty, debug = ?nasty, n = -1, f = 0.5, yes = true, none = None::<u8>, "said {nasty}");
            tracing::warn!(big = u64::MAX, nan = f64::NAN, "x");
        });
        let (first, second) = (&lines[0], &lines[1]);
        assert_eq!(first["text"], nasty);
        assert_eq!(first["shown"], nasty);
        assert_eq!(first["debug"], format!("{nasty:?}"));
        assert_eq!(first["message"], format!("said {nasty}"));
        assert_eq!(
            (&first["n"], &first["f"], &first["yes"]),
            (&(-1).into(), &0.5.into(), &true.into())
        );
        assert!(first.get("none").is_none() && first.get("request_id").is_none());
        assert_eq!((&first["level"], &second["level"]), (&"INFO".into(), &"WARN".into()));
        assert_eq!(first["target"], module_path!());
        assert!(first["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')));
        assert_eq!(second["big"], u64::MAX);
        assert!(second["nan"].is_null());
    }

    proptest::proptest! {
        #[test]
        fn thousandths_are_written_like_other_numbers(micros: u32, below_a_second in 0..1_000_000u32, any: f64) {
            let times = [micros, below_a_second].map(|micros| f64::from(micros) / 1000.0);
            proptest::prop_assert!(times.iter().all(|time| to_thousandths(*time).is_some()));
            for value in [times[0], times[1], any, -any, -0.0, f64::NAN, f64::INFINITY] {
                let Some(number) = to_thousandths(value) else { continue };
                let mut object = JsonLine { text: Vec::new(), has_request_id: false };
                object.thousandths("n", number);
                let text = format!("\"n\":{}", serde_json::to_string(&value).unwrap());
                proptest::prop_assert_eq!(String::from_utf8(object.text).unwrap(), text);
            }
        }
    }

    #[test]
    fn the_log_line_of_a_request_contains_its_ids_once() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        let ids = LogContext { request_id: "r\"1".into(), traceparent };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let lines = logged(|| {
            runtime.block_on(scope(Arc::new(ids), async {
                tracing::info!("of the request");
                tracing::info!(request_id = "r2", "of another");
            }));
        });
        assert_eq!(lines[0]["request_id"], "r\"1");
        assert_eq!(lines[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((&lines[1]["request_id"], lines[1].get("trace_id")), (&"r2".into(), None));
    }
}
