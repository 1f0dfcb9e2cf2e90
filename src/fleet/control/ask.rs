//! Sends a command to the fleet and collects the replies.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::fleet::query::{self, ReplyStream};
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Transport, TransportError};

use super::{ControlReply, ControlRequest};

/// Sends a command. Returns the replies, keyed by process id, once all `expected` processes have
/// replied, or after `limit` at the latest. The result also contains replies of other processes. The
/// number and size of the replies are limited. Cancel safe.
///
/// # Errors
/// Returns `TransportError` if the command cannot be sent.
pub async fn ask(
    transport: &dyn Transport,
    prefix: &Subject,
    request: &ControlRequest,
    expected: &BTreeSet<String>,
    limit: Duration,
) -> Result<BTreeMap<String, ControlReply>, TransportError> {
    let message = encode(prefix, request)?;
    let mut replies = BTreeMap::new();
    let add = |message: &Message| {
        replies.extend(parse(message, request));
        is_complete(expected, &replies)
    };
    query::request_until(transport, message, limit, add).await?;
    Ok(replies)
}

/// Like `ask`, but sends the command immediately, while `expected` determines which processes must reply. Returns only
/// after `expected` has completed.
///
/// # Errors
/// Returns `TransportError` if the command cannot be sent.
pub async fn ask_at_once(
    transport: &dyn Transport,
    prefix: &Subject,
    request: &ControlRequest,
    expected: impl Future<Output = BTreeSet<String>>,
    limit: Duration,
) -> Result<BTreeMap<String, ControlReply>, TransportError> {
    let mut messages = ReplyStream::request(transport, encode(prefix, request)?).await?;
    let end = Instant::now() + limit;
    let mut replies = BTreeMap::new();
    let mut expected = pin!(expected);
    let expected = loop {
        tokio::select! {
            expected = &mut expected => break expected,
            message = messages.next() => match message {
                Some(message) => replies.extend(parse(&message, request)),
                None => break expected.await,
            }
        }
    };
    while !is_complete(&expected, &replies) {
        let Ok(Some(message)) = timeout_at(end, messages.next()).await else { break };
        replies.extend(parse(&message, request));
    }
    Ok(replies)
}

fn encode(prefix: &Subject, request: &ControlRequest) -> Result<Message, TransportError> {
    let subject = prefix
        .join(request.command.subject_tokens())
        .map_err(|error: SubjectError| TransportError::Failed(error.into()))?;
    let payload =
        serde_json::to_vec(request).map_err(|error| TransportError::Failed(error.into()))?;
    Ok(Message { payload: payload.into(), ..Message::to(subject) })
}

/// Returns a reply to the request and the id of the process that sent it.
fn parse(message: &Message, request: &ControlRequest) -> Option<(String, ControlReply)> {
    match serde_json::from_slice::<ControlReply>(&message.payload) {
        Ok(reply) => (reply.request == request.id).then(|| (reply.id.clone(), reply)),
        Err(error) => {
            tracing::warn!(%error, "skipped a malformed reply");
            None
        }
    }
}

fn is_complete(expected: &BTreeSet<String>, replies: &BTreeMap<String, ControlReply>) -> bool {
    expected.iter().all(|id| replies.contains_key(id))
}
