//! Promise: when systemd restarts a gateway, every connection is accepted and every request is answered.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::support::client::{Client, ClientOptions, HttpVersion};
use super::support::eventually::{SOON, eventually_some, for_a_while};
use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::ports;
use super::support::process::Process;

const RESTARTS: u32 = 20;
const CLIENTS: usize = 8;

/// A service manager that does for one gateway what systemd does for a unit with `FileDescriptorStoreMax=1`. It keeps
/// the listener that the gateway sends, and passes it to the next process (`sd_notify(3)`, `sd_listen_fds(3)`).
struct ServiceManager {
    notifications: UnixDatagram,
    socket: PathBuf,
    directory: PathBuf,
    kept: Vec<OwnedFd>,
    process: Option<Process>,
}

impl ServiceManager {
    fn new(directory: &Path) -> Self {
        let socket = directory.join("notify");
        let notifications = UnixDatagram::bind(&socket).expect("the socket can be bound");
        notifications.set_nonblocking(true).expect("the socket option can be set");
        let directory = directory.to_owned();
        Self { notifications, socket, directory, kept: Vec::new(), process: None }
    }

    /// Starts a gateway that listens on `address`, and waits until it is ready.
    async fn start(&mut self, address: SocketAddr) {
        // The shell knows its own process id, and `exec` keeps this id.
        let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(fjord_binary());
        command.args(["--role", "gateway", "--config"]).arg(&self.directory);
        command.arg("--set").arg(format!("gateway.listen={address}"));
        command.env("NOTIFY_SOCKET", &self.socket);
        let stdin = match self.kept.first() {
            Some(listener) => {
                command.env("LISTEN_FDS", "1");
                listener.try_clone().expect("the listener can be duplicated").into()
            }
            None => Stdio::null(),
        };
        let log = self.directory.join("log");
        self.process = Some(Process::start_with_stdin("gateway", command, &log, stdin));
        eventually_some("the gateway is ready", SOON * 3, async || {
            let process = self.process.as_mut().expect("the process was started");
            assert!(process.is_running(), "{}", process.log_tail());
            let mut is_ready = false;
            while let Some(text) = self.notification() {
                is_ready |= text.lines().any(|line| line == "READY=1");
            }
            is_ready.then_some(())
        })
        .await;
    }

    /// Returns the text of the next notification, and keeps its listeners.
    fn notification(&mut self) -> Option<String> {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut text)];
        let received =
            recvmsg(&self.notifications, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.kept.extend(descriptors);
            }
        }
        let text = text.get(..received.bytes).expect("the kernel fills the buffer");
        Some(String::from_utf8_lossy(text).into_owned())
    }

    async fn stop(&mut self) {
        let mut process = self.process.take().expect("a process is running");
        process.terminate();
        let status = process.wait(Duration::from_mins(1)).await;
        assert!(status.success(), "{status}:\n{}", process.log_tail());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("the log can be read")
    }
}

/// Starts a fleet without a gateway, and a service manager with a gateway's configuration.
async fn fleet_and_manager() -> (Fleet, ServiceManager, SocketAddr) {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let mut gateway = fleet.gateways.remove(0);
    assert!(gateway.stop().await.success());
    let manager = ServiceManager::new(gateway.directory());
    (fleet, manager, ([127, 0, 0, 1], ports::pick()).into())
}

/// Sends requests until `stop` is set, each over its own connection. Returns the failures.
async fn send_requests(client: Client, sent: Arc<AtomicU32>, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match client.try_send(http::Method::GET, "/v1/echo/a", None).await {
            Ok(response) if response.status == 200 => {}
            Ok(response) => failures.push(response.text()),
            Err(error) => failures.push(format!("{error:?}")),
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_restarts_refuse_no_connection() {
    let (fleet, mut manager, address) = fleet_and_manager().await;
    manager.start(address).await;
    assert_eq!(manager.kept.len(), 1, "the gateway leaves its listener with the service manager");
    let (tasks, sent, stop) = (Tasks::new(), Arc::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let options = ClientOptions { http: HttpVersion::One, ..ClientOptions::default() };
            let client = Client::new(address, &fleet.certs, options);
            let client = client.with_header("connection", "close");
            tasks.spawn(send_requests(client, Arc::clone(&sent), Arc::clone(&stop)))
        })
        .collect();
    for _ in 0..RESTARTS {
        let before = sent.load(Ordering::Relaxed);
        manager.stop().await;
        manager.start(address).await;
        eventually_some("requests are answered", SOON, async || {
            (sent.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let failures = client.await.expect("the task ends");
        assert!(failures.is_empty(), "{failures:#?}");
    }
    println!("RESTARTS: {RESTARTS}, {} requests, 0 errors", sent.load(Ordering::Relaxed));
    assert_eq!(manager.kept.len(), 1, "a listener that was passed on is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_an_earlier_configuration_is_closed() {
    let (fleet, mut manager, old) = fleet_and_manager().await;
    manager.start(old).await;
    manager.stop().await;
    // The kernel still accepts connections into its queue.
    drop(std::net::TcpStream::connect(old).expect("the listener is kept"));
    let new = ([127, 0, 0, 1], ports::pick()).into();
    manager.start(new).await;
    Client::new(new, &fleet.certs, ClientOptions::default()).get("/v1/echo/a").await.is(200);
    let error = std::net::TcpStream::connect(old).expect_err("nothing listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(manager.kept.len(), 2, "the new listener is left with the service manager");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_not_a_listener_is_not_used() {
    let (fleet, mut manager, address) = fleet_and_manager().await;
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    manager.kept.push(one.into());
    manager.start(address).await;
    for_a_while(Duration::from_millis(50)).await;
    Client::new(address, &fleet.certs, ClientOptions::default()).get("/v1/echo/a").await.is(200);
    assert_eq!(manager.kept.len(), 2, "{}", manager.log());
}
