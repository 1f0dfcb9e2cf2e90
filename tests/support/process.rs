//! A child process that logs to a file, can be sent signals, and is killed when it is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually::{SOON, TICK, poll};
use super::process_guard;

/// The number of log lines that a failed test prints.
const LINES_SHOWN: usize = 80;

/// A child process, which is running or has exited.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command with stdout and stderr appended to `log`.
    pub(crate) fn start(name: &str, command: Command, log: &Path) -> Self {
        Self::start_with_stdin(name, command, log, Stdio::null())
    }

    /// Like `start`, but with the given stdin.
    pub(crate) fn start_with_stdin(
        name: &str,
        mut command: Command,
        log: &Path,
        stdin: Stdio,
    ) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let same = file.try_clone().expect("a second handle of the log file");
        let child = command
            .stdin(stdin)
            .stdout(file)
            .stderr(same)
            // Ctrl-C must not reach the child processes, because the process guard stops them.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        process_guard::watch(child.id());
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    /// Returns the name that messages use for the process.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the log has a line with all of these parts. Waiting is necessary because fjord writes its log in the
    /// background. Returns the line.
    #[track_caller]
    pub(crate) fn log_line(&self, parts: &[&str]) -> impl Future<Output = String> {
        let what = format!("a log line of {} with {parts:?}", self.name);
        super::eventually::eventually_some(what, SOON, async || {
            let log = self.log();
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            log.lines().find(has_all).map(str::to_owned)
        })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status, if the process has exited.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child process can be polled");
            if self.ended.is_some() {
                process_guard::forget(self.child.id());
            }
        }
        self.ended
    }

    /// Returns whether the process is running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Sends a signal, unless the process has exited.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("the process number is not 0"), signal)
                .expect("the child process can be signalled");
        }
    }

    /// Sends SIGTERM without waiting for the process to exit.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Suspends the process (SIGSTOP): it stays connected but sends nothing. Returns once all of
    /// its threads have stopped.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
        // When kill(2) returns, the signal is only pending. Threads on other cores may still be running.
        let end = Instant::now() + SOON;
        while self.is_running() && !self.is_stopped() {
            assert!(Instant::now() < end, "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return false;
        };
        let mut states = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // The format is `pid (name) state …`, and the name can contain parentheses.
            stat.rsplit(')').next()?.trim_start().chars().next()
        });
        states.all(|state| state == 'T')
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process (SIGKILL) and waits until it has exited.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            self.child.kill().expect("the child process can be killed");
            self.ended = Some(self.child.wait().expect("the child process can be waited for"));
            process_guard::forget(self.child.id());
        }
    }

    /// Waits until the process exits on its own. Panics after `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> ExitStatus {
        match poll(limit, TICK, async || self.ended()).await {
            Some(status) => status,
            None => panic!("{} has not ended within {limit:?}", self.name),
        }
    }

    /// Returns the whole log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the last lines in the log.
    pub(crate) fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines.split_at(lines.len().saturating_sub(LINES_SHOWN)).1.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} (pid {}), end of its log:", self.name, self.pid());
            eprintln!("{}\n----", self.log_tail());
        }
        self.kill();
    }
}
