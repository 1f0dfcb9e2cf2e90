//! Runs a process on a pseudo-terminal, for tests of terminal output.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::eventually::{SOON, eventually_some};
use super::process_guard;

/// A process whose stdout and stderr are a pseudo-terminal. It is killed on drop.
#[derive(Debug)]
pub(crate) struct PseudoTerminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl PseudoTerminal {
    /// Starts a command on a new pseudo-terminal.
    pub(crate) fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .expect("a pseudo-terminal can be opened");
        grantpt(&ours).expect("the pseudo-terminal can be prepared");
        unlockpt(&ours).expect("the pseudo-terminal can be prepared");
        let name = ptsname(&ours, Vec::new())
            .expect("the pseudo-terminal has a name")
            .into_string()
            .expect("the name is ASCII");
        let theirs = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .expect("the other end can be opened");
        let errors = theirs.try_clone().expect("the handle can be duplicated");
        command.stdin(Stdio::null()).stdout(theirs).stderr(errors);
        let child = command.spawn().expect("the command starts");
        process_guard::watch(child.id());
        // `command` holds the other end open. Reads would not end while that end is open.
        drop(command);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (output, mut from) = (Arc::clone(&written), File::from(ours));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(number @ 1..) = from.read(&mut bytes) {
                output.lock().unwrap().extend_from_slice(&bytes[..number]);
            }
        });
        Self { child, written }
    }

    /// Waits until `condition` holds for the output so far, and returns that output.
    pub(crate) async fn output_when(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        eventually_some(what, SOON, async || {
            let text = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
            condition(&text).then_some(text)
        })
        .await
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        // The process may have exited already.
        self.child.kill().ok();
        self.child.wait().expect("the child process can be waited for");
        process_guard::forget(self.child.id());
    }
}
