//! A fleet of NATS servers, gateways and workers: real processes that listen on free ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::certs::Certs;
use super::client::{Client, ClientOptions};
use super::fjord_process::FjordProcess;
use super::latency_proxy::LatencyProxy;
use super::nats::{NatsCluster, NatsOptions, SHIPPED_PASSWORD};

/// The tests' catalogue. Two of its procedures write to a ledger, so that tests can count
/// executions.
const ENDPOINTS: &str = include_str!("ledger/endpoints.json");
const SCHEMA: &str = include_str!("ledger/schema.sql");
const PROCEDURES: [(&str, &str); 6] = [
    ("ledger.write.sql", include_str!("ledger/procedures/ledger.write.sql")),
    ("ledger.refuse.sql", include_str!("ledger/procedures/ledger.refuse.sql")),
    ("ledger.keyed.sql", include_str!("ledger/procedures/ledger.keyed.sql")),
    ("ledger.slow.sql", include_str!("ledger/procedures/ledger.slow.sql")),
    ("ledger.flow.sql", include_str!("ledger/procedures/ledger.flow.sql")),
    ("ledger.large.sql", include_str!("ledger/procedures/ledger.large.sql")),
];

/// The configuration of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct FleetOptions {
    /// The number of NATS servers. Two or more form a cluster.
    pub(crate) nats_servers: usize,
    /// The configuration of the NATS servers.
    pub(crate) nats: NatsOptions,
    /// Additional settings in `[messaging.nats]`.
    pub(crate) nats_keys: String,
    /// Additional settings in `[messaging.nats.tls]`. `{certificate}` and `{key}` stand for the
    /// client's files.
    pub(crate) nats_tls_keys: &'static str,
    /// The password with which fjord logs in to NATS, if it is not `SHIPPED_PASSWORD`.
    pub(crate) nats_password: Option<&'static str>,
    /// The latency added to each round trip between workers and NATS.
    pub(crate) worker_round_trip: Duration,
    /// The number of gateways.
    pub(crate) gateways: usize,
    /// The number of workers.
    pub(crate) workers: usize,
    /// The maximum number of concurrent calls per queue of a worker.
    pub(crate) concurrency: usize,
    /// The pattern of the queues that workers serve.
    pub(crate) queues: &'static str,
    /// The log filter of both roles.
    pub(crate) log_filter: &'static str,
    /// Additional settings in `[gateway]`.
    pub(crate) gateway_keys: &'static str,
    /// Additional settings in `[gateway.tls]`. `{ca}` stands for the authority's certificate.
    pub(crate) gateway_tls_keys: &'static str,
    /// The name and contents of an additional catalogue file.
    pub(crate) catalogue: Option<(&'static str, &'static str)>,
    /// The file names and contents of additional procedures.
    pub(crate) procedures: &'static [(&'static str, &'static str)],
    /// Additional lines of `gateway.toml`.
    pub(crate) gateway_toml: String,
    /// Additional lines of `worker.toml`.
    pub(crate) worker_toml: String,
    /// Additional environment variables of every process.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The executable, if it is not the one that was built with the tests.
    pub(crate) executable: Option<PathBuf>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            nats_servers: 1,
            nats: NatsOptions::default(),
            nats_keys: String::new(),
            nats_tls_keys: "",
            nats_password: None,
            worker_round_trip: Duration::ZERO,
            gateways: 1,
            workers: 1,
            concurrency: 16,
            queues: "*",
            log_filter: "info",
            gateway_keys: "",
            gateway_tls_keys: "",
            catalogue: None,
            procedures: &[],
            gateway_toml: String::new(),
            worker_toml: String::new(),
            environment: Vec::new(),
            executable: None,
        }
    }
}

/// A running fleet. All processes are stopped when it is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nats: NatsCluster,
    pub(crate) gateways: Vec<FjordProcess>,
    pub(crate) workers: Vec<FjordProcess>,
    /// The authority that issued all certificates of the fleet.
    pub(crate) certs: Certs,
    options: FleetOptions,
    home: TempDir,
    /// The proxies between workers and NATS, if `worker_round_trip` is set.
    worker_proxies: Vec<LatencyProxy>,
}

