//! The terminal output of `fjord dev`: its own messages and the lines of its child processes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::pin::pin;

use serde_json::{Map, Value};
use tokio::sync::mpsc::{self, Receiver};

use super::child::{ChildContext, OutputLine};
use crate::commands::Output;
use crate::commands::process_guard::ProcessGuard;

/// The name of the process that runs the NATS server.
pub(super) const NATS_SERVER: &str = "nats-server";
/// The maximum number of lines waiting to be printed. While the terminal is paused, the processes
/// block once this number is reached.
const LINES_MAX: usize = 1_024;
/// The target of the lines in the access log.
const ACCESS: &str = "fjord::access";
/// The text that marks a log line of the NATS server as being about a client connection.
const CLIENT: &str = " - cid:";
/// The message that a role logs when it is not ready.
const NOT_READY: &str = "not ready";
/// The message that a role logs when it becomes ready again.
const READY_AGAIN: &str = "ready again";
/// The fields of a log line that are not printed after the message.
const HIDDEN: [&str; 5] = ["timestamp", "level", "message", "target", "trace_id"];

/// Prints messages and the lines of child processes.
pub(super) struct Console<'a, O, E> {
    output: &'a mut Output<O, E>,
    lines: Receiver<OutputLine>,
    context: ChildContext,
    /// The processes that have become ready. If such a process logs a change in its readiness, the
    /// change is a problem and is printed.
    settled: BTreeSet<&'static str>,
}

impl<'a, O: Write, E: Write> Console<'a, O, E> {
    /// Creates a console that prints to these streams.
    pub(super) fn new(output: &'a mut Output<O, E>, guard: ProcessGuard) -> Self {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let context = ChildContext { lines: sender, guard };
        Self { output, lines, context, settled: BTreeSet::new() }
    }

    /// Returns the context for child processes whose lines this console prints.
    pub(super) fn context(&self) -> ChildContext {
        self.context.clone()
    }

    /// Prints a message.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) fn say(&mut self, message: &str) -> io::Result<()> {
        writeln!(self.output.out, "{message}")?;
        self.output.out.flush()
    }

    /// Prints each error on its own line.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) fn errors(&mut self, errors: &[String]) -> io::Result<()> {
        crate::commands::print_lines(&mut self.output.err, "error", errors)
    }

    /// Prints the next line of a child process. Cancel safe.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) async fn print_next(&mut self) -> io::Result<()> {
        // The channel cannot be closed, because `context` has a sender.
        match self.lines.recv().await {
            Some(line) => self.print(&line),
            None => Ok(()),
        }
    }

    /// Prints the lines of child processes that have already been read.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) fn print_pending(&mut self) -> io::Result<()> {
        // A process can print lines faster than the terminal shows them.
        for _ in 0..LINES_MAX {
            let Ok(line) = self.lines.try_recv() else { break };
            self.print(&line)?;
        }
        Ok(())
    }

    /// Sets whether a process has become ready. If it has, subsequent changes to its readiness are
    /// printed.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) fn set_settled(
        &mut self,
        process: &'static str,
        is_settled: bool,
    ) -> io::Result<()> {
        self.print_pending()?;
        if is_settled {
            self.settled.insert(process);
        } else {
            self.settled.remove(process);
        }
        Ok(())
    }

    fn print(&mut self, line: &OutputLine) -> io::Result<()> {
        match displayed_text(line, self.settled.contains(line.process)) {
            Some(text) => self.say(&text),
            None => Ok(()),
        }
    }

    /// Waits for `work` and prints the lines of child processes in the meantime. A flood of lines
    /// does not delay the detection that `work` has finished.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        let mut work = pin!(work);
        loop {
            // The selection is not biased. If both branches are ready, each has the same chance of
            // being chosen.
            tokio::select! {
                printed = self.print_next() => printed?,
                value = &mut work => {
                    // The lines that a process printed must appear before the consequences of its
                    // exit.
                    self.print_pending()?;
                    return Ok(value);
                }
            }
        }
    }
}

/// Returns the text to print for a line, or `None` if the line is hidden. A role's `info` messages
/// are hidden. Its readiness messages are hidden until the role has settled. This command reports
/// both in its own messages.
fn displayed_text(line: &OutputLine, is_settled: bool) -> Option<String> {
    if line.process == NATS_SERVER {
        let is_error = ["[ERR]", "[FTL]"].iter().any(|mark| line.text.contains(mark));
        // Errors on a single client connection are hidden, because the client reports them.
        let is_of_client = line.text.contains(CLIENT);
        return (is_error && !is_of_client).then(|| format(line));
    }
    let is_hidden = fields(&line.text).is_some_and(|fields| {
        let is = |name: &str, value: &str| fields.get(name).is_some_and(|found| found == value);
        if is("message", NOT_READY) || is("message", READY_AGAIN) {
            return !is_settled;
        }
        is("level", "INFO") && !is("target", ACCESS)
    });
    (!is_hidden).then(|| format(line))
}

