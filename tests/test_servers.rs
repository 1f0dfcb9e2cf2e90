//! Promise of the test support: servers are real, keep their ports after a restart, and never outlive a test run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use tempfile::TempDir;

use super::support::certs::{Certs, Leaf, PemFiles};
use super::support::client::install_provider;
use super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::support::nats::{NatsCluster, NatsOptions, NatsServer};
use super::support::process::Process;

fn home() -> (TempDir, Certs) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certs = Certs::new(&directory.path().join("certs"));
    (directory, certs)
}

async fn connect(url: &str, certs: &Certs, identity: Option<&PemFiles>) -> Option<Client> {
    install_provider();
    let mut options = ConnectOptions::new().add_root_certificates(certs.ca.clone());
    if let Some(files) = identity {
        options = options.add_client_certificate(files.certificate.clone(), files.key.clone());
    }
    options.connect(url).await.ok()
}

#[tokio::test]
async fn a_server_uses_tls_and_restarts_on_the_same_port() {
    let (directory, certs) = home();
    let mut server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
    let url = server.url();
    assert!(connect(&url, &certs, None).await.is_some());
    server.stop().await;
    assert!(connect(&url, &certs, None).await.is_none(), "the server has stopped");
    server.restart().await;
    server.kill();
    server.restart().await;
    assert_eq!(server.url(), url);
    assert!(connect(&url, &certs, None).await.is_some());
}

#[tokio::test]
async fn a_server_with_client_certificates_rejects_other_clients() {
    let (directory, certs) = home();
    let options = NatsOptions { wants_client_certificates: true, ..NatsOptions::default() };
    let server = NatsServer::start(directory.path(), &certs, &options).await;
    assert!(connect(&server.url(), &certs, Some(&certs.client)).await.is_some());
    assert!(connect(&server.url(), &certs, None).await.is_none(), "no certificate");
    let expired = certs.issue("expired", Leaf::EXPIRED);
    assert!(
        connect(&server.url(), &certs, Some(&expired)).await.is_none(),
        "an expired certificate"
    );
    let other = Certs::new(&directory.path().join("other"));
    assert!(
        connect(&server.url(), &certs, Some(&other.client)).await.is_none(),
        "a certificate from another authority"
    );
}

#[tokio::test]
async fn clients_reject_a_server_with_an_invalid_certificate() {
    let (directory, mut certs) = home();
    for (name, leaf) in [("expired", Leaf::EXPIRED), ("elsewhere", Leaf::ELSEWHERE)] {
        certs.server = certs.issue(name, leaf);
        let server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
        assert!(connect(&server.url(), &certs, None).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_cluster_forwards_messages_between_servers() {
    let (directory, certs) = home();
    let options = NatsOptions::default();
    let mut cluster = NatsCluster::start(directory.path(), &certs, &options, 3).await;
    let urls = cluster.urls();
    let reader = connect(&urls[0], &certs, None).await.expect("the connection succeeds");
    let mut messages = reader.subscribe("greetings").await.expect("a subscription");
    reader.flush().await.expect("the connection is open");
    cluster.servers[1].kill();
    cluster.servers[1].restart().await;
    cluster.wait_for_routes(&cluster.servers[1]).await;
    for url in &urls[1..] {
        let writer = connect(url, &certs, None).await.expect("the connection succeeds");
        // A subscription is propagated to other servers shortly after it is confirmed.
        eventually_some("a message through another server", SOON, async || {
            writer.publish("greetings", "hello".into()).await.ok()?;
            tokio::time::timeout(TICK * 10, messages.next()).await.ok().flatten()
        })
        .await;
    }
}

#[tokio::test]
async fn a_stopped_server_forwards_nothing_until_it_continues() {
    let (directory, certs) = home();
    let options = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let mut server = NatsServer::start(directory.path(), &certs, &options).await;
    let client = connect(&server.url(), &certs, None).await.expect("the connection succeeds");
    let mut messages = client.subscribe("echo").await.expect("a subscription");
    server.process().pause();
    client.publish("echo", "hello".into()).await.expect("the message is queued");
    let heard = tokio::time::timeout(TICK * 20, messages.next()).await;
    assert!(heard.is_err(), "a stopped server forwards nothing");
    server.process().resume();
    assert!(tokio::time::timeout(SOON, messages.next()).await.is_ok());
}

#[tokio::test]
async fn a_server_in_lame_duck_mode_ends_by_itself() {
    let (directory, certs) = home();
    let mut server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
    server.lame_duck();
    let status = server.process().wait(SOON * 3).await;
    assert!(status.success(), "{status}");
    assert!(server.process().log().contains("lame duck"), "{}", server.process().log());
}

/// The environment variable that names the file to which `a_run_to_be_killed` writes a process id. If it is not set, that
/// test does nothing.
const VICTIM: &str = "FJORD_TEST_VICTIM";

#[tokio::test]
async fn a_run_to_be_killed() {
    let Some(file) = std::env::var_os(VICTIM).map(PathBuf::from) else {
        return;
    };
    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = Process::start("sleeper", command, &file.with_extension("log"));
    fs::write(file.with_extension("new"), sleeper.pid().to_string())
        .expect("the file can be written");
    fs::rename(file.with_extension("new"), file).expect("the file can be renamed");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_no_process_behind() {
    let (directory, _certs) = home();
    let file = directory.path().join("pid");
    let mut command = Command::new(std::env::current_exe().expect("this executable"));
    command.args(["--exact", "test_servers::a_run_to_be_killed"]).env(VICTIM, &file);
    let mut run = Process::start("another run", command, &directory.path().join("log"));
    let pid: u32 = eventually_some("the other run's process", SOON, async || {
        fs::read_to_string(&file).ok()?.parse().ok()
    })
    .await;
    assert!(is_alive(pid));
    run.kill();
    eventually(SOON, TICK, || !is_alive(pid)).await;
}

/// Returns whether a process is running. A zombie does not count as running.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}
