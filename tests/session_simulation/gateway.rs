//! The gateway of the simulation. It carries out the actions of each client's `SessionDriver`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use fjord::catalogue::{Execution, OnDisconnect};
use fjord::config::gateway::SessionConfig;
use fjord::envelope::{Control, Reply};
use fjord::message::Subject;
use fjord::problem::ProblemKind;
use fjord::roles::gateway::client::{CallerKey, ClientNetwork};
use fjord::roles::gateway::dispatch::message::{AttemptReply, SessionMessage};
use fjord::roles::gateway::dispatch::queues::wait_queue::QueueAdmission;
use fjord::roles::gateway::dispatch::session::{SessionEnd, SessionOptions};
use fjord::roles::gateway::dispatch::session_driver::{
    DriverAction, DriverContext, DriverEvent, QueueWaiter, SessionDriver,
};
use fjord::roles::worker::intake::slots::OfferId;
use rand::RngExt;

use super::agenda::{Packet, WorldEvent};
use super::streams::WINDOW;
use super::world::{PROGRESS, WORKERS, World, parse};

const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const WAITING_MAX: usize = 10_000;

impl World {
    fn options(&self, execution: Execution, window: u32) -> SessionOptions {
        SessionOptions {
            execution,
            on_disconnect: OnDisconnect::Finish,
            timeout: TIMEOUT,
            session: if self.faults.load.is_some() { TIMEOUT } else { TIMEOUT * 3 },
            attempts: 3,
            accept_timeout: self.queue.timing.accept_timeout(ACCEPT_TIMEOUT),
            progress_timeout: PROGRESS * 3 + self.queue.timing.round_trip(),
            answer_bytes_max: 1 << 20,
            keeps_answer: true,
            window,
        }
    }

    /// Admits or rejects a client's request in the gateway.
    pub(super) fn begin(&mut self, number: usize) {
        let (execution, window) = (self.clients[number].execution, self.clients[number].window);
        let caller = caller_of_client(number);
        let destination = (caller, &self.endpoint);
        let admission = self.queue.admit(destination, TIMEOUT, WAITING_MAX, self.now);
        if admission == QueueAdmission::Reject {
            let end = SessionEnd::Problem(ProblemKind::Overloaded);
            return self.clients[number].ends.push(end);
        }
        let (queue, endpoint) = (Arc::clone(&self.queue), self.endpoint.clone());
        let options = self.options(execution, window);
        let waiter = QueueWaiter::new(caller, self.clients[number].sender.clone());
        let driver = SessionDriver::new(queue, endpoint, options, waiter, self.now);
        self.clients[number].driver = Some(driver);
        self.active.insert(number);
        let may_send_to_group = admission == QueueAdmission::SendNow;
        self.session_event(number, DriverEvent::Start { may_send_to_group });
    }

    pub(super) fn session_event(&mut self, number: usize, event: DriverEvent) {
        if let Some(postponed) = &mut self.clients[number].postponed {
            return postponed.push(event);
        }
        if !self.guards.gateway_grants_once
            && let DriverEvent::Reply(AttemptReply { reply: Ok(Reply::Claim { control }), .. }) =
                &event
        {
            self.tell(&control.clone(), Control::Grant);
        }
        self.with_driver(number, |driver, context| driver.handle(event, context));
        self.carry_out_actions(number);
    }