impl Fleet {
    /// Starts a fleet and returns once every process is ready.
    pub(crate) async fn start(options: FleetOptions) -> Self {
        let mut fleet = Self::start_without_waiting(options).await;
        for node in fleet.workers.iter_mut().chain(&mut fleet.gateways) {
            node.ready().await;
        }
        fleet
    }

    /// Starts a fleet without waiting for gateways and workers to become ready.
    pub(crate) async fn start_without_waiting(options: FleetOptions) -> Self {
        super::client::install_provider();
        let home = tempfile::tempdir().expect("a temporary directory");
        let certs = Certs::new(&home.path().join("certs"));
        let nats =
            NatsCluster::start(home.path(), &certs, &options.nats, options.nats_servers).await;
        let (gateways, workers) = (Vec::new(), Vec::new());
        let mut worker_proxies = Vec::new();
        if !options.worker_round_trip.is_zero() {
            for server in &nats.servers {
                worker_proxies.push(
                    LatencyProxy::start(server.address(), options.worker_round_trip / 2).await,
                );
            }
        }
        let mut fleet = Self { nats, gateways, workers, certs, options, home, worker_proxies };
        fleet.write_catalogue();
        for _ in 0..fleet.options.workers {
            fleet.add_worker();
        }
        for _ in 0..fleet.options.gateways {
            fleet.add_gateway();
        }
        fleet
    }

    /// Returns a client of the first gateway.
    pub(crate) fn client(&self) -> Client {
        self.client_with(ClientOptions::default())
    }

    /// Returns a client of the first gateway with the given options.
    pub(crate) fn client_with(&self, options: ClientOptions<'_>) -> Client {
        Client::new(self.gateways[0].https(), &self.certs, options)
    }

    /// Adds a worker with its own ledger.
    pub(crate) fn add_worker(&mut self) -> &mut FjordProcess {
        self.add_worker_as("worker", self.options.queues)
    }

    /// Adds a worker that serves `queues`. `user` is its user in the shipped NATS configuration.
    pub(crate) fn add_worker_as(&mut self, user: &str, queues: &str) -> &mut FjordProcess {
        let directory = self.home.path().join(format!("worker-{}", self.workers.len()));
        let own = self.home.path().join("catalogue");
        let text = format!(
            "{}\n[admin]\nlisten = '127.0.0.1:0'\n[worker.queues.'{}']\nconcurrency = {}\n\
             [procedures.databases.default]\nbackend = 'sqlite'\n\
             [procedures.databases.default.sqlite]\nfile = '{}'\nschema = '{}'\nprocedures = '{}'\n\
             connections_max = {}\n{}\n",
            self.shared(user),
            queues,
            self.options.concurrency,
            directory.join("ledger.db").display(),
            own.join("schema.sql").display(),
            own.join("procedures").display(),
            self.options.concurrency.clamp(4, 256),
            self.options.worker_toml,
        );
        self.workers.push(self.started("worker", &directory, &text));
        self.workers.last_mut().expect("a process was just added")
    }

    /// Adds a gateway.
    pub(crate) fn add_gateway(&mut self) -> &mut FjordProcess {
        let directory = self.home.path().join(format!("gateway-{}", self.gateways.len()));
        let text = format!(
            "{}\n[admin]\nlisten = '127.0.0.1:0'\n[gateway]\nlisten = '127.0.0.1:0'\n{}\n\
             [gateway.tls]\ncertificate = '{}'\nkey = '{}'\n{}\n\
             [gateway.http]\nconnections_per_client_max = 10000\n{}\n",
            self.shared("gateway"),
            self.options.gateway_keys,
            self.certs.server.certificate.display(),
            self.certs.server.key.display(),
            self.options.gateway_tls_keys.replace("{ca}", &self.certs.ca.display().to_string()),
            self.options.gateway_toml,
        );
        self.gateways.push(self.started("gateway", &directory, &text));
        self.gateways.last_mut().expect("a process was just added")
    }