/// Formats a line for human readers.
pub(super) fn format(line: &OutputLine) -> String {
    let process = line.process;
    let Some(fields) = fields(&line.text) else { return format!("{process}: {}", line.text) };
    let text = |name: &str| plain(fields.get(name).unwrap_or(&Value::Null));
    if fields.get("target").is_some_and(|target| target == ACCESS) {
        let caller = fields.get("principal").map(|it| format!(", {}", plain(it)));
        return format!(
            "{process}: {} {} {} {} ms ({}{}) {}",
            text("method"),
            text("endpoint"),
            text("status"),
            text("duration_ms"),
            text("outcome"),
            caller.unwrap_or_default(),
            text("request_id"),
        );
    }
    let mut formatted = format!("{process}: {} {}", text("level"), text("message"));
    for (name, value) in fields.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str())) {
        // Writing to a string cannot fail.
        write!(formatted, ", {name}: {}", plain(value)).ok();
    }
    formatted
}

fn fields(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(process: &'static str, text: &str) -> OutputLine {
        OutputLine { process, text: text.to_owned() }
    }

    #[test]
    fn requests_and_problems_are_shown() {
        let access = r#"{"timestamp":"t","level":"INFO","request_id":"r","endpoint":"horse-get","method":"GET","status":200,
            "outcome":"ok","duration_ms":1.25,"message":"request","target":"fjord::access"}"#;
        let problem = r#"{"timestamp":"t","level":"ERROR","error":"endpoint x: bad","message":"refused","target":"fjord"}"#;
        let listening = r#"{"level":"INFO","message":"listening","target":"fjord"}"#;
        let starting = r#"{"level":"WARN","message":"not ready","target":"fjord"}"#;
        let debug = r#"{"level":"DEBUG","message":"detail","target":"fjord"}"#;
        for (line, expected) in [
            (line("gateway", access), Some("gateway: GET horse-get 200 1.25 ms (ok) r")),
            (line("worker", problem), Some("worker: ERROR refused, error: endpoint x: bad")),
            (line("worker", "error: not JSON"), Some("worker: error: not JSON")),
            (line("worker", debug), Some("worker: DEBUG detail")),
            (line("worker", listening), None),
            (line("worker", starting), None),
            (line(NATS_SERVER, "[1] 2026/11/30 [INF] Server is ready"), None),
            (line(NATS_SERVER, "[1] [ERR] 127.0.0.1:1 - cid:7 - TLS handshake error"), None),
            (line(NATS_SERVER, "[1] [FTL] no port"), Some("nats-server: [1] [FTL] no port")),
        ] {
            assert_eq!(displayed_text(&line, false).as_deref(), expected, "{}", line.text);
        }
    }

    #[test]
    fn a_process_that_was_ready_and_no_longer_is_is_shown() {
        let lost = r#"{"level":"WARN","message":"not ready","part":"nats","reason":"not connected","target":"fjord"}"#;
        let lost = line("gateway", lost);
        let back = line("gateway", r#"{"level":"INFO","message":"ready again","part":"nats"}"#);
        assert_eq!((displayed_text(&lost, false), displayed_text(&back, false)), (None, None));
        let text = displayed_text(&lost, true).unwrap();
        assert_eq!(text, "gateway: WARN not ready, part: nats, reason: not connected");
        assert_eq!(displayed_text(&back, true).unwrap(), "gateway: INFO ready again, part: nats");
    }

    #[tokio::test]
    async fn a_flood_of_lines_does_not_hide_the_end_of_work() {
        let mut output = Output { out: Vec::new(), err: Vec::new() };
        let mut console = Console::new(&mut output, ProcessGuard::start(None).unwrap());
        let lines = console.context().lines;
        let flood = async { while lines.send(line("worker", "flood")).await.is_ok() {} };
        let work = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        let limited =
            tokio::time::timeout(std::time::Duration::from_secs(20), console.during(work));
        tokio::select! {
            biased;
            done = limited => done.expect("the work ends").unwrap(),
            () = flood => unreachable!("the console receives lines"),
        }
    }
}
