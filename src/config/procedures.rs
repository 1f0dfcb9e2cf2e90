//! `[procedures]`: where procedures run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::tls::ClientTlsConfig;

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
    /// Connections at once.
    pub connections_max: usize,
    /// Longest wait for a connection to be made, login included.
    pub connect_timeout: Duration,
    /// Longest wait for a cancel to be acknowledged.
    pub cancel_timeout: Duration,
    /// After this long a connection is replaced.
    pub connection_age_max: Duration,
    /// How often a deadlock victim is tried again.
    pub deadlock_retries: u32,
}

/// How a connection to SQL Server is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MssqlEncryption {
    /// TLS, the certificate checked.
    Required(ClientTlsConfig),
    /// TLS with any certificate: `insecure_trust_any = true`.
    TrustAny,
}
