//! The shipped files are in step with the code: every key is in them, and with its default.

use std::collections::BTreeMap;

use super::*;

const FJORD: &str = include_str!("../../../config/fjord.toml");
const GATEWAY: &str = include_str!("../../../config/gateway.toml");
const WORKER: &str = include_str!("../../../config/worker.toml");

/// Keys whose shipped line is an example, since a default has no place or no form there.
const EXAMPLES: &[&str] = &[
    "auth.api_keys.billing.expires_at",
    "auth.api_keys.billing.sha256",
    "auth.api_keys.billing.claims.stable",
];

/// The file with its keys uncommented: of `#key` and `#[section]` the mark is taken away, `# text` stays.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Each key with its value, and whether it is a secret.
type Keys = BTreeMap<String, (Option<String>, bool)>;

/// Every key with its value, whatever errors there are: secrets stand in the file and beside it, examples of
/// files are not there.
fn read_all(text: &str) -> (Keys, Vec<ConfigError>) {
    let directory = written(&[("fjord.toml", text)]);
    let sources = sources(directory.path(), None);
    let mut errors = Vec::new();
    let figment = sources.merge(&mut errors);
    let settings = Settings::new(figment, directory.path(), None, errors);
    settings.read(|table| read(table, &sources)).unwrap();
    let mut findings = settings.into_findings();
    findings.judge_unknown();
    let entry = |entry: Entry| (entry.key, (entry.value, entry.origin != Origin::Default));
    (findings.entries.into_iter().map(entry).collect(), findings.errors)
}

#[test]
fn the_shipped_files_change_nothing() {
    let shipped =
        written(&[("fjord.toml", FJORD), ("gateway.toml", GATEWAY), ("worker.toml", WORKER)]);
    let loaded = Config::load(&sources(shipped.path(), None)).unwrap();
    assert!(loaded.entries.iter().all(|entry| entry.origin == Origin::Default));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    let (entries, errors) = read_all(&uncommented(FJORD));
    let allowed = [
        "expected either",
        "more than one way",
        "client_ca: expected",
        "is true and",
        "found both",
    ];
    let unexpected: Vec<String> = errors
        .iter()
        .map(ToString::to_string)
        .filter(|line| !allowed.iter().any(|part| line.contains(part)))
        .collect();
    assert_eq!(unexpected, Vec::<String>::new());
    let absent: Vec<_> = entries.iter().filter(|(_, (_, written))| !written).map(|e| e.0).collect();
    // Both forms of the one default are in the file's words.
    assert_eq!(absent, Vec::<&String>::new(), "keys that fjord knows and config/fjord.toml lacks");
}

#[test]
fn a_shipped_value_is_the_default() {
    let (written, _) = read_all(&uncommented(FJORD));
    // What has no default is not set, or not there, when the tables it stands in are empty.
    let (defaults, _) = read_all(
        "[auth.jwt.main]\n[auth.api_keys.billing]\n[auth.certificates.\"dns:clinic.example\"]\n[worker.queues.\"*\"]\n\
         [catalogue.auth_default]\n[procedures.databases.default]\nbackend = \"mssql\"\n\
         [procedures.databases.default.mssql]\n[procedures.databases.default.sqlite]\n[gateway.tls]\n",
    );
    let differing: Vec<String> = defaults
        .iter()
        .filter(|(key, (value, is_written))| {
            let shipped = written.get(*key).and_then(|(value, _)| value.as_ref());
            value.is_some() && !is_written && shipped != value.as_ref()
        })
        .filter(|(key, _)| !EXAMPLES.contains(&key.as_str()))
        .map(|(key, (value, _))| {
            format!("{key}: default {value:?}, shipped {:?}", written.get(key))
        })
        .collect();
    assert_eq!(differing, Vec::<String>::new());
}

#[test]
fn the_small_files_have_known_keys() {
    for text in [GATEWAY, WORKER] {
        assert_eq!(read_all(&uncommented(text)).1, Vec::new());
    }
}
