//! Starts, queues or refuses the requests of one queue, and offers freed slots to gateways.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::catalogue::Execution;
use crate::envelope::{RefusalReason, Reply};
use crate::message::{Message, Subject};
use crate::roles::worker::execution::executor::{Executor, JobStart};
use crate::roles::worker::execution::slot::{Slot, SlotQueue};
use crate::roles::worker::observation::load::Load;
use crate::roles::worker::observation::queue_metrics::QueueMetrics;
use crate::roles::worker::observation::report::QueueSnapshot;
use crate::roles::worker::subjects::QueueSubjects;
use crate::telemetry::context;

use super::message::ReceivedMessage;
use super::shared_slots::SharedSlots;
use super::slots::{Offer, OfferId, SlotDecision, SlotRequest, Slots};
use super::version::{QueueVersion, ServedEndpoints, VersionState};

mod admission;
mod backlog;

pub use backlog::QueuedWork;

use admission::AdmittedRequest;

/// The number of slots of a queue.
#[derive(Clone, Copy, Debug)]
struct QueueLimit {
    /// The number in the configuration.
    configured: usize,
    /// The number that an operator has set. It applies until the worker stops.
    by_operator: Option<usize>,
}

impl QueueLimit {
    fn effective(self) -> usize {
        self.by_operator.unwrap_or(self.configured)
    }
}

/// A queue, its endpoints and its slots.
#[derive(Debug)]
pub struct Queue {
    /// The name and subjects of the queue.
    pub subjects: Arc<QueueSubjects>,
    endpoints: ArcSwap<ServedEndpoints>,
    version: watch::Sender<VersionState>,
    slots: SharedSlots<QueuedWork>,
    limit: Mutex<QueueLimit>,
    /// Notified when the backlog grows, because the added request may be the next one to expire.
    backlog_grew: Notify,
    metrics: QueueMetrics,
    executor: Arc<Executor>,
}

impl Queue {
    /// Creates a queue with only free slots.
    #[must_use]
    pub fn new(
        subjects: QueueSubjects,
        endpoints: Arc<ServedEndpoints>,
        slots: Slots<QueuedWork>,
        executor: Arc<Executor>,
    ) -> Self {
        let load = Load::new(&subjects.name, Instant::now());
        let limit = QueueLimit { configured: slots.limit(), by_operator: None };
        Self {
            endpoints: ArcSwap::new(endpoints),
            limit: Mutex::new(limit),
            version: watch::Sender::default(),
            slots: SharedSlots::new(slots, load),
            backlog_grew: Notify::new(),
            metrics: QueueMetrics::new(&subjects.name),
            executor,
            subjects: Arc::new(subjects),
        }
    }

    /// Returns the endpoints that are served.
    #[must_use]
    pub fn endpoints(&self) -> Arc<ServedEndpoints> {
        self.endpoints.load_full()
    }

    /// Serves the endpoints of a version from now on. Jobs that have started are not affected.
    pub fn adopt(&self, version: &QueueVersion) {
        self.endpoints.store(Arc::clone(&version.endpoints));
    }

    /// Sets the newest version, which is not served yet.
    pub fn set_newest(&self, version: u64) {
        self.version.send_modify(|state| state.newest = version);
    }

    /// Sets the version that is served now.
    pub fn set_served(&self, version: u64) {
        self.version.send_modify(|state| (state.served, state.problem) = (version, None));
    }

    /// Returns the reason why the newest version is not served, or `None` if it is served.
    #[must_use]
    pub fn pending(&self) -> Option<String> {
        let state = self.version.borrow();
        let unknown = || "the worker has not joined the queue group yet".to_owned();
        (state.served < state.newest).then(|| state.problem.clone().unwrap_or_else(unknown))
    }

    /// Sets the reason why the newest version is not served yet.
    pub fn set_problem(&self, problem: &str) {
        self.version.send_modify(|state| state.problem = Some(problem.to_owned()));
    }

    /// Returns a receiver that watches the version.
    #[must_use]
    pub fn version(&self) -> watch::Receiver<VersionState> {
        self.version.subscribe()
    }

    /// Changes the number of refused callers that are remembered, and the minimum duration of an
    /// offer.
    pub fn set_offer_limits(&self, remembered_refusals_max: usize, offer_timeout: Duration) {
        self.slots
            .update(|slots, _| slots.set_offer_limits(remembered_refusals_max, offer_timeout));
    }

