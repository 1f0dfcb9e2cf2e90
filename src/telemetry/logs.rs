//! Logs: one line per event, as JSON or text. The filter can be changed at run time.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

mod filter;
mod json;

pub use filter::{end_temporary_filter, is_valid_filter, set_filter, set_temporary_filter};

use super::{context, names};
use crate::config::log::{LogConfig, LogFormat};

/// The maximum number of lines waiting to be written to stdout. Further lines are dropped and counted, so that a
/// stalled reader does not stall requests.
const LINES_MAX: usize = 8_192;

/// The pause after a write. Lines that arrive during the pause are collected for the next write.
const COLLECT_TIME: Duration = Duration::from_millis(5);
/// The number of collected bytes that triggers a write.
const COLLECTED_BYTES_MAX: usize = 64 * 1024;

/// The logs of this process.
#[derive(Debug)]
pub struct Logs {
    writer: LogWriter,
}

/// An error from starting logs or changing their filter.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is invalid.
    #[error("not a log filter: expected levels or target=level pairs, separated by commas")]
    Filter,
    /// This process already has a subscriber.
    #[error("logs are already set up")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Stdout cannot be opened.
    #[error("stdout cannot be opened")]
    Stdout(#[source] io::Error),
    /// The thread that writes lines cannot be started.
    #[error("the thread that writes logs cannot be started")]
    Thread(#[source] io::Error),
}

impl Logs {
    /// Starts logging to stdout. This can be done only once per process.
    ///
    /// # Errors
    /// Returns `LogError` if the filter is invalid, the process already has a subscriber, or the
    /// writing thread cannot be started.
    pub fn start(config: &LogConfig) -> Result<Self, LogError> {
        let is_json = match config.format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !io::stdout().is_terminal(),
        };
        // `io::stdout()` is not used because its buffer would hide which part of a failed write was lost.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Stdout)?;
        let writer = LogWriter::start(File::from(stdout))?;
        let (layered, handle) = reload::Layer::new(filter::parse(&config.filter)?);
        let layer = if is_json {
            json::JsonLayer(writer.clone()).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer.clone()).boxed()
        };
        let layer = layer.with_filter(filter_fn(has_no_values));
        let registry = tracing_subscriber::registry().with(layered).with(layer);
        registry.try_init().map_err(|error| LogError::Twice(error.into()))?;
        std::panic::set_hook(Box::new(log_panic));
        filter::install(handle, &config.filter);
        Ok(Self { writer })
    }

    /// Waits for all lines to be written, but for at most `limit`. Call this just before the process exits.
    pub fn flush(&self, limit: Duration) {
        self.writer.flush(limit);
    }
}

/// The target of log lines about failed attempts to connect to NATS. Commands print a single error instead.
const CONNECT_TARGET: &str = "fjord::messaging::nats::connect";

/// Prints fjord's warnings and errors to stderr. Intended for commands. Does nothing if the process already logs.
pub fn warn_on_stderr() {
    let format =
        tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_target(false);
    let layer = format.with_writer(io::stderr).with_filter(filter_fn(|metadata| {
        let target = metadata.target();
        target.starts_with("fjord") && target != CONNECT_TARGET && *metadata.level() <= Level::WARN
    }));
    // An error means that the process already has a subscriber, which logs the warnings and errors.
    tracing_subscriber::registry().with(layer).try_init().ok();
}

/// Returns whether an event is free of values from callers. Libraries log whole messages at level trace, so only their
/// events up to level debug are logged. No events of the SQL Server driver are logged.
fn has_no_values(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_driver = target.starts_with("tiberius");
    target.starts_with("fjord") || (!is_driver && *metadata.level() < Level::TRACE)
}

/// Logs a panic on one line. The backtrace is omitted because it would take several lines.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(place, panic = message, "panicked");
}

enum LogEntry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Queues up to `LINES_MAX` lines for the thread that writes them. Queueing a line never blocks.
#[derive(Clone, Debug)]
struct LogWriter {
    entries: SyncSender<LogEntry>,
}

impl LogWriter {
    fn start(out: impl Write + Send + 'static) -> Result<Self, LogError> {
        let (entries, receiver) = sync_channel(LINES_MAX);
        let thread = std::thread::Builder::new().name("logs".to_owned());
        thread.spawn(move || write_lines(&receiver, out)).map_err(LogError::Thread)?;
        Ok(Self { entries })
    }

    /// Queues a line. The line must end with a line break.
    fn write_line(&self, line: Vec<u8>) {
        if self.entries.try_send(LogEntry::Line(line)).is_err() {
            super::counter(&names::LOG_LINES_DROPPED, &[]).increment(1);
        }
    }

    fn flush(&self, limit: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.entries.try_send(LogEntry::Flush(done)).is_ok() {
            // Lines that are not written within the limit are lost.
            is_done.recv_timeout(limit).ok();
        }
    }
}

/// Writes lines until the last sender is dropped.
fn write_lines(receiver: &Receiver<LogEntry>, out: impl Write) {
    let mut out = LineOutput { out, is_within_line: false };
    let mut collected = Vec::with_capacity(COLLECTED_BYTES_MAX);
    while let Ok(first) = receiver.recv() {
        // The first line is written immediately. Lines that arrive during the pause below are written together. Without
        // the pause, logging threads would wake this thread for every line.
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                LogEntry::Line(line) => collected.extend_from_slice(&line),
                LogEntry::Flush(done) => {
                    out.write(&mut collected);
                    done.send(()).ok();
                }
            }
            if collected.len() >= COLLECTED_BYTES_MAX {
                out.write(&mut collected);
            }
            next = receiver.try_recv().ok();
        }
        out.write(&mut collected);
        std::thread::park_timeout(COLLECT_TIME);
    }
}

