//! The server on which the workers call procedures. It is the one that `FJORD_TEST_MSSQL` names, or
//! else the tests' fake server, which runs in its own process.

use std::path::Path;

use clap::Args;
use fjord::config::procedures::{MssqlConfig, MssqlEncryption};

use crate::benchmark::processes::{this, wait_for_line};
use crate::support::mssql_server;
use crate::support::process::Process;
use crate::support::tds::{FakeSqlServer, PASSWORD};

/// Runs the fake server.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FakeServerCommand {}

impl FakeServerCommand {
    pub(crate) async fn run(self) {
        let server = FakeSqlServer::start().await;
        println!("listening {} {}", server.address.port(), server.ca.display());
        std::future::pending::<()>().await;
    }
}

/// A server for the benchmark, and the login of the workers.
pub(super) struct BenchSqlServer {
    pub(super) name: &'static str,
    host: String,
    port: u16,
    database: String,
    user: String,
    password: String,
    /// The line in `worker.toml` that makes the worker trust the server's certificate. Empty if
    /// none is needed.
    trust: String,
    /// The process of the fake server.
    _process: Option<Process>,
}

impl BenchSqlServer {
    /// Starts the fake server, or creates the procedures on the real one.
    pub(super) async fn start(home: &Path) -> Self {
        if mssql_server::real().is_some() {
            return Self::real(mssql_server::servers().await.pop().expect("a server").config);
        }
        let process = Process::start("sql server", this("sql-server"), &home.join("sql-server"));
        let line = wait_for_line(&process, "listening ").await;
        let (port, ca) = line.split_once(' ').expect("a port and a file");
        Self {
            name: "the fake server",
            host: "127.0.0.1".to_owned(),
            port: port.parse().expect("a port"),
            database: "fjord".to_owned(),
            user: "fjord".to_owned(),
            password: PASSWORD.to_owned(),
            trust: format!("tls.ca = '{ca}'"),
            _process: Some(process),
        }
    }

    fn real(config: MssqlConfig) -> Self {
        let trusts_any = matches!(config.encryption, MssqlEncryption::TrustAny);
        Self {
            name: "the real server",
            password: config.password.expose().to_owned(),
            host: config.host,
            port: config.port,
            database: config.database,
            user: config.user,
            trust: if trusts_any { "insecure_trust_any = true".to_owned() } else { String::new() },
            _process: None,
        }
    }

    /// Returns the keys of a database in `worker.toml`.
    pub(super) fn toml(&self) -> String {
        let Self { host, port, database, user, password, trust, .. } = self;
        format!(
            "host = '{host}'\nport = {port}\ndatabase = '{database}'\nuser = '{user}'\n\
             password = '{password}'\n{trust}\n"
        )
    }

    /// Returns the connection string for go-mssqldb. The connections use TLS.
    pub(super) fn connection_string(&self) -> String {
        let Self { host, port, database, user, password, .. } = self;
        format!(
            "server={host};port={port};database={database};user id={user};\
             password={password};encrypt=true;TrustServerCertificate=true"
        )
    }
}
