//! Stops child processes and removes a directory if this process is killed and can no longer do so.
//!
//! A shell reads the process ids from a pipe. When this process exits for any reason, the pipe
//! closes, and the shell kills the processes that are still on its list.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The program of the shell, whose argument is the directory; empty if there is none.
const PROGRAM: &str = r#"
trap '' INT TERM HUP
pids=
while read -r verb pid; do
    case $verb in
        +) pids="$pids $pid" ;;
        -) left=
           for each in $pids; do [ "$each" = "$pid" ] || left="$left $each"; done
           pids=$left ;;
        end) exit 0 ;;
    esac
done
[ -z "$pids" ] || kill -9 $pids
[ -z "$1" ] || rm -rf -- "$1"
"#;

/// The guard of this process. Clones share the shell, which exits when the last one is dropped.
#[derive(Clone, Debug)]
pub struct ProcessGuard(Arc<GuardShell>);

#[derive(Debug)]
struct GuardShell {
    shell: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl ProcessGuard {
    /// Starts the shell. If this process is killed, it removes the directory.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn start(directory: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", PROGRAM, "fjord-guard"])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C reaches the whole process group of the terminal.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self(Arc::new(GuardShell { shell: Mutex::new(shell), pipe: Mutex::new(pipe) })))
    }

    /// Adds a process to the list.
    pub fn watch(&self, id: u32) {
        self.0.send(&format!("+ {id}"));
    }

    /// Removes a process that has exited, because the kernel can reuse its id.
    pub fn forget(&self, id: u32) {
        self.0.send(&format!("- {id}"));
    }
}

impl GuardShell {
    fn send(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // Without the shell, this process still stops them whenever it can.
            writeln!(pipe, "{line}").ok();
        }
    }
}

impl Drop for GuardShell {
    /// Stops the shell, because the processes have exited.
    fn drop(&mut self) {
        self.send("end");
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        shell.wait().ok();
    }
}
