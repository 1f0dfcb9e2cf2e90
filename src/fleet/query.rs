//! Queries the whole fleet on `<prefix>.status`. Every process replies with its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::lifecycle::Tasks;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Subscription, Transport, TransportError};
use crate::telemetry::conditions::{self, ConditionKind};

use super::{FleetMember, Report};

/// The token that follows the prefix in the subject of queries.
pub const STATUS_TOKEN: &str = "status";

/// The maximum number of collected replies.
const REPLIES_MAX: usize = 1_000;
/// The maximum total size in bytes of all replies to a command's query.
const BYTES_MAX: usize = 64 << 20;
/// A query ends after this time without a reply. A process normally replies within milliseconds.
const SILENCE: Duration = Duration::from_millis(500);
/// Replaces `SILENCE` once the expected number of replies has arrived.
const SILENCE_COMPLETE: Duration = Duration::from_millis(100);

/// Logged when replies begin to omit queues. `fjord status` shows how many. Lasts until a report fits again, however rare the queries are.
const QUEUES_OMITTED: ConditionKind =
    ConditionKind { name: "status replies omit queues", is_ended_by_caller: true };

/// The payload of a query.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct StatusQuery {
    /// The ids of the processes that must reply. If it is empty, all processes reply.
    ids: Vec<String>,
}

/// The number of queries so far. Each has its own inbox.
static QUERIES: AtomicU64 = AtomicU64::new(0);

/// Subscribes to queries and answers them one at a time until the transport closes.
///
/// # Errors
/// Returns `TransportError` if the subscription fails.
pub async fn serve(
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let subject = member.identity.prefix.join(STATUS_TOKEN).map_err(refused)?;
    let mut queries = transport.subscribe_optional(&subject).await?;
    let (member, transport) = (Arc::clone(member), Arc::clone(transport));
    let _detached = tasks.spawn_background(async move {
        while let Some(query) = queries.next().await {
            let Some(inbox) = query.reply else { continue };
            if !is_addressed(&query.payload, &member.identity.id) {
                continue;
            }
            let sent = answer(&*transport, &member.report(), inbox).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "cannot answer a status query");
            }
        }
    });
    Ok(())
}

/// Returns whether a query with this payload addresses a process. A payload that cannot be read addresses all processes.
fn is_addressed(payload: &[u8], id: &str) -> bool {
    let query: StatusQuery = serde_json::from_slice(payload).unwrap_or_default();
    query.ids.is_empty() || query.ids.iter().any(|addressed| addressed == id)
}