    /// Returns the request ids in all workers' ledgers, one for each committed execution.
    pub(crate) fn ledger(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for number in 0..self.workers.len() {
            let file = self.home.path().join(format!("worker-{number}/ledger.db"));
            let ledger = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY);
            let ledger = ledger.expect("the ledger can be opened");
            let mut query =
                ledger.prepare("SELECT request_id FROM ledger").expect("the ledger table exists");
            let rows = query.query_map([], |row| row.get(0)).expect("the ledger can be queried");
            lines.extend(rows.map(|row| row.expect("the row can be read")));
        }
        lines
    }

    /// Returns the directory of the fleet's catalogue.
    pub(crate) fn catalogue(&self) -> PathBuf {
        self.home.path().join("catalogue/endpoints")
    }

    /// Waits until all NATS servers are connected to each other.
    pub(crate) async fn wait_for_nats_routes(&self) {
        for server in &self.nats.servers {
            self.nats.wait_for_routes(server).await;
        }
    }

    fn write_catalogue(&self) {
        let own = self.home.path().join("catalogue");
        for directory in ["endpoints", "procedures"] {
            fs::create_dir_all(own.join(directory)).expect("the directory can be created");
        }
        fs::write(own.join("endpoints/ledger.json"), ENDPOINTS).expect("the file can be written");
        if let Some((name, text)) = self.options.catalogue {
            fs::write(own.join("endpoints").join(name), text).expect("the file can be written");
        }
        fs::write(own.join("schema.sql"), SCHEMA).expect("the file can be written");
        for (name, text) in PROCEDURES.iter().chain(self.options.procedures) {
            fs::write(own.join("procedures").join(name), text).expect("the file can be written");
        }
    }

    fn started(&self, role: &'static str, directory: &Path, text: &str) -> FjordProcess {
        fs::create_dir_all(directory).expect("the directory can be created");
        fs::write(directory.join(format!("{role}.toml")), text).expect("the file can be written");
        let built = super::fjord_binary();
        let executable = self.options.executable.as_deref().unwrap_or(&built);
        FjordProcess::start_with(role, directory, &self.options.environment, executable)
    }

    /// Returns the configuration that both roles share. `user` is the process's user in the shipped
    /// NATS configuration.
    fn shared(&self, user: &str) -> String {
        let uses_proxy = user != "gateway" && !self.worker_proxies.is_empty();
        let worker_proxies =
            self.worker_proxies.iter().map(|delay| format!("nats://{}", delay.address));
        let urls = if uses_proxy { worker_proxies.collect() } else { self.nats.urls() };
        let servers: Vec<String> = urls.iter().map(|url| format!("'{url}'")).collect();
        let tls = if self.options.nats.has_tls {
            let client = &self.certs.client;
            let keys = self.options.nats_tls_keys;
            let keys = keys.replace("{certificate}", &client.certificate.display().to_string());
            let keys = keys.replace("{key}", &client.key.display().to_string());
            format!("[messaging.nats.tls]\nca = '{}'\n{keys}", self.certs.ca.display())
        } else {
            String::new()
        };
        let plain = !self.options.nats.has_tls;
        let user = if self.options.nats.is_shipped {
            let password = self.options.nats_password.unwrap_or(SHIPPED_PASSWORD);
            format!("user = '{user}'\npassword = '{password}'\ninbox_prefix = '_INBOX_{user}'\n")
        } else {
            String::new()
        };
        format!(
            "[catalogue]\ndirectory = '{}'\n[log]\nformat = 'json'\nfilter = '{}'\n\
             [messaging.nats]\nservers = [{}]\ninsecure_plain_text = {plain}\n{user}{}{tls}",
            self.home.path().join("catalogue/endpoints").display(),
            self.options.log_filter,
            servers.join(", "),
            self.options.nats_keys,
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.gateways.iter().chain(&self.workers) {
                eprintln!("--- {} ---\n{}", node.process.name(), node.process.log_tail());
            }
        }
    }
}