    fn with_driver<T>(
        &mut self,
        number: usize,
        call: impl FnOnce(&mut SessionDriver, &mut DriverContext<'_>) -> T,
    ) -> Option<T> {
        let Self { clients, rng, now, config, retry_budget, .. } = self;
        let mut context = DriverContext {
            now: *now,
            config,
            retry_budget,
            is_linked: true,
            has_answer_memory: &|| true,
            random: &mut || rng.random(),
        };
        clients[number].driver.as_mut().map(|driver| call(driver, &mut context))
    }

    /// Carries out the actions of a session, until it needs another event or pauses.
    fn carry_out_actions(&mut self, number: usize) {
        while let Some(Some(action)) = self.with_driver(number, SessionDriver::next_action) {
            match action {
                DriverAction::Publish { attempt, to, .. } => self.publish(number, attempt, &to),
                DriverAction::SendControl { to, control } => self.tell(&to, control),
                DriverAction::BroadcastCancel { attempt } => {
                    self.send(Packet::BroadcastCancel { request: number, attempt });
                }
                DriverAction::FindMembers { query, pause } => {
                    if query {
                        (0..WORKERS).for_each(|worker| self.send(Packet::QueryMember { worker }));
                    }
                    if let Some(pause) = pause {
                        self.clients[number].postponed = Some(Vec::new());
                        return self.after(pause, WorldEvent::EndPause(number));
                    }
                }
                DriverAction::BeginAnswer(_) => self.begin_answer(number),
                DriverAction::SendChunk(bytes) => self.receive_chunk(number, &bytes),
                DriverAction::End(end) => self.end(number, end),
            }
        }
        let Some(driver) = &self.clients[number].driver else { return };
        if !driver.session().has_ended() {
            let wake_at = driver.wake_at().max(self.now);
            self.at(wake_at.duration_since(self.start), WorldEvent::WakeSession(number));
        }
    }

    pub(super) fn end_pause(&mut self, number: usize) {
        let postponed = self.clients[number].postponed.take();
        self.carry_out_actions(number);
        for event in postponed.into_iter().flatten() {
            self.session_event(number, event);
        }
    }

    fn end(&mut self, number: usize, end: SessionEnd) {
        if matches!(end, SessionEnd::Answer(_)) {
            self.answered_at.push(self.now);
        }
        self.active.remove(&number);
        let client = &mut self.clients[number];
        let closed =
            client.driver.as_mut().map(|driver| driver.close(&end, &mut client.messages, self.now));
        client.ends.push(end);
        for (to, control) in closed.into_iter().flat_map(|closed| closed.messages) {
            self.tell(&to, control);
        }
    }

    fn publish(&mut self, request: usize, attempt: u32, to: &Subject) {
        if *to == self.queue.subject {
            return self.send(Packet::Group { request, attempt });
        }
        let (worker, life, offer) = parse(to);
        let packet = if to.as_str().starts_with("m.") {
            Packet::Member { worker, life, request, attempt }
        } else {
            Packet::OfferedSlot { worker, life, offer: OfferId(offer), request, attempt }
        };
        self.send(packet);
    }

    pub(super) fn tell(&mut self, to: &Subject, control: Control) {
        let (worker, life, number) = parse(to);
        self.send(match control {
            Control::Decline => Packet::Decline { worker, life, offer: OfferId(number) },
            control => Packet::Control { worker, life, job: number, control },
        });
    }

    pub(super) fn read_messages(&mut self) {
        let has_messages = |number: &usize| !self.clients[*number].messages.is_empty();
        let active: Vec<usize> = self.active.iter().copied().filter(has_messages).collect();
        for number in active {
            while self.clients[number].postponed.is_none()
                && let Ok(message) = self.clients[number].messages.try_recv()
            {
                let event = match message {
                    SessionMessage::Signal(signal) => DriverEvent::Signal(signal),
                    SessionMessage::Reply(reply) => DriverEvent::Reply(reply),
                };
                self.session_event(number, event);
            }
        }
    }
}

pub(super) fn config() -> SessionConfig {
    SessionConfig {
        accept_timeout: ACCEPT_TIMEOUT,
        progress_interval: PROGRESS,
        queue_retry_delay_min: Duration::from_millis(50),
        queue_retry_delay_max: Duration::from_millis(500),
        waiting_max: WAITING_MAX,
        retry_percent: 100,
        retries_per_second_min: 1_000_000,
        window_parts: WINDOW,
        answer_bytes_max: 1 << 20,
    }
}

/// Returns the caller of a client. Every third client shares its principal with others.
fn caller_of_client(number: usize) -> CallerKey {
    let name = if number.is_multiple_of(3) { "shared".to_owned() } else { number.to_string() };
    CallerKey::new(Some(&name), ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0))
}
