//! Ends the child processes if `fjord dev` is killed and cannot end them itself.
//!
//! A shell reads the process ids from a pipe. When this process ends for any reason, the pipe closes, and the shell kills the
//! processes that are still on its list.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The program of the shell, whose argument is the run directory.
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
rm -rf -- "$1"
"#;

/// The guard of a run. Clones share the shell.
#[derive(Clone, Debug)]
pub(super) struct ProcessGuard(Arc<GuardShell>);

#[derive(Debug)]
struct GuardShell {
    shell: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl ProcessGuard {
    /// Starts the shell.
    ///
    /// # Errors
    /// The operating system's error.
    pub(super) fn start(directory: &Path) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", PROGRAM, "fjord-dev-guard"])
            .arg(directory)
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
    pub(super) fn watch(&self, id: u32) {
        self.0.send(&format!("+ {id}"));
    }

    /// Removes a process that has ended, because the kernel can reuse its id.
    pub(super) fn forget(&self, id: u32) {
        self.0.send(&format!("- {id}"));
    }
}

impl GuardShell {
    fn send(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // Without the shell, the processes are still ended in all cases but SIGKILL.
            writeln!(pipe, "{line}").ok();
        }
    }
}

impl Drop for GuardShell {
    /// Ends the shell, because the processes have ended.
    fn drop(&mut self) {
        self.send("end");
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        shell.wait().ok();
    }
}
