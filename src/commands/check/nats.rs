//! Whether every NATS server takes this role: connection, TLS, credentials, sizes, permissions.

use std::time::Duration;

use tokio::time::timeout;

use super::online::{Findings, LIMIT, Part};
use crate::cli::Role;
use crate::config::duration::format_duration;
use crate::config::limits;
use crate::config::messaging::{NatsConfig, TransportConfig};
use crate::envelope::{REPEAT_TOKEN, WORKERS_TOKEN};
use crate::fleet::query::STATUS_TOKEN;
use crate::future::BoxFuture;
use crate::message::{Subject, SubjectError};
use crate::messaging::nats::trial::{self, Trial, TrialResult};
use crate::telemetry::chain;

/// What every process subscribes to for the NATS service API (ADR-32).
const SERVICE_SUBJECT: &str = "$SRV.PING";

/// A check for each server.
pub(super) fn checks(part: &Part) -> Vec<BoxFuture<'_, Findings>> {
    let TransportConfig::Nats(nats) = &part.config.messaging.transport;
    nats.servers
        .iter()
        .map(|server| -> BoxFuture<'_, Findings> { Box::pin(check(part, nats, server)) })
        .collect()
}

async fn check(part: &Part, nats: &NatsConfig, server: &str) -> Findings {
    let mut findings = Findings::default();
    let role = part.role.as_str();
    let place = format!("{role}: NATS server {}", trial::display_name(server));
    // A name that no queue, worker or call has: whatever is sent there reaches nobody.
    let nobody = uuid::Uuid::new_v4().simple().to_string();
    let Ok(tried) = what_to_try(part, &nobody) else {
        findings.errors.push(format!("{place}: messaging.prefix is too long for a subject"));
        return findings;
    };
    match timeout(LIMIT, trial::run(nats, server, &tried)).await {
        Ok(Ok(found)) => judge(part, &place, &nobody, &found, &mut findings),
        Ok(Err(error)) => findings.errors.push(format!("{place}: {}", chain(&error))),
        Err(_) => findings.errors.push(format!("{place}: no answer within {LIMIT:?}")),
    }
    if findings.errors.is_empty() {
        let count = tried.subscribe.len() + tried.join.len() + tried.publish.len() + 1;
        let tls = if nats.tls.is_some() { "TLS, " } else { "" };
        findings.good.push(format!("{place}: {tls}credentials and {count} subjects are good"));
    }
    findings
}

/// The subjects of a role that can be tried without harm. A queue's own cannot: a message might come, and be lost.
fn what_to_try(part: &Part, nobody: &str) -> Result<Trial, SubjectError> {
    let prefix = &part.config.messaging.prefix;
    let mut trial = Trial { subscribe: vec![prefix.join(STATUS_TOKEN)?], ..Trial::default() };
    if part.config.messaging.service_api {
        trial.subscribe.push(Subject::new(SERVICE_SUBJECT)?);
    }
    let queue = prefix.join(format_args!("q.{nobody}"))?;
    match part.role {
        Role::Gateway => {
            trial.publish.extend([
                queue,
                prefix.join(format_args!("{WORKERS_TOKEN}.{nobody}.{nobody}.j.0"))?,
                prefix.join(format_args!("cancel.{nobody}"))?,
                prefix.join(format_args!("{REPEAT_TOKEN}.{nobody}"))?,
            ]);
        }
        Role::Worker => {
            trial.join.push(queue);
            let mut queues: Vec<_> = part.endpoints().map(|endpoint| &endpoint.queue).collect();
            queues.sort();
            queues.dedup();
            for queue in queues {
                let own = prefix.join(format_args!("{WORKERS_TOKEN}.{queue}.{nobody}"))?;
                trial.subscribe.extend([
                    own.all_below(),
                    prefix.join(format_args!("cancel.{queue}"))?,
                    prefix.join(format_args!("{REPEAT_TOKEN}.{queue}"))?,
                ]);
            }
        }
    }
    Ok(trial)
}

fn judge(part: &Part, place: &str, nobody: &str, found: &TrialResult, findings: &mut Findings) {
    for refusal in &found.refused {
        // An account may list its queues one by one, and this one is not among them.
        if refusal.contains(&format!(".q.{nobody}"))
            || refusal.contains(&format!(".cancel.{nobody}"))
        {
            let text =
                "the account does not allow every queue: whether it allows ours was not tried";
            findings.warnings.push(format!("{place}: {text}"));
        } else {
            findings.errors.push(format!("{place}: refused: {refusal}"));
        }
    }
    findings.warnings.dedup();
    if let Some(round_trip) = found.round_trip {
        judge_times(part, place, round_trip, findings);
    }
    if part.role == Role::Gateway {
        let limit = found.payload_bytes_max;
        let large = part.endpoints().filter(|one| one.takes_body() && one.body_bytes_max > limit);
        findings.errors.extend(large.map(|endpoint| {
            format!(
                "{place}: endpoint {:?} takes bodies of {} bytes, the server ({}) messages of {limit} (max_payload)",
                endpoint.id, endpoint.body_bytes_max, found.version
            )
        }));
    }
}

/// Says which configured times are short beside the round trip: longer ones will be used.
fn judge_times(part: &Part, place: &str, round_trip: Duration, findings: &mut Findings) {
    let session = &part.config.gateway.session;
    let worker = &part.config.worker;
    let times: &[(&str, Duration)] = match part.role {
        Role::Gateway => &[("gateway.session.accept_timeout", session.accept_timeout)],
        Role::Worker => &[
            ("worker.offer_timeout", worker.offer_timeout),
            ("worker.claim_timeout", worker.claim_timeout),
        ],
    };
    for (key, time) in times {
        if let Some(longer) = limits::too_short(*time, round_trip) {
            findings.warnings.push(format!(
                "{place}: {key} is {}, and a round trip takes {}: {} will be used",
                format_duration(*time),
                format_duration(in_millis(round_trip)),
                format_duration(in_millis(longer)),
            ));
        }
    }
}

fn in_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
