//! Checks that the server still has this process's inbox subscriptions.
//!
//! Without this check, a process whose inbox subscription is missing on the server would look healthy: its link is up
//! and its requests are executed, but it receives no replies. The process therefore sends a message to each inbox
//! subscription. If the server has no interest in the subject, it reports that to the sender. Only inbox subscriptions
//! are checked, because the process may not publish to its other subscriptions.
//!
//! The check finds nothing while another subscription covers the inbox, such as a subscription to `>` that records all
//! messages. The server then has interest in the subject.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::timeout;

use super::client::NatsClient;
use super::convert;
use super::shared::NatsShared;
use crate::messaging::TransportError;
use crate::telemetry::{counter, names};

/// The maximum number of subscriptions that are checked. A gateway has a single subscription for all replies.
const CHECKED_MAX: usize = 16;

/// The subscriptions that were missing on the server at the last check.
#[derive(Debug, Default)]
pub(super) struct InterestCheck {
    suspects: BTreeSet<u64>,
}

impl InterestCheck {
    /// Checks the subscriptions and renews those that were missing in two consecutive checks. A single failed check
    /// could mean that the subscription is still being made. Cancel safe.
    pub(super) async fn run(&mut self, shared: &NatsShared, client: &NatsClient) {
        let limit = client.operation_timeout.min(shared.config.load().ping_interval);
        let Ok(Ok(unserved)) = timeout(limit, unserved(shared, client)).await else {
            // The link is slow or was lost. The probes detect that.
            self.suspects.clear();
            return;
        };
        let lost: BTreeSet<u64> = unserved.intersection(&self.suspects).copied().collect();
        self.suspects = unserved;
        if lost.is_empty() {
            return;
        }
        for subject in shared.state.subscriptions.lose(&lost) {
            counter(&names::NATS_SUBSCRIPTIONS_LOST, &[]).increment(1);
            tracing::error!(
                %subject,
                "the NATS server does not have a subscription of this process; replies were lost; subscribing again"
            );
        }
        shared.state.refresh();
    }
}

/// Returns the subscriptions that are missing on the server.
async fn unserved(
    shared: &NatsShared,
    client: &NatsClient,
) -> Result<BTreeSet<u64>, TransportError> {
    let refused = |error: async_nats::client::PublishError| TransportError::Failed(error.into());
    let mut checked = BTreeSet::new();
    let _earlier = shared.probes.take_unserved();
    for handle in shared.state.subscriptions.accepted() {
        let Some(subject) = handle.check_subject().filter(|_| checked.len() < CHECKED_MAX) else {
            continue;
        };
        checked.insert(handle.id);
        let reply = convert::subject(&shared.probes.unserved_subject(handle.id));
        let (headers, payload) = (HeaderMap::new(), Bytes::new());
        let sent = client.inner.publish_with_reply_and_headers(subject, reply, headers, payload);
        sent.await.map_err(refused)?;
    }
    if checked.is_empty() {
        return Ok(checked);
    }
    // The server's replies to the checks arrive before the probe.
    let _took = client.round_trip(&shared.probes).await?;
    let unserved = shared.probes.take_unserved();
    Ok(unserved.intersection(&checked).copied().collect())
}
