//! Prometheus itself, as Debian packages it: `make prometheus` gets it. Without it tests say what they skip.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where `make prometheus` unpacks it, below `target`.
const UNPACKED: &str = "prometheus/usr/bin";

/// `promtool`; `None`, and a line that says what is skipped, where there is none.
pub(crate) fn promtool(what: &str) -> Option<PathBuf> {
    find("promtool", what)
}

/// `prometheus`; `None`, and a line that says what is skipped, where there is none.
pub(crate) fn server(what: &str) -> Option<PathBuf> {
    find("prometheus", what)
}

fn find(name: &str, what: &str) -> Option<PathBuf> {
    let own = super::target_directory().join(UNPACKED).join(name);
    let on_path = PathBuf::from(name);
    let found = [own, on_path].into_iter().find(|path| {
        let asked = Command::new(path).arg("--version").output();
        asked.is_ok_and(|answer| answer.status.success())
    });
    if found.is_none() {
        println!("SKIPPED: {what}: no {name}; `make prometheus` gets it");
    }
    found
}

/// Runs a tool with this input. What it says when it is content; all it says when it is not.
pub(crate) fn run(tool: &PathBuf, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was just found");
    let written = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() && written.is_ok() { Ok(said) } else { Err(said) }
}
