//! A terminal that is none: what a process writes there is what a person would see.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::eventually::{SOON, eventually_some};
use super::guard;

/// A process whose output goes to a terminal. It ends with its value.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command there.
    pub(crate) fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).expect("ours");
        unlockpt(&ours).expect("ours");
        let name = ptsname(&ours, Vec::new()).expect("a name").into_string().expect("ASCII");
        let theirs = OpenOptions::new().read(true).write(true).open(name).expect("its other end");
        let errors = theirs.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(theirs).stderr(errors);
        let child = command.spawn().expect("it starts");
        guard::watch(child.id());
        // The command holds the other end too.
        drop(command);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (gathered, mut from) = (Arc::clone(&written), File::from(ours));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(number @ 1..) = from.read(&mut bytes) {
                gathered.lock().unwrap().extend_from_slice(&bytes[..number]);
            }
        });
        Self { child, written }
    }

    /// Everything that was written so far, once `enough` says that it is.
    pub(crate) async fn shows(&self, what: &str, enough: impl Fn(&str) -> bool) -> String {
        eventually_some(what, SOON, async || {
            let text = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
            enough(&text).then_some(text)
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().expect("our own child");
        guard::forget(self.child.id());
    }
}
