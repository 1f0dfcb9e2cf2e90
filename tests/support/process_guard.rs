//! Kills the child processes of a test run that is itself killed, so that no `Drop` runs.
//!
//! A shell reads the children's process ids from a pipe. When the test process ends for any reason,
//! the pipe closes and the shell kills the processes that are still on its list.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const WATCH: &str = r#"
trap '' INT TERM HUP
pids=
while read -r verb pid; do
    case $verb in
        +) pids="$pids $pid" ;;
        -) left=
           for each in $pids; do [ "$each" = "$pid" ] || left="$left $each"; done
           pids=$left ;;
    esac
done
[ -z "$pids" ] || kill -9 $pids
"#;

static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// Adds a process to the list.
pub(crate) fn watch(pid: u32) {
    send('+', pid);
}

/// Removes a process whose exit status has been collected, because the kernel can reuse its id.
pub(crate) fn forget(pid: u32) {
    send('-', pid);
}

fn send(verb: char, pid: u32) {
    let pipe = PIPE.get_or_init(|| Mutex::new(start()));
    // A poisoned lock is harmless, because every thread writes whole lines.
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{verb} {pid}").expect("the shell accepts the line");
}

#[expect(
    clippy::zombie_processes,
    reason = "it outlives this process, which therefore cannot wait for it"
)]
fn start() -> ChildStdin {
    let mut shell = Command::new("sh")
        .args(["-c", WATCH])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C signals the test's process group; the guard must survive it.
        .process_group(0)
        .spawn()
        .expect("a shell is installed");
    shell.stdin.take().expect("stdin is piped")
}
