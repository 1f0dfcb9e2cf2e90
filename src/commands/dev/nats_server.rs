//! The NATS server started by `fjord dev`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::tls::ThrowawayCertificates;

/// The environment variable that contains the path of the executable.
const VARIABLE: &str = "FJORD_NATS_SERVER";
/// The oldest version that has the features that fjord uses.
const VERSION_MIN: (u32, u32) = (2, 10);
/// The time limit for `nats-server --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// Where to get the executable.
const HINT: &str = "get nats-server 2.10 or newer from https://github.com/nats-io/nats-server/releases, and put it on the \
                    PATH or set FJORD_NATS_SERVER to its path";
/// The configuration file in the run directory.
const CONFIGURATION: &str = "nats-server.conf";

/// Returns the executable named by `FJORD_NATS_SERVER`, or the one on the `PATH`, after checking its version.
///
/// # Errors
/// Returns a message that says where to get the executable.
pub(super) async fn find(environment: &[(OsString, OsString)]) -> Result<PathBuf, String> {
    let chosen = environment.iter().find(|(name, _)| name == VARIABLE);
    let path = chosen.map_or_else(|| PathBuf::from("nats-server"), |(_, path)| path.into());
    let name = match chosen {
        Some(_) => format!("{VARIABLE}: {}", path.display()),
        None => "nats-server".to_owned(),
    };
    let mut command = Command::new(&path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let printed = match timeout(VERSION_LIMIT, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let place = if chosen.is_some() { "does not exist" } else { "is not on the PATH" };
            return Err(format!("{name} {place}: {HINT}"));
        }
        Ok(Err(error)) => return Err(format!("{name} cannot be run: {error}; {HINT}")),
        Err(_) => {
            return Err(format!("{name} --version did not end within {VERSION_LIMIT:?}; {HINT}"));
        }
    };
    if is_supported(&printed) {
        return Ok(path);
    }
    let (major, minor) = VERSION_MIN;
    Err(format!("{name}: expected version {major}.{minor} or newer, found {printed:?}; {HINT}"))
}

/// Parses the output of `nats-server --version`, such as `nats-server: v2.10.7`.
fn is_supported(printed: &str) -> bool {
    let numbers = printed.rsplit('v').next().unwrap_or_default();
    let mut numbers = numbers.split('.').map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN)
}

/// Returns the command that starts a server on 127.0.0.1, and writes the server's configuration file. Clients need a
/// certificate from the throw-away authority, so that other users of this machine cannot connect.
///
/// # Errors
/// Returns a message that names the file that could not be written.
pub(super) fn command(
    executable: &Path,
    directory: &Path,
    certificates: &ThrowawayCertificates,
    port: u16,
) -> Result<Command, String> {
    let configuration = configuration(directory, certificates, port);
    let file = directory.join(CONFIGURATION);
    let written = std::fs::write(&file, configuration);
    written.map_err(|error| format!("{}: cannot be written: {error}", file.display()))?;
    let mut command = Command::new(executable);
    command.arg("-c").arg(file);
    Ok(command)
}

fn configuration(directory: &Path, certificates: &ThrowawayCertificates, port: u16) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string());
    format!(
        "server_name: \"fjord-dev\"\nlisten: \"127.0.0.1:{port}\"\nports_file_dir: {}\n\
         tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true, timeout: 5 }}\n",
        quoted(directory),
        quoted(&certificates.server.certificate),
        quoted(&certificates.server.key),
        quoted(&certificates.ca),
    )
}

/// Returns whether the server is listening. Once the server is listening, it writes a file that contains its ports.
pub(super) fn is_listening(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "ports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_not_supported() {
        for (printed, expected) in [
            ("nats-server: v2.9.10", false),
            ("nats-server: v2.10.0", true),
            ("nats-server: v2.15.1-beta.2", true),
            ("nats-server: v3.0.0", true),
            ("nats-server: version 9", false),
            ("", false),
        ] {
            assert_eq!(is_supported(printed), expected, "{printed:?}");
        }
    }
}
