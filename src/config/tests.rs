//! Tests for loading configurations and reporting their errors.
//!
//! The file is longer than 400 lines, because the cases share the functions at its beginning.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

mod shipped;

/// Loads a configuration that consists of one file, without a role.
pub(crate) fn load_toml(text: &str) -> Config {
    let directory = written(&[("fjord.toml", text)]);
    Config::load(&sources(directory.path(), None)).unwrap().config
}

fn written(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn sources(directory: &Path, role: Option<Role>) -> Sources {
    Sources { directory: Some(directory.to_owned()), role, ..Sources::default() }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Returns the errors in a one-file configuration. The name of the directory is replaced.
fn errors(role: Option<Role>, text: &str) -> Vec<String> {
    let directory = written(&[("fjord.toml", text)]);
    let prefix = format!("{}/", directory.path().display());
    let errors = Config::load(&sources(directory.path(), role)).unwrap_err();
    errors
        .iter()
        .map(|error| {
            error.to_string().replace(&prefix, "").replace(prefix.trim_end_matches('/'), "DIR")
        })
        .collect()
}

#[test]
fn an_empty_directory_is_a_valid_configuration_without_a_role() {
    let config = load_toml("");
    assert_eq!(config.gateway.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
    assert!(config.catalogue.directory.ends_with("endpoints"));
    assert!(config.catalogue.defaults.auth.is_none());
}

#[test]
fn a_gateway_needs_only_certificates_and_servers() {
    let directory = written(&[
        ("gateway.toml", "gateway.tls = { certificate = \"a.pem\", key = \"a.key\" }"),
        ("fjord.toml", "messaging.nats.servers = [\"tls://127.0.0.1:4222\"]"),
        ("a.pem", ""),
        ("a.key", ""),
    ]);
    let loaded = Config::load(&sources(directory.path(), Some(Role::Gateway))).unwrap();
    let tls = loaded.config.gateway.tls.unwrap();
    assert_eq!(tls.certificates[0].certificate, directory.path().join("a.pem"));
    assert!(!loaded.warnings.is_empty(), "a key that every user can read causes a warning");
    for (mode, warnings) in [(0o640, 0), (0o642, 1), (0o641, 1)] {
        let key = directory.path().join("a.key");
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let loaded = Config::load(&sources(directory.path(), Some(Role::Gateway))).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{mode:o}: {:?}", loaded.warnings);
    }
}

#[test]
fn a_lost_connection_is_replaced_within_two_pings_and_a_reconnect() {
    let config = load_toml(
        "[messaging.nats]\nping_interval = '60s'\nreconnect_delay_max = '5s'\n\
         connect_timeout = '3s'\n",
    );
    let time_max = config.messaging.transport.reconnect_time_max();
    assert_eq!(time_max, std::time::Duration::from_secs(128));
}

#[test]
fn one_caller_may_have_half_of_all_requests_in_flight() {
    let http = |text: &str| load_toml(&format!("[gateway.http]\n{text}")).gateway.http;
    for (all, half) in
        [("", 5_000), ("requests_in_flight_max = 501", 251), ("requests_in_flight_max = 1", 1)]
    {
        assert_eq!(http(all).requests_in_flight_per_caller_max, half, "{all}");
    }
    let equal = "requests_in_flight_max = 2\nrequests_in_flight_per_caller_max = 2";
    assert_eq!(http(equal).requests_in_flight_per_caller_max, 2);
    let above = format!("[gateway.http]\n{}", equal.replace("_caller_max = 2", "_caller_max = 3"));
    let expected = "fjord.toml: gateway.http.requests_in_flight_per_caller_max: expected at most \
                    gateway.http.requests_in_flight_max (2), found 3";
    assert!(errors(None, &above).iter().any(|error| error == expected), "it would have no effect");
}

#[test]
fn all_errors_are_reported_at_once() {
    let found = errors(
        Some(Role::Gateway),
        r#"
        listen = "0.0.0.0:443"
        [gateway]
        listn = "0.0.0.0:443"
        listen = 443
        trusted_proxies = ["10.0.0.0/8", "10.0.0.1/8", "balancer"]
        [gateway.http]
        connections_max = 0
        header_timeout = "10"
        uri_bytes_max = "16KiB"
        [messaging]
        prefix = "a b"
        transport = "kafka"
        [messaging.nats]
        servers = ["tls://u:hunter2@nats:4222"]
        user = "u"
        [log]
        format = "xml"
        [catalogue]
        auth_default = { methods = ["jwt", "public"] }
        [worker.queues."a.b"]
        concurrency = -1
        "#,
    );
    insta::assert_snapshot!(found.join("\n"), @r#"
    DIR: gateway.tls.certificate: is missing: expected a PEM file with the certificate chain
    DIR: gateway.tls.key: is missing: expected a PEM file with the private key
    DIR: messaging.nats.password: expected both user and password
    fjord.toml: catalogue.auth_default.methods: expected one or more of jwt, api-key, certificate
    fjord.toml: gateway.http.connections_max: expected 1 to 1000000, found 0
    fjord.toml: gateway.http.header_timeout: expected a whole number with its unit, ms, s, m, h or d, e.g. "250ms" or "2s", found another string
    fjord.toml: gateway.http.uri_bytes_max: expected less than gateway.http.header_bytes_max (16384), found 16384
    fjord.toml: gateway.listen: expected an address and a port, e.g. "0.0.0.0:8443" or "[::]:8443", found a number
    fjord.toml: gateway.listn: is not a key: did you mean gateway.listen?
    fjord.toml: gateway.trusted_proxies: "10.0.0.1/8": has bits set beyond its prefix: expected 10.0.0.0/8, or a longer prefix
    fjord.toml: gateway.trusted_proxies: "balancer": expected an address range, e.g. "10.0.0.0/8" or "fd00::/8", or an address
    fjord.toml: listen: is not a key: did you mean gateway.listen?
    fjord.toml: log.format: expected one of auto, json, text
    fjord.toml: messaging.nats.servers: expected tls://host:port or nats://host:port for at least one server, without user or password, which are keys of their own
    fjord.toml: messaging.prefix: expected NATS subject tokens joined by dots, without wildcards
    fjord.toml: messaging.transport: expected one of nats
    fjord.toml: worker.queues."a.b": expected a queue's name: letters, digits, '-', '_', and '*' for any of them
    fjord.toml: worker.queues."a.b".concurrency: expected a whole number, found a number
    "#);
}

/// The errors of a misspelt key or table do not include what is missing because of it.
#[test]
fn a_misspelt_key_is_one_error() {
    let base = "[messaging.nats]\nservers = ['tls://n:4222']\n";
    let database =
        "backend = 'mssql'\n[procedures.databases.default.mssql]\nhost = 'h'\ndatabase = 'd'\n";
    let database = format!("{base}[procedures.databases.default]\n{database}");
    for (role, text, expected) in [
        (
            Role::Gateway,
            format!("{base}[gateway.tls]\ncertifcate = '/c'\nkey = '/k'\n"),
            "gateway.tls.certifcate: is not a key: did you mean gateway.tls.certificate?",
        ),
        (
            Role::Gateway,
            format!("{base}[gateway.tlss]\ncertificate = '/c'\nkey = '/k'\n"),
            "gateway.tlss: is not a key: did you mean gateway.tls?",
        ),
        (
            Role::Gateway,
            format!("{base}[gatway]\ntls = {{ certificate = '/c', key = '/k' }}\n"),
            "gatway: is not a key: did you mean gateway?",
        ),
        (
            Role::Worker,
            format!("{base}[worker.queus]\n\"*\" = {{ concurrency = 1 }}\n"),
            "worker.queus: is not a key: did you mean worker.queues?",
        ),
        (
            Role::Worker,
            format!("{database}user = 'u'\npasword_file = '/p'\n[worker.queues.a]\n"),
            "procedures.databases.default.mssql.pasword_file: is not a key: did you mean \
             procedures.databases.default.mssql.password_file?",
        ),
        (
            Role::Worker,
            format!("{base}user = 'u'\npasword = 'p'\n[worker.queues.a]\n"),
            "messaging.nats.pasword: is not a key: did you mean messaging.nats.password?",
        ),
    ] {
        let found = errors(Some(role), &text);
        let found: Vec<&str> =
            found.iter().map(|line| line.trim_start_matches("fjord.toml: ")).collect();
        assert!(found.contains(&expected), "{found:#?}");
        let others: Vec<&&str> = found
            .iter()
            .filter(|line| !line.contains("no such file") && **line != expected)
            .collect();
        assert_eq!(others, Vec::<&&str>::new(), "{text}");
    }
}

/// A missing key is reported if the suggestion is a different key.
#[test]
fn a_missing_key_is_an_error_beside_other_misspelt_keys() {
    let text = "[messaging.nats]\nservers = ['tls://n:4222']\n[gateway.tls]\ncertificate = '/c'\n\
                client_c = '/a'\n";
    let found = errors(Some(Role::Gateway), text).join("\n");
    assert!(found.contains("client_c: is not a key"), "{found}");
    assert!(found.contains("gateway.tls.key: is missing"), "{found}");
}

/// What is missing in a table that is set is not missing because of the misspelt table.
#[test]
fn a_missing_key_is_an_error_if_the_suggested_table_is_set() {
    let base = "[messaging.nats]\nservers = ['tls://n:4222']\n";
    for (text, misspelt) in [
        ("[gatway]\nlisten = ':1'\n[gateway]\nlisten = '0.0.0.0:1'\n", "gatway"),
        ("[gateway.tlss]\nkey = '/k'\n[gateway.tls]\ncertificate = '/c'\n", "gateway.tlss"),
    ] {
        let found = errors(Some(Role::Gateway), &format!("{base}{text}")).join("\n");
        assert!(found.contains(&format!("{misspelt}: is not a key: did you mean")), "{found}");
        assert!(found.contains("gateway.tls.key: is missing"), "{found}");
    }
}

#[test]
fn each_issuer_has_its_own_table() {
    let found = errors(
        None,
        "[auth.jwt]\nissuer = 'https://a'\naudience = 'x'\nkeys = 'k'\n[auth.jwt.good]\nissuer = 'https://g/'\n\
         audiences = ['x']\nprincipal_prefix = 'g:'\n[auth.jwt.plain]\nissuer = 'http://p'\naudience = 'x'\n\
         principal_prefix = 'g:2'\n[auth.jwt.both]\nissuer = 'b'\naudiences = []\nkeys_url = 'https://b/k'\n\
         keys_refresh = '1d'\nalgorithms = ['HS256']\nprincipal_prefix = 'b:'\n",
    );
    insta::assert_snapshot!(found.join("\n"), @r#"
    fjord.toml: auth.jwt.audience: expected a table for each issuer: write [auth.jwt.NAME] instead of [auth.jwt], and audiences = ["…"] instead of audience
    fjord.toml: auth.jwt.both.algorithms: expected one or more of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
    fjord.toml: auth.jwt.both.audiences: expected one or more audiences, none of them empty
    fjord.toml: auth.jwt.both.keys_refresh: expected less than auth.jwt.both.keys_age_max (1d), found 1d
    fjord.toml: auth.jwt.plain.audience: is not a key: did you mean auth.jwt.plain.audiences?
    fjord.toml: auth.jwt.plain.issuer: if neither keys nor keys_url is set, this URL is used to discover the keys: expected https:// and a host, without user, password, query or fragment (http:// needs insecure_plain_text = true)
    fjord.toml: auth.jwt.plain.principal_prefix: "g:2" begins with the "g:" of auth.jwt.good: expected prefixes of which none is the beginning of another, because otherwise tokens of two issuers could name the same principal
    "#);
}

#[test]
fn insecure_plain_text_is_an_error_if_keys_come_from_a_file() {
    let text = "[auth.jwt.a]\nissuer = 'https://a'\naudiences = ['x']\nkeys = 'k'\n\
                insecure_plain_text = true\n";
    let found = errors(None, text).join("\n");
    let expected = "auth.jwt.a.insecure_plain_text: applies only to keys that are fetched";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn a_worker_needs_queues_servers_and_a_complete_database() {
    let text = r#"
        [procedures.databases.default]
        backend = "mssql"
        mssql = { host = "db", insecure_trust_any = true, tls = { ca = "missing.pem" } }
        [procedures.databases.other]
        [worker.queues.a]
        database = "third"
        "#;
    let found = errors(Some(Role::Worker), text);
    insta::assert_snapshot!(found.join("\n"), @r#"
    DIR: messaging.nats.servers: is missing: expected every NATS server, e.g. ["tls://nats-1.example:4222"]
    DIR: procedures.databases.default.mssql.database: is missing: expected a string in quotes
    DIR: procedures.databases.default.mssql.password_file: is missing: expected a file with the password
    DIR: procedures.databases.default.mssql.user: is missing: expected a string in quotes
    DIR: procedures.databases.other.backend: is missing: expected "mssql" or "sqlite"
    fjord.toml: procedures.databases.default.mssql.insecure_trust_any: conflicts with the tls table: remove one of them
    fjord.toml: procedures.databases.default.mssql.tls.ca: missing.pem: no such file
    fjord.toml: worker.queues.a.database: expected a database of [procedures.databases], found "third"
    "#);
}

/// An unverified server could be an impostor and would receive a token that other servers accept.
#[test]
fn an_access_token_is_not_sent_to_a_server_that_is_not_verified() {
    let text = r#"
        [messaging.nats]
        servers = ["tls://n:4222"]
        [procedures.databases.default]
        backend = "mssql"
        mssql = { host = "db", database = "d", insecure_trust_any = true, entra = { source = "managed-identity" } }
        [worker.queues.a]
        "#;
    let found = errors(Some(Role::Worker), text);
    insta::assert_snapshot!(found.join("\n"), @"fjord.toml: procedures.databases.default.mssql.insecure_trust_any: cannot be combined with an entra table, because the access token would be sent to any server: set tls.ca, or use a certificate from an authority that the system trusts");
}

#[test]
fn the_highest_layer_applies_and_is_named() {
    let directory = written(&[
        (
            "fjord.toml",
            "[log]\nfilter = \"error\"\n[gateway]\nhosts = [\"a\"]\n[worker]\nremembered_refusals_max = 1",
        ),
        (
            "worker.json",
            r#"{"log": {"filter": "warn"}, "worker": {"unsubscribe_messages_max": 7}}"#,
        ),
        ("conf.d/20-b.toml", "[log]\nfilter = \"debug\""),
        (
            "conf.d/10-a.json",
            r#"{"log": {"filter": "trace"}, "gateway": {"documentation": "off"}}"#,
        ),
        ("conf.d/30.toml.rpmsave", "not read"),
        ("gateway.toml", "not read"),
    ]);
    let mut sources = Sources {
        environment: environment(&[
            ("FJORD_GATEWAY__HOSTS", "b.example, c.example"),
            ("FJORD_WORKER__QUEUES", r#"{"horse-*": {"concurrency": 64}}"#),
            ("FJORD_HOME", "no double underscore: not configuration"),
        ]),
        sets: vec!["worker.queues.\"horse-*\".database=x".into(), "log.format=json".into()],
        ..sources(directory.path(), None)
    };
    let load = |sources: &Sources| Config::load(sources);
    sources.role = Some(Role::Worker);
    sources.sets.push("messaging.nats.servers=tls://a:1,tls://b:2".into());
    sources.sets.push("procedures.databases.x.backend=sqlite".into());
    sources
        .sets
        .push("procedures.databases.x.sqlite={\"file\": \"f\", \"procedures\": \".\"}".into());
    let loaded = load(&sources).unwrap();
    let shown = |key: &str| {
        let entry = loaded.entries.iter().find(|entry| entry.key == key).unwrap();
        let origin = match &entry.origin {
            SettingOrigin::Default => "default",
            SettingOrigin::Layer(name) => name.rsplit('/').next().unwrap(),
        };
        format!("{} {origin}", entry.value.as_deref().unwrap_or("unset"))
    };
    assert_eq!(shown("log.filter"), "\"debug\" 20-b.toml");
    assert_eq!(shown("gateway.documentation"), "\"off\" 10-a.json");
    assert_eq!(shown("worker.unsubscribe_messages_max"), "7 worker.json");
    assert_eq!(shown("worker.remembered_refusals_max"), "1 fjord.toml");
    assert_eq!(shown("gateway.hosts"), "[\"b.example\", \"c.example\"] FJORD_GATEWAY__HOSTS");
    assert_eq!(shown("worker.queues.\"horse-*\".concurrency"), "64 FJORD_WORKER__QUEUES");
    assert_eq!(shown("worker.queues.\"horse-*\".database"), "\"x\" --set");
    assert_eq!(shown("worker.claim_timeout"), "\"1s\" default");
    assert_eq!(shown("messaging.nats.user"), "unset default");
}

#[test]
fn only_sql_server_has_replicas() {
    let text = "[worker.queues.census]\napplication_intent = 'read-only'\n\
                [procedures.databases.default]\nbackend = 'sqlite'\n\
                [procedures.databases.default.sqlite]\nfile = 'f'\nprocedures = '.'\n\
                [messaging.nats]\nservers = ['tls://n:4222']\n";
    let found = errors(Some(Role::Worker), text);
    assert_eq!(
        found,
        [
            "fjord.toml: worker.queues.census.application_intent: expected \"read-write\": database default is SQLite \
          and has no replica"
        ]
    );
}

#[test]
fn a_program_name_must_fit_into_the_login() {
    let database = "[procedures.databases.default]\nbackend = 'mssql'\n\
                    [procedures.databases.default.mssql]\nhost = 'h'\ndatabase = 'd'\nuser = 'u'\n\
                    password = 'p'\nconnections_max = 2\n[messaging.nats]\nservers = ['tls://n:4222']\n";
    let named = |name: &str| format!("[worker.queues.a]\napplication_name = {name:?}\n{database}");
    for name in ["reports", "Berichte für München", &"x".repeat(128)] {
        let directory = written(&[("fjord.toml", &named(name))]);
        let loaded = Config::load(&sources(directory.path(), Some(Role::Worker))).unwrap();
        let queue = loaded.config.worker.queues.get("a").unwrap();
        assert_eq!(queue.application_name.as_deref(), Some(name));
    }
    for name in ["", " reports", "reports\t", "re\nports", &"x".repeat(129), &"𝄞".repeat(65)] {
        let found = errors(Some(Role::Worker), &named(name));
        let expected = "fjord.toml: worker.queues.a.application_name: expected 1 to 128 characters, no control \
                        character, no space at either end";
        assert_eq!(found, [expected], "{name}");
    }
    let three =
        format!("{}[worker.queues.b]\napplication_name = 'b'\n[worker.queues.c]\n", named("a"));
    let found = errors(Some(Role::Worker), &three);
    assert!(
        found.len() == 1
            && found.iter().all(|one| one.contains("connections_max: expected at least 3")),
        "{found:?}"
    );
}

#[test]
fn only_sql_server_has_program_names() {
    let text = "[worker.queues.census]\napplication_name = 'reports'\n\
                [procedures.databases.default]\nbackend = 'sqlite'\n\
                [procedures.databases.default.sqlite]\nfile = 'f'\nprocedures = '.'\n\
                [messaging.nats]\nservers = ['tls://n:4222']\n";
    let found = errors(Some(Role::Worker), text);
    let expected = "fjord.toml: worker.queues.census.application_name: expected none: database default is SQLite, which has no application names";
    assert_eq!(found, [expected]);
}
