//! A real nats-server, or a cluster of three, on free ports of this machine.

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

/// The release that tests run against, as the Makefile gets it.
const VERSION: &str = "2.15.1";
/// The oldest release whose features fjord uses.
const OLDEST: (u32, u32) = (2, 10);
/// How often another port is tried when one was taken between the look and the start.
const STARTS_MAX: usize = 5;

/// How a server is set up.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the server's own")]
pub(crate) struct NatsOptions {
    /// Whether clients (and routes) speak TLS.
    pub(crate) has_tls: bool,
    /// Whether clients show a certificate.
    pub(crate) wants_client_certificates: bool,
    /// Largest message in bytes.
    pub(crate) payload_bytes_max: usize,
    /// Interval of the server's pings: two unanswered ones end a connection.
    pub(crate) ping_interval: &'static str,
    /// Further lines of configuration: accounts, permissions.
    pub(crate) extra: String,
    /// Whether TLS comes before the server's first line.
    pub(crate) is_tls_first: bool,
    /// Whether `config/nats` is what runs, as it is shipped.
    pub(crate) is_shipped: bool,
    /// The port that clients use; any free one when absent.
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

/// A server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct NatsServer {
    process: Process,
    command: (PathBuf, PathBuf),
    log: PathBuf,
    ports: Ports,
    has_tls: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    monitoring: u16,
    cluster: u16,
}

impl Ports {
    fn pick(client: Option<u16>) -> Self {
        Self {
            client: client.unwrap_or_else(ports::pick),
            monitoring: ports::pick(),
            cluster: ports::pick(),
        }
    }
}

impl NatsServer {
    /// Starts a server whose files go to `directory`; returns once it serves.
    pub(crate) async fn start(directory: &Path, certs: &Certs, options: &NatsOptions) -> Self {
        let mut servers = start_all(directory, certs, options, 1).await;
        servers.pop().expect("the one that was started")
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.has_tls { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.ports.client)
    }

    /// The address of its listener.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.client))
    }

    /// The address of the server's own monitoring, plain HTTP.
    pub(crate) fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitoring)
    }

    /// The process: its signals, its log.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it at once (SIGKILL), as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order (SIGTERM) and waits for that.
    pub(crate) async fn stop(&mut self) {
        self.process.terminate();
        self.process.wait(SOON).await;
    }

    /// Changes its configuration; `reload` or `restart` has it take effect.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.command.1).expect("its configuration");
        assert!(text.contains(from), "{from:?} is not in its configuration");
        fs::write(&self.command.1, text.replace(from, to)).expect("a file");
    }

    /// Has it read its configuration again (SIGHUP); returns once it has.
    pub(crate) async fn reload(&mut self) {
        const READ: &str = "Reloaded server configuration";
        let before = self.process.log().matches(READ).count();
        self.process.signal(Signal::HUP);
        let read = poll(SOON, TICK, async || {
            (self.process.log().matches(READ).count() > before).then_some(())
        });
        assert!(read.await.is_some(), "nats-server did not reload:\n{}", self.process.log_tail());
    }

    /// Sends lines of the protocol over a plain connection, as no client library would; returns once they were read.
    pub(crate) async fn send_raw(&self, connect: &str, lines: &[u8]) {
        let address = ("127.0.0.1", self.ports.client);
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let connect = format!("CONNECT {{\"headers\":true,\"verbose\":false{connect}}}\r\n");
        let all = [connect.as_bytes(), lines, b"PING\r\n"].concat();
        stream.write_all(&all).await.expect("it reads");
        let mut read = String::new();
        while !read.contains("PONG\r\n") {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.expect("it answers");
            assert!(count > 0, "the server has closed: {read}");
            read.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        assert!(!read.contains("-ERR"), "{read}");
    }

    /// Says that it is about to end: clients are told, then moved to other servers one by one.
    pub(crate) fn lame_duck(&mut self) {
        self.process.signal(Signal::USR2);
    }

    /// Starts it again on the same ports; returns once it serves.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        for _ in 0..STARTS_MAX {
            self.process = run(&self.command.0, &self.command.1, &self.log);
            if is_ready(&mut self.process, &self.command.1).await {
                return;
            }
        }
        panic!("nats-server did not come back:\n{}", self.process.log_tail());
    }

    async fn is_ready(&mut self) -> bool {
        is_ready(&mut self.process, &self.command.1).await
    }
}

