//! `[procedures]`: the databases.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::limits;
use super::settings::SettingsTable;
use super::tls::ClientTlsConfig;
use crate::catalogue::QueueName;

/// The databases, by name. Queues use the one named `default` unless they name another.
#[derive(Clone, Debug)]
pub struct ProceduresConfig {
    /// `[procedures.databases.<name>]`.
    pub databases: BTreeMap<String, DatabaseConfig>,
}

/// One database.
#[derive(Clone, Debug)]
pub enum DatabaseConfig {
    /// `SQLite`, embedded. SQL files take the place of procedures.
    Sqlite(SqliteConfig),
    /// SQL Server.
    Mssql(MssqlConfig),
}

/// `[procedures.databases.<name>.sqlite]`.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The database file; created if it does not exist.
    pub file: PathBuf,
    /// SQL run once on a new database file.
    pub schema: Option<PathBuf>,
    /// The directory of `<schema>.<name>.sql` files.
    pub procedures: PathBuf,
    /// The most connections at once.
    pub connections_max: usize,
}

/// `[procedures.databases.<name>.mssql]`.
#[derive(Clone, Debug)]
pub struct MssqlConfig {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The SQL login.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// How the connection is encrypted.
    pub encryption: MssqlEncryption,
    /// The name in the server's certificate, if it differs from `host`.
    pub certificate_name: Option<String>,
    /// Whether all connections are read-only (`ApplicationIntent=ReadOnly`).
    pub read_only: bool,
    /// The most connections at once, in all pools together.
    pub connections_max: usize,
    /// The connection pools of its queues, the one with the most queues first; empty while the queues are unknown.
    pub pools: Vec<PoolConfig>,
    /// The longest wait for a connection, including the login.
    pub connect_timeout: Duration,
    /// The longest wait for the acknowledgement of a cancellation.
    pub cancel_timeout: Duration,
    /// The age at which a connection is replaced.
    pub connection_age_max: Duration,
    /// The most retries after a deadlock, or after a conflict under snapshot isolation.
    pub deadlock_retries: u32,
}

/// The default program name of connections, which `sys.dm_exec_sessions` shows.
pub const APPLICATION_NAME: &str = "fjord";

/// The connections that queues of a database share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The program name of the connections.
    pub application_name: String,
    /// The most connections at once.
    pub connections_max: usize,
    /// The most calls that its queues execute at once, together.
    pub concurrency: usize,
    /// The queues.
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

/// How a connection to SQL Server is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MssqlEncryption {
    /// TLS with a verified certificate.
    Required(ClientTlsConfig),
    /// TLS with any certificate (`insecure_trust_any = true`).
    TrustAny,
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
    /// Reads the table of the chosen backend. The other backend's table, which may come from a lower layer, is validated without
    /// checking its files.
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
                Some(Self::Mssql(table.table("mssql", MssqlConfig::read)))
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
            procedures: table.get_path("procedures").unwrap_or_default(),
            connections_max: table.get_limited("connections_max", limits::SQLITE_CONNECTIONS_MAX),
        }
    }
}

impl MssqlConfig {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        if !table.has_secret("password") {
            table
                .error("password_file", "is missing: expected a file with the password".to_owned());
        }
        Self {
            host: table.get_required("host"),
            port: table.get_limited("port", limits::MSSQL_PORT),
            database: table.get_required("database"),
            user: table.get_required("user"),
            password: table.get_secret("password").unwrap_or_else(|| Secret::new(String::new())),
            encryption: MssqlEncryption::read(table),
            certificate_name: table.get("certificate_name"),
            read_only: table.get_or("read_only", false),
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

impl MssqlEncryption {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let trust_any = table.get_or("insecure_trust_any", false);
        if trust_any && table.has("tls") {
            let expected = "is true and a tls table is set: expected one of the two";
            table.error("insecure_trust_any", expected.to_owned());
        } else if trust_any {
            table.warn("insecure_trust_any", "the certificate of SQL Server is not verified");
        }
        let tls = table.table("tls", ClientTlsConfig::read);
        if trust_any { Self::TrustAny } else { Self::Required(tls) }
    }
}
