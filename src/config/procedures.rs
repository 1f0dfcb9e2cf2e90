//! `[procedures]`: the databases.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::limits;
use super::settings::SettingsTable;
use super::tls::ClientTlsConfig;
use crate::catalogue::QueueName;

mod entra;

pub use entra::TokenSource;

/// The databases, by name. Queues that select no database use the one named `default`.
#[derive(Clone, Debug)]
pub struct ProceduresConfig {
    /// The settings of each database: `[procedures.databases.<name>]`.
    pub databases: BTreeMap<String, DatabaseConfig>,
}

/// The settings of one database.
#[derive(Clone, Debug)]
pub enum DatabaseConfig {
    /// Embedded `SQLite`. It uses SQL files instead of stored procedures.
    Sqlite(SqliteConfig),
    /// SQL Server.
    Mssql(Box<MssqlConfig>),
}

/// The settings of an `SQLite` database: `[procedures.databases.<name>.sqlite]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file. It is created if it does not exist.
    pub file: PathBuf,
    /// A SQL file that is executed once, when the database file is created.
    pub schema: Option<PathBuf>,
    /// The directory that contains the `<schema>.<name>.sql` files.
    pub procedures: PathBuf,
    /// The maximum number of concurrent connections.
    pub connections_max: usize,
}

/// The settings of a SQL Server database: `[procedures.databases.<name>.mssql]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MssqlConfig {
    /// The server's name or address.
    pub host: String,
    /// The server's TCP port.
    pub port: u16,
    /// The named instance, whose port is looked up through SQL Server Browser. It replaces `port`.
    pub instance: Option<MssqlInstance>,
    /// The name of the database on the server.
    pub database: String,
    /// The SQL login.
    pub user: String,
    /// The login's password.
    pub password: Secret,
    /// The source of access tokens. Tokens replace `user` and `password`.
    pub tokens: Option<TokenSource>,
    /// The encryption of the connections.
    pub encryption: MssqlEncryption,
    /// The name in the server's certificate, if it differs from `host`.
    pub certificate_name: Option<String>,
    /// Whether all connections are read-only (`ApplicationIntent=ReadOnly`).
    pub read_only: bool,
    /// The properties of a call that are set in the session context.
    pub session_context: Vec<SessionKey>,
    /// The maximum number of concurrent connections across all pools.
    pub connections_max: usize,
    /// The connection pools for the queues of this database. The pool with the default program name comes first. Empty
    /// until the queues are known.
    pub pools: Vec<PoolConfig>,
    /// The maximum time to open a connection, including the login.
    pub connect_timeout: Duration,
    /// The maximum time to wait for the acknowledgement of a cancellation.
    pub cancel_timeout: Duration,
    /// The age at which a connection is replaced.
    pub connection_age_max: Duration,
    /// The maximum number of retries after a deadlock or a snapshot isolation conflict.
    pub deadlock_retries: u32,
}

/// The maximum length of an instance's name.
const INSTANCE_BYTES_MAX: usize = 16;

/// The default program name of connections, as shown by `sys.dm_exec_sessions`.
pub const APPLICATION_NAME: &str = "fjord";

/// A pool of connections to a database, shared by some of its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The program name of the connections.
    pub application_name: String,
    /// The maximum number of concurrent connections.
    pub connections_max: usize,
    /// The total number of calls that the pool's queues may run concurrently.
    pub concurrency: usize,
    /// The queues that use the pool.
    pub queues: Vec<QueueName>,
}

impl PoolConfig {
    /// Creates a pool without queues.
    #[must_use]
    pub fn new(application_name: &str) -> Self {
        Self {
            application_name: application_name.to_owned(),
            connections_max: 0,
            concurrency: 0,
            queues: Vec::new(),
        }
    }
}

/// The encryption of a connection to SQL Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MssqlEncryption {
    /// TLS. The server's certificate is verified.
    Required(ClientTlsConfig),
    /// TLS before any other message (TDS 8). The server's certificate is verified.
    Strict(ClientTlsConfig),
    /// TLS. Any certificate is accepted (`insecure_trust_any = true`).
    TrustAny,
}

