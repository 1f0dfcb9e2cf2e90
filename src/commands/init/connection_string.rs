//! Parses an ADO connection string, such as `Server=sql.example,1433;Database=shop;User ID=api;Password=…`.
//!
//! The syntax and the keys are those of `SqlConnection.ConnectionString` in
//! Microsoft.Data.SqlClient.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::Secret;

/// The keys that fjord uses, each with its synonyms. Keys are compared without regard to case and spaces.
const KEYS: [(&str, &[&str]); 9] = [
    ("Server", &["server", "datasource", "address", "addr", "networkaddress"]),
    ("Database", &["database", "initialcatalog"]),
    ("User ID", &["userid", "uid", "user"]),
    ("Password", &["password", "pwd"]),
    ("TrustServerCertificate", &["trustservercertificate"]),
    ("Encrypt", &["encrypt"]),
    ("HostNameInCertificate", &["hostnameincertificate"]),
    ("Integrated Security", &["integratedsecurity", "trustedconnection"]),
    ("Authentication", &["authentication"]),
];
/// The key that requests read-only connections, and its value.
const INTENT: (&str, &str) = ("applicationintent", "readonly");
/// The keys of `SqlClient` that fjord ignores, without spaces. Any other key is not printed, because it may be part of
/// an unquoted value, such as a password that contains a semicolon.
const UNUSED_KEYS: [&str; 24] = [
    "applicationname",
    "app",
    "asynchronousprocessing",
    "connecttimeout",
    "connectiontimeout",
    "timeout",
    "commandtimeout",
    "connectretrycount",
    "connectretryinterval",
    "connectionlifetime",
    "loadbalancetimeout",
    "currentlanguage",
    "language",
    "enlist",
    "failoverpartner",
    "maxpoolsize",
    "minpoolsize",
    "multipleactiveresultsets",
    "multisubnetfailover",
    "packetsize",
    "persistsecurityinfo",
    "pooling",
    "workstationid",
    "wsid",
];
/// The prefixes of a server's address that select a protocol other than TCP.
const OTHER_PROTOCOLS: [&str; 3] = ["np:", "lpc:", "admin:"];

/// A connection string that fjord can use.
#[derive(Clone, Debug)]
pub(super) struct ConnectionString {
    host: String,
    port: Option<u16>,
    instance: Option<String>,
    database: String,
    user: String,
    password: Secret,
    trusts_any: bool,
    is_strict: bool,
    certificate_name: Option<String>,
    is_read_only: bool,
    /// The ignored keys.
    ignored: Vec<String>,
}

