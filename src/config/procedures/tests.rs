//! Tests for the settings of a SQL Server database.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::cli::Role;
use crate::config::{Config, ConfigError, Sources};

/// The beginning of the database's keys.
const KEY: &str = "procedures.databases.default.mssql.";
/// A login with a password.
const LOGIN: &str = "user = 'u'\npassword = 'p'\n";

/// A configuration directory with the files that the settings name.
struct ConfigDirectory(TempDir);

impl ConfigDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "token", "password"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads the settings of a database. Each error is returned without the directory and the
    /// beginning of its key.
    fn read(&self, lines: &str) -> Result<MssqlConfig, Vec<String>> {
        let text = format!(
            "[messaging.nats]\nservers = ['tls://n:4222']\n[worker.queues.a]\n\
             [procedures.databases.default]\nbackend = 'mssql'\n\
             [procedures.databases.default.mssql]\nhost = 'h'\ndatabase = 'd'\n{lines}\n"
        );
        std::fs::write(self.path().join("fjord.toml"), text).unwrap();
        let directory = Some(self.path().to_owned());
        let role = Some(Role::Worker);
        match Config::load(&Sources { directory, role, ..Sources::default() }) {
            Ok(mut loaded) => match loaded.config.procedures.databases.remove("default") {
                Some(DatabaseConfig::Mssql(config)) => Ok(*config),
                other => panic!("{other:?}"),
            },
            Err(errors) => Err(errors.iter().map(|error| self.shortened(error)).collect()),
        }
    }

    fn shortened(&self, error: &ConfigError) -> String {
        let text = error.to_string().replace(&format!("{}/", self.path().display()), "");
        text.split_once(KEY).map_or(text.as_str(), |(_, rest)| rest).to_owned()
    }

    #[track_caller]
    fn valid(&self, lines: &str) -> MssqlConfig {
        self.read(lines).unwrap_or_else(|errors| panic!("{lines}: {errors:#?}"))
    }

    /// Checks that the settings have exactly these errors.
    #[track_caller]
    fn refuses(&self, lines: &str, expected: &[&str]) {
        assert_eq!(self.read(lines).unwrap_err(), expected, "{lines}");
    }
}

#[test]
fn the_encryption_is_the_one_that_the_keys_select() {
    let directory = ConfigDirectory::new();
    let default = ClientTlsConfig::default;
    let own_authority = || ClientTlsConfig {
        ca: Some(directory.path().join("ca.pem")),
        ..ClientTlsConfig::default()
    };
    for (lines, expected) in [
        ("", MssqlEncryption::Required(default())),
        ("encrypt = 'mandatory'", MssqlEncryption::Required(default())),
        ("encrypt = 'strict'", MssqlEncryption::Strict(default())),
        ("tls.ca = 'ca.pem'", MssqlEncryption::Required(own_authority())),
        ("encrypt = 'strict'\ntls.ca = 'ca.pem'", MssqlEncryption::Strict(own_authority())),
        ("insecure_trust_any = true", MssqlEncryption::TrustAny),
        ("insecure_trust_any = false", MssqlEncryption::Required(default())),
    ] {
        assert_eq!(directory.valid(&format!("{LOGIN}{lines}")).encryption, expected, "{lines}");
    }
    let named =
        directory.valid(&format!("{LOGIN}encrypt = 'strict'\ncertificate_name = 'db.example'"));
    assert_eq!(named.certificate_name.as_deref(), Some("db.example"));
}

#[test]
fn an_encryption_that_cannot_be_meant_is_an_error() {
    let directory = ConfigDirectory::new();
    for (lines, expected) in [
        ("encrypt = 'required'", "encrypt: expected one of mandatory, strict"),
        ("encrypt = 'Strict'", "encrypt: expected one of mandatory, strict"),
        (
            "encrypt = 'strict'\ninsecure_trust_any = true",
            "insecure_trust_any: is true and encrypt is strict: expected one of the two",
        ),
        (
            "insecure_trust_any = true\ntls.ca = 'ca.pem'",
            "insecure_trust_any: conflicts with the tls table: remove one of them",
        ),
    ] {
        directory.refuses(&format!("{LOGIN}{lines}"), &[expected]);
    }
}

#[test]
fn a_server_has_a_port_or_an_instance() {
    let directory = ConfigDirectory::new();
    let instance =
        |name: &str, browser_port| Some(MssqlInstance { name: name.to_owned(), browser_port });
    for (lines, port, expected) in [
        ("", 1433, None),
        ("port = 65535", 65535, None),
        ("instance = 'SQLEXPRESS'", 1433, instance("SQLEXPRESS", 1434)),
        ("instance = 'a$b#c_1'\nbrowser_port = 1", 1433, instance("a$b#c_1", 1)),
        ("instance = 'ABCDEFGHIJKLMNOP'", 1433, instance("ABCDEFGHIJKLMNOP", 1434)),
        // Without an instance, no port is looked up.
        ("browser_port = 1435", 1433, None),
    ] {
        let config = directory.valid(&format!("{LOGIN}{lines}"));
        assert_eq!((config.port, config.instance), (port, expected), "{lines}");
    }
}

