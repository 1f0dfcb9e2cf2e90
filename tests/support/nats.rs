//! A real nats-server, or a cluster of several, on free ports.

mod configuration;
mod executable;

pub(crate) use configuration::SHIPPED_PASSWORD;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certs::Certs;
use super::eventually::{SOON, TICK, poll};
use super::ports;
use super::process::Process;

/// The maximum number of attempts to start servers. Another process can bind a chosen port first.
const STARTS_MAX: usize = 5;

/// Returns the executable of the servers that tests start.
pub(crate) fn find_executable() -> PathBuf {
    executable::find()
}

/// The configuration of a server.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent option of the server")]
pub(crate) struct NatsOptions {
    /// Whether client connections and cluster routes use TLS.
    pub(crate) has_tls: bool,
    /// Whether clients must present a certificate.
    pub(crate) wants_client_certificates: bool,
    /// The server's `max_payload`, in bytes.
    pub(crate) payload_bytes_max: usize,
    /// The interval between the server's pings. Two unanswered pings end a connection.
    pub(crate) ping_interval: &'static str,
    /// Additional lines of configuration, such as accounts and permissions.
    pub(crate) extra: String,
    /// Whether the TLS handshake precedes the server's INFO line.
    pub(crate) is_tls_first: bool,
    /// Whether the server runs the shipped configuration, `config/nats`.
    pub(crate) is_shipped: bool,
    /// The port for clients. If absent, any free port is used.
    pub(crate) port: Option<u16>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            has_tls: true,
            wants_client_certificates: false,
            payload_bytes_max: 1 << 20,
            ping_interval: "5s",
            extra: String::new(),
            is_tls_first: false,
            is_shipped: false,
            port: None,
        }
    }
}

/// A running server. It is stopped when this value is dropped.
#[derive(Debug)]
pub(crate) struct NatsServer {
    process: Process,
    command: (PathBuf, PathBuf),
    log: PathBuf,
    ports: NatsPorts,
    has_tls: bool,
}

#[derive(Clone, Copy, Debug)]
struct NatsPorts {
    client: u16,
    monitoring: u16,
    cluster: u16,
}

impl NatsPorts {
    fn pick(client: Option<u16>) -> Self {
        Self {
            client: client.unwrap_or_else(ports::pick),
            monitoring: ports::pick(),
            cluster: ports::pick(),
        }
    }
}

impl NatsServer {
    /// Starts a server that writes its files to `directory`, and returns once it is ready.
    pub(crate) async fn start(directory: &Path, certs: &Certs, options: &NatsOptions) -> Self {
        let mut servers = start_all(directory, certs, options, 1).await;
        servers.pop().expect("one server was started")
    }

    /// Returns the URL for clients.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.has_tls { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.ports.client)
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.client))
    }

    /// Returns the base URL of the server's monitoring endpoints.
    pub(crate) fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitoring)
    }

    /// Returns the process. Tests send signals to it and read its log.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the server (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM and waits until the server has exited.
    pub(crate) async fn stop(&mut self) {
        self.process.terminate();
        self.process.wait(SOON).await;
    }

    /// Replaces text in the server's configuration file. The change takes effect with `reload` or `restart`.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.command.1).expect("the configuration can be read");
        assert!(text.contains(from), "{from:?} is not in the configuration");
        fs::write(&self.command.1, text.replace(from, to)).expect("the file can be written");
    }

    /// Sends SIGHUP and waits until the server has reloaded its configuration.
    pub(crate) async fn reload(&mut self) {
        const READ: &str = "Reloaded server configuration";
        let before = self.process.log().matches(READ).count();
        self.process.signal(Signal::HUP);
        let read = poll(SOON, TICK, async || {
            (self.process.log().matches(READ).count() > before).then_some(())
        });
        assert!(read.await.is_some(), "nats-server did not reload:\n{}", self.process.log_tail());
    }

    /// Sends lines that no client library would send. Returns once the server has read them.
    pub(crate) async fn send_raw(&self, connect: &str, lines: &[u8]) {
        let address = ("127.0.0.1", self.ports.client);
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let connect = format!("CONNECT {{\"headers\":true,\"verbose\":false{connect}}}\r\n");
        let all = [connect.as_bytes(), lines, b"PING\r\n"].concat();
        stream.write_all(&all).await.expect("the server reads");
        let mut read = String::new();
        while !read.contains("PONG\r\n") {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.expect("the server responds");
            assert!(count > 0, "the server has closed the connection: {read}");
            read.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        assert!(!read.contains("-ERR"), "{read}");
    }

    /// Starts lame duck mode: the server informs its clients, then disconnects them one by one.
    pub(crate) fn lame_duck(&mut self) {
        self.process.signal(Signal::USR2);
    }

    /// Kills the server and starts it again on the same ports. Returns once it is ready.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        for _ in 0..STARTS_MAX {
            self.process = run(&self.command.0, &self.command.1, &self.log);
            if is_ready(&mut self.process, &self.command.1).await {
                return;
            }
        }
        panic!("nats-server did not start again:\n{}", self.process.log_tail());
    }

    async fn is_ready(&mut self) -> bool {
        is_ready(&mut self.process, &self.command.1).await
    }
}

