//! Reports the consumption of this gateway's callers to the other gateways, and counts the consumption that the other
//! gateways report.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::gateway::{RateLimitConfig, RateLimitScope};
use crate::envelope::RATE_TOKEN;
use crate::lifecycle::Tasks;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Subscription, Transport};
use crate::telemetry::conditions::{self, ConditionKind, MALFORMED, UNSENT};
use crate::telemetry::{counter, names};

use super::RateLimiter;
use super::consumed_quotas::ConsumedQuotas;

/// The maximum number of callers in a message. A message with this many callers is about 42 KiB in size.
const CALLERS_PER_MESSAGE_MAX: usize = 1_000;
/// The maximum size in bytes of a message without its entries: 62 characters and the id.
const FRAME_BYTES: usize = 62 + ID_BYTES_MAX;
/// The size of an entry in bytes: a key of 22 characters, a number of up to 15 digits, and the characters between them.
const ENTRY_BYTES: usize = 42;
/// The maximum size of a received message.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// The maximum length of a gateway's id in bytes.
const ID_BYTES_MAX: usize = 64;
/// The time limit for handing one message to the NATS client.
const PUBLISH_LIMIT: Duration = Duration::from_millis(100);
/// The pause after a failed attempt to subscribe.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// The condition in which the messages of the other gateways cannot be received.
const UNSUBSCRIBED: ConditionKind = ConditionKind::new(
    "cannot subscribe to the other gateways' messages about what callers have consumed",
);
const TOO_MANY_CALLERS: ConditionKind =
    ConditionKind::new("too many callers to report all of their consumption to the other gateways");

/// A report of the consumption at one gateway since its last message.
#[derive(Debug, Serialize, Deserialize)]
struct ConsumptionMessage {
    /// The id of the sender: the last token of its inbox.
    gateway: String,
    consumed: ConsumedQuotas,
}

/// Exchanges reports of consumption with the other gateways.
#[derive(Debug)]
pub struct RateExchange {
    limiter: Arc<RateLimiter>,
    transport: Arc<dyn Transport>,
    subject: Subject,
    id: String,
}

