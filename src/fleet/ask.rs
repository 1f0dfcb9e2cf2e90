//! One question to the whole fleet, on `<prefix>.status`: every process answers with its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::lifecycle::Tasks;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Transport, TransportError};

use super::{Member, Report};

/// The token, after the prefix, of the subject where every process is asked for its report.
pub const STATUS_TOKEN: &str = "status";

/// Who is listened to, at most.
const ANSWERS_MAX: usize = 1_000;
/// Bytes of all answers together, at most.
const BYTES_MAX: usize = 64 << 20;
/// When no further answer came for so long, there is none: a process answers within milliseconds.
const SILENCE: Duration = Duration::from_millis(500);
/// The same once as many have answered as did before.
const SILENCE_WHOLE: Duration = Duration::from_millis(100);

/// Questions of this process, each with an inbox of its own.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Subscribes and answers until the transport closes, one question after the other.
///
/// # Errors
/// `TransportError` when the subscription is not taken.
pub async fn answer(
    member: &Arc<Member>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let subject = member.identity.prefix.join(STATUS_TOKEN).map_err(refused)?;
    let mut questions = transport.subscribe_optional(&subject).await?;
    let (member, transport) = (Arc::clone(member), Arc::clone(transport));
    let _detached = tasks.spawn_background(async move {
        while let Some(question) = questions.next().await {
            let Some(asker) = question.reply else { continue };
            let report = member.report();
            let sent = match send(&*transport, &report, asker.clone()).await {
                Err(TransportError::TooLarge) => {
                    let cut = Report { queues: Vec::new(), is_cut: true, ..(*report).clone() };
                    send(&*transport, &cut, asker).await
                }
                sent => sent,
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a question for the status is not answered");
            }
        }
    });
    Ok(())
}

async fn send(
    transport: &dyn Transport,
    report: &Report,
    asker: Subject,
) -> Result<(), TransportError> {
    let payload =
        serde_json::to_vec(report).map_err(|error| TransportError::Refused(error.into()))?;
    transport.publish(Message { payload: payload.into(), ..Message::to(asker) }).await
}

/// Asks the fleet and gathers its reports, sorted by role, host and id. What cannot be read is left out. Safe to drop.
///
/// # Errors
/// `TransportError` when the question cannot be sent. That nobody answers is none.
pub async fn gather(
    transport: &dyn Transport,
    prefix: &Subject,
    expected: usize,
    limit: Duration,
) -> Result<Vec<Report>, TransportError> {
    let question = Message::to(prefix.join(STATUS_TOKEN).map_err(refused)?);
    let answers = answers(transport, question, expected, limit).await?;
    let mut reports = Vec::with_capacity(answers.len());
    for message in answers {
        match serde_json::from_slice::<Report>(&message.payload) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::warn!(%error, "a report cannot be read and is left out"),
        }
    }
    reports.sort_by(|a, b| (&a.role, &a.host, &a.id).cmp(&(&b.role, &b.host, &b.id)));
    Ok(reports)
}

/// Asks everybody and gathers the answers: until as many have come as are expected and none is late, at most until
/// `limit`. Safe to drop.
///
/// # Errors
/// `TransportError` when the question cannot be sent. That nobody answers is none.
pub async fn answers(
    transport: &dyn Transport,
    question: Message,
    expected: usize,
    limit: Duration,
) -> Result<Vec<Message>, TransportError> {
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let inbox = transport.inbox().join(format_args!("status.{number}")).map_err(refused)?;
    let mut incoming = transport.subscribe(&inbox).await?;
    transport.publish(Message { reply: Some(inbox), ..question }).await?;
    let end = Instant::now() + limit;
    let (mut answers, mut bytes) = (Vec::new(), 0);
    loop {
        let is_whole = expected > 0 && answers.len() >= expected;
        let silence = if answers.is_empty() { limit } else { SILENCE };
        // There may be more of them than there were.
        let silence = if is_whole { SILENCE_WHOLE } else { silence };
        let until = end.min(Instant::now() + silence);
        let Ok(Some(message)) = timeout_at(until, incoming.next()).await else { break };
        bytes += message.payload.len();
        if message.no_responders || answers.len() >= ANSWERS_MAX || bytes > BYTES_MAX {
            break;
        }
        answers.push(message);
    }
    Ok(answers)
}

fn refused(error: SubjectError) -> TransportError {
    TransportError::Refused(error.into())
}
