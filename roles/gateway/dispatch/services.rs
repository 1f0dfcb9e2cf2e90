//! The services that all sessions of a gateway share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::gateway::SessionConfig;
use crate::envelope::Control;
use crate::lifecycle::Tasks;
use crate::message::Message;
use crate::messaging::Transport;

use super::queues::GatewayQueue;
use super::replies::ReplyRouter;
use super::retry_budget::RetryBudget;

/// The transport, reply router, limits and tasks that all sessions share.
#[derive(Debug)]
pub(super) struct DispatchServices {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) replies: Arc<ReplyRouter>,
    pub(super) retry_budget: RetryBudget,
    /// The configuration, which a reload replaces.
    pub(super) config: ArcSwap<SessionConfig>,
    /// The process's tasks, which run sessions that outlive their client or stream their answer.
    pub(super) tasks: Tasks,
}

impl DispatchServices {
    /// Asks all workers of a queue to identify themselves.
    pub(super) async fn query_members(&self, queue: &GatewayQueue) {
        let mut message = Control::QueryMembers.message(queue.broadcast.clone());
        message.reply = Some(self.replies.members_subject(queue.number));
        self.publish_control(message).await;
    }

    /// Publishes a control message. If it is lost, the worker's own timeouts apply.
    pub(super) async fn publish_control(&self, message: Message) {
        if let Err(error) = self.transport.publish(message).await {
            tracing::debug!(%error, "cannot publish a control message");
        }
    }
}
