//! Ends the processes of a test run that is itself killed, when no `Drop` runs any more.
//!
//! A shell reads the numbers of our processes from a pipe. The pipe closes when we end, however we end:
//! then the shell kills what is still on its list.

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

/// Puts a process on the list.
pub(crate) fn watch(pid: u32) {
    tell('+', pid);
}

/// Takes a process that was waited for off the list: its number may be used again.
pub(crate) fn forget(pid: u32) {
    tell('-', pid);
}

fn tell(verb: char, pid: u32) {
    let pipe = PIPE.get_or_init(|| Mutex::new(start()));
    // A thread that panicked while it wrote has still written a whole line.
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{verb} {pid}").expect("the guard reads");
}

#[expect(clippy::zombie_processes, reason = "it ends after us, and then it is not ours any more")]
fn start() -> ChildStdin {
    let mut shell = Command::new("sh")
        .args(["-c", WATCH])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C goes to our group: the guard has to outlive us.
        .process_group(0)
        .spawn()
        .expect("there is a shell");
    shell.stdin.take().expect("the pipe that was asked for")
}