#[test]
fn an_instance_that_cannot_be_looked_up_is_an_error() {
    let directory = ConfigDirectory::new();
    // The default port is an error, too: only one of the two keys can be meant.
    for lines in ["instance = 'A'\nport = 11433", "instance = 'A'\nport = 1433"] {
        let expected = "instance: expected either instance or port, found both";
        directory.refuses(&format!("{LOGIN}{lines}"), &[expected]);
    }
    for name in ["", "ABCDEFGHIJKLMNOPQ", "A B", "A\\B", "A;B", "Ä"] {
        let expected =
            "instance: expected 1 to 16 characters: ASCII letters and digits, '_', '$' or '#'";
        directory.refuses(&format!("{LOGIN}instance = '{name}'"), &[expected]);
    }
    for lines in ["browser_port = 0", "instance = 'A'\nbrowser_port = 0"] {
        let expected = "browser_port: expected 1 to 65535, found 0";
        directory.refuses(&format!("{LOGIN}{lines}"), &[expected]);
    }
}

#[test]
fn the_session_context_has_the_keys_that_are_listed() {
    let directory = ConfigDirectory::new();
    for (lines, expected) in [
        ("", &SessionKey::ALL[..]),
        ("session_context = []", &[]),
        ("session_context = ['trace_id']", &[SessionKey::TraceId]),
        (
            "session_context = ['principal', 'request_id', 'endpoint']",
            &[SessionKey::Principal, SessionKey::RequestId, SessionKey::Endpoint],
        ),
    ] {
        let config = directory.valid(&format!("{LOGIN}{lines}"));
        assert_eq!(config.session_context, expected, "{lines}");
    }
}

#[test]
fn an_unknown_or_repeated_key_of_the_session_context_is_an_error() {
    let directory = ConfigDirectory::new();
    let unknown = |name: &str| {
        format!(
            "session_context: expected any of request_id, trace_id, endpoint, principal, found {name}"
        )
    };
    let twice = "session_context: endpoint is given more than once";
    for (keys, expected) in [
        ("'user'", vec![unknown("user")]),
        ("'Principal'", vec![unknown("Principal")]),
        ("'endpoint', 'endpoint'", vec![twice.to_owned()]),
        ("'endpoint', '', 'principal', 'endpoint'", vec![twice.to_owned(), unknown("")]),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        directory.refuses(&format!("{LOGIN}session_context = [{keys}]"), &expected);
    }
}

#[test]
fn access_tokens_come_from_the_selected_source() {
    let directory = ConfigDirectory::new();
    let identity = |url: &str, client_id: Option<&str>| TokenSource::ManagedIdentity {
        url: url.to_owned(),
        client_id: client_id.map(str::to_owned),
    };
    let azure = "http://169.254.169.254/metadata/identity/oauth2/token";
    for (entra, expected) in [
        ("source = 'file', file = 'token'", TokenSource::File(directory.path().join("token"))),
        ("source = 'managed-identity'", identity(azure, None)),
        (
            "source = 'managed-identity', client_id = 'c', metadata_url = 'http://[::1]:40342/t'",
            identity("http://[::1]:40342/t", Some("c")),
        ),
        (
            "source = 'command', command = ['/usr/bin/az', 'account', 'get-access-token']",
            TokenSource::Command(vec![
                "/usr/bin/az".to_owned(),
                "account".to_owned(),
                "get-access-token".to_owned(),
            ]),
        ),
    ] {
        let config = directory.valid(&format!("entra = {{ {entra} }}"));
        assert_eq!(config.tokens, Some(expected), "{entra}");
        assert_eq!(config.user, "", "{entra}");
    }
    let config = directory.valid(LOGIN);
    assert_eq!((config.tokens, config.user.as_str()), (None, "u"));
}

#[test]
fn an_incomplete_source_of_access_tokens_is_an_error() {
    let directory = ConfigDirectory::new();
    let relative = "entra.command: expected the absolute path of a program and its arguments";
    let url = "entra.metadata_url: expected an http:// URL without a query";
    for (entra, expected) in [
        ("", "entra.source: is missing: expected file, managed-identity or command"),
        ("source = 'token'", "entra.source: expected one of file, managed-identity, command"),
        ("source = 'file'", "entra.file: is missing: expected the file with the token"),
        ("source = 'file', file = 'nowhere'", "entra.file: nowhere: no such file"),
        ("source = 'command', command = ['az']", relative),
        ("source = 'command', command = []", relative),
        ("source = 'command', command = ['', '/bin/az']", relative),
        ("source = 'managed-identity', metadata_url = 'https://127.0.0.1/t'", url),
        ("source = 'managed-identity', metadata_url = 'http://127.0.0.1/t?a=b'", url),
        (
            "source = 'managed-identity', client = 'c'",
            "entra.client: is not a key: did you mean procedures.databases.default.mssql.entra.client_id?",
        ),
    ] {
        directory.refuses(&format!("entra = {{ {entra} }}"), &[expected]);
    }
}

#[test]
fn a_login_has_either_a_password_or_access_tokens() {
    let directory = ConfigDirectory::new();
    let both = "entra: expected either user and password or an entra table, found both";
    for login in ["user = 'u'", "password = 'p'", "password_file = 'password'", LOGIN] {
        directory.refuses(&format!("{login}\nentra.source = 'managed-identity'"), &[both]);
    }
    let password = "password_file: is missing: expected a file with the password";
    let user = "user: is missing: expected a string in quotes";
    directory.refuses("", &[password, user]);
    directory.refuses("user = 'u'", &[password]);
    directory.refuses("password_file = 'password'", &[user]);
    let config = directory.valid("user = 'u'\npassword_file = 'password'");
    assert_eq!(config.password.expose(), "password");
}
