//! Logs: a line for each event, JSON for machines or text for people, with a filter that can change while we run.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

mod json;

use super::{context, names};
use crate::config::log::{LogConfig, LogFormat, is_filter};

/// Lines that wait for stdout. Past it a line is dropped and counted: a reader that stalls must not stall requests.
const LINES_MAX: usize = 8_192;

/// After lines were written, those that follow gather for so long, and at most so many bytes of them.
const GATHERED_FOR: Duration = Duration::from_millis(5);
/// See `GATHERED_FOR`.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Never logged, whatever the filter says: the driver of SQL Server quotes messages and rows, which have callers' values.
const SILENT: &str = "tiberius=off";

/// What changes the filter: of the process, as the subscriber is.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The logs of this process.
#[derive(Debug)]
pub struct Logs {
    lines: LogWriter,
}

/// Why logs cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A filter that is none.
    #[error("not a filter of logs: expected a level, or target=level, several with commas")]
    Filter,
    /// Something else of this process logs already.
    #[error("logs are already set up")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that writes cannot be started.
    #[error("the thread that writes logs cannot be started")]
    Thread(#[source] io::Error),
}

impl Logs {
    /// Starts logging to stdout. Once in a process.
    ///
    /// # Errors
    /// `LogError` when the filter is none, or something logs already.
    pub fn start(config: &LogConfig) -> Result<Self, LogError> {
        let is_json = match config.format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !io::stdout().is_terminal(),
        };
        let lines = LogWriter::start(io::stdout())?;
        let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
        let layer = if is_json {
            json::JsonLayer(lines.clone()).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines.clone()).boxed()
        };
        let layer = layer.with_filter(filter_fn(is_without_values));
        let registry = tracing_subscriber::registry().with(filter).with(layer);
        registry.try_init().map_err(|error| LogError::Twice(error.into()))?;
        std::panic::set_hook(Box::new(log_panic));
        // Nobody was before us: the subscriber would not have been taken.
        FILTER.set(handle).ok();
        Ok(Self { lines })
    }

    /// Waits, at most so long, until everything logged so far is written: the last thing before the process ends.
    pub fn flush(&self, limit: Duration) {
        self.lines.flush(limit);
    }
}

/// Changes what this process logs, from the next line on; nothing where it does not log.
///
/// # Errors
/// `LogError::Filter` when the text is no filter; then everything stays as it is.
pub fn set_filter(filter: &str) -> Result<(), LogError> {
    let filter = parse(filter)?;
    match FILTER.get() {
        Some(handle) => handle.reload(filter).map_err(|_| LogError::Filter),
        None => Ok(()),
    }
}

/// Shows what went wrong on stderr, for commands: once in a process, and only where nothing logs already.
pub fn warn_on_stderr() {
    let format =
        tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_target(false);
    let layer = format.with_writer(io::stderr).with_filter(filter_fn(|metadata| {
        metadata.target().starts_with("fjord") && *metadata.level() <= Level::WARN
    }));
    // Where something logs already, that shows it.
    tracing_subscriber::registry().with(layer).try_init().ok();
}

/// Libraries write whole messages, payloads included, at level trace: callers' values. So theirs ends at debug.
fn is_without_values(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("fjord") || *metadata.level() < Level::TRACE
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed: Option<EnvFilter> = is_filter(filter).then(|| filter.parse().ok()).flatten();
    let silent = SILENT.parse().map_err(|_| LogError::Filter)?;
    Ok(parsed.ok_or(LogError::Filter)?.add_directive(silent))
}

/// A panic as one line like any other. Without the backtrace, which no collector of lines takes.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("not a text");
    tracing::error!(place, panic = message, "panicked");
}

enum LogEntry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes lines and hands them to a thread that writes them. Never waits, holds `LINES_MAX` at most.
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

    /// Takes a finished line, a break at its end.
    fn put(&self, line: Vec<u8>) {
        if self.entries.try_send(LogEntry::Line(line)).is_err() {
            super::counter(&names::LOG_LINES_DROPPED, &[]).increment(1);
        }
    }

    fn flush(&self, limit: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.entries.try_send(LogEntry::Flush(done)).is_ok() {
            // A reader that stalls for the whole limit loses what it did not read.
            is_done.recv_timeout(limit).ok();
        }
    }
}

/// Ends with the last sender. An error of stdout has nowhere to be told: the lines are lost.
fn write_lines(receiver: &Receiver<LogEntry>, mut out: impl Write) {
    let mut gathered = Vec::with_capacity(GATHERED_BYTES_MAX);
    while let Ok(first) = receiver.recv() {
        // The first line goes out at once. Those that follow it find nobody to wake, and leave together.
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                LogEntry::Line(line) => gathered.extend_from_slice(&line),
                LogEntry::Flush(done) => {
                    write_gathered(&mut gathered, &mut out);
                    out.flush().ok();
                    done.send(()).ok();
                }
            }
            if gathered.len() >= GATHERED_BYTES_MAX {
                write_gathered(&mut gathered, &mut out);
            }
            next = receiver.try_recv().ok();
        }
        write_gathered(&mut gathered, &mut out);
        std::thread::park_timeout(GATHERED_FOR);
    }
}

fn write_gathered(gathered: &mut Vec<u8>, out: &mut impl Write) {
    out.write_all(gathered).ok();
    gathered.clear();
}

impl Write for LogWriter {
    /// The formatter of text calls this once for each event, with the whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut signed = line.to_vec();
        context::sign(&mut signed);
        self.put(one_line(signed));
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

/// The line with every control character escaped but the break at its end: no event can forge a second line, or
/// move the cursor of who reads it.
fn one_line(line: Vec<u8>) -> Vec<u8> {
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    if text.len() < line.len() && !text.iter().any(u8::is_ascii_control) {
        return line;
    }
    let mut escaped = Vec::with_capacity(line.len());
    for byte in text {
        if byte.is_ascii_control() {
            escaped.extend(byte.escape_ascii());
        } else {
            escaped.push(*byte);
        }
    }
    escaped.push(b'\n');
    escaped
}

#[cfg(test)]
impl LogWriter {
    /// Lines that nobody writes, and what gives those that came.
    fn to_test() -> (Self, impl FnOnce() -> Vec<Vec<u8>>) {
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

    /// An output that writes nothing before it is told to.
    struct Stalled {
        go: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
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
    fn an_output_that_stalls_stalls_nobody() {
        let (start, go) = std::sync::mpsc::channel();
        let (written, lines_written) = std::sync::mpsc::channel();
        let mut lines = LogWriter::start(Stalled { go, written }).unwrap();
        for _ in 0..LINES_MAX + 100 {
            lines.write_all(b"a\n").unwrap();
        }
        drop(start);
        lines.flush(Duration::from_secs(10));
        drop(lines);
        let written: Vec<u8> = lines_written.iter().flatten().collect();
        let written = String::from_utf8(written).expect("text").lines().count();
        assert!(written >= LINES_MAX, "{written}");
    }

    #[test]
    fn an_event_cannot_forge_a_second_line() {
        assert_eq!(one_line(b"a\nb\x1b[2J\r\n".to_vec()), b"a\\nb\\x1b[2J\\r\n");
        assert_eq!(one_line("é\n".into()), "é\n".as_bytes());
    }

    #[test]
    fn what_is_no_filter_changes_nothing() {
        assert!(parse("info,fjord::messaging=debug").is_ok());
        assert!(matches!(parse("wran"), Err(LogError::Filter)));
    }
}
