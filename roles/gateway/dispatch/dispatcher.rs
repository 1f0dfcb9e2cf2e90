//! Dispatches requests to the workers of their queues.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::catalogue::{Endpoint, OnDisconnect, QueueName};
use crate::config::Config;
use crate::config::gateway::SessionConfig;
use crate::config::limits::PROGRESS_MISSED_MAX;
use crate::envelope::Request;
use crate::lifecycle::Tasks;
use crate::message::SubjectError;
use crate::messaging::{Transport, TransportError};
use crate::problem::ProblemKind;
use crate::roles::gateway::client::{CallerKey, CallerPermit};

use super::message::SESSION_MESSAGES_MAX;
use super::queues::wait_queue::QueueAdmission;
use super::queues::{GatewayQueue, QueueRegistry};
use super::replies::{ReplyRouter, recovery};
use super::retry_budget::RetryBudget;
use super::services::DispatchServices;
use super::session::{SessionEnd, SessionOptions};
use super::session_driver::{DriverEvent, QueueWaiter, SessionDriver, count_rejection};
use super::session_summary::SessionSummary;
use super::session_task::{
    AnswerReservation, SessionGuard, SessionParts, SessionProgress, SessionTask,
};
use super::stream_driver::{StreamDriver, StreamingAnswer};
use super::worker_monitor;

/// The time for which `dispatch_until` waits for the end of a session after `disconnect` has completed.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Dispatches requests to workers. Cheap to clone; all clones share their queues and services.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    queues: Arc<QueueRegistry>,
    services: Arc<DispatchServices>,
}

/// A request to dispatch.
#[derive(Debug)]
pub struct DispatchRequest {
    /// The request for the workers.
    pub envelope: Request,
    /// The memory reserved for the request and its answer.
    pub reservation: AnswerReservation,
    /// The caller's permit for the request. The session holds the permit until the session ends.
    pub permit: CallerPermit,
}

/// The result of dispatching a request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every answer is complete, and boxing it would cost an allocation"
)]
pub enum DispatchResult {
    /// The session has ended.
    Complete(SessionSummary),
    /// The answer has begun and is being streamed.
    Streaming(Box<StreamingAnswer>),
}

/// A session that its queue has admitted.
struct AdmittedSession {
    task: SessionTask,
    may_send_to_group: bool,
}

impl Dispatcher {
    /// Subscribes to replies and starts the background tasks.
    ///
    /// # Errors
    /// `TransportError` if the subscription fails.
    pub async fn start(
        config: &Config,
        queue_names: &[QueueName],
        transport: Arc<dyn Transport>,
        tasks: &Tasks,
    ) -> Result<Self, TransportError> {
        let invalid = |error: SubjectError| TransportError::Failed(error.into());
        let session = config.gateway.session.clone();
        let queues = Arc::new(QueueRegistry::new(config.messaging.prefix.clone()));
        for name in queue_names {
            let _created = queues.get_or_create(name).map_err(invalid)?;
        }
        let replies = ReplyRouter::subscribe(&transport, &queues, tasks).await?;
        recovery::start(&transport, &queues, &replies, tasks);
        let services = Arc::new(DispatchServices {
            transport,
            replies,
            retry_budget: RetryBudget::new(
                session.retry_percent,
                session.retries_per_second_min,
                Instant::now(),
            ),
            config: ArcSwap::from_pointee(session),
            tasks: tasks.clone(),
        });
        worker_monitor::start(&services, &queues);
        Ok(Self { queues, services })
    }

