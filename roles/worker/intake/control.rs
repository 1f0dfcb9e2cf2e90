//! Receives control messages, requests for offered slots, and requests that bypass the queue group.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::envelope::{Control, DIRECT_TOKEN};
use crate::lifecycle::Cancel;
use crate::message::{Message, Subject};
use crate::messaging::{Subscription, Transport, TransportError};
use crate::roles::worker::execution::executor::Executor;
use crate::roles::worker::execution::running_jobs::{Consent, JobId};
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::{counter, names};

use super::queue::Queue;
use super::slots::OfferId;

/// Subscribes to this worker's own subject for a queue, and to the subjects on which all workers of
/// the queue receive cancel messages, membership queries and requests to resend answers. Handles
/// messages until `closed` is set or the transport closes.
///
/// # Errors
/// `TransportError` if a subscription is refused.
pub async fn listen(
    transport: &Arc<dyn Transport>,
    queue: &Arc<Queue>,
    executor: &Arc<Executor>,
    closed: &Cancel,
) -> Result<(), TransportError> {
    let subjects = &queue.subjects;
    let mut own = transport.subscribe(&subjects.own.all_below()).await?;
    let mut cancels = transport.subscribe(&subjects.broadcast).await?;
    let mut resends = transport.subscribe(&subjects.resend).await?;
    let tasks = &executor.tasks;
    let (own_queue, own_executor) = (Arc::clone(queue), Arc::clone(executor));
    let until = closed.clone();
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = next_until(&mut *own, &until).await {
            handle(&own_queue, &own_executor, message);
        }
    });
    let (cancel_queue, jobs) = (Arc::clone(queue), Arc::clone(&executor.jobs));
    let until = closed.clone();
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = next_until(&mut *cancels, &until).await {
            match (Control::parse(&message.headers), message.reply) {
                (Some(Control::Cancel), Some(reply)) => {
                    cancel_queue.cancel(&reply);
                    jobs.cancel_by_reply(cancel_queue.subjects.index, &reply);
                }
                (Some(Control::QueryMembers), Some(reply)) => {
                    cancel_queue.announce_membership(reply);
                }
                _ => {}
            }
        }
    });
    let (index, repeat_executor) = (subjects.index, Arc::clone(executor));
    let until = closed.clone();
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = next_until(&mut *resends, &until).await {
            let Some(subjects) = Control::parse_resend(&message) else {
                count_malformed();
                continue;
            };
            let recent = &repeat_executor.recent;
            for job in recent.finished_below(index, &subjects, Instant::now()) {
                repeat_executor.resend.request(job);
            }
        }
    });
    Ok(())
}

/// Returns the next message, or `None` once `closed` is set or the transport has closed.
async fn next_until(messages: &mut dyn Subscription, closed: &Cancel) -> Option<Message> {
    tokio::select! {
        message = messages.next() => message,
        () = closed.cancelled() => None,
    }
}

/// The target of a message to the worker's own subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ControlTarget {
    Job(u64),
    Offer(OfferId),
    /// A request that was sent to this worker directly instead of to the queue group.
    Direct,
}

impl ControlTarget {
    /// Parses a subject below the worker's own subject.
    fn parse(subject: &Subject, own: &Subject) -> Option<Self> {
        let tail = subject.as_str().strip_prefix(own.as_str())?.strip_prefix('.')?;
        if tail == DIRECT_TOKEN {
            return Some(Self::Direct);
        }
        let (kind, number) = tail.split_once('.')?;
        let number = number.parse().ok()?;
        match kind {
            "j" => Some(Self::Job(number)),
            "o" => Some(Self::Offer(OfferId(number))),
            _ => None,
        }
    }
}

fn handle(queue: &Arc<Queue>, executor: &Executor, message: Message) {
    let jobs = &executor.jobs;
    let control = Control::parse(&message.headers);
    match ControlTarget::parse(&message.subject, &queue.subjects.own) {
        Some(ControlTarget::Job(number)) => {
            let id = JobId { queue: queue.subjects.index, number };
            match control {
                Some(Control::Grant) => jobs.consent(id, Consent::Granted),
                Some(Control::Deny) => jobs.consent(id, Consent::Denied),
                Some(Control::Cancel) => jobs.cancel(id),
                Some(Control::Ack(part)) => jobs.acknowledge(id, part),
                Some(Control::Resend) => executor.resend.request(id),
                // Nobody received the claim, so no gateway can grant it.
                None if message.no_responders => jobs.consent(id, Consent::Denied),
                Some(Control::Decline | Control::QueryMembers) | None => count_malformed(),
            }
        }
        Some(ControlTarget::Offer(id)) => match control {
            Some(Control::Decline) => queue.decline_offer(id),
            // Nobody received the offer.
            None if message.no_responders => queue.decline_offer(id),
            None => queue.accept_offer(id, message),
            Some(_) => count_malformed(),
        },
        Some(ControlTarget::Direct) if control.is_none() => queue.on_message(message),
        Some(ControlTarget::Direct) | None => count_malformed(),
    }
}

fn count_malformed() {
    counter(&names::WORKER_MALFORMED, &[]).increment(1);
    if conditions::raise(&MALFORMED, "control") {
        tracing::warn!("a control message violates the protocol");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_subject_identifies_a_job_an_offer_or_a_direct_request() {
        let own = Subject::new("fjord.w.queue.1").unwrap();
        let parse = |tail: &str| ControlTarget::parse(&Subject::from_received(tail), &own);
        assert_eq!(parse("fjord.w.queue.1.j.7"), Some(ControlTarget::Job(7)));
        assert_eq!(parse("fjord.w.queue.1.o.9"), Some(ControlTarget::Offer(OfferId(9))));
        assert_eq!(parse("fjord.w.queue.1.q"), Some(ControlTarget::Direct));
        for bad in ["", ".", ".j", ".j.", ".j.x", ".j.7.1", ".o.9.1", ".x.1", "2.j.7"] {
            assert_eq!(parse(&format!("fjord.w.queue.1{bad}")), None, "{bad}");
        }
    }
}
