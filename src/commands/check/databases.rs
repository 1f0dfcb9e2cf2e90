//! Whether every database of a worker can be reached, and its queues' procedures fit the catalogue.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::online::{Findings, LIMIT, Part};
use crate::catalogue::Endpoint;
use crate::config::procedures::DatabaseConfig;
use crate::future::BoxFuture;
use crate::procedures::databases::{self, Place};
use crate::procedures::{Backend, BackendError, Need};
use crate::telemetry::chain;

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
            findings.errors.push(format!("{name}: {}", chain(&error)));
            return findings;
        }
    };
    match timeout_at(deadline, backend.ping()).await {
        Ok(Ok(())) => verify(part, (&place, &name), &backend, deadline, &mut findings).await,
        Ok(Err(error)) => findings.errors.push(format!("{name}: {}", chain(&error))),
        Err(_) => findings.errors.push(format!("{name}: no answer within {LIMIT:?}")),
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
    let endpoints = part.endpoints().filter(runs_there);
    let (endpoints, needs): (Vec<&Endpoint>, Vec<Need>) =
        endpoints.filter_map(|endpoint| Some((endpoint, Need::of(endpoint)?))).unzip();
    let all = needs.len();
    let mut left = all;
    let errors = &mut findings.errors;
    let mut found = |place: usize, result: Result<(), BackendError>| {
        left = left.saturating_sub(1);
        if let (Err(error), Some(endpoint)) = (result, endpoints.get(place)) {
            let (id, queue, why) = (&endpoint.id, &endpoint.queue, chain(&error));
            errors.push(format!("{name}: queue {queue}, endpoint {id:?}: {why}"));
        }
    };
    let verified = timeout_at(deadline, backend.verify(&needs, &mut found)).await;
    if verified.is_err() {
        let text = format!("{left} of {all} procedures were not checked within {LIMIT:?}");
        findings.errors.push(format!("{name}: {text}"));
    }
    if findings.errors.is_empty() {
        findings.good.push(format!("{name}: answers; procedures that fit: {all}"));
    }
}

fn whereabouts(config: &DatabaseConfig) -> String {
    match config {
        DatabaseConfig::Sqlite(sqlite) => sqlite.file.display().to_string(),
        DatabaseConfig::Mssql(mssql) => format!("{}:{}/{}", mssql.host, mssql.port, mssql.database),
    }
}
