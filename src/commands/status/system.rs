//! What NATS servers say of themselves to their system account: every server of the cluster, over NATS alone.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::monitoring::{Connz, Failure, Look, Varz};
use crate::fleet::query;
use crate::message::{Message, Subject};
use crate::messaging::{self, Transport};

/// Longest wait for the connection to be up, and for the answers.
const LIMIT: Duration = Duration::from_secs(3);
/// What stands for the servers when none of them can be asked.
const EVERY: &str = "the servers, by messaging.nats.system";

/// An answer of a server.
#[derive(Debug, Deserialize)]
struct Answer<T> {
    server: Server,
    data: T,
}

#[derive(Debug, Deserialize)]
struct Server {
    id: String,
    name: String,
}

/// Looks at every server of the cluster, each under its name. Safe to drop.
pub(super) async fn look(
    transport: &dyn Transport,
    expected: usize,
) -> Vec<(String, Result<Look, Failure>)> {
    match ask_all(transport, expected).await {
        Ok(servers) => servers.into_iter().map(|(name, look)| (name, Ok(look))).collect(),
        Err(failure) => vec![(EVERY.to_owned(), Err(failure))],
    }
}

async fn ask_all(
    transport: &dyn Transport,
    expected: usize,
) -> Result<Vec<(String, Look)>, Failure> {
    let mut link = transport.link();
    let up = timeout(LIMIT, messaging::wait_until_up(&mut link)).await;
    if !matches!(up, Ok(Some(_))) {
        return Err(
            "no connection: wrong credentials, or not a user of the system account".to_owned()
        );
    }
    let at = Instant::now();
    let figures = ask::<Varz>(transport, "VARZ", "{}", expected);
    let connections = ask::<Connz>(transport, "CONNZ", r#"{"sort":"pending","limit":1}"#, expected);
    let (figures, connections) = (figures.await?, connections.await?);
    if figures.is_empty() {
        return Err("nobody answered: not a user of the system account, perhaps".to_owned());
    }
    let mut slowest: HashMap<String, _> = connections
        .into_iter()
        .filter_map(|answer| Some((answer.server.id, answer.data.slowest()?)))
        .collect();
    let mut servers: Vec<_> = figures
        .into_iter()
        .map(|Answer { server, data }| {
            let look = Look { at, figures: data, slowest: slowest.remove(&server.id) };
            (server.name, look)
        })
        .collect();
    servers.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(servers)
}

/// One question to every server. What cannot be read is left out.
async fn ask<T: DeserializeOwned>(
    transport: &dyn Transport,
    what: &str,
    options: &'static str,
    expected: usize,
) -> Result<Vec<Answer<T>>, Failure> {
    let subject = Subject::new(&format!("$SYS.REQ.SERVER.PING.{what}"));
    let subject = subject.map_err(|error| error.to_string())?;
    let payload = Bytes::from_static(options.as_bytes());
    let question = Message { payload, ..Message::to(subject) };
    let answers = query::request_many(transport, question, expected, LIMIT).await;
    let answers = answers.map_err(|error| error.to_string())?;
    Ok(answers.iter().filter_map(|answer| serde_json::from_slice(&answer.payload).ok()).collect())
}
