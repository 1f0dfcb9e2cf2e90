//! Checks that every database of a worker answers and that its procedures match the catalogue.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::findings::{CheckResults, CheckedRole, LIMIT};
use super::returns;
use crate::catalogue::{Endpoint, EndpointQueue};
use crate::config::procedures::DatabaseConfig;
use crate::future::BoxFuture;
use crate::procedures::databases::{self, DatabaseKey};
use crate::procedures::{Backend, BackendError, ExpectedProcedure};
use crate::telemetry::chain;

/// Returns a check for each database. A SQL Server database with read-only queues gets a second check.
pub(super) fn checks(role: &CheckedRole) -> Vec<BoxFuture<'_, CheckResults>> {
    let databases = databases::configs(&role.config.procedures, &role.config.worker);
    databases
        .into_iter()
        .map(|(place, config)| -> BoxFuture<'_, CheckResults> {
            Box::pin(check(role, place, config))
        })
        .collect()
}

async fn check(role: &CheckedRole, place: DatabaseKey, config: DatabaseConfig) -> CheckResults {
    let mut results = CheckResults::default();
    let deadline = Instant::now() + LIMIT;
    let name = format!("worker: database {place} ({})", address(&config));
    if let DatabaseConfig::Sqlite(sqlite) = &config
        && !sqlite.file.exists()
    {
        let text = "the file does not exist until a worker creates it, so nothing was checked";
        results.warnings.push(format!("{name}: {text}"));
        return results;
    }
    let backend = match databases::connect(&config, &place.to_string()) {
        Ok(backend) => backend,
        Err(error) => {
            results.errors.push(format!("{name}: {}", chain(&error)));
            return results;
        }
    };
    match timeout_at(deadline, backend.ping()).await {
        Ok(Ok(())) => verify(role, (&place, &name), &backend, deadline, &mut results).await,
        Ok(Err(error)) => results.errors.push(format!("{name}: {}", chain(&error))),
        Err(_) => results.errors.push(format!("{name}: no answer within {LIMIT:?}")),
    }
    backend.close().await;
    results
}

/// Compares the procedures in a database with their endpoints.
async fn verify(
    role: &CheckedRole,
    (place, name): (&DatabaseKey, &str),
    backend: &Arc<dyn Backend>,
    deadline: Instant,
    results: &mut CheckResults,
) {
    let runs_there = |(_, queue): &(&Endpoint, &EndpointQueue)| {
        let queue = role.config.worker.queue(&queue.name);
        queue.is_some_and(|queue| DatabaseKey::from_queue(queue) == *place)
    };
    let endpoints = role.endpoints().filter(runs_there);
    let (endpoints, expected): (Vec<(&Endpoint, &EndpointQueue)>, Vec<ExpectedProcedure>) =
        endpoints
            .filter_map(|(endpoint, queue)| {
                Some(((endpoint, queue), ExpectedProcedure::from_queue(endpoint, queue)?))
            })
            .unzip();
    let all = expected.len();
    let mut remaining = all;
    let errors = &mut results.errors;
    let mut on_result = |place: usize, result: Result<(), BackendError>| {
        remaining = remaining.saturating_sub(1);
        if let (Err(error), Some((endpoint, queue))) = (result, endpoints.get(place)) {
            let (id, queue, why) = (&endpoint.id, &queue.name, chain(&error));
            errors.push(format!("{name}: queue {queue}, endpoint {id:?}: {why}"));
        }
    };
    let verified = timeout_at(deadline, backend.verify(&expected, &mut on_result)).await;
    if verified.is_err() {
        let text = format!("{remaining} of {all} procedures were not checked within {LIMIT:?}");
        results.errors.push(format!("{name}: {text}"));
    }
    let differences = returns::differences(&endpoints, backend, deadline).await;
    results.warnings.extend(differences.into_iter().map(|line| format!("{name}: {line}")));
    if results.errors.is_empty() {
        results.passed.push(format!("{name}: available; valid procedures: {all}"));
    }
}

fn address(config: &DatabaseConfig) -> String {
    match config {
        DatabaseConfig::Sqlite(sqlite) => sqlite.file.display().to_string(),
        DatabaseConfig::Mssql(mssql) => format!("{}:{}/{}", mssql.host, mssql.port, mssql.database),
    }
}