/// A cluster of servers, or a single one.
#[derive(Debug)]
pub(crate) struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts `size` servers and returns once each server has a route to every other one.
    pub(crate) async fn start(
        directory: &Path,
        certs: &Certs,
        options: &NatsOptions,
        size: usize,
    ) -> Self {
        let cluster = Self { servers: start_all(directory, certs, options, size).await };
        for server in &cluster.servers {
            cluster.wait_for_routes(server).await;
        }
        cluster
    }

    /// Returns the URLs of all servers.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Returns the index of a server to which no client is connected.
    pub(crate) async fn idle_server(&self) -> usize {
        for (index, server) in self.servers.iter().enumerate() {
            let url = format!("{}/connz", server.monitoring());
            let connections =
                super::client::get_json(&url).await.expect("the server's connections");
            if connections["num_connections"] == 0 {
                return index;
            }
        }
        panic!("each server has clients")
    }

    /// Waits until a server has a route to every other one.
    pub(crate) async fn wait_for_routes(&self, server: &NatsServer) {
        if self.servers.len() == 1 {
            return;
        }
        let url = format!("{}/routez", server.monitoring());
        let found = poll(SOON, TICK, async || {
            let routes = super::client::get_json(&url).await?;
            let routes = routes.get("routes")?.as_array()?;
            let mut names: Vec<_> =
                routes.iter().filter_map(|route| route.get("remote_name")?.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            (names.len() + 1 == self.servers.len()).then_some(())
        });
        assert!(found.await.is_some(), "the servers of the cluster have no routes to each other");
    }
}

async fn start_all(
    directory: &Path,
    certs: &Certs,
    options: &NatsOptions,
    size: usize,
) -> Vec<NatsServer> {
    let executable = executable::find();
    let mut failure = String::new();
    for _ in 0..STARTS_MAX {
        let ports: Vec<_> = (0..size).map(|_| NatsPorts::pick(options.port)).collect();
        let mut servers: Vec<_> = ports
            .iter()
            .map(|own| {
                let home = directory.join(format!("nats-{}", own.client));
                fs::create_dir_all(&home).expect("the directory can be created");
                let file = home.join("nats.conf");
                fs::write(&file, configuration::render(&home, certs, options, (*own, &ports)))
                    .expect("the file can be written");
                let log = home.join("log");
                let process = run(&executable, &file, &log);
                let command = (executable.clone(), file);
                NatsServer { process, command, log, ports: *own, has_tls: options.has_tls }
            })
            .collect();
        let mut are_ready = true;
        for server in &mut servers {
            if !server.is_ready().await {
                are_ready = false;
                failure = server.process.log_tail();
            }
        }
        if are_ready {
            return servers;
        }
        // The next attempt uses other ports.
        assert!(
            failure.contains("address already in use") && options.port.is_none(),
            "nats-server did not start:\n{failure}"
        );
    }
    panic!("nats-server found no free ports:\n{failure}");
}

fn run(executable: &Path, configuration: &Path, log: &Path) -> Process {
    for old in ports_files(configuration) {
        fs::remove_file(old).expect("the old file can be removed");
    }
    let mut command = Command::new(executable);
    command.arg("-c").arg(configuration);
    Process::start("nats-server", command, log)
}

/// Waits until the server has written its ports file, which it does once it listens. Returns false
/// if the server exits first or takes longer than `SOON`.
async fn is_ready(process: &mut Process, configuration: &Path) -> bool {
    let result = poll(SOON, TICK, async || {
        if !ports_files(configuration).is_empty() {
            return Some(true);
        }
        process.ended().map(|_| false)
    });
    result.await.unwrap_or(false)
}

fn ports_files(configuration: &Path) -> Vec<PathBuf> {
    let home = configuration.parent().expect("the file has a directory");
    let entries = fs::read_dir(home).expect("the directory can be read");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}
