//! A child process of `fjord dev`. Its output is forwarded line by line.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::commands::process_guard::ProcessGuard;
use crate::lifecycle::Tasks;

/// The maximum length of a line in bytes. A longer line is split.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// The number of recent lines that are kept to explain why a process has exited.
const LAST_LINES_MAX: usize = 20;
/// The maximum time to wait for the remaining output of a process that has exited.
const OUTPUT_LIMIT: Duration = Duration::from_millis(500);

/// A line printed by a child process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutputLine {
    /// The name of the process.
    pub(super) process: &'static str,
    /// The line without its line break.
    pub(super) text: String,
}

/// The resources shared by all child processes.
#[derive(Clone, Debug)]
pub(super) struct ChildContext {
    /// Sends the lines printed by the processes. The console receives them.
    pub(super) lines: Sender<OutputLine>,
    /// Kills the processes if this process is killed.
    pub(super) guard: ProcessGuard,
}

/// A child process. It is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct ChildProcess {
    name: &'static str,
    /// The process id. `None` after it has been removed from the guard's list.
    watched: Option<u32>,
    guard: ProcessGuard,
    child: Child,
    last_lines: Arc<Mutex<VecDeque<OutputLine>>>,
    readers: Vec<JoinHandle<()>>,
}

impl ChildProcess {
    /// Starts a command. The process blocks if the receiver does not take the lines.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        context: &ChildContext,
    ) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C signals the whole process group of the terminal, but the processes must stop
            // in a defined order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let watched = child.id();
        if let Some(id) = watched {
            context.guard.watch(id);
        }
        let last_lines = Arc::<Mutex<VecDeque<OutputLine>>>::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let tasks = Tasks::new();
        let reader = |source: Box<dyn AsyncRead + Send + Unpin>| {
            let (kept, lines) = (Arc::clone(&last_lines), context.lines.clone());
            tasks.spawn_background(read_lines(name, source, kept, lines))
        };
        let readers = stdout
            .map(|source| reader(Box::new(source)))
            .into_iter()
            .chain(stderr.map(|source| reader(Box::new(source))))
            .collect();
        let guard = context.guard.clone();
        Ok(Self { name, watched, guard, child, last_lines, readers })
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until the process has exited. Cancel safe.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        if let Some(id) = self.watched.take() {
            self.guard.forget(id);
        }
        Ok(status)
    }

    /// Sends a signal, unless the process has exited.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        match id {
            Some(id) => Ok(kill(Pid::from_raw(id), signal)?),
            None => Ok(()),
        }
    }

    /// Stops the process with SIGTERM, or with SIGKILL after `limit`.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) async fn stop(&mut self, limit: Duration) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if timeout(limit, self.wait()).await.is_err() {
            self.child.start_kill()?;
            self.wait().await?;
        }
        Ok(())
    }

    /// Returns the last lines printed by a process that has exited.
    pub(super) async fn last_lines(&mut self) -> Vec<OutputLine> {
        for reader in self.readers.drain(..) {
            // A grandchild that still holds the pipe open would delay the end of the output.
            timeout(OUTPUT_LIMIT, reader).await.ok();
        }
        let lines = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Reads lines until the end of the output.
async fn read_lines(
    process: &'static str,
    source: impl AsyncRead + Unpin,
    last_lines: Arc<Mutex<VecDeque<OutputLine>>>,
    lines: Sender<OutputLine>,
) {
    let mut reader = BufReader::new(source);
    loop {
        let mut bytes = Vec::new();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let line = OutputLine { process, text };
        {
            let mut kept = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LAST_LINES_MAX {
                kept.pop_front();
            }
            kept.push_back(line.clone());
        }
        // If there is no receiver, the output is still read, so that the process can print its last
        // lines and exit.
        lines.send(line).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::Receiver;

    use super::*;

    fn context() -> (ChildContext, Receiver<OutputLine>) {
        let (lines, received) = tokio::sync::mpsc::channel(100);
        let guard = ProcessGuard::start(None).unwrap();
        (ChildContext { lines, guard }, received)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_last_lines_of_both_streams_are_kept() {
        let (context, mut received) = context();
        let script = "seq 1 30; echo failed >&2; exit 3";
        let mut child = ChildProcess::start("sh", shell(script), &context).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
        let last = child.last_lines().await;
        assert_eq!(last.len(), LAST_LINES_MAX);
        assert!(last.iter().any(|line| line.text == "failed"), "{last:?}");
        drop(context);
        let mut count = 0;
        while received.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 31);
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let (context, mut received) = context();
        let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
        let mut child = ChildProcess::start("sh", shell(script), &context).unwrap();
        assert_eq!(received.recv().await.unwrap().text, "ready");
        child.stop(Duration::from_millis(50)).await.unwrap();
        assert!(!child.wait().await.unwrap().success());
    }
}