/// Sends a report. Omits queues if it does not fit into one message.
async fn answer(
    transport: &dyn Transport,
    report: &Report,
    inbox: Subject,
) -> Result<(), TransportError> {
    match send(transport, report, inbox.clone()).await {
        Err(TransportError::TooLarge) => {
            let short = report.shortened(transport.payload_bytes_max());
            if conditions::raise(&QUEUES_OMITTED, "") {
                tracing::warn!(
                    queues_omitted = short.queues_omitted,
                    weighted_queues_omitted = short.weighted_queues_omitted,
                    "the reply to a status query omits queues that do not fit into one message; increase max_payload of the NATS \
                     servers"
                );
            }
            send(transport, &short, inbox).await
        }
        Ok(()) => {
            conditions::resolve_if_quiet(&QUEUES_OMITTED, "");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn send(
    transport: &dyn Transport,
    report: &Report,
    inbox: Subject,
) -> Result<(), TransportError> {
    let payload =
        serde_json::to_vec(report).map_err(|error| TransportError::Refused(error.into()))?;
    transport.publish(Message { payload: payload.into(), ..Message::to(inbox) }).await
}

/// The limits of a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// The number of replies after which the query ends sooner. 0 if unknown.
    pub expected: usize,
    /// The maximum duration of the query.
    pub time: Duration,
    /// The maximum total size of the replies in bytes.
    pub bytes: usize,
}

impl QueryLimits {
    /// Returns the limits for a query sent by a command.
    #[must_use]
    pub fn of_command(expected: usize, time: Duration) -> Self {
        Self { expected, time, bytes: BYTES_MAX }
    }
}

/// The replies to a query.
#[derive(Debug, Default)]
pub struct Replies {
    /// The replies, in order of arrival.
    pub messages: Vec<Message>,
    /// Whether there were more replies than the limits allow.
    pub is_cut_off: bool,
}

/// Queries the fleet and returns the replies, which can be passed to `parse`. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the query cannot be sent. A query without replies is not an error.
pub async fn query(
    transport: &dyn Transport,
    prefix: &Subject,
    limits: QueryLimits,
) -> Result<Replies, TransportError> {
    let query = Message::to(prefix.join(STATUS_TOKEN).map_err(refused)?);
    request_many(transport, query, limits).await
}

/// Queries only the processes with these ids, of which there may be at most 1,000; the others are not queried. Ends early
/// once all of them have replied. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the query cannot be sent. A query without replies is not an error.
pub async fn query_some(
    transport: &dyn Transport,
    prefix: &Subject,
    mut ids: Vec<String>,
    time: Duration,
) -> Result<Replies, TransportError> {
    ids.truncate(REPLIES_MAX);
    let limits = QueryLimits::of_command(ids.len(), time);
    let payload = serde_json::to_vec(&StatusQuery { ids })
        .map_err(|error| TransportError::Refused(error.into()))?;
    let to = prefix.join(STATUS_TOKEN).map_err(refused)?;
    request_many(transport, Message { payload: payload.into(), ..Message::to(to) }, limits).await
}

/// Parses the reports in the replies to a query and sorts them by role, host and id. Malformed reports are skipped.
#[must_use]
pub fn parse(replies: &[Message]) -> Vec<Report> {
    let mut reports = Vec::with_capacity(replies.len());
    for message in replies {
        match serde_json::from_slice::<Report>(&message.payload) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::warn!(%error, "skipped a malformed report"),
        }
    }
    sort(&mut reports);
    reports
}

/// Sorts reports by role, host and id.
pub fn sort(reports: &mut [Report]) {
    reports.sort_by(|a, b| (&a.role, &a.host, &a.id).cmp(&(&b.role, &b.host, &b.id)));
}

/// Publishes a query and collects replies from several processes. Ends when no reply has arrived for `SILENCE`, or for
/// `SILENCE_COMPLETE` once the expected number of replies has arrived. Also ends when a limit is reached. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the query cannot be sent. A query without replies is not an error.
pub async fn request_many(
    transport: &dyn Transport,
    query: Message,
    limits: QueryLimits,
) -> Result<Replies, TransportError> {
    let QueryLimits { expected, time, bytes: bytes_max } = limits;
    let mut incoming = send_query(transport, query).await?;
    let end = Instant::now() + time;
    let (mut replies, mut bytes) = (Replies::default(), 0);
    loop {
        let is_complete = expected > 0 && replies.messages.len() >= expected;
        let silence = if replies.messages.is_empty() { time } else { SILENCE };
        // More processes than expected may reply.
        let silence = if is_complete { SILENCE_COMPLETE } else { silence };
        let until = end.min(Instant::now() + silence);
        let Ok(Some(message)) = timeout_at(until, incoming.next()).await else { break };
        if message.no_responders {
            break;
        }
        bytes += message.payload.len();
        if replies.messages.len() >= REPLIES_MAX || bytes > bytes_max {
            replies.is_cut_off = true;
            break;
        }
        replies.messages.push(message);
    }
    Ok(replies)
}

/// Publishes a query and passes each reply to `add`. Ends when `add` returns true or after `limit`. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the query cannot be sent. A query without replies is not an error.
pub async fn request_until(
    transport: &dyn Transport,
    query: Message,
    limit: Duration,
    mut add: impl FnMut(&Message) -> bool,
) -> Result<(), TransportError> {
    let mut replies = ReplyStream::request(transport, query).await?;
    let end = Instant::now() + limit;
    while let Ok(Some(message)) = timeout_at(end, replies.next()).await {
        if add(&message) {
            break;
        }
    }
    Ok(())
}

/// An iterator over the replies to a query. Their number and size are limited.
#[derive(Debug)]
pub(super) struct ReplyStream {
    incoming: Box<dyn Subscription>,
    number: usize,
    bytes: usize,
}

impl ReplyStream {
    /// Publishes a query.
    ///
    /// # Errors
    /// Returns `TransportError` if the query cannot be sent.
    pub(super) async fn request(
        transport: &dyn Transport,
        query: Message,
    ) -> Result<Self, TransportError> {
        Ok(Self { incoming: send_query(transport, query).await?, number: 0, bytes: 0 })
    }

    /// Returns the next reply. Returns `None` if no process can reply, or if there were too many replies. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let message = self.incoming.next().await?;
        self.number += 1;
        self.bytes += message.payload.len();
        let is_too_much = self.number > REPLIES_MAX || self.bytes > BYTES_MAX;
        (!message.no_responders && !is_too_much).then_some(message)
    }
}

/// Publishes a query and returns the subscription to its replies.
async fn send_query(
    transport: &dyn Transport,
    query: Message,
) -> Result<Box<dyn Subscription>, TransportError> {
    let number = QUERIES.fetch_add(1, Ordering::Relaxed);
    let inbox = transport.inbox().join(format_args!("status.{number}")).map_err(refused)?;
    let incoming = transport.subscribe(&inbox).await?;
    transport.publish(Message { reply: Some(inbox), ..query }).await?;
    Ok(incoming)
}

fn refused(error: SubjectError) -> TransportError {
    TransportError::Refused(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::QueueReport;
    use crate::messaging::fake::FakeTransport;

    #[test]
    fn a_query_addresses_the_processes_that_it_names_or_all() {
        for (payload, is_for_a) in [
            ("", true),
            ("{}", true),
            (r#"{"ids":[]}"#, true),
            (r#"{"ids":["b","a"]}"#, true),
            (r#"{"ids":["b"]}"#, false),
            ("unreadable", true),
        ] {
            assert_eq!(is_addressed(payload.as_bytes(), "a"), is_for_a, "{payload}");
        }
    }

    /// The condition would otherwise begin anew with each `fjord status`.
    #[tokio::test(start_paused = true)]
    async fn that_reports_omit_queues_is_logged_once_however_rare_the_queries_are() {
        let transport = FakeTransport::silent(0);
        let watching = Tasks::new().spawn(conditions::watch());
        let inbox = || Subject::new("inbox").unwrap();
        let queue = |n| QueueReport { name: format!("queue-{n}"), ..QueueReport::default() };
        let large = Report { queues: (0..20_000).map(queue).collect(), ..Report::default() };
        answer(&*transport, &large, inbox()).await.unwrap();
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(!conditions::raise(&QUEUES_OMITTED, ""), "it has not ended by itself");
        tokio::time::sleep(Duration::from_mins(10)).await;
        answer(&*transport, &Report::default(), inbox()).await.unwrap();
        assert_eq!(conditions::resolve(&QUEUES_OMITTED, ""), 0, "it ended when a report fitted");
        let sent: Vec<Report> = parse(&transport.published());
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().any(|report| report.queues_omitted > 0));
        watching.abort();
    }
}
