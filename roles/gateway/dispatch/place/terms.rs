//! What holds for one request: its endpoint's terms, as they are when it is placed.

use crate::catalogue::{Endpoint, OnDisconnect};
use crate::config::limits::PROGRESS_MISSED_MAX;
use crate::envelope::Request;
use crate::roles::gateway::dispatch::queues::Queue;
use crate::roles::gateway::dispatch::session::Terms;

use super::Placer;

impl Placer {
    pub(super) fn terms(
        &self,
        endpoint: &Endpoint,
        queue: &Queue,
        request: &Request,
        keeps_answer: bool,
    ) -> Terms {
        let config = self.config.load();
        // Nothing of a dry run stays but its answer: without anybody to read it, it is of no use.
        let on_disconnect =
            if request.dry_run { OnDisconnect::Cancel } else { endpoint.on_disconnect };
        Terms {
            execution: request.execution,
            on_disconnect,
            timeout: endpoint.timeout,
            session: endpoint.session,
            attempts: endpoint.attempts,
            accept_timeout: queue.timing.accept_timeout(config.accept_timeout),
            silence: config.progress_interval * PROGRESS_MISSED_MAX + queue.timing.round_trip(),
            answer_bytes_max: config.answer_bytes_max,
            keeps_answer,
            window: request.window,
        }
    }
}
