//! What arrives on this worker's own subject: consents, cancels, and requests for offered slots.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::envelope::{Control, DIRECT_TOKEN};
use crate::message::Message;
use crate::messaging::{Transport, TransportError};
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::{counter, names};

use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::execution::running_jobs::{Consent, JobId};
use crate::roles::worker::intake::queue::Queue;
use crate::roles::worker::intake::slots::OfferId;

/// The queues of this worker by number; replaced whole at a reload.
pub type QueueTable = Arc<ArcSwap<Vec<Arc<Queue>>>>;

/// Reads what gateways say to this worker about one queue, until the transport closes: on its own subject, cancels whose
/// sender does not know which worker has the call, and the calls of gateways that lost their link.
///
/// # Errors
/// `TransportError` when a subscription is not taken.
pub async fn listen(
    transport: &Arc<dyn Transport>,
    queue: &Arc<Queue>,
    dispatch: &Arc<Dispatch>,
) -> Result<(), TransportError> {
    let mut own = transport.subscribe(&queue.own.all_below()).await?;
    let mut cancels = transport.subscribe(&queue.cancel).await?;
    let mut repeats = transport.subscribe(&queue.repeat).await?;
    let tasks = &dispatch.tasks;
    let (of_own, dispatch_of_own) = (Arc::clone(queue), Arc::clone(dispatch));
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = own.next().await {
            handle(&of_own, &dispatch_of_own, message);
        }
    });
    let (of_cancels, jobs) = (Arc::clone(queue), Arc::clone(&dispatch.jobs));
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = cancels.next().await {
            match (Control::parse(&message.headers), message.reply) {
                (Some(Control::Cancel), Some(reply)) => {
                    of_cancels.cancelled(&reply);
                    jobs.cancel_by_reply(of_cancels.number, &reply);
                }
                (Some(Control::Members), Some(reply)) => of_cancels.present(reply),
                _ => {}
            }
        }
    });
    let (number, of_repeats) = (queue.number, Arc::clone(dispatch));
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = repeats.next().await {
            let Some(names) = Control::parse_repeat(&message) else {
                malformed();
                continue;
            };
            let lacking = of_repeats.recent.below(number, &names, Instant::now());
            for job in lacking {
                of_repeats.resend.ask(job);
            }
        }
    });
    Ok(())
}

/// Where on this worker's subject a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Job(u64),
    Offer(OfferId),
    /// A request that went past the group.
    Direct,
}

impl Address {
    fn parse(tail: &str) -> Option<Self> {
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

fn handle(queue: &Arc<Queue>, dispatch: &Dispatch, message: Message) {
    let jobs = &dispatch.jobs;
    let address = message
        .subject
        .as_str()
        .strip_prefix(queue.own.as_str())
        .and_then(|tail| tail.strip_prefix('.'))
        .and_then(Address::parse);
    let control = Control::parse(&message.headers);
    match address {
        Some(Address::Job(number)) => {
            let id = JobId { queue: queue.number, number };
            match control {
                Some(Control::Grant) => jobs.consent(id, Consent::Granted),
                Some(Control::Deny) => jobs.consent(id, Consent::Denied),
                Some(Control::Cancel) => jobs.cancel(id),
                Some(Control::Taken(part)) => jobs.taken(id, part),
                Some(Control::Repeat) => dispatch.resend.ask(id),
                // Nobody heard what named this subject: there is no gateway to grant anything.
                None if message.no_responders => jobs.consent(id, Consent::Denied),
                Some(Control::Decline | Control::Members) | None => malformed(),
            }
        }
        Some(Address::Offer(id)) => match control {
            Some(Control::Decline) => queue.declined(id),
            // Nobody heard the offer: the next may want it.
            None if message.no_responders => queue.declined(id),
            None => queue.accepted(id, message),
            Some(_) => malformed(),
        },
        Some(Address::Direct) if control.is_none() => queue.arrived(message),
        Some(Address::Direct) | None => malformed(),
    }
}

fn malformed() {
    counter(&names::WORKER_MALFORMED, &[]).increment(1);
    if conditions::begins(&MALFORMED, "control") {
        tracing::warn!("a control message does not keep to the protocol");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_job_or_an_offer_and_nothing_else() {
        assert_eq!(Address::parse("j.7"), Some(Address::Job(7)));
        assert_eq!(Address::parse("o.9"), Some(Address::Offer(OfferId(9))));
        assert_eq!(Address::parse("q"), Some(Address::Direct));
        for bad in ["", "j", "j.", "j.x", "j.7.1", "o.9.1", "x.1"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
