//! Tests that the shipped configuration files contain every key with its default value.

use std::collections::BTreeMap;

use super::*;

const FJORD: &str = include_str!("../../../config/fjord.toml");
const GATEWAY: &str = include_str!("../../../config/gateway.toml");
const WORKER: &str = include_str!("../../../config/worker.toml");

/// Keys whose shipped value is an example, because they have no default.
const EXAMPLES: &[&str] = &[
    "auth.api_keys.billing.expires_at",
    "auth.api_keys.billing.sha256",
    "auth.api_keys.billing.claims.stable",
];

/// Uncomments the keys in a file: `#key` and `#[section]`, but not `# text`.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// All keys, each with its value and whether a layer sets it.
type ShippedKeys = BTreeMap<String, (Option<String>, bool)>;

/// Reads all keys and their values. Also returns the errors, because the shipped file sets each
/// secret in several ways and names files that do not exist.
fn read_all(text: &str) -> (ShippedKeys, Vec<ConfigError>) {
    let directory = written(&[("fjord.toml", text)]);
    let sources = sources(directory.path(), None);
    let mut errors = Vec::new();
    let figment = sources.merge(&mut errors);
    let settings = Settings::new(figment, directory.path(), None, errors);
    settings.read(|table| read(table, &sources)).unwrap();
    let mut diagnostics = settings.into_diagnostics();
    diagnostics.report_unknown_and_missing_keys();
    let entry =
        |entry: SettingEntry| (entry.key, (entry.value, entry.origin != SettingOrigin::Default));
    (diagnostics.entries.into_iter().map(entry).collect(), diagnostics.errors)
}

#[test]
fn the_shipped_files_set_no_key() {
    let shipped =
        written(&[("fjord.toml", FJORD), ("gateway.toml", GATEWAY), ("worker.toml", WORKER)]);
    let loaded = Config::load(&sources(shipped.path(), None)).unwrap();
    assert!(loaded.entries.iter().all(|entry| entry.origin == SettingOrigin::Default));
    assert_eq!(loaded.warnings, Vec::new());
}

#[test]
fn the_shipped_file_contains_every_key_and_no_other() {
    let (entries, errors) = read_all(&uncommented(FJORD));
    let allowed = [
        "expected either",
        "more than one kind",
        "client_ca: expected",
        "is true and",
        "found both",
        "remove one of the two",
    ];
    let unexpected: Vec<String> = errors
        .iter()
        .map(ToString::to_string)
        .filter(|line| !allowed.iter().any(|part| line.contains(part)))
        .collect();
    assert_eq!(unexpected, Vec::<String>::new());
    let absent: Vec<_> = entries.iter().filter(|(_, (_, written))| !written).map(|e| e.0).collect();
    assert_eq!(absent, Vec::<&String>::new(), "keys that fjord knows and config/fjord.toml lacks");
}

#[test]
fn shipped_values_are_the_defaults() {
    let (written, _) = read_all(&uncommented(FJORD));
    // With empty tables, keys that have no default remain unset.
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
fn the_files_of_the_roles_contain_only_known_keys() {
    for text in [GATEWAY, WORKER] {
        assert_eq!(read_all(&uncommented(text)).1, Vec::new());
    }
}
