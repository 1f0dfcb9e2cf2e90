//! Checks every NATS server that a role uses: the connection, TLS, the credentials, the maximum
//! message size and the permissions.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::findings::{CheckResults, CheckedRole, LIMIT};
use crate::catalogue::QueueName;
use crate::cli::Role;
use crate::config::gateway::RateLimitScope;
use crate::config::limits;
use crate::config::messaging::{NatsConfig, TransportConfig};
use crate::envelope::{RATE_TOKEN, RESEND_TOKEN, WORKERS_TOKEN};
use crate::fleet::control::CONTROL_TOKEN;
use crate::fleet::query::STATUS_TOKEN;
use crate::future::BoxFuture;
use crate::message::{Subject, SubjectError};
use crate::messaging::nats::permission_check::{self, PermissionCheck, PermissionCheckResult};
use crate::telemetry::chain;
use crate::units::format_duration;

/// A subject of the NATS service API (ADR-32). Every process subscribes to it if `messaging.service_api` is enabled.
const SERVICE_SUBJECT: &str = "$SRV.PING";

/// Returns a check for each server.
pub(super) fn checks(role: &CheckedRole) -> Vec<BoxFuture<'_, CheckResults>> {
    let TransportConfig::Nats(nats) = &role.config.messaging.transport;
    nats.servers
        .iter()
        .map(|server| -> BoxFuture<'_, CheckResults> { Box::pin(check(role, nats, server)) })
        .collect()
}

async fn check(role: &CheckedRole, nats: &NatsConfig, server: &str) -> CheckResults {
    let mut results = CheckResults::default();
    let name = role.role.as_str();
    let place = format!("{name}: NATS server {}", permission_check::display_name(server));
    // No queue, worker or call has this name, so messages sent to it reach no process.
    let unused = uuid::Uuid::new_v4().simple().to_string();
    let Ok(check) = permission_check(role, &unused) else {
        results.errors.push(format!("{place}: messaging.prefix is too long for a subject"));
        return results;
    };
    match timeout(LIMIT, permission_check::run(nats, server, &check)).await {
        Ok(Ok(result)) => evaluate(role, &place, &unused, &result, &mut results),
        Ok(Err(error)) => results.errors.push(format!("{place}: {}", chain(&error))),
        Err(_) => results.errors.push(format!("{place}: no answer within {LIMIT:?}")),
    }
    if results.errors.is_empty() {
        let count = check.subscribe.len() + check.queue_subscribe.len() + check.publish.len() + 1;
        let tls = if nats.tls.is_some() { "TLS, " } else { "" };
        results.passed.push(format!("{place}: accepted: {tls}credentials, {count} subjects"));
    }
    results
}

/// Returns the subjects of a role that can be tested safely. Joining a real queue is not tested, because the check
/// could receive a real request and lose it.
fn permission_check(role: &CheckedRole, unused: &str) -> Result<PermissionCheck, SubjectError> {
    let prefix = &role.config.messaging.prefix;
    let control = prefix.join(CONTROL_TOKEN)?;
    let mut check = PermissionCheck {
        subscribe: vec![prefix.join(STATUS_TOKEN)?, control.clone(), control.all_below()],
        ..PermissionCheck::default()
    };
    if role.config.messaging.service_api {
        check.subscribe.push(Subject::new(SERVICE_SUBJECT)?);
    }
    let queue = prefix.join(format_args!("q.{unused}"))?;
    match role.role {
        Role::Gateway => {
            check.publish.extend([
                queue,
                prefix.join(format_args!("cancel.{unused}"))?,
                prefix.join(format_args!("{RESEND_TOKEN}.{unused}"))?,
            ]);
            if role.config.gateway.rate_limits.scope == RateLimitScope::Fleet {
                // Gateways ignore an empty message.
                let consumed = prefix.join(RATE_TOKEN)?;
                check.subscribe.push(consumed.clone());
                check.publish.push(consumed);
            }
            for queue in queues(role) {
                let job = prefix.join(format_args!("{WORKERS_TOKEN}.{queue}.{unused}.j.0"))?;
                check.publish.push(job);
            }
        }
        Role::Worker => {
            check.queue_subscribe.push(queue);
            for queue in queues(role) {
                let own = prefix.join(format_args!("{WORKERS_TOKEN}.{queue}.{unused}"))?;
                check.subscribe.extend([
                    own.all_below(),
                    prefix.join(format_args!("cancel.{queue}"))?,
                    prefix.join(format_args!("{RESEND_TOKEN}.{queue}"))?,
                ]);
            }
        }
    }
    Ok(check)
}

/// Returns the queues of a role, without duplicates.
fn queues(role: &CheckedRole) -> BTreeSet<&QueueName> {
    role.endpoints().map(|(_, queue)| &queue.name).collect()
}

fn evaluate(
    role: &CheckedRole,
    place: &str,
    unused: &str,
    result: &PermissionCheckResult,
    results: &mut CheckResults,
) {
    for refusal in &result.refused {
        // An account that permits each queue by name refuses the unused name.
        if is_of_queue(refusal, unused) {
            let text = "the account does not allow every queue; whether it allows the configured ones was not tested";
            results.warnings.push(format!("{place}: {text}"));
        } else {
            results.errors.push(format!("{place}: refused: {refusal}"));
        }
    }
    results.warnings.dedup();
    if let Some(round_trip) = result.round_trip {
        check_timeouts(role, place, round_trip, results);
    }
    if role.role == Role::Gateway {
        let limit = result.payload_bytes_max;
        let endpoints = role.catalogue.endpoints().iter();
        let large = endpoints.filter(|one| one.takes_body() && one.body_bytes_max > limit);
        results.errors.extend(large.map(|endpoint| {
            format!(
                "{place}: endpoint {:?} accepts bodies of {} bytes, but the server ({}) accepts messages of at most \
                 {limit} (max_payload)",
                endpoint.id, endpoint.body_bytes_max, result.version
            )
        }));
    }
}

/// Returns whether the server refused a subject shared by all workers of the queue `name`.
fn is_of_queue(refusal: &str, name: &str) -> bool {
    let mut tokens = ["q", "cancel", RESEND_TOKEN].into_iter();
    tokens.any(|token| refusal.contains(&format!(".{token}.{name}")))
}

/// Warns about timeouts that are too short for the measured round trip. The role replaces such timeouts with longer
/// ones.
fn check_timeouts(
    role: &CheckedRole,
    place: &str,
    round_trip: Duration,
    results: &mut CheckResults,
) {
    let session = &role.config.gateway.session;
    let worker = &role.config.worker;
    let times: &[(&str, Duration)] = match role.role {
        Role::Gateway => &[("gateway.session.accept_timeout", session.accept_timeout)],
        Role::Worker => &[
            ("worker.offer_timeout", worker.offer_timeout),
            ("worker.claim_timeout", worker.claim_timeout),
        ],
    };
    for (key, time) in times {
        if let Some(longer) = limits::lengthened_timeout(*time, round_trip) {
            results.warnings.push(format!(
                "{place}: {key} is {}, but a round trip takes {}: {} will be used",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_of_an_unused_queue_is_recognized() {
        for subject in ["f.q.u", "f.cancel.u", "f.resend.u"] {
            assert!(is_of_queue(&format!("Permissions Violation for \"{subject}\""), "u"));
        }
        assert!(!is_of_queue("Permissions Violation for \"f.w.horse-get.u.j.0\"", "u"));
    }
}