/// Servers that know each other.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Its members.
    pub(crate) servers: Vec<NatsServer>,
}

impl Cluster {
    /// Starts so many servers; returns once every one has a route to every other.
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

    /// Where clients connect: every server.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Waits until a server, just started, has a route to every other.
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
        assert!(found.await.is_some(), "no routes between the servers of the cluster");
    }
}

async fn start_all(
    directory: &Path,
    certs: &Certs,
    options: &NatsOptions,
    size: usize,
) -> Vec<NatsServer> {
    let executable = executable();
    let mut last_words = String::new();
    for _ in 0..STARTS_MAX {
        let ports: Vec<_> = (0..size).map(|_| Ports::pick(options.port)).collect();
        let mut servers: Vec<_> = ports
            .iter()
            .map(|own| {
                let home = directory.join(format!("nats-{}", own.client));
                fs::create_dir_all(&home).expect("a directory for the server");
                let file = home.join("nats.conf");
                fs::write(&file, configuration(&home, certs, options, (*own, &ports)))
                    .expect("a file");
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
                last_words = server.process.log_tail();
            }
        }
        if are_ready {
            return servers;
        }
        // A port was taken between our look and the server's bind: with other ones, then.
        assert!(
            last_words.contains("address already in use") && options.port.is_none(),
            "nats-server did not start:\n{last_words}"
        );
    }
    panic!("nats-server found no free ports:\n{last_words}");
}

fn run(executable: &Path, configuration: &Path, log: &Path) -> Process {
    for old in ports_files(configuration) {
        fs::remove_file(old).expect("our own file");
    }
    let mut command = Command::new(executable);
    command.arg("-c").arg(configuration);
    Process::start("nats-server", command, log)
}

/// Waits until the server has written its ports, which it does once it listens; no when it ended instead.
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
    let home = configuration.parent().expect("a file in a directory");
    let entries = fs::read_dir(home).expect("our own directory");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|e| e == "ports")).collect()
}

fn configuration(
    home: &Path,
    certs: &Certs,
    options: &NatsOptions,
    (own, all): (Ports, &[Ports]),
) -> String {
    if options.is_shipped {
        return shipped(home, certs, own, all);
    }
    let home = home.display();
    let tls = if options.has_tls {
        format!(
            "tls {{ cert_file: '{}', key_file: '{}', ca_file: '{}', verify: {}, timeout: 5, handshake_first: {} }}\n",
            certs.server.certificate.display(),
            certs.server.key.display(),
            certs.ca.display(),
            options.wants_client_certificates,
            options.is_tls_first,
        )
    } else {
        String::new()
    };
    let cluster = if all.len() > 1 {
        let routes: Vec<_> =
            all.iter().map(|p| format!("'nats-route://127.0.0.1:{}'", p.cluster)).collect();
        let routes = routes.join(", ");
        format!(
            "cluster {{ name: fjord, listen: '127.0.0.1:{}', routes: [{routes}]\n{}}}\n",
            own.cluster,
            tls.replace(", handshake_first: false", ""),
        )
    } else {
        String::new()
    };
    // The shortest lame-duck time that the server takes is 30 s; with few clients it ends much sooner.
    format!(
        "server_name: 'nats-{}'\nlisten: '127.0.0.1:{}'\nhttp: '127.0.0.1:{}'\n\
         ports_file_dir: '{home}'\nmax_payload: {}\nping_interval: '{}'\nping_max: 2\n\
         lame_duck_duration: '30s'\nlame_duck_grace_period: '5s'\n{tls}{cluster}{}\n",
        own.client,
        own.client,
        own.monitoring,
        options.payload_bytes_max,
        options.ping_interval,
        options.extra,
    )
}