    /// Returns the queue's number of slots.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.slots.read(Slots::limit)
    }

    /// Returns the configured number of slots.
    #[must_use]
    pub fn configured_limit(&self) -> usize {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).configured
    }

    /// Returns the current state of the queue, for reports.
    #[must_use]
    pub fn snapshot(&self) -> QueueSnapshot {
        let (slots, slot_time, saturated_time) = self.slots.usage();
        QueueSnapshot {
            name: self.subjects.name.to_string(),
            slots,
            limit_configured: self.configured_limit(),
            is_paused: self.slots.read(Slots::is_paused),
            slot_time,
            saturated_time,
            last_failure: self.metrics.last_failure(),
        }
    }

    /// Accepts or refuses a message from the queue group.
    pub fn on_message(self: &Arc<Self>, message: Message) {
        let message = ReceivedMessage::parse(message);
        let ids = Arc::clone(&message.ids);
        context::sync_scope(&ids, || match self.admit(message) {
            Ok(admitted) => {
                let request = admitted.into_slot_request(Instant::now());
                let decision = self.slots.update(|slots, _| slots.request_slot(request));
                self.carry_out(decision);
            }
            Err(rejected) => self.reject(rejected),
        });
    }

    /// Handles a request for a slot that this queue has offered.
    pub fn accept_offer(self: &Arc<Self>, id: OfferId, message: Message) {
        let message = ReceivedMessage::parse(message);
        let ids = Arc::clone(&message.ids);
        context::sync_scope(&ids, || match self.admit(message) {
            Ok(admitted) => {
                let request = admitted.into_slot_request(Instant::now());
                let (is_open, decision) = self
                    .slots
                    .update(|slots, _| (slots.is_offer_open(id), slots.accept(id, request)));
                self.metrics.count_offer(if is_open { "accepted" } else { "late" });
                self.carry_out(decision);
            }
            Err(rejected) => {
                self.reject(rejected);
                self.decline_offer(id);
            }
        });
    }

    /// Ends an offer whose slot the gateway does not need.
    pub fn decline_offer(&self, id: OfferId) {
        let (is_open, offer) =
            self.slots.update(|slots, now| (slots.is_offer_open(id), slots.decline(id, now)));
        self.metrics.count_offer(if is_open { "declined" } else { "late" });
        self.send_offers(offer);
    }

    /// Answers a membership query from a gateway, unless this worker accepts no requests.
    pub fn announce_membership(&self, reply: Subject) {
        if self.slots.read(Slots::is_open) {
            let control = Some(self.subjects.own.clone());
            self.executor.replies.try_send(Reply::Progress { control }, reply);
        }
    }

    /// Sets the measured round trip to the NATS server. Returns the round trip to gateways.
    pub fn set_link_round_trip(&self, link: Duration) -> Duration {
        self.slots.update(|slots, _| {
            slots.latency.set_link_round_trip(link);
            slots.latency.round_trip()
        })
    }

    fn carry_out(self: &Arc<Self>, decision: SlotDecision<QueuedWork>) {
        match decision {
            SlotDecision::Run(QueuedWork::Request(admitted)) => self.start(admitted),
            SlotDecision::Claim(QueuedWork::Request(AdmittedRequest {
                accepted,
                call_time,
                ..
            })) => {
                let queue = Arc::clone(self) as Arc<dyn SlotQueue>;
                let start = JobStart::Claim { queue, call_time };
                Executor::start(&self.executor, &self.subjects, accepted, start);
            }
            SlotDecision::Wait => self.backlog_grew.notify_one(),
            SlotDecision::Refuse(reason, QueuedWork::Request(admitted)) => {
                self.refuse(reason, admitted.accepted.reply);
            }
            SlotDecision::Run(QueuedWork::Granted { .. })
            | SlotDecision::Claim(QueuedWork::Granted { .. })
            | SlotDecision::Refuse(_, QueuedWork::Granted { .. }) => {
                debug_assert!(false, "a message contains a request, never a granted job");
            }
        }
    }

    /// Starts a request that has a slot.
    fn start(self: &Arc<Self>, AdmittedRequest { accepted, call_time, .. }: AdmittedRequest) {
        let slot = Slot::new(Arc::clone(self) as Arc<dyn SlotQueue>, call_time);
        Executor::start(&self.executor, &self.subjects, accepted, JobStart::Slot(slot));
    }

    fn refuse(&self, reason: RefusalReason, reply: Option<Subject>) {
        self.metrics.count_refusal(reason);
        if let Some(reply) = reply {
            let control = Some(self.subjects.own.clone());
            self.executor.replies.try_send(Reply::Refused { reason, control }, reply);
        }
    }

    fn send_offers(&self, offers: impl IntoIterator<Item = Offer>) {
        for Offer { id, to } in offers {
            self.metrics.count_offer("made");
            let direct = self.subjects.offer_subject(id.0);
            self.executor.replies.try_send(Reply::Offer { direct }, to);
        }
    }
}

impl AdmittedRequest {
    fn into_slot_request(self, since: Instant) -> SlotRequest<QueuedWork> {
        let request = &self.accepted.job.request;
        SlotRequest {
            since,
            reply: self.accepted.reply.clone(),
            bytes: request.payload.len(),
            needs_consent: request.execution == Execution::AtMostOnce,
            work: QueuedWork::Request(self),
        }
    }
}
