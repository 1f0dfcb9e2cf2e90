//! Queries the whole fleet on `<prefix>.status`. Every process replies with its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
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
/// The maximum size of a query's payload in bytes. Processes ignore larger queries.
const QUERY_BYTES_MAX: usize = 64 << 10;
/// The maximum total size in bytes of all replies to a command's query.
const BYTES_MAX: usize = 64 << 20;
/// A query ends after this time without a reply. A process normally replies within milliseconds.
const SILENCE: Duration = Duration::from_millis(500);
/// Replaces `SILENCE` once the expected number of replies has arrived.
const SILENCE_COMPLETE: Duration = Duration::from_millis(100);

/// Logged when replies begin to omit queues. `fjord status` shows how many. Lasts until a report fits again, however rare the queries are.
const QUEUES_OMITTED: ConditionKind =
    ConditionKind { name: "status replies omit queues", is_ended_by_caller: true };

/// Logged when queries begin to be ignored because of their size.
const QUERY_TOO_LARGE: ConditionKind = ConditionKind::new("status queries are too large");

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
        let mut shortened = None;
        while let Some(query) = queries.next().await {
            let Some(inbox) = query.reply else { continue };
            if !is_addressed(&query.payload, &member.identity.id) {
                continue;
            }
            let sent = answer(&*transport, &member.report(), &mut shortened, inbox).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "cannot answer a status query");
            }
        }
    });
    Ok(())
}

/// Returns whether a query with this payload addresses a process. A payload that cannot be read addresses all processes, and one
/// that is too large addresses none.
fn is_addressed(payload: &[u8], id: &str) -> bool {
    if payload.len() > QUERY_BYTES_MAX {
        if conditions::raise(&QUERY_TOO_LARGE, "") {
            tracing::warn!(
                bytes = payload.len(),
                bytes_max = QUERY_BYTES_MAX,
                "ignored a status query that is too large; find the client that publishes it on the status subject"
            );
        }
        return false;
    }
    let query: StatusQuery = serde_json::from_slice(payload).unwrap_or_default();
    query.ids.is_empty() || query.ids.iter().any(|addressed| addressed == id)
}

/// A report that did not fit into one message, and the payload that was sent instead.
#[derive(Debug)]
struct ShortenedReport {
    report: Arc<Report>,
    payload: Bytes,
}

/// Sends a report. Omits queues if it does not fit into one message. The payload is then stored in `shortened`, and is sent again
/// for as long as the report is the same.
async fn answer(
    transport: &dyn Transport,
    report: &Arc<Report>,
    shortened: &mut Option<ShortenedReport>,
    inbox: Subject,
) -> Result<(), TransportError> {
    let is_same = |cached: &ShortenedReport| Arc::ptr_eq(&cached.report, report);
    if let Some(cached) = shortened.take_if(|cached| is_same(cached)) {
        let sent = send(transport, cached.payload.clone(), inbox).await;
        *shortened = sent.is_ok().then_some(cached);
        return sent;
    }
    *shortened = None;
    match send(transport, json(&**report)?, inbox.clone()).await {
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
            let payload = json(&short)?;
            *shortened =
                Some(ShortenedReport { report: Arc::clone(report), payload: payload.clone() });
            send(transport, payload, inbox).await
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
    payload: Bytes,
    inbox: Subject,
) -> Result<(), TransportError> {
    transport.publish(Message { payload, ..Message::to(inbox) }).await
}

fn json(value: &impl Serialize) -> Result<Bytes, TransportError> {
    let json = serde_json::to_vec(value).map_err(|error| TransportError::Failed(error.into()))?;
    Ok(json.into())
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

/// Queries only the processes with these ids; the others are not queried. At most 1,000 of the ids are queried, and only as many
/// as fit into one message and into 64 KiB. Ends early once all of them have replied. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the query cannot be sent. A query without replies is not an error.
pub async fn query_some(
    transport: &dyn Transport,
    prefix: &Subject,
    mut ids: Vec<String>,
    time: Duration,
) -> Result<Replies, TransportError> {
    truncate(&mut ids, transport.payload_bytes_max())?;
    if ids.is_empty() {
        // A query without ids addresses all processes.
        return Ok(Replies::default());
    }
    let limits = QueryLimits::of_command(ids.len(), time);
    let payload = json(&StatusQuery { ids })?;
    let to = prefix.join(STATUS_TOKEN).map_err(refused)?;
    request_many(transport, Message { payload, ..Message::to(to) }, limits).await
}

/// Removes the last ids until a query for them fits into a message of `bytes_max` bytes and is not ignored.
fn truncate(ids: &mut Vec<String>, bytes_max: usize) -> Result<(), TransportError> {
    let bytes_max = bytes_max.min(QUERY_BYTES_MAX);
    let mut bytes = json(&StatusQuery::default())?.len();
    let mut fitting = 0;
    for id in ids.iter().take(REPLIES_MAX) {
        // A comma follows each id except the last.
        bytes += json(id)?.len() + 1;
        if bytes > bytes_max.saturating_add(1) {
            break;
        }
        fitting += 1;
    }
    ids.truncate(fitting);
    Ok(())
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
    TransportError::Failed(error.into())
}

#[cfg(test)]
mod tests;
