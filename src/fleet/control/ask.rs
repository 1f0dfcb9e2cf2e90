//! Sends a command to the fleet, and collects the replies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fleet::query;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Transport, TransportError};

use super::{ControlReply, ControlRequest};

/// Sends a command. Returns the replies by the id of the process, as soon as all `expected` processes have replied, and after
/// `limit` at the latest. Replies of other processes are returned too. The number and the size of the replies are limited.
/// Cancel safe.
///
/// # Errors
/// `TransportError` if the command cannot be sent.
pub async fn ask(
    transport: &dyn Transport,
    prefix: &Subject,
    request: &ControlRequest,
    expected: &BTreeSet<String>,
    limit: Duration,
) -> Result<BTreeMap<String, ControlReply>, TransportError> {
    let subject = prefix
        .join(request.command.subject_tokens())
        .map_err(|error: SubjectError| TransportError::Refused(error.into()))?;
    let payload =
        serde_json::to_vec(request).map_err(|error| TransportError::Refused(error.into()))?;
    let message = Message { payload: payload.into(), ..Message::to(subject) };
    let mut replies = BTreeMap::new();
    let mut missing = expected.clone();
    let add = |message: &Message| {
        let reply = serde_json::from_slice::<ControlReply>(&message.payload);
        match reply {
            Ok(reply) if reply.request == request.id => {
                missing.remove(&reply.id);
                replies.insert(reply.id.clone(), reply);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "skipped a malformed reply"),
        }
        missing.is_empty()
    };
    query::request_until(transport, message, limit, add).await?;
    Ok(replies)
}
