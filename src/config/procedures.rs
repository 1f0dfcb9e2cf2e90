//! `[procedures]`: where procedures run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::limits;
use super::settings::Table;
use super::tls::ClientTlsConfig;
use crate::catalogue::QueueName;

/// The databases by name; `default` is the one that queues use unless they name another.
#[derive(Clone, Debug)]
pub struct ProceduresConfig {
    /// `[procedures.databases.<name>]`.
    pub databases: BTreeMap<String, DatabaseConfig>,
}

/// One database.
#[derive(Clone, Debug)]
pub enum DatabaseConfig {
    /// `SQLite`, embedded: SQL files stand for procedures.
    Sqlite(SqliteConfig),
    /// SQL Server.
    Mssql(MssqlConfig),
}

/// `[procedures.databases.<name>.sqlite]`.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The database file; made when it is not there.
    pub file: PathBuf,
    /// SQL run once on a new database file.
    pub schema: Option<PathBuf>,
    /// The directory of `<schema>.<name>.sql` files.
    pub procedures: PathBuf,
    /// Connections at once.
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
    /// The name in the server's certificate, when it is not `host`.
    pub certificate_name: Option<String>,
    /// Whether the session only reads (`ApplicationIntent=ReadOnly`).
    pub read_only: bool,
    /// Connections at once, over all pools.
    pub connections_max: usize,
    /// The pools that its queues have, the one that most share first; none when no queues are known.
    pub pools: Vec<PoolConfig>,
    /// Longest wait for a connection to be made, login included.
    pub connect_timeout: Duration,
    /// Longest wait for a cancel to be acknowledged.
    pub cancel_timeout: Duration,
    /// After this long a connection is replaced.
    pub connection_age_max: Duration,
    /// How often a deadlock victim, or a conflict under snapshot isolation, is tried again.
    pub deadlock_retries: u32,
}

/// The program name of connections unless a queue has another: what a DBA sees in `sys.dm_exec_sessions`.
pub const APPLICATION_NAME: &str = "fjord";

/// The connections that some queues of a database share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Their program name.
    pub application_name: String,
    /// Connections at once.
    pub connections_max: usize,
    /// Calls that its queues run at once, together.
    pub concurrency: usize,
    /// The queues.
    pub queues: Vec<QueueName>,
}

impl PoolConfig {
    /// A pool without queues.
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
    /// TLS, the certificate checked.
    Required(ClientTlsConfig),
    /// TLS with any certificate: `insecure_trust_any = true`.
    TrustAny,
}

impl ProceduresConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let databases =
            table.named_tables("databases", |_, database| DatabaseConfig::read(database));
        let checked = databases.into_iter().filter_map(|(name, database)| Some((name, database?)));
        Self { databases: checked.collect() }
    }
}

#[derive(Clone, Copy)]
enum Backend {
    Mssql,
    Sqlite,
}

impl DatabaseConfig {
    /// Reads the table of the chosen backend. The other one's, left over from a lower layer, is only looked through.
    fn read(table: &mut Table<'_>) -> Option<Self> {
        table.require("backend", "\"mssql\" or \"sqlite\"");
        let words = [("mssql", Backend::Mssql), ("sqlite", Backend::Sqlite)];
        let backend =
            if table.has("backend") { table.choice("backend", &words, "mssql") } else { None };
        match backend {
            Some(Backend::Sqlite) => {
                table.optional_table("mssql", |other| MssqlConfig::read(other.ignore_files()));
                Some(Self::Sqlite(table.table("sqlite", SqliteConfig::read)))
            }
            Some(Backend::Mssql) => {
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
    fn read(table: &mut Table<'_>) -> Self {
        table.require("file", "the database file");
        table.require("procedures", "the directory of <schema>.<name>.sql files");
        Self {
            file: table.path_to("file").unwrap_or_default(),
            schema: table.file("schema"),
            procedures: table.path_to("procedures").unwrap_or_default(),
            connections_max: table.limited("connections_max", limits::SQLITE_CONNECTIONS_MAX),
        }
    }
}

impl MssqlConfig {
    fn read(table: &mut Table<'_>) -> Self {
        if !table.has_secret("password") {
            table
                .error("password_file", "is missing: expected a file with the password".to_owned());
        }
        Self {
            host: table.need("host"),
            port: table.limited("port", limits::MSSQL_PORT),
            database: table.need("database"),
            user: table.need("user"),
            password: table.secret("password").unwrap_or_else(|| Secret::new(String::new())),
            encryption: MssqlEncryption::read(table),
            certificate_name: table.get("certificate_name"),
            read_only: table.get_or("read_only", false),
            connections_max: table.limited("connections_max", limits::MSSQL_CONNECTIONS_MAX),
            pools: Vec::new(),
            connect_timeout: table.limited("connect_timeout", limits::MSSQL_CONNECT_TIMEOUT),
            cancel_timeout: table.limited("cancel_timeout", limits::MSSQL_CANCEL_TIMEOUT),
            connection_age_max: table
                .limited("connection_age_max", limits::MSSQL_CONNECTION_AGE_MAX),
            deadlock_retries: table.limited("deadlock_retries", limits::MSSQL_DEADLOCK_RETRIES),
        }
    }
}

impl MssqlEncryption {
    fn read(table: &mut Table<'_>) -> Self {
        let trust_any = table.get_or("insecure_trust_any", false);
        if trust_any && table.has("tls") {
            let expected = "is true and a tls table is set: expected one of the two";
            table.error("insecure_trust_any", expected.to_owned());
        } else if trust_any {
            table.warn("insecure_trust_any", "any certificate of the SQL Server is believed");
        }
        let tls = table.table("tls", ClientTlsConfig::read);
        if trust_any { Self::TrustAny } else { Self::Required(tls) }
    }
}