/// The password of every user of the configuration that is shipped.
pub(crate) const SHIPPED_PASSWORD: &str = "of-this-test-alone";

/// What is shipped, with a `node.conf` and a `secrets.conf` of this server.
fn shipped(home: &Path, certs: &Certs, own: Ports, all: &[Ports]) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/nats");
    // One authority for all servers of the cluster: made by the first.
    let first = all.first().map_or(own.client, |ports| ports.client);
    let peers = home.with_file_name(format!("peers-{first}"));
    if !peers.is_dir() {
        Certs::new(&peers);
    }
    let seeds: Vec<_> =
        all.iter().map(|ports| format!("\"tls://127.0.0.1:{}\"", ports.cluster)).collect();
    let node = format!(
        "NAME: \"nats-{}\"\nCLIENTS: \"127.0.0.1:{}\"\nPEERS: \"127.0.0.1:{}\"\n\
         MONITORING: \"127.0.0.1:{}\"\nSEEDS: [{}]\nCERTIFICATE: \"{}\"\nKEY: \"{}\"\nCA: \"{}\"\n\
         PEER_CERTIFICATE: \"{}\"\nPEER_KEY: \"{}\"\nPEER_CA: \"{}\"\n\
         ports_file_dir: \"{}\"\n",
        own.client,
        own.client,
        own.cluster,
        own.monitoring,
        seeds.join(", "),
        certs.server.certificate.display(),
        certs.server.key.display(),
        certs.ca.display(),
        peers.join("server.pem").display(),
        peers.join("server.key").display(),
        peers.join("ca.pem").display(),
        home.display(),
    );
    let users =
        ["GATEWAY", "WORKER_PAYMENTS", "WORKER_REPORTS", "WORKER", "OPERATOR", "CALLER", "SYSTEM"];
    let secrets = users.map(|user| format!("{user}_PASSWORD: \"{SHIPPED_PASSWORD}\"\n")).concat();
    fs::write(home.join("node.conf"), node).expect("a file");
    fs::write(home.join("secrets.conf"), secrets).expect("a file");
    fs::copy(shipped.join("accounts.conf"), home.join("accounts.conf")).expect("what is shipped");
    fs::read_to_string(shipped.join("nats-server.conf")).expect("what is shipped")
}

/// The server to start: `FJORD_NATS_SERVER`, the one that the Makefile got, or a new enough one on the PATH.
pub(crate) fn executable() -> PathBuf {
    if let Some(chosen) = std::env::var_os("FJORD_NATS_SERVER") {
        return chosen.into();
    }
    let own = super::target_directory().join(format!("nats-server/{VERSION}/nats-server"));
    if own.is_file() {
        return own;
    }
    let on_path = PathBuf::from("nats-server");
    match Command::new(&on_path).arg("--version").output() {
        Ok(output) if is_new_enough(&String::from_utf8_lossy(&output.stdout)) => on_path,
        _ => panic!(
            "no nats-server of {}.{} or newer: run `make nats-server`, or set FJORD_NATS_SERVER to one",
            OLDEST.0, OLDEST.1
        ),
    }
}

/// Reads `nats-server: v2.10.7`.
fn is_new_enough(version: &str) -> bool {
    let numbers = version.trim().rsplit('v').next().unwrap_or_default();
    let mut numbers = numbers.split('.').map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn a_server_older_than_what_fjord_uses_is_not_taken_from_the_path() {
        let cases = [
            ("nats-server: v2.9.10\n", false),
            ("nats-server: v2.10.0\n", true),
            ("nats-server: v2.15.1-beta.2\n", true),
            ("nats-server: v3.0.0\n", true),
            ("nats-server: version 9\n", false),
            ("", false),
        ];
        for (said, expected) in cases {
            assert_eq!(is_new_enough(said), expected, "{said:?}");
        }
    }
}
