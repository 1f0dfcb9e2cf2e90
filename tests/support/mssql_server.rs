//! The servers on which the SQL Server suite runs: the fake server, and a real one if configured.

use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::names::quoted;
use fjord::config::Secret;
use fjord::config::procedures::{MssqlConfig, MssqlEncryption, SessionKey};
use fjord::config::tls::ClientTlsConfig;
use tokio::sync::OnceCell;
use tokio_util::compat::TokioAsyncWriteCompatExt;

use super::resetting_connection::{self, ResettingClient};
use super::tds::{FakeSqlServer, FakeState, PASSWORD, schema};

/// The environment variable with the ADO connection string of a real server.
const VARIABLE: &str = "FJORD_TEST_MSSQL";

/// The views that list the objects that an earlier run may have left behind, in an order in which
/// they can be dropped.
const LEFT_BEHIND: [(&str, &str); 4] = [
    ("PROCEDURE", "sys.procedures"),
    ("VIEW", "sys.views"),
    ("TYPE", "sys.table_types"),
    ("TABLE", "sys.tables"),
];

/// A server of the suite.
#[derive(Debug)]
pub(crate) struct SqlServer {
    /// The server's name in messages.
    pub(crate) name: &'static str,
    /// The configuration of connections to the server.
    pub(crate) config: MssqlConfig,
    /// Whether the server is Babelfish, which differs in known ways (docs/TESTING.md).
    pub(crate) is_babelfish: bool,
    /// The fake server, or `None` for a real one.
    pub(crate) fake: Option<FakeSqlServer>,
}

impl SqlServer {
    /// Returns the state of the fake server.
    pub(crate) fn state(&self) -> Arc<FakeState> {
        Arc::clone(&self.fake.as_ref().expect("this is the fake server").state)
    }
}

/// Returns all available servers.
pub(crate) async fn servers() -> Vec<SqlServer> {
    let mut servers = vec![fake_server().await];
    if let Some(config) = real() {
        static OBJECTS: OnceCell<bool> = OnceCell::const_new();
        let is_babelfish = *Box::pin(OBJECTS.get_or_init(|| create_objects(&config))).await;
        servers.push(SqlServer { name: "the real server", config, is_babelfish, fake: None });
    } else {
        eprintln!("SKIPPED on a real SQL Server: {VARIABLE} is not set (docs/TESTING.md)");
    }
    servers
}

/// Starts only the fake server, for faults that a real server cannot produce on demand.
pub(crate) async fn fake_server() -> SqlServer {
    let fake = FakeSqlServer::start().await;
    let ca = Some(fake.ca.clone());
    let encryption = MssqlEncryption::Required(ClientTlsConfig { ca, identity: None });
    let (host, port) = ("127.0.0.1".to_owned(), fake.address.port());
    let config = config(host, port, encryption);
    SqlServer { name: "the fake server", config, is_babelfish: false, fake: Some(fake) }
}

fn config(host: String, port: u16, encryption: MssqlEncryption) -> MssqlConfig {
    MssqlConfig {
        host,
        port,
        instance: None,
        database: "fjord".to_owned(),
        user: "fjord".to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
        tokens: None,
        encryption,
        certificate_name: None,
        read_only: false,
        session_context: SessionKey::ALL.to_vec(),
        connections_max: 4,
        pools: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        cancel_timeout: Duration::from_secs(2),
        connection_age_max: Duration::from_mins(10),
        deadlock_retries: 2,
    }
}

/// Returns the configuration of the real server, parsed from its ADO connection string.
pub(crate) fn real() -> Option<MssqlConfig> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test server is not part of fjord's configuration"
    )]
    let text = std::env::var(VARIABLE).ok()?;
    let value = |names: &[&str]| {
        let mut parts = text.split(';').filter_map(|part| part.split_once('='));
        let found = parts.find(|(key, _)| names.contains(&key.trim().to_lowercase().as_str()));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let server = value(&["server", "data source"]).expect("the connection string has a server");
    let server = server.strip_prefix("tcp:").unwrap_or(&server).to_owned();
    let (host, port) = server.split_once(',').unwrap_or((&server, "1433"));
    let database =
        value(&["database", "initial catalog"]).expect("the connection string has a database");
    let user = value(&["user id", "uid", "user"]).expect("the connection string has a user");
    let password = value(&["password", "pwd"]).expect("the connection string has a password");
    let trusts_any = value(&["trustservercertificate"])
        .is_some_and(|word| matches!(word.to_lowercase().as_str(), "true" | "yes"));
    let encryption = if trusts_any {
        MssqlEncryption::TrustAny
    } else {
        MssqlEncryption::Required(ClientTlsConfig::default())
    };
    let port = port.trim().parse().expect("the port is a number");
    let config = config(host.to_owned(), port, encryption);
    Some(MssqlConfig { database, user, password: Secret::new(password), ..config })
}

