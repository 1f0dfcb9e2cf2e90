//! Whether every database of a worker can be reached, and its queues' procedures fit the catalogue.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::online::{Findings, LIMIT, Part};
use crate::catalogue::Endpoint;
use crate::config::procedures::DatabaseConfig;
use crate::future::BoxFuture;
use crate::procedures::databases::{self, Place};
use crate::procedures::{Backend, Need};
use crate::telemetry::chain;

/// Procedures that are looked at side by side.
const AT_ONCE_MAX: usize = 4;

/// A check for each database, and for each again that some queues only read from.
pub(super) fn checks(part: &Part) -> Vec<BoxFuture<'_, Findings>> {
    let places = databases::places(&part.config.procedures, &part.config.worker);
    places
        .into_iter()
        .map(|(place, config)| -> BoxFuture<'_, Findings> { Box::pin(check(part, place, config)) })
        .collect()
}

async fn check(part: &Part, place: Place, config: DatabaseConfig) -> Findings {
    let mut findings = Findings::default();
    let deadline = Instant::now() + LIMIT;
    let name = format!("worker: database {place} ({})", whereabouts(&config));
    if let DatabaseConfig::Sqlite(sqlite) = &config
        && !sqlite.file.exists()
    {
        let text = "the file is not there, a worker makes it: nothing was checked";
        findings.warnings.push(format!("{name}: {text}"));
        return findings;
    }
    let backend = match databases::connect(&config, &place.to_string()) {
        Ok(backend) => backend,
        Err(error) => {
            findings.mistakes.push(format!("{name}: {}", chain(&error)));
            return findings;
        }
    };
    match timeout_at(deadline, backend.ping()).await {
        Ok(Ok(())) => verify(part, (&place, &name), &backend, deadline, &mut findings).await,
        Ok(Err(error)) => findings.mistakes.push(format!("{name}: {}", chain(&error))),
        Err(_) => findings.mistakes.push(format!("{name}: no answer within {LIMIT:?}")),
    }
    backend.close().await;
    findings
}

/// Every procedure that runs there against its endpoint.
async fn verify(
    part: &Part,
    (place, name): (&Place, &str),
    backend: &Arc<dyn Backend>,
    deadline: Instant,
    findings: &mut Findings,
) {
    let runs_there = |endpoint: &&Endpoint| {
        let queue = part.config.worker.queue(&endpoint.queue);
        queue.is_some_and(|queue| Place::of(queue) == *place)
    };
    let checks: Vec<BoxFuture<'_, Result<(), String>>> = part
        .endpoints()
        .filter(runs_there)
        .filter_map(|endpoint| {
            Some(Box::pin(fit(name, endpoint, Need::of(endpoint)?, backend)) as BoxFuture<'_, _>)
        })
        .collect();
    let all = checks.len();
    let mut left = all;
    let mut verified = stream::iter(checks).buffered(AT_ONCE_MAX);
    while left > 0 {
        match timeout_at(deadline, verified.next()).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(mistake))) => findings.mistakes.push(mistake),
            Ok(None) => break,
            Err(_) => {
                let text = format!("{left} of {all} procedures were not checked within {LIMIT:?}");
                findings.mistakes.push(format!("{name}: {text}"));
                return;
            }
        }
        left -= 1;
    }
    if findings.mistakes.is_empty() {
        findings.good.push(format!("{name}: answers; procedures that fit: {all}"));
    }
}

async fn fit(
    name: &str,
    endpoint: &Endpoint,
    need: Need,
    backend: &Arc<dyn Backend>,
) -> Result<(), String> {
    let (id, queue) = (&endpoint.id, &endpoint.queue);
    let fits = backend.verify(&need).await;
    fits.map_err(|error| format!("{name}: queue {queue}, endpoint {id:?}: {}", chain(&error)))
}

fn whereabouts(config: &DatabaseConfig) -> String {
    match config {
        DatabaseConfig::Sqlite(sqlite) => sqlite.file.display().to_string(),
        DatabaseConfig::Mssql(mssql) => format!("{}:{}/{}", mssql.host, mssql.port, mssql.database),
    }
}
