//! A process of a test: its log in a file, signals by its number, ended in `Drop`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually::{SOON, TICK, poll};
use super::guard;

/// Lines of a log that a failed test shows.
const LINES_SHOWN: usize = 80;

/// A running process, or one that has ended and is still asked about.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command with stdout and stderr appended to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let same = file.try_clone().expect("a second handle of the log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(same)
            // Ctrl-C at the terminal is ours to pass on, in our order.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        guard::watch(child.id());
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
            if self.ended.is_some() {
                guard::forget(self.child.id());
            }
        }
        self.ended
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Sends a signal; nothing happens when the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a process number"), signal).expect("our own child");
        }
    }

    /// Asks it to end (SIGTERM), in its own time.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Freezes it (SIGSTOP): it stays connected and says nothing. Returns once every thread of it stands.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
        // The signal is only noted when `kill` returns: a thread on another core goes on for a moment.
        let end = Instant::now() + SOON;
        while self.is_running() && !self.is_frozen() {
            assert!(Instant::now() < end, "{} does not stand still", self.name);
            std::thread::yield_now();
        }
    }

    fn is_frozen(&self) -> bool {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return false;
        };
        let mut states = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // `pid (name) state …`: the name may have a bracket of its own.
            stat.rsplit(')').next()?.trim_start().chars().next()
        });
        states.all(|state| state == 'T')
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Ends it (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            self.child.kill().expect("our own child");
            self.ended = Some(self.child.wait().expect("our own child"));
            guard::forget(self.child.id());
        }
    }

    /// Waits until it has ended by itself; fails the test when it has not within `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> ExitStatus {
        match poll(limit, TICK, async || self.ended()).await {
            Some(status) => status,
            None => panic!("{} has not ended within {limit:?}", self.name),
        }
    }

    /// All it has written.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it has written.
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
