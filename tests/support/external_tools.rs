//! Finds third-party tools below `target` or on the PATH. A test without its tool is skipped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Finds a tool. If it is missing, prints that `what` is skipped, and the installation `hint`.
pub(crate) fn find(name: &str, below_target: &str, what: &str, hint: &str) -> Option<PathBuf> {
    let own = super::target_directory().join(below_target).join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(own)
        .chain(std::env::split_paths(&path).map(|directory| directory.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("SKIPPED: {what}: no {name}; {hint}");
    }
    found
}

/// Runs a tool and returns what it prints to stdout and stderr. Panics after `limit`.
pub(crate) async fn run(tool: &Path, arguments: &[&str], limit: Duration) -> String {
    run_in(Path::new("."), tool, arguments, limit).await
}

/// Runs a tool in a directory, like `run`.
pub(crate) async fn run_in(
    directory: &Path,
    tool: &Path,
    arguments: &[&str],
    limit: Duration,
) -> String {
    let mut command = Command::new(tool);
    command.current_dir(directory).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(limit, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{} runs for {limit:?}", tool.display()));
    let output = output.expect("the tool can be run");
    let bytes = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}