/// The driver's client, used directly to create objects and to compare fjord's backend with it.
pub(crate) type DirectClient = tiberius::Client<tokio_util::compat::Compat<tokio::net::TcpStream>>;

/// Opens a connection directly with the driver.
pub(crate) async fn direct(config: &MssqlConfig) -> DirectClient {
    let (driver, tcp) = dialled(config).await;
    Box::pin(tiberius::Client::connect(driver, tcp.compat_write()))
        .await
        .expect("the login succeeds")
}

/// Opens a connection directly with the driver. Each request resets the connection. Without `has_timer`, the driver does
/// not limit the time of requests.
pub(crate) async fn resetting(config: &MssqlConfig, has_timer: bool) -> ResettingClient {
    let (mut driver, tcp) = dialled(config).await;
    if !has_timer {
        driver.command_timeout(None);
    }
    resetting_connection::connect(driver, tcp).await
}

async fn dialled(config: &MssqlConfig) -> (tiberius::Config, tokio::net::TcpStream) {
    let mut driver = tiberius::Config::new();
    driver.host(&config.host);
    driver.port(config.port);
    driver.database(&config.database);
    driver.trust_cert();
    let auth = tiberius::AuthMethod::sql_server(&config.user, config.password.expose());
    driver.authentication(auth);
    let tcp = tokio::net::TcpStream::connect(driver.get_addr())
        .await
        .expect("the server accepts connections");
    tcp.set_nodelay(true).expect("the socket option can be set");
    (driver, tcp)
}

/// Drops and recreates the objects of `mssql.sql`. Returns whether the server is Babelfish.
async fn create_objects(config: &MssqlConfig) -> bool {
    let mut client = Box::pin(direct(config)).await;
    recreate(&mut client, "fjord_test", schema::SQL).await;
    let version =
        client.simple_query("SELECT @@VERSION").await.expect("the query returns the version");
    let version = version.into_row().await.expect("the query returns the version").expect("a row");
    version.get::<&str, _>(0).is_some_and(|text| text.contains("Babelfish"))
}

/// Drops all objects of a database schema, and creates those of a script.
pub(crate) async fn recreate(client: &mut DirectClient, schema: &str, script: &str) {
    let batches: Vec<&str> = script.split("\nGO").map(str::trim).collect();
    let batches: Vec<String> = batches
        .iter()
        .map(|batch| {
            let lines = batch.lines().filter(|line| !line.starts_with("--"));
            lines.collect::<Vec<_>>().join("\n")
        })
        .filter(|batch| !batch.is_empty())
        .collect();
    for (kind, view) in LEFT_BEHIND {
        let query = format!("SELECT name FROM {view} WHERE schema_id = SCHEMA_ID('{schema}')");
        let names = client.simple_query(query).await.expect("the query succeeds");
        let names = names.into_first_result().await.expect("the query returns names");
        let names: Vec<_> = names.iter().filter_map(|row| row.get::<&str, _>(0)).collect();
        for name in names {
            let drop = format!("DROP {kind} {schema}.{}", quoted(name));
            run(client, &drop).await.unwrap_or_else(|error| panic!("{error}: {drop}"));
        }
    }
    // The schema does not exist on the first run.
    let _ignored = run(client, &format!("DROP SCHEMA {schema}")).await;
    for batch in &batches {
        if let Err(error) = run(client, batch).await {
            panic!("{error}: {batch}");
        }
    }
}

async fn run(client: &mut DirectClient, sql: &str) -> tiberius::Result<()> {
    client.simple_query(sql).await?.into_results().await.map(|_| ())
}
