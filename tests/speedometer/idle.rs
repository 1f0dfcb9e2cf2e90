//! Holds idle TLS connections that have asked once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::https::{Dialler, Http};

/// How many, and where.
#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    #[arg(long)]
    https: SocketAddr,
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    number: usize,
}

impl Idle {
    /// Holds them until it is ended.
    pub(crate) async fn run(self) {
        let dialler = Dialler::new(self.https, &self.ca, Http::H1, "/v1/echo/1".to_owned());
        let mut held = Vec::with_capacity(self.number);
        for _ in 0..self.number {
            let mut connection = dialler.one().await;
            assert_eq!(connection.ask().await, Some(true), "an answer");
            held.push(connection);
        }
        println!("holding");
        std::future::pending::<()>().await;
    }
}