impl ConnectionString {
    /// Parses a connection string.
    ///
    /// # Errors
    /// Returns all errors. They never contain a value from the string.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let (values, ignored) = match split(text) {
            Ok(pairs) => by_key(pairs, &mut errors),
            Err(error) => return Err(vec![error]),
        };
        let get = |key: &str| values.get(key).map(String::as_str).unwrap_or_default();
        if is_true(get("Integrated Security")) || !get("Authentication").is_empty() {
            let password = "sqlpassword";
            if !get("Authentication").replace(' ', "").eq_ignore_ascii_case(password) {
                errors.push(
                    "expected a SQL login (User ID and Password); for Microsoft Entra ID, create the files without --mssql \
                     and see docs/SQLSERVER.md"
                        .to_owned(),
                );
            }
        }
        let mut required = |key: &str, example: &str| {
            if get(key).is_empty() {
                errors.push(format!("{key} is missing: expected {key}={example}"));
            }
            get(key).to_owned()
        };
        let server = required("Server", "host,port");
        let (database, user) = (required("Database", "name"), required("User ID", "login"));
        let password = Secret::new(required("Password", "…"));
        let (host, port, instance) = parse_server(&server, &mut errors);
        let encrypt = get("Encrypt").to_ascii_lowercase();
        if !matches!(encrypt.as_str(), "" | "true" | "yes" | "mandatory" | "strict") {
            errors.push(
                "Encrypt: expected true, mandatory or strict, because fjord always uses TLS; for a server without a \
                 certificate from a known authority, add TrustServerCertificate=true"
                    .to_owned(),
            );
        }
        let is_strict = encrypt == "strict";
        let trusts_any = is_true(get("TrustServerCertificate"));
        if is_strict && trusts_any {
            errors.push(
                "TrustServerCertificate: expected false, because Encrypt is strict".to_owned(),
            );
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let certificate_name = values.get("HostNameInCertificate").cloned();
        let is_read_only = values.contains_key(INTENT.0);
        Ok(Self {
            host,
            port,
            instance,
            database,
            user,
            password,
            trusts_any,
            is_strict,
            certificate_name,
            is_read_only,
            ignored,
        })
    }

    /// Returns the password.
    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    /// Returns remarks about the ignored keys.
    pub(super) fn notes(&self) -> Option<String> {
        let ignored = self.ignored.join(", ");
        (!ignored.is_empty())
            .then(|| format!("keys of the connection string that are not used: {ignored}"))
    }

    /// Returns the advice to print if the database cannot be read.
    pub(super) fn advice(&self) -> Option<&'static str> {
        let text = "if no known authority has signed the server's certificate, TrustServerCertificate=true accepts it";
        (!self.trusts_any && !self.is_strict).then_some(text)
    }

    /// Returns the table for the database in a worker's configuration, without the password.
    pub(super) fn to_toml(&self, password_file: &str) -> String {
        let mut text = "[procedures.databases.default.mssql]\n".to_owned();
        let mut line = |key: &str, value: &str| {
            // The escapes in a JSON string are also valid in a TOML basic string. Writing to a string cannot fail.
            writeln!(text, "{key} = {}", serde_json::Value::from(value)).ok();
        };
        line("host", &self.host);
        if let Some(instance) = &self.instance {
            line("instance", instance);
        }
        line("database", &self.database);
        line("user", &self.user);
        line("password_file", password_file);
        if self.is_strict {
            line("encrypt", "strict");
        }
        if let Some(name) = &self.certificate_name {
            line("certificate_name", name);
        }
        if let Some(port) = self.port {
            writeln!(text, "port = {port}").ok();
        }
        if self.is_read_only {
            text.push_str("read_only = true\n");
        }
        if self.trusts_any {
            text.push_str(
                "# The server's certificate is not verified. To verify it, set tls.ca to the certificate of its authority instead.\n\
                 insecure_trust_any = true\n",
            );
        } else {
            text.push_str(
                "# The CA that signed the server's certificate, unless this system trusts it.\n\
                 #tls.ca = \"tls/mssql-ca.pem\"\n",
            );
        }
        text
    }
}

fn is_true(value: &str) -> bool {
    ["true", "yes", "sspi"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Splits a connection string into keys and values. A value that contains a semicolon is quoted, and quotes inside it
/// are doubled.
fn split(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches([';', ' ']);
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| "expected key=value pairs, separated by semicolons".to_owned())?;
        let key = key.trim();
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, after) = if let Some(quote) = quote {
            unquote(after, quote)
                .ok_or_else(|| format!("{key}: expected a closing quote, then a semicolon"))?
        } else {
            let (value, after) = after.split_once(';').unwrap_or((after, ""));
            (value.trim().to_owned(), after)
        };
        pairs.push((key.to_owned(), value));
        rest = after.trim_start_matches([';', ' ']);
    }
    Ok(pairs)
}

/// Returns the quoted value at the start of `text`, and the text after the semicolon that ends it.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let (part, after) = rest.split_once(quote)?;
        value.push_str(part);
        if let Some(after) = after.strip_prefix(quote) {
            value.push(quote);
            rest = after;
        } else {
            let after = after.trim_start();
            let end = if after.is_empty() { Some(after) } else { after.strip_prefix(';') };
            return end.map(|after| (value, after));
        }
    }
}

/// Returns the values of the keys in `KEYS`, and the names of the other keys. If a key is repeated, its last value is
/// used.
fn by_key(
    pairs: Vec<(String, String)>,
    errors: &mut Vec<String>,
) -> (BTreeMap<&'static str, String>, Vec<String>) {
    let (mut values, mut ignored, mut has_unknown) = (BTreeMap::new(), Vec::new(), false);
    for (key, value) in pairs {
        let plain = key.replace([' ', '_'], "").to_lowercase();
        let known = KEYS.iter().find(|(_, names)| names.contains(&plain.as_str()));
        if let Some((name, _)) = known {
            values.insert(*name, value);
        } else if plain == INTENT.0 {
            if value.eq_ignore_ascii_case(INTENT.1) {
                values.insert(INTENT.0, value);
            }
        } else if plain.is_empty() {
            errors.push("expected a key before '='".to_owned());
        } else if UNUSED_KEYS.contains(&plain.as_str()) {
            ignored.push(key);
        } else {
            has_unknown = true;
        }
    }
    if has_unknown {
        let text = "contains an unknown key; a value with a semicolon, such as a password, must be in quotes";
        errors.push(text.to_owned());
    }
    (values, ignored)
}

