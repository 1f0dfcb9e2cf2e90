//! Promise of the tests themselves: servers are real, are where they were after a restart, and never outlive a run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use tempfile::TempDir;

use super::support::certs::{Certs, Files, Leaf};
use super::support::client::install_provider;
use super::support::eventually::{SOON, TICK, eventually, eventually_some};
use super::support::nats::{Cluster, NatsOptions, NatsServer};
use super::support::process::Process;

fn home() -> (TempDir, Certs) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certs = Certs::new(&directory.path().join("certs"));
    (directory, certs)
}

async fn connect(url: &str, certs: &Certs, identity: Option<&Files>) -> Option<Client> {
    install_provider();
    let mut options = ConnectOptions::new().add_root_certificates(certs.ca.clone());
    if let Some(files) = identity {
        options = options.add_client_certificate(files.certificate.clone(), files.key.clone());
    }
    options.connect(url).await.ok()
}

#[tokio::test]
async fn a_server_speaks_tls_and_comes_back_on_the_same_port() {
    let (directory, certs) = home();
    let mut server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
    let url = server.url();
    assert!(connect(&url, &certs, None).await.is_some());
    server.stop().await;
    assert!(connect(&url, &certs, None).await.is_none(), "it has stopped");
    server.restart().await;
    server.kill();
    server.restart().await;
    assert_eq!(server.url(), url);
    assert!(connect(&url, &certs, None).await.is_some());
}

#[tokio::test]
async fn a_server_that_wants_certificates_refuses_strangers() {
    let (directory, certs) = home();
    let options = NatsOptions { wants_client_certificates: true, ..NatsOptions::default() };
    let server = NatsServer::start(directory.path(), &certs, &options).await;
    assert!(connect(&server.url(), &certs, Some(&certs.client)).await.is_some());
    assert!(connect(&server.url(), &certs, None).await.is_none(), "no certificate");
    let expired = certs.issue("expired", Leaf::EXPIRED);
    assert!(connect(&server.url(), &certs, Some(&expired)).await.is_none(), "an old one");
    let other = Certs::new(&directory.path().join("other"));
    assert!(connect(&server.url(), &certs, Some(&other.client)).await.is_none(), "another's");
}

#[tokio::test]
async fn a_server_with_a_bad_certificate_is_refused_by_clients() {
    let (directory, mut certs) = home();
    for (name, leaf) in [("expired", Leaf::EXPIRED), ("elsewhere", Leaf::ELSEWHERE)] {
        certs.server = certs.issue(name, leaf);
        let server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
        assert!(connect(&server.url(), &certs, None).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_cluster_carries_messages_from_member_to_member() {
    let (directory, certs) = home();
    let options = NatsOptions::default();
    let mut cluster = Cluster::start(directory.path(), &certs, &options, 3).await;
    let urls = cluster.urls();
    let reader = connect(&urls[0], &certs, None).await.expect("connected");
    let mut messages = reader.subscribe("greetings").await.expect("subscribed");
    reader.flush().await.expect("flushed");
    cluster.servers[1].kill();
    cluster.servers[1].restart().await;
    cluster.wait_for_routes(&cluster.servers[1]).await;
    for url in &urls[1..] {
        let writer = connect(url, &certs, None).await.expect("connected");
        // Interest travels between servers a moment after the subscription is confirmed.
        eventually_some("a message from another member", SOON, async || {
            writer.publish("greetings", "hello".into()).await.ok()?;
            tokio::time::timeout(TICK * 10, messages.next()).await.ok().flatten()
        })
        .await;
    }
}

#[tokio::test]
async fn a_frozen_server_is_silent_until_it_goes_on() {
    let (directory, certs) = home();
    let options = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let mut server = NatsServer::start(directory.path(), &certs, &options).await;
    let client = connect(&server.url(), &certs, None).await.expect("connected");
    let mut messages = client.subscribe("echo").await.expect("subscribed");
    server.process().pause();
    client.publish("echo", "hello".into()).await.expect("taken by the client");
    let heard = tokio::time::timeout(TICK * 20, messages.next()).await;
    assert!(heard.is_err(), "a frozen server passes nothing on");
    server.process().resume();
    assert!(tokio::time::timeout(SOON, messages.next()).await.is_ok());
}

#[tokio::test]
async fn a_lame_duck_ends_by_itself() {
    let (directory, certs) = home();
    let mut server = NatsServer::start(directory.path(), &certs, &NatsOptions::default()).await;
    server.lame_duck();
    let status = server.process().wait(SOON * 3).await;
    assert!(status.success(), "{status}");
    assert!(server.process().log().contains("lame duck"), "{}", server.process().log());
}

/// Names the file for the number of the process that `a_run_to_be_killed` starts; without it that test does nothing.
const VICTIM: &str = "FJORD_TEST_VICTIM";

#[tokio::test]
async fn a_run_to_be_killed() {
    let Some(file) = std::env::var_os(VICTIM).map(PathBuf::from) else {
        return;
    };
    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = Process::start("sleeper", command, &file.with_extension("log"));
    fs::write(file.with_extension("new"), sleeper.pid().to_string()).expect("a file");
    fs::rename(file.with_extension("new"), file).expect("a file");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_no_process_behind() {
    let (directory, _certs) = home();
    let file = directory.path().join("pid");
    let mut command = Command::new(std::env::current_exe().expect("this executable"));
    command.args(["--exact", "starts_real_servers::a_run_to_be_killed"]).env(VICTIM, &file);
    let mut run = Process::start("another run", command, &directory.path().join("log"));
    let pid: u32 = eventually_some("the other run's process", SOON, async || {
        fs::read_to_string(&file).ok()?.parse().ok()
    })
    .await;
    assert!(is_alive(pid));
    run.kill();
    eventually(SOON, TICK, || !is_alive(pid)).await;
}

/// Whether a process runs; one that has ended but that nobody has asked about yet does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}
