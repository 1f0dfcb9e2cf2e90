//! Simulates a queue with one slot under sustained overload, in virtual time. One client sends more than its share and
//! gives up on requests that wait too long. The other clients send one request at a time.

use std::collections::BTreeMap;

use super::*;

const CALL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_secs(200);
/// The time between an answer and the client's next request.
const THINKS: Duration = Duration::from_millis(5);
/// The number of calls that the slot can run during the simulation.
const CALLS: u32 = 1_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    Send(usize),
    GiveUp(u64),
    CallEnds(usize),
}

#[derive(Debug)]
struct WaitingRequest {
    client: usize,
    sent_at: Duration,
    id: WaiterId,
    messages: mpsc::Receiver<SessionMessage>,
}

#[derive(Clone, Debug, Default)]
struct ClientReport {
    served: u32,
    given_up: u32,
    refused: u32,
    last_served_at: Duration,
    longest_gap: Duration,
    longest_wait: Duration,
}

/// Client 0 sends a request every `interval`. Each of the other clients sends a request after each answer.
struct Overload {
    queue: WaitQueue,
    start: Instant,
    now: Duration,
    interval: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    last_event: u64,
    waiting: BTreeMap<u64, WaitingRequest>,
    is_slot_free: bool,
    clients: Vec<ClientReport>,
}

impl Overload {
    fn new(others: usize, per_second: u32) -> Self {
        let mut overload = Self {
            queue: queue(),
            start: Instant::now(),
            now: Duration::ZERO,
            interval: Duration::from_secs(1) / per_second,
            events: BTreeMap::new(),
            last_event: 0,
            waiting: BTreeMap::new(),
            is_slot_free: true,
            clients: vec![ClientReport::default(); others + 1],
        };
        for client in 0..=others {
            let delay = if client == 0 { Duration::ZERO } else { Duration::from_millis(500) };
            overload.after(delay, Event::Send(client));
        }
        overload
    }

    fn run(mut self) -> Vec<ClientReport> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at >= LASTS {
                break;
            }
            self.now = at;
            match event {
                Event::Send(client) => self.send(client),
                Event::GiveUp(request) => self.give_up(request),
                Event::CallEnds(client) => self.end_call(client),
            }
        }
        for client in &mut self.clients {
            client.longest_gap =
                client.longest_gap.max(LASTS.saturating_sub(client.last_served_at));
        }
        self.clients
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.last_event += 1;
        self.events.insert((self.now + delay, self.last_event), event);
    }

    fn now(&self) -> Instant {
        self.start + self.now
    }

    fn send(&mut self, client: usize) {
        if client == 0 {
            self.after(self.interval, Event::Send(client));
        }
        if self.is_slot_free {
            return self.begin_call(client, self.now);
        }
        let caller = named(&client.to_string());
        if self.queue.admit(caller, TIMEOUT, 10_000, self.now()) == QueueAdmission::Reject {
            self.clients[client].refused += 1;
            return self.send_again(client, Duration::from_millis(500));
        }
        let (signals, messages) = mpsc::channel(8);
        let id = self.queue.join((caller, None), WaitReason::Busy, signals, 10_000).unwrap();
        let (request, sent_at) = (self.last_event, self.now);
        self.waiting.insert(request, WaitingRequest { client, sent_at, id, messages });
        self.after(TIMEOUT, Event::GiveUp(request));
    }

    fn send_again(&mut self, client: usize, delay: Duration) {
        if client != 0 {
            self.after(delay, Event::Send(client));
        }
    }

    fn give_up(&mut self, request: u64) {
        let Some(waiting) = self.waiting.remove(&request) else { return };
        self.queue.leave(waiting.id);
        self.clients[waiting.client].given_up += 1;
        self.send_again(waiting.client, THINKS);
    }

    fn begin_call(&mut self, client: usize, sent_at: Duration) {
        self.is_slot_free = false;
        let report = &mut self.clients[client];
        report.served += 1;
        report.longest_gap = report.longest_gap.max(self.now.saturating_sub(report.last_served_at));
        report.longest_wait = report.longest_wait.max(self.now.saturating_sub(sent_at));
        report.last_served_at = self.now;
        self.after(CALL, Event::CallEnds(client));
    }

    fn end_call(&mut self, client: usize) {
        self.is_slot_free = true;
        self.send_again(client, THINKS);
        if self.queue.offer(offer(1), self.now()).is_err() {
            return;
        }
        let offered = self
            .waiting
            .iter_mut()
            .find_map(|(request, waiting)| has(&mut waiting.messages, "w.o.1").then_some(*request));
        let request = offered.unwrap();
        let waiting = self.waiting.remove(&request).unwrap();
        self.begin_call(waiting.client, waiting.sent_at);
    }
}

#[test]
fn a_caller_that_sends_more_than_its_share_gets_its_share() {
    for others in [1, 2, 3, 5, 10] {
        for per_second in [5, 20, 100] {
            let reports = Overload::new(others, per_second).run();
            let callers = u32::try_from(others + 1).unwrap();
            let (many, single) = (&reports[0], &reports[1]);
            let slowest = reports[1..].iter().map(|report| report.longest_wait).max().unwrap();
            println!(
                "{others} others, {per_second}/s: {} of {CALLS} calls, longest gap {:?}, {} gave up after {TIMEOUT:?}, {} refused; \
                 another: {} calls, longest wait of all {slowest:?}",
                many.served, many.longest_gap, many.given_up, many.refused, single.served,
            );
            let total: u32 = reports.iter().map(|report| report.served).sum();
            assert!(total + 5 > CALLS, "the slot was idle: {total}");
            assert!(many.served >= CALLS / callers * 9 / 10, "{many:?}");
            assert!(many.longest_gap <= CALL * (callers + 1), "{many:?}");
            // Client 0 gives up on at most 1 in 20 of its requests. Its other requests are served, or are rejected
            // immediately.
            assert!(many.given_up * 20 <= many.served + many.refused, "{many:?}");
            for single in &reports[1..] {
                assert!(single.served >= CALLS / (callers + 1) * 9 / 10, "{single:?}");
                assert!(single.longest_wait <= CALL * callers, "{single:?}");
                assert_eq!((single.given_up, single.refused), (0, 0));
            }
        }
    }
}