/// Starts the exchange on `<prefix>.rate`. The exchange lasts until the transport closes, and pauses while each gateway
/// enforces the limit separately.
///
/// # Errors
/// `SubjectError` if the prefix and the token do not form a subject.
pub fn start(
    limiter: &Arc<RateLimiter>,
    prefix: &Subject,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<Arc<RateExchange>, SubjectError> {
    let inbox = transport.inbox();
    let exchange = Arc::new(RateExchange {
        limiter: Arc::clone(limiter),
        transport: Arc::clone(transport),
        subject: prefix.join(RATE_TOKEN)?,
        id: inbox.as_str().rsplit('.').next().unwrap_or_default().to_owned(),
    });
    let running = Arc::clone(&exchange);
    let _detached = tasks.spawn_background(async move { running.run().await });
    Ok(exchange)
}

impl RateExchange {
    async fn run(&self) {
        let mut config = self.limiter.config();
        loop {
            let is_shared = |config: &RateLimitConfig| config.scope == RateLimitScope::Fleet;
            if config.wait_for(is_shared).await.is_err() {
                return;
            }
            match self.transport.subscribe_optional(&self.subject).await {
                Ok(messages) => {
                    if self.exchange(messages, &mut config).await.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    counter(&names::RATE_LIMIT_SUBSCRIBE_FAILURES, &[]).increment(1);
                    if conditions::raise(&UNSUBSCRIBED, "") {
                        tracing::warn!(
                            %error,
                            subject = self.subject.as_str(),
                            "cannot subscribe to the other gateways' messages about what callers have consumed: for now, each \
                             gateway enforces the limits separately"
                        );
                    }
                    sleep(SUBSCRIBE_PAUSE).await;
                }
            }
        }
    }

    /// Exchanges messages until the gateways no longer enforce shared limits (`Continue`), or until the transport
    /// closes (`Break`).
    async fn exchange(
        &self,
        mut messages: Box<dyn Subscription>,
        config: &mut watch::Receiver<RateLimitConfig>,
    ) -> ControlFlow<()> {
        // Consumption that was recorded while there was no subscription is out of date.
        let _discarded = self.limiter.take_consumed();
        let mut report_at = Instant::now();
        loop {
            let RateLimitConfig { scope, interval } = *config.borrow_and_update();
            if scope == RateLimitScope::Gateway {
                return ControlFlow::Continue(());
            }
            report_at = report_at.min(Instant::now() + interval);
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.on_message(&message),
                    None => return ControlFlow::Break(()),
                },
                () = sleep_until(report_at) => {
                    self.report().await;
                    report_at = Instant::now() + interval;
                }
                () = self.limiter.many_are_pending.notified() => report_at = Instant::now(),
                changed = config.changed() => if changed.is_err() {
                    return ControlFlow::Break(());
                }
            }
        }
    }

    /// Sends a last report. Call this when a drain has ended all requests.
    pub async fn report_last(&self) {
        if self.limiter.config().borrow().scope == RateLimitScope::Fleet {
            self.report().await;
        }
    }

    /// Sends the consumption since the last report. If NATS does not accept the report, the report is discarded. If it
    /// were sent later, the consumption would be deducted from quotas that have refilled in the meantime.
    async fn report(&self) {
        self.limiter.count_gateways(Instant::now().into_std());
        let (consumed, omitted) = self.limiter.take_consumed();
        if omitted > 0 {
            counter(&names::RATE_LIMIT_OMITTED, &[]).increment(omitted);
            if conditions::raise(&TOO_MANY_CALLERS, "") {
                tracing::warn!(
                    "too many callers use endpoints with rate limits: for some of these callers, each gateway enforces \
                     the limit separately"
                );
            }
        }
        if consumed.is_empty() {
            return;
        }
        let parts = consumed.split(callers_per_message(self.transport.payload_bytes_max()));
        let mut unsent = parts.len();
        for consumed in parts {
            let message = ConsumptionMessage { gateway: self.id.clone(), consumed };
            if let Err(error) = self.publish(&message).await {
                // Waiting for each of the remaining messages to fail as well could take a long time.
                count("unsent", unsent);
                if conditions::raise(&UNSENT, "rates") {
                    tracing::warn!(
                        error,
                        "cannot report consumed quotas to the other gateways: for now, each gateway enforces the limits \
                         separately"
                    );
                }
                return;
            }
            count("sent", 1);
            unsent -= 1;
        }
    }

    async fn publish(&self, message: &ConsumptionMessage) -> Result<(), String> {
        let payload = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let message = Message { payload: payload.into(), ..Message::to(self.subject.clone()) };
        match timeout(PUBLISH_LIMIT, self.transport.publish(message)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(late) => Err(late.to_string()),
        }
    }

    fn on_message(&self, message: &Message) {
        // `fjord check --online` sends an empty message to test the permission.
        if message.payload.is_empty() {
            return;
        }
        let Some(ConsumptionMessage { gateway, consumed }) = parse(&message.payload) else {
            count("malformed", 1);
            if conditions::raise(&MALFORMED, "rates") {
                tracing::warn!(
                    subject = self.subject.as_str(),
                    "a message about consumed quotas violates the protocol"
                );
            }
            return;
        };
        if gateway != self.id {
            count("received", 1);
            let now = Instant::now().into_std();
            self.limiter.add_consumed_elsewhere(&gateway, &consumed, now);
        }
    }
}

/// Returns the maximum number of callers that fit into a message of this size.
fn callers_per_message(payload_bytes_max: usize) -> usize {
    let fitting = payload_bytes_max.saturating_sub(FRAME_BYTES) / ENTRY_BYTES;
    fitting.clamp(1, CALLERS_PER_MESSAGE_MAX)
}

fn parse(payload: &[u8]) -> Option<ConsumptionMessage> {
    if payload.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let message: ConsumptionMessage = serde_json::from_slice(payload).ok()?;
    let is_valid = message.gateway.len() <= ID_BYTES_MAX && message.consumed.is_plausible();
    is_valid.then_some(message)
}

fn count(result: &str, messages: usize) {
    let label = [(names::RESULT, result.to_owned())];
    counter(&names::RATE_LIMIT_MESSAGES, &label).increment(messages as u64);
}

#[cfg(test)]
mod tests;