/// An output for whole lines. It counts the lines that cannot be written, for example because a disk is full or the
/// reader of a pipe has exited.
struct LineOutput<O> {
    out: O,
    /// Whether the last write ended in the middle of a line.
    is_within_line: bool,
}

impl<O: Write> LineOutput<O> {
    /// Writes the collected lines and removes them from the buffer.
    fn write(&mut self, collected: &mut Vec<u8>) {
        let lost = self.write_all(collected);
        if lost > 0 {
            super::counter(&names::LOG_LINES_DROPPED, &[]).increment(lost);
        }
        collected.clear();
    }

    /// Writes lines and returns the number of lines that could not be written completely.
    fn write_all(&mut self, mut lines: &[u8]) -> u64 {
        // The rest of a truncated line is lost. The line break keeps the next line readable.
        if self.is_within_line {
            match self.out.write(b"\n") {
                Ok(1..) => self.is_within_line = false,
                _ => return count_lines(lines),
            }
        }
        while !lines.is_empty() {
            match self.out.write(lines) {
                Ok(0) => return count_lines(lines),
                Ok(written) => {
                    let (before, rest) = lines.split_at_checked(written).unwrap_or((lines, &[]));
                    self.is_within_line = !before.ends_with(b"\n");
                    lines = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return count_lines(lines),
            }
        }
        0
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

impl Write for LogWriter {
    /// Writes the line of an event. The text formatter calls this once per event with the whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = line.to_vec();
        context::append_ids(&mut text);
        self.write_line(escape_controls(text));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Escapes every control character and line separator except the final line break. Otherwise, an event could forge a
/// second line or control the reader's terminal.
fn escape_controls(line: Vec<u8>) -> Vec<u8> {
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let is_suspect = |byte: &u8| byte.is_ascii_control() || !byte.is_ascii();
    if text.len() < line.len() && !text.iter().any(is_suspect) {
        return line;
    }
    let mut escaped = Vec::with_capacity(line.len());
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u8::try_from(character) {
                Ok(byte) if byte.is_ascii_control() => escaped.extend(byte.escape_ascii()),
                _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    escaped.extend(character.escape_unicode().map(|ascii| ascii as u8));
                }
                _ => escaped.extend(character.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        escaped.extend(chunk.invalid().escape_ascii());
    }
    escaped.push(b'\n');
    escaped
}

#[cfg(test)]
impl LogWriter {
    /// Returns a writer without a thread, and a function that returns the lines queued so far.
    fn for_test() -> (Self, impl FnOnce() -> Vec<Vec<u8>>) {
        let (entries, receiver) = sync_channel(LINES_MAX);
        let line = |entry| match entry {
            LogEntry::Line(line) => Some(line),
            LogEntry::Flush(_) => None,
        };
        (Self { entries }, move || receiver.try_iter().filter_map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    /// An output that writes nothing until it is released.
    struct StalledOutput {
        go: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for StalledOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().ok();
            self.written.send(bytes.to_vec()).ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_output_does_not_stall_writers() {
        let (start, go) = std::sync::mpsc::channel();
        let (written, lines_written) = std::sync::mpsc::channel();
        let mut writer = LogWriter::start(StalledOutput { go, written }).unwrap();
        for _ in 0..LINES_MAX + 100 {
            writer.write_all(b"a\n").unwrap();
        }
        drop(start);
        writer.flush(Duration::from_secs(10));
        drop(writer);
        let written: Vec<u8> = lines_written.iter().flatten().collect();
        let written = String::from_utf8(written).expect("text").lines().count();
        assert!(written >= LINES_MAX, "{written}");
    }

    /// An output with room for a limited number of bytes, like a disk.
    struct LimitedOutput {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for LimitedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = bytes.len().min(self.room);
            self.room -= written;
            self.written.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let out = LimitedOutput { room: 5, written: Vec::new() };
        let mut out = LineOutput { out, is_within_line: false };
        assert_eq!(out.write_all(b"one\ntwo\nthree\n"), 2);
        assert_eq!(out.write_all(b"four\n"), 1);
        out.out.room = 100;
        assert_eq!(out.write_all(b"five\n"), 0);
        assert_eq!(out.out.written, b"one\nt\nfive\n");
    }

    #[test]
    fn an_event_cannot_forge_a_second_line() {
        assert_eq!(escape_controls(b"a\nb\x1b[2J\r\n".to_vec()), b"a\\nb\\x1b[2J\\r\n");
        assert_eq!(escape_controls("é\n".into()), "é\n".as_bytes());
        let others = "a\u{9b}2J\u{85}b\u{2028}c\u{2029}\u{a0}“\n";
        let escaped = "a\\u{9b}2J\\u{85}b\\u{2028}c\\u{2029}\u{a0}“\n";
        assert_eq!(escape_controls(others.into()), escaped.as_bytes());
        assert_eq!(escape_controls(b"\x9b\n".to_vec()), b"\\x9b\n");
    }
}