/// Parses `[tcp:]host[\instance][,port]`.
fn parse_server(server: &str, errors: &mut Vec<String>) -> (String, Option<u16>, Option<String>) {
    let lower = server.to_ascii_lowercase();
    if OTHER_PROTOCOLS.iter().any(|protocol| lower.starts_with(protocol)) {
        errors.push("Server: expected a TCP address, such as tcp:host,1433".to_owned());
    }
    let address = if lower.starts_with("tcp:") { server.get(4..) } else { Some(server) };
    let address = address.unwrap_or_default().trim();
    let (name, port) = match address.split_once(',') {
        Some((name, port)) => (name.trim(), Some(port.trim())),
        None => (address, None),
    };
    let number = port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    if port.is_some() && number.is_none() {
        errors.push("Server: expected a port of 1 to 65535 after the comma".to_owned());
    }
    let (host, instance) = match name.split_once('\\') {
        Some((host, instance)) => (host.trim(), Some(instance.trim().to_owned())),
        None => (name, None),
    };
    let host = if matches!(host, "." | "(local)") { "localhost" } else { host };
    if host.to_ascii_lowercase().starts_with("(localdb)") {
        errors.push("Server: LocalDB has no TCP address; expected a server with one".to_owned());
    }
    // As in SqlClient, the port takes precedence over the instance name.
    let instance = if number.is_some() { None } else { instance };
    (host.to_owned(), number, instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> String {
        let parsed = ConnectionString::parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let toml = parsed.to_toml("secrets/p");
        let keys = toml.lines().filter(|line| !line.starts_with(['#', '[']));
        keys.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn every_form_becomes_a_table() {
        let rest = "Database=shop;User ID=api;Password=x";
        let common = r#"database = "shop"; user = "api"; password_file = "secrets/p""#;
        for (server, expected) in [
            ("Server=sql.example", format!(r#"host = "sql.example"; {common}"#)),
            (
                "data source = tcp:sql.example,1444",
                format!(r#"host = "sql.example"; {common}; port = 1444"#),
            ),
            (
                r"Server=.\SQLEXPRESS",
                format!(r#"host = "localhost"; instance = "SQLEXPRESS"; {common}"#),
            ),
            (r"Server=(local)\A,1444", format!(r#"host = "localhost"; {common}; port = 1444"#)),
            (
                "Addr=a;Encrypt=Strict;HostNameInCertificate=b",
                format!(r#"host = "a"; {common}; encrypt = "strict"; certificate_name = "b""#),
            ),
            (
                "Server=a;Trust Server Certificate=Yes;ApplicationIntent=ReadOnly",
                format!(r#"host = "a"; {common}; read_only = true; insecure_trust_any = true"#),
            ),
        ] {
            assert_eq!(table(&format!("{server};{rest}")), expected, "{server}");
        }
    }

    #[test]
    fn a_quoted_value_may_contain_anything() {
        for (written, password) in [
            ("a=b", "a=b"),
            (" a b ", "a b"),
            ("'a;b'", "a;b"),
            (r#""it's ""so"" ; ""#, r#"it's "so" ; "#),
            ("'it''s'", "it's"),
        ] {
            let text = format!("Server=s;Database=d;UID=u;PWD={written};Encrypt=true;");
            let parsed = ConnectionString::parse(&text).unwrap();
            assert_eq!(parsed.password().expose(), password, "{written}");
            assert!(!format!("{parsed:?}").contains(password), "the password is not shown");
        }
    }

    #[test]
    fn all_errors_are_reported_without_values() {
        let text = "Server=np:pipe,x;Encrypt=false;Integrated Security=SSPI;Password=hunter2";
        let errors = ConnectionString::parse(text).unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:#?}");
        assert!(!errors.concat().contains("hunter2"));
        assert!(ConnectionString::parse("hunter2").unwrap_err().concat().contains("key=value"));
        assert!(ConnectionString::parse("Password='hunter2").is_err());
        let text = "Server=a;Database=b;User ID=c;Password=hun;ter2=x";
        let errors = ConnectionString::parse(text).unwrap_err().concat();
        assert!(errors.contains("must be in quotes") && !errors.contains("ter2"), "{errors}");
    }

    #[test]
    fn keys_that_are_not_used_are_named() {
        let text =
            "Server=s;Database=d;UID=u;PWD=p;Connect Timeout=5;MultipleActiveResultSets=true";
        let notes = ConnectionString::parse(text).unwrap().notes();
        let expected = "keys of the connection string that are not used: Connect Timeout, MultipleActiveResultSets";
        assert_eq!(notes.as_deref(), Some(expected));
    }
}
