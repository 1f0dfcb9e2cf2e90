//! Promise: the memory of a large catalogue is small, and reloads do not make it grow. The bytes are counted by the allocator,
//! so they do not depend on the machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use allocation_counter::measure;
use arc_swap::ArcSwap;
use fjord::catalogue::QueueName;
use fjord::cli::Role;
use fjord::config::Config;
use fjord::lifecycle::Tasks;
use fjord::roles::gateway::active_config::ActiveConfig;
use fjord::roles::gateway::dispatch::Dispatcher;

use super::allocations::{config, connect, gateway, runtime, worker};
use super::support::certs::Certs;
use super::support::client::install_provider;
use super::support::nats::{NatsOptions, NatsServer};

/// The expected memory of a gateway, in bytes, for each endpoint that has its own queue. Lower this value and `WORKER`
/// after an improvement.
const GATEWAY: i64 = 4_700;
/// The expected memory of a worker, in bytes, for each such endpoint that it serves. Three quarters of it are the
/// buffers that the NATS client allocates for the four subscriptions of a queue.
const WORKER: i64 = 38_000;
/// The test fails if a size exceeds its expected value by more than this percentage.
const GROWTH_PERCENT: i64 = 10;
/// The sizes of the two catalogues whose difference is measured.
const SIZES: [usize; 2] = [20, 320];
const RELOADS: usize = 50;
/// The maximum growth of the memory after `RELOADS` reloads, in bytes.
const RELOAD_GROWTH_MAX: i64 = 4_096;

/// Returns a catalogue whose endpoints have the usual number of parameters. Together, the endpoints have ten different
/// patterns.
fn catalogue(name: &str, endpoints: usize) -> String {
    let mut text = String::from("{");
    for n in 0..endpoints {
        let separator = if n == 0 { "" } else { "," };
        write!(
            text,
            r#"{separator} "{name}-{n}": {{
                "route": "GET /v1/{name}/{n}/{{id}}", "summary": "Returns resource {n}", "tags": ["area {}"],
                "handler": "echo", "result": "rows", "timeout": "2s", "auth": "public",
                "parameters": {{
                  "id": {{ "in": "path", "type": "string", "pattern": "^[A-Z0-9]{{{},15}}$", "description": "The number" }},
                  "kind": {{ "in": "query", "type": "string", "enum": ["summary", "full"], "default": "summary" }},
                  "limit": {{ "in": "query", "type": "int32", "minimum": 1, "maximum": 1000, "default": 100 }},
                  "since": {{ "in": "query", "type": "datetime" }} }} }}"#,
            n % 50,
            n % 10,
        )
        .expect("text");
    }
    text + "}"
}

/// A NATS server, and the configuration of processes that use it.
struct MemoryFixture {
    home: tempfile::TempDir,
    _server: NatsServer,
    shared: String,
}

impl MemoryFixture {
    fn new() -> Self {
        install_provider();
        let home = tempfile::tempdir().expect("a temporary directory");
        let certs = Certs::new(&home.path().join("certs"));
        let runtime = runtime();
        let server =
            runtime.block_on(NatsServer::start(home.path(), &certs, &NatsOptions::default()));
        let shared = format!(
            "[messaging.nats]\nservers = ['{}']\n[messaging.nats.tls]\nca = '{}'\n",
            server.url(),
            certs.ca.display()
        );
        Self { home, _server: server, shared }
    }

    /// Writes a catalogue, and returns the configuration of a process that loads it.
    fn config(&self, role: Role, endpoints: usize) -> Config {
        let name = format!("{}{endpoints}", role.as_str());
        let directory = self.home.path().join(&name);
        let write =
            |path: &Path, text: &str| fs::write(path, text).expect("the file can be written");
        fs::create_dir_all(directory.join("endpoints")).expect("the directory can be created");
        write(&directory.join("endpoints/all.json"), &catalogue(&name, endpoints));
        let own = match role {
            Role::Gateway => "[gateway]\nlisten = '127.0.0.1:0'\ninsecure_plain_text = true\n",
            Role::Worker => "[worker.queues.'*']\nconcurrency = 16\n",
        };
        let catalogue =
            format!("[catalogue]\ndirectory = '{}'\n", directory.join("endpoints").display());
        config(&directory, role, &format!("{catalogue}{}{own}", self.shared))
    }

    /// Returns the number of bytes that a process of this role uses after its start.
    fn bytes(&self, role: Role, endpoints: usize) -> i64 {
        let config = self.config(role, endpoints);
        // A task's memory is in use as long as the runtime exists.
        let (runtime, tasks) = (runtime(), Tasks::new());
        let counted = measure(|| {
            runtime.block_on(async {
                match role {
                    Role::Gateway => drop(gateway(&config, &tasks).await),
                    Role::Worker => worker(&config, &tasks).await,
                }
            });
        });
        counted.bytes_current
    }
}

#[test]
fn the_memory_of_an_endpoint_and_its_queue_is_bounded() {
    let fixture = MemoryFixture::new();
    for (role, expected) in [(Role::Gateway, GATEWAY), (Role::Worker, WORKER)] {
        let [few, many] = SIZES.map(|endpoints| fixture.bytes(role, endpoints));
        let endpoints = i64::try_from(SIZES[1] - SIZES[0]).expect("a small number");
        let each = (many - few) / endpoints;
        println!(
            "MEMORY of the {} per endpoint and queue: {each} B, expected {expected} B",
            role.as_str()
        );
        assert!(each <= expected * (100 + GROWTH_PERCENT) / 100, "{}: {each} B", role.as_str());
    }
}

#[test]
fn reloads_do_not_make_the_memory_grow() {
    let fixture = MemoryFixture::new();
    let config = fixture.config(Role::Gateway, 100);
    let (runtime, tasks) = (runtime(), Tasks::new());
    let load = || Arc::new(ActiveConfig::load(&config).expect("a valid catalogue"));
    let active_config = ArcSwap::new(load());
    let queues: Vec<QueueName> = active_config
        .load()
        .catalogue
        .endpoints()
        .iter()
        .map(|it| it.queues.first().name.clone())
        .collect();
    let dispatcher = runtime.block_on(async {
        let transport = connect(&config).await;
        Dispatcher::start(&config, &queues, transport, &tasks).await.expect("a subscription")
    });
    // The gateway reloads in the same way.
    let reload = || {
        active_config.store(load());
        dispatcher.reload(config.gateway.session.clone(), &queues);
    };
    (0..3).for_each(|_| reload());
    let grown = measure(|| (0..RELOADS).for_each(|_| reload())).bytes_current;
    println!("MEMORY after {RELOADS} reloads: {grown} B more");
    assert!(grown <= RELOAD_GROWTH_MAX, "{grown} B");
}
