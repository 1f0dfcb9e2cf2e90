//! The nats-server executable that tests start.

use std::path::PathBuf;
use std::process::Command;

/// The release that `make nats-server` downloads.
const VERSION: &str = "2.15.1";
/// The oldest release with the features that fjord uses.
const OLDEST: (u32, u32) = (2, 10);

/// Returns the executable in `FJORD_NATS_SERVER`, below `target`, or a recent one on the PATH.
pub(crate) fn find() -> PathBuf {
    if let Some(chosen) = std::env::var_os("FJORD_NATS_SERVER") {
        return chosen.into();
    }
    let own = super::super::target_directory().join(format!("nats-server/{VERSION}/nats-server"));
    if own.is_file() {
        return own;
    }
    let on_path = PathBuf::from("nats-server");
    match Command::new(&on_path).arg("--version").output() {
        Ok(output) if is_new_enough(&String::from_utf8_lossy(&output.stdout)) => on_path,
        _ => panic!(
            "no nats-server of {}.{} or newer: run `make nats-server`, or set FJORD_NATS_SERVER to one",
            OLDEST.0, OLDEST.1
        ),
    }
}

/// Parses the output of `nats-server --version`, such as `nats-server: v2.10.7`.
fn is_new_enough(version: &str) -> bool {
    let numbers = version.trim().rsplit('v').next().unwrap_or_default();
    let mut numbers = numbers.split('.').map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn an_unsupported_server_on_the_path_is_not_used() {
        let cases = [
            ("nats-server: v2.9.10\n", false),
            ("nats-server: v2.10.0\n", true),
            ("nats-server: v2.15.1-beta.2\n", true),
            ("nats-server: v3.0.0\n", true),
            ("nats-server: version 9\n", false),
            ("", false),
        ];
        for (output, expected) in cases {
            assert_eq!(is_new_enough(output), expected, "{output:?}");
        }
    }
}