/// A property of a call that is set in the session context under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKey {
    /// The request's id.
    RequestId,
    /// The trace id.
    TraceId,
    /// The endpoint's id.
    Endpoint,
    /// The name of the authenticated caller.
    Principal,
}

impl SessionKey {
    /// All properties.
    pub const ALL: [Self; 4] = [Self::RequestId, Self::TraceId, Self::Endpoint, Self::Principal];

    /// Returns the name in the configuration and in the session context.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::TraceId => "trace_id",
            Self::Endpoint => "endpoint",
            Self::Principal => "principal",
        }
    }

    fn read(table: &mut SettingsTable<'_>) -> Vec<Self> {
        let all = Self::ALL.map(|key| key.as_str().to_owned()).to_vec();
        let names = table.get_or("session_context", all.clone());
        let mut keys = Vec::new();
        for name in names {
            match Self::ALL.into_iter().find(|key| key.as_str() == name) {
                Some(key) if keys.contains(&key) => {
                    table.error("session_context", format!("{name} is given more than once"));
                }
                Some(key) => keys.push(key),
                None => {
                    let expected = format!("expected any of {}, found {name}", all.join(", "));
                    table.error("session_context", expected);
                }
            }
        }
        keys
    }
}

impl ProceduresConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let databases =
            table.named_tables("databases", |_, database| DatabaseConfig::read(database));
        let checked = databases.into_iter().filter_map(|(name, database)| Some((name, database?)));
        Self { databases: checked.collect() }
    }
}

#[derive(Clone, Copy)]
enum BackendKind {
    Mssql,
    Sqlite,
}

impl DatabaseConfig {
    /// Returns whether connections made with another configuration would differ from those made with this one.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => one != other,
            (Self::Mssql(one), Self::Mssql(other)) => one.differs(other),
            (Self::Sqlite(_), Self::Mssql(_)) | (Self::Mssql(_), Self::Sqlite(_)) => true,
        }
    }

    /// Reads the table of the selected backend. The other backend's table may come from a lower layer. It is validated
    /// too, but its files are not checked.
    fn read(table: &mut SettingsTable<'_>) -> Option<Self> {
        table.require("backend", "\"mssql\" or \"sqlite\"");
        let choices = [("mssql", BackendKind::Mssql), ("sqlite", BackendKind::Sqlite)];
        let backend = if table.has("backend") {
            table.get_choice("backend", &choices, "mssql")
        } else {
            None
        };
        match backend {
            Some(BackendKind::Sqlite) => {
                table.optional_table("mssql", |other| MssqlConfig::read(other.ignore_files()));
                Some(Self::Sqlite(table.table("sqlite", SqliteConfig::read)))
            }
            Some(BackendKind::Mssql) => {
                table.optional_table("sqlite", |other| SqliteConfig::read(other.ignore_files()));
                Some(Self::Mssql(Box::new(table.table("mssql", MssqlConfig::read))))
            }
            None => {
                table.optional_table("mssql", |other| MssqlConfig::read(other.ignore_files()));
                table.optional_table("sqlite", |other| SqliteConfig::read(other.ignore_files()));
                None
            }
        }
    }
}

impl SqliteConfig {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        table.require("file", "the database file");
        table.require("procedures", "the directory of <schema>.<name>.sql files");
        Self {
            file: table.get_path("file").unwrap_or_default(),
            schema: table.get_file("schema"),
            procedures: table.get_directory("procedures").unwrap_or_default(),
            connections_max: table.get_limited("connections_max", limits::SQLITE_CONNECTIONS_MAX),
        }
    }
}

