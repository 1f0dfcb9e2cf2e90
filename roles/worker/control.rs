//! What arrives on this worker's own subject: consents, cancels, and requests for offered slots.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;

use crate::envelope::Control;
use crate::lifecycle::Tasks;
use crate::messaging::{Message, Subject, Subscription, Transport, TransportError};
use crate::telemetry::{counter, names};

use super::dispatch::Dispatch;
use super::jobs::{Consent, JobId, Jobs};
use super::queue::Queue;
use super::slots::OfferId;

/// The queues of this worker by number; replaced whole at a reload.
pub type QueueTable = Arc<ArcSwap<Vec<Arc<Queue>>>>;

/// Reads this worker's own subject until the transport closes.
///
/// # Errors
/// `TransportError` when the subscription is not taken.
pub async fn listen(
    transport: &Arc<dyn Transport>,
    own: &Subject,
    jobs: Arc<Jobs>,
    queues: QueueTable,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let mut subscription: Box<dyn Subscription> = transport.subscribe(&own.below()).await?;
    let own = own.clone();
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = subscription.next().await {
            handle(&own, &jobs, &queues, message).await;
        }
    });
    Ok(())
}

/// Reads cancels for a queue whose sender does not know which worker has the call.
///
/// # Errors
/// `TransportError` when the subscription is not taken.
pub async fn listen_for_cancels(
    transport: &Arc<dyn Transport>,
    queue: &Arc<Queue>,
    jobs: Arc<Jobs>,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let mut subscription = transport.subscribe(&queue.cancel).await?;
    let queue = Arc::clone(queue);
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = subscription.next().await {
            if let (Some(Control::Cancel), Some(reply)) =
                (Control::parse(&message.headers), &message.reply)
            {
                queue.cancelled(reply);
                jobs.cancel_by_reply(reply);
            }
        }
    });
    Ok(())
}

/// Reads the calls of gateways that lost their link, and sends their answers again.
///
/// # Errors
/// `TransportError` when the subscription is not taken.
pub async fn listen_for_repeats(
    subject: &Subject,
    dispatch: &Arc<Dispatch>,
) -> Result<(), TransportError> {
    let mut subscription = dispatch.transport.subscribe(subject).await?;
    let tasks = dispatch.tasks.clone();
    let dispatch = Arc::clone(dispatch);
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = subscription.next().await {
            match (Control::parse(&message.headers), &message.reply) {
                (Some(Control::Repeat), Some(inbox)) => dispatch.repeat(inbox).await,
                _ => malformed(),
            }
        }
    });
    Ok(())
}

/// Where on this worker's subject a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Job(JobId),
    Offer(usize, OfferId),
}

impl Address {
    fn parse(tail: &str) -> Option<Self> {
        let mut tokens = tail.split('.');
        let address = match tokens.next()? {
            "j" => Self::Job(JobId(tokens.next()?.parse().ok()?)),
            "o" => Self::Offer(tokens.next()?.parse().ok()?, OfferId(tokens.next()?.parse().ok()?)),
            _ => return None,
        };
        tokens.next().is_none().then_some(address)
    }
}

async fn handle(own: &Subject, jobs: &Jobs, queues: &QueueTable, message: Message) {
    let address = message
        .subject
        .as_str()
        .strip_prefix(own.as_str())
        .and_then(|tail| tail.strip_prefix('.'))
        .and_then(Address::parse);
    let control = Control::parse(&message.headers);
    match (address, control) {
        (Some(Address::Job(id)), Some(Control::Grant)) => jobs.consent(id, Consent::Granted),
        (Some(Address::Job(id)), Some(Control::Deny)) => jobs.consent(id, Consent::Denied),
        (Some(Address::Job(id)), Some(Control::Cancel)) => jobs.cancel(id),
        (Some(Address::Job(id)), Some(Control::Taken(part))) => jobs.taken(id, part),
        (Some(Address::Offer(number, id)), control) => {
            let queue = queues.load().get(number).cloned();
            match (queue, control) {
                (Some(queue), Some(Control::Decline)) => queue.declined(id).await,
                (Some(queue), None) => queue.accepted(id, message).await,
                _ => malformed(),
            }
        }
        _ => malformed(),
    }
}

fn malformed() {
    counter(&names::WORKER_MALFORMED, &[]).increment(1);
    tracing::warn!("a control message does not keep to the protocol");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_job_or_an_offer_and_nothing_else() {
        assert_eq!(Address::parse("j.7"), Some(Address::Job(JobId(7))));
        assert_eq!(Address::parse("o.2.9"), Some(Address::Offer(2, OfferId(9))));
        for bad in ["", "j", "j.x", "j.7.1", "o.2", "o.2.9.1", "x.1"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
