//! Opens TLS connections, sends one request on each, and keeps them open.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::https_client::{BenchHttp, HttpsConnector};

/// The address and number of idle connections.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdleConnections {
    #[arg(long)]
    https: SocketAddr,
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    number: usize,
}

impl IdleConnections {
    /// Opens the connections and keeps them open until the process is killed.
    pub(crate) async fn run(self) {
        let connector =
            HttpsConnector::new(self.https, &self.ca, BenchHttp::H1, "/v1/echo/1".to_owned());
        let mut connections = Vec::with_capacity(self.number);
        for _ in 0..self.number {
            let mut connection = connector.one().await;
            assert_eq!(connection.ask().await, Some(true), "an answer");
            connections.push(connection);
        }
        println!("holding");
        std::future::pending::<()>().await;
    }
}
