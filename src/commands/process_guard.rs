//! Stops the child processes of this process and removes a directory if this process is killed and
//! cannot clean up.
//!
//! A shell reads the process ids from a pipe. When this process exits for any reason, the pipe
//! closes, and the shell kills the processes that are still on its list.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The shell program. Its argument is the directory. The argument is empty if there is no
/// directory.
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

/// The guard of this process. Clones share one shell, which exits when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct ProcessGuard(Arc<GuardShell>);

#[derive(Debug)]
struct GuardShell {
    shell: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl ProcessGuard {
    /// Starts the shell. The shell removes the directory if this process is killed.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub fn start(directory: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", PROGRAM, "fjord-guard"])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C signals the whole process group of the terminal, but the shell must survive
            // it.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self(Arc::new(GuardShell { shell: Mutex::new(shell), pipe: Mutex::new(pipe) })))
    }

    /// Adds a process to the list.
    pub fn watch(&self, id: u32) {
        self.0.send(&format!("+ {id}"));
    }

    /// Removes from the list a process that has exited, because the kernel may reuse its id.
    pub fn forget(&self, id: u32) {
        self.0.send(&format!("- {id}"));
    }
}

impl GuardShell {
    fn send(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // If the shell has exited, this process can still stop its child processes unless it is
            // killed.
            writeln!(pipe, "{line}").ok();
        }
    }
}

impl Drop for GuardShell {
    /// Stops the shell. The child processes have exited by now.
    fn drop(&mut self) {
        self.send("end");
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        shell.wait().ok();
    }
}