    /// Returns all queues.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<GatewayQueue>> {
        self.queues.all()
    }

    /// Dispatches one request to one of its endpoint's queues, and returns its answer or the beginning of a streamed
    /// answer. All attempts use the same queue.
    ///
    /// Dropping the future counts as a client disconnect: the session continues in the background
    /// for as long as the endpoint requires, and keeps the memory of the request reserved.
    pub async fn dispatch(
        &self,
        (endpoint, queue): (&Arc<Endpoint>, &QueueName),
        request: DispatchRequest,
    ) -> DispatchResult {
        let AdmittedSession { task, may_send_to_group } =
            match self.create_session((endpoint, queue), request) {
                Ok(admitted) => admitted,
                Err(result) => return DispatchResult::Complete(*result),
            };
        let mut guard = SessionGuard::new(task);
        let Some(task) = guard.task() else { return DispatchResult::Complete(internal_error()) };
        match task.start(may_send_to_group).await {
            SessionProgress::AnswerBegun(head, body) => {
                let driver = StreamDriver::new(guard, body.ended().clone());
                DispatchResult::Streaming(Box::new(StreamingAnswer { head, body, driver }))
            }
            SessionProgress::Ended(end) => DispatchResult::Complete(match guard.take() {
                Some(task) => task.finish(end),
                None => internal_error(),
            }),
        }
    }

    /// Dispatches one request without streaming its answer. When `disconnect` completes, the session
    /// is treated as if the client had disconnected, but its result is still returned if it arrives
    /// within `DISCONNECT_LIMIT`.
    pub async fn dispatch_until(
        &self,
        (endpoint, queue): (&Arc<Endpoint>, &QueueName),
        request: DispatchRequest,
        disconnect: impl Future<Output = ()>,
    ) -> SessionSummary {
        let AdmittedSession { mut task, may_send_to_group } =
            match self.create_session((endpoint, queue), request) {
                Ok(admitted) => admitted,
                Err(result) => return *result,
            };
        let end = tokio::select! {
            end = task.run_to_end(DriverEvent::Start { may_send_to_group }) => Some(end),
            () = disconnect => {
                let end = task.run_to_end(DriverEvent::ClientGone);
                timeout(DISCONNECT_LIMIT, end).await.ok()
            }
        };
        // A call that continues on its worker may still have an effect.
        task.finish(end.unwrap_or(SessionEnd::Problem(ProblemKind::OutcomeUnknown)))
    }

    /// Admits a request to its queue and registers it for replies.
    ///
    /// # Errors
    /// The result of the request if it is rejected.
    fn create_session(
        &self,
        (endpoint, queue): (&Arc<Endpoint>, &QueueName),
        DispatchRequest { envelope: request, reservation, permit }: DispatchRequest,
    ) -> Result<AdmittedSession, Box<SessionSummary>> {
        let now = Instant::now();
        self.services.retry_budget.deposit(now);
        let Ok(queue) = self.queues.get_or_create(queue) else {
            debug_assert!(false, "a valid queue name always makes a valid subject");
            return Err(Box::new(internal_error()));
        };
        queue.metrics.arrivals.increment(1);
        let config = self.services.config.load();
        let caller = permit.caller();
        let destination = (caller, &endpoint.id);
        let admission = queue.admit(destination, endpoint.timeout, config.waiting_max, now);
        if admission == QueueAdmission::Reject {
            count_rejection("queue");
            let retry_after = Some(queue.wait_queue.retry_after(caller, now));
            let result = SessionSummary::from_problem(ProblemKind::Overloaded, retry_after);
            return Err(Box::new(result));
        }
        let options = session_options(endpoint, &request, &queue, &reservation, &config);
        let (sender, messages) = mpsc::channel(SESSION_MESSAGES_MAX);
        let (id, number) = (endpoint.id.clone(), queue.number);
        let waiter = QueueWaiter::new(caller, sender.clone());
        let driver = SessionDriver::new(queue, id, options, waiter, now);
        let limits = reservation.reply_limits(&request);
        let registration = self.services.replies.register(number, sender, limits);
        let services = Arc::clone(&self.services);
        let parts = SessionParts {
            services,
            endpoint: Arc::clone(endpoint),
            driver,
            request,
            registration,
            messages,
            reservation,
            permit,
        };
        Ok(AdmittedSession {
            task: SessionTask::new(parts),
            may_send_to_group: admission == QueueAdmission::SendNow,
        })
    }

    /// Returns the current configuration.
    #[must_use]
    pub fn config(&self) -> Guard<Arc<SessionConfig>> {
        self.services.config.load()
    }

    /// Returns the number of requests of a caller that are waiting in a queue for a slot.
    pub(super) fn waiters_of(&self, queue: &QueueName, caller: CallerKey) -> usize {
        let queue = self.queues.get_or_create(queue);
        queue.map_or(0, |queue| queue.wait_queue.waiters_of(caller))
    }

    /// Returns the tasks of the process.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.services.tasks
    }

    /// Returns the connection to the message bus.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.services.transport
    }

    /// Replaces the configuration, and creates the queues that are new in the catalogue. Sessions
    /// that have started keep their options.
    pub fn reload(&self, config: SessionConfig, queue_names: &[QueueName]) {
        for name in queue_names {
            let created = self.queues.get_or_create(name);
            debug_assert!(created.is_ok(), "a valid queue name always makes a valid subject");
        }
        self.services.retry_budget.set_limits(config.retry_percent, config.retries_per_second_min);
        self.services.config.store(Arc::new(config));
    }
}

fn internal_error() -> SessionSummary {
    SessionSummary::from_problem(ProblemKind::Internal, None)
}

fn session_options(
    endpoint: &Endpoint,
    request: &Request,
    queue: &GatewayQueue,
    reservation: &AnswerReservation,
    config: &SessionConfig,
) -> SessionOptions {
    // A dry run is rolled back, so it is useless without a client that reads its answer.
    let on_disconnect = if request.dry_run { OnDisconnect::Cancel } else { endpoint.on_disconnect };
    SessionOptions {
        execution: request.execution,
        on_disconnect,
        timeout: endpoint.timeout,
        session: endpoint.session,
        attempts: endpoint.attempts,
        accept_timeout: queue.timing.accept_timeout(config.accept_timeout),
        progress_timeout: config.progress_interval * PROGRESS_MISSED_MAX
            + queue.timing.round_trip(),
        answer_bytes_max: config.answer_bytes_max,
        keeps_answer: reservation.keeps_answer(),
        window: request.window,
    }
}