impl MssqlConfig {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let uses_tokens = table.has_table("entra");
        let has_password = table.has("user") || table.has("password") || table.has("password_file");
        if uses_tokens && has_password {
            let expected = "expected either user and password or an entra table, found both";
            table.error("entra", expected.to_owned());
        } else if !uses_tokens && !table.has_secret("password") {
            table
                .error("password_file", "is missing: expected a file with the password".to_owned());
        }
        let mut tokens = None;
        table.optional_table("entra", |entra| tokens = TokenSource::read(entra));
        if uses_tokens && table.get_or("insecure_trust_any", false) {
            let expected = "cannot be combined with an entra table, because the access token would be sent to any \
                server: set tls.ca, or use a certificate from an authority that the system trusts";
            table.error("insecure_trust_any", expected.to_owned());
        }
        Self {
            host: table.get_required("host"),
            port: table.get_limited("port", limits::MSSQL_PORT),
            instance: MssqlInstance::read(table),
            database: table.get_required("database"),
            user: if uses_tokens {
                table.get("user").unwrap_or_default()
            } else {
                table.get_required("user")
            },
            tokens,
            password: table.get_secret("password").unwrap_or_else(|| Secret::new(String::new())),
            encryption: MssqlEncryption::read(table),
            certificate_name: table.get("certificate_name"),
            read_only: table.get_or("read_only", false),
            session_context: SessionKey::read(table),
            connections_max: table.get_limited("connections_max", limits::MSSQL_CONNECTIONS_MAX),
            pools: Vec::new(),
            connect_timeout: table.get_limited("connect_timeout", limits::MSSQL_CONNECT_TIMEOUT),
            cancel_timeout: table.get_limited("cancel_timeout", limits::MSSQL_CANCEL_TIMEOUT),
            connection_age_max: table
                .get_limited("connection_age_max", limits::MSSQL_CONNECTION_AGE_MAX),
            deadlock_retries: table.get_limited("deadlock_retries", limits::MSSQL_DEADLOCK_RETRIES),
        }
    }
}

impl MssqlConfig {
    /// Returns whether connections made with another configuration would differ from those made with this one. Changes
    /// to the password and the connection limits do not affect open connections.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let with_limits = Self {
            password: self.password.clone(),
            connections_max: self.connections_max,
            pools: self.pools.clone(),
            ..other.clone()
        };
        *self != with_limits
    }
}

/// A named instance of SQL Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MssqlInstance {
    /// The name of the instance.
    pub name: String,
    /// The UDP port of SQL Server Browser on the server.
    pub browser_port: u16,
}

impl MssqlInstance {
    fn read(table: &mut SettingsTable<'_>) -> Option<Self> {
        let browser_port = table.get_limited("browser_port", limits::MSSQL_BROWSER_PORT);
        let name: String = table.get("instance")?;
        if table.has("port") {
            table.error("instance", "expected either instance or port, found both".to_owned());
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '#');
        if name.is_empty() || name.len() > INSTANCE_BYTES_MAX || !name.chars().all(is_allowed) {
            let expected = "expected 1 to 16 characters: ASCII letters and digits, '_', '$' or '#'";
            table.error("instance", expected.to_owned());
        }
        Some(Self { name, browser_port })
    }
}

impl MssqlEncryption {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let trust_any = table.get_or("insecure_trust_any", false);
        if trust_any && table.has("tls") {
            let expected = "conflicts with the tls table: remove one of them";
            table.error("insecure_trust_any", expected.to_owned());
        } else if trust_any {
            table.warn("insecure_trust_any", "the certificate of SQL Server is not verified");
        }
        let choices = [("mandatory", false), ("strict", true)];
        let is_strict = table.get_choice("encrypt", &choices, "mandatory").unwrap_or(false);
        if is_strict && trust_any {
            let expected = "is true and encrypt is strict: expected one of the two";
            table.error("insecure_trust_any", expected.to_owned());
        }
        let tls = table.table("tls", ClientTlsConfig::read);
        match (trust_any, is_strict) {
            (true, _) => Self::TrustAny,
            (false, true) => Self::Strict(tls),
            (false, false) => Self::Required(tls),
        }
    }
}

#[cfg(test)]
mod tests;
