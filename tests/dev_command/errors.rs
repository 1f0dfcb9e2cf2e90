//! `fjord dev` explains why it cannot start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::fixture::{dev, fjord, init, printed};

/// Runs the command, which must fail with this status, and returns its output.
fn fails(command: &mut Command, status: i32) -> String {
    let output = command.output().expect("fjord runs");
    assert_eq!(output.status.code(), Some(status), "{}", printed(&output));
    printed(&output)
}

#[test]
fn a_missing_or_old_nats_server_is_explained() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let empty = home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();

    let mut command = dev(&api);
    command.env_remove("FJORD_NATS_SERVER").env("PATH", &empty).env("TMPDIR", &temporary);
    let text = fails(&mut command, 1);
    for part in
        ["nats-server is not on the PATH", "https://github.com/nats-io/nats-server/releases"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut command = dev(&api);
    command.env("FJORD_NATS_SERVER", "/nowhere/nats").env("TMPDIR", &temporary);
    let text = fails(&mut command, 1);
    assert!(text.contains("FJORD_NATS_SERVER: /nowhere/nats does not exist"), "{text}");

    let old = home.path().join("old");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = dev(&api);
    command.env("FJORD_NATS_SERVER", &old).env("TMPDIR", &temporary);
    let text = fails(&mut command, 1);
    assert!(
        text.contains("expected version 2.10 or newer, found \"nats-server: v2.9.10\""),
        "{text}"
    );
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn all_errors_of_the_configuration_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let append = |file: &str, text: &str| {
        let path = api.join(file);
        let old = fs::read_to_string(&path).unwrap();
        fs::write(path, old + text).unwrap();
    };
    append("fjord.toml", "\n[gatewy]\nx = 1\n");
    append("worker.toml", "connections_max = 0\n");
    let text = fails(&mut dev(&api), 2);
    for part in ["gatewy", "connections_max"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = fails(&mut dev(Path::new("/nowhere")), 2);
    assert_eq!(text.trim(), "error: /nowhere: expected a directory");
}

#[test]
fn an_error_that_only_a_role_finds_ends_the_command() {
    let home = tempfile::tempdir().unwrap();
    let api = init(home.path());
    let endpoints = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&endpoints).unwrap();
    fs::write(&endpoints, text.replace(r#""public""#, r#"{ "methods": ["api-key"] }"#)).unwrap();
    let text = fails(&mut dev(&api), 2);
    assert!(
        text.contains("auth: expected a method that [auth] in the configuration sets up"),
        "{text}"
    );
}

#[test]
fn both_commands_are_in_the_help_the_manual_and_the_completions() {
    for (arguments, marks) in [
        (&["--help"][..], ["  init ", "  dev "]),
        (&["man"], ["fjord\\-init(1)", "fjord\\-dev(1)"]),
        (&["completions", "bash"], ["fjord,init)", "fjord,dev)"]),
    ] {
        let text = printed(&fjord(arguments));
        for mark in marks {
            assert!(text.contains(mark), "{mark:?} in {arguments:?}:\n{text}");
        }
    }
    let help = printed(&fjord(&["help", "dev"]));
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("Not for production"), "{help}");
}
