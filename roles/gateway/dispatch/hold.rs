//! Requests of one queue that wait for a slot, oldest first.
//!
//! A refused request leaves its reply subject with the worker that refused it. When that worker has a
//! slot it offers it there, and the offer goes to whoever has waited longest here, not to the one that
//! was refused: so a gateway is first come, first served, whatever the order of refusals.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::message::Subject;
use crate::telemetry::Gauge;

use super::mail::Mail;
use super::mail::Turn;
use super::session::Why;

/// Takes that the drain rate is measured over.
const RATE_TAKES: usize = 32;
/// Takes that are needed before the rate says anything.
const RATE_TAKES_MIN: usize = 8;
/// How many waiters are woken for each sign that the queue has members again: doubling, like slow start.
const WAKE: usize = 2;
/// Bounds of `Retry-After`.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// A place in the order; kept while a session asks in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Whether a new request may be placed.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Ask the group at once.
    Free,
    /// Wait for a turn: the queue has no members, and the head is asking.
    Wait,
    /// It would wait longer than it can, or too many wait.
    Shed,
}

/// The waiting requests of one queue.
#[derive(Debug)]
pub struct Hold {
    figure: Gauge,
    /// How many wait: read for every message, so without the lock.
    waiting: AtomicUsize,
    /// Whether `asleep` has anybody: read for every reply, so without the lock.
    sleeping: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiters: BTreeMap<Ticket, mpsc::Sender<Mail>>,
    /// Those who left no reply subject with any worker: nobody will offer them anything by themselves.
    asleep: BTreeSet<Ticket>,
    /// Who was told that it is the head.
    told: Option<Ticket>,
    /// When the last waiters were taken, while there have been waiters all the time.
    takes: VecDeque<Instant>,
}

impl Hold {
    /// An empty hold.
    #[must_use]
    pub fn new(waiting: Gauge) -> Self {
        Self {
            figure: waiting,
            waiting: AtomicUsize::new(0),
            sleeping: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a request with this much time may be placed, where so many may wait.
    #[must_use]
    pub fn admit(&self, budget: Duration, waiting_max: usize, now: Instant) -> Admission {
        let state = self.lock();
        let waiters = state.waiters.len();
        if waiters == 0 {
            return Admission::Free;
        }
        let too_late = state.wait_of(waiters, now).is_some_and(|wait| wait > budget);
        if waiters >= waiting_max || too_late {
            Admission::Shed
        } else if state.asleep.is_empty() {
            Admission::Free
        } else {
            Admission::Wait
        }
    }

    /// Waits for a turn, where so many may wait. `again` is the ticket from before, so that asking costs nobody its place:
    /// when too many wait, the youngest goes. `None` when that is this one.
    #[must_use]
    pub fn enter(
        &self,
        again: Option<Ticket>,
        why: Why,
        turns: mpsc::Sender<Mail>,
        waiting_max: usize,
    ) -> Option<Ticket> {
        let mut state = self.lock();
        let ticket = again.unwrap_or_else(|| {
            state.next += 1;
            Ticket(state.next)
        });
        if state.waiters.len() >= waiting_max && !state.waiters.contains_key(&ticket) {
            let (youngest, turns) = state.waiters.pop_last()?;
            if youngest < ticket || waiting_max == 0 {
                state.waiters.insert(youngest, turns);
                return None;
            }
            state.asleep.remove(&youngest);
            if state.told == Some(youngest) {
                state.told = None;
            }
            // One that does not hear it ends when its own time does.
            drop(turns.try_send(Mail::Turn(Turn::Full)));
        }
        if why == Why::NoWorkers || why == Why::BusDown {
            state.asleep.insert(ticket);
            self.sleeping.store(true, Ordering::Relaxed);
        }
        if state.told == Some(ticket) {
            state.told = None;
        }
        state.waiters.insert(ticket, turns);
        self.note(&state);
        state.tell_head();
        Some(ticket)
    }

    /// Waits no longer.
    pub fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.remove(ticket);
        self.note(&state);
        state.tell_head();
    }

    /// Gives an offered slot to the oldest. Gives it back when nobody waits: then it is declined at once.
    ///
    /// # Errors
    /// The offer itself, when nobody can use it.
    pub fn offer(&self, direct: Subject, now: Instant) -> Result<(), Subject> {
        let mut state = self.lock();
        let mut offer = Mail::Turn(Turn::Offered(direct));
        while let Some((ticket, turns)) = state.waiters.pop_first() {
            state.asleep.remove(&ticket);
            match turns.try_send(offer) {
                Ok(()) => {
                    state.taken(now);
                    self.note(&state);
                    state.tell_head();
                    return Ok(());
                }
                // Its session is ending: the next one gets it.
                Err(error) => offer = error.into_inner(),
            }
        }
        self.note(&state);
        match offer {
            Mail::Turn(Turn::Offered(direct)) => Err(direct),
            Mail::Turn(Turn::Head | Turn::Ask | Turn::Full) | Mail::Reply { .. } => Ok(()),
        }
    }

    /// The queue has members: those who wait without having asked may ask now, a few for each sign.
    pub fn has_members(&self) {
        if !self.sleeping.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        for _ in 0..WAKE {
            let Some(ticket) = state.asleep.pop_first() else { break };
            if let Some(turns) = state.waiters.get(&ticket) {
                // A full channel means that it has news to read already.
                drop(turns.try_send(Mail::Turn(Turn::Ask)));
            }
        }
        self.sleeping.store(!state.asleep.is_empty(), Ordering::Relaxed);
    }

    /// A waiter that asked was taken.
    pub fn was_taken(&self, now: Instant) {
        self.lock().taken(now);
    }

    /// Whether this is the oldest.
    #[must_use]
    pub fn is_head(&self, ticket: Ticket) -> bool {
        self.lock().waiters.first_key_value().is_some_and(|(first, _)| *first == ticket)
    }

    /// When a refused client should come again: the time that those who wait now will take, jittered.
    #[must_use]
    pub fn retry_after(&self, now: Instant) -> Duration {
        let state = self.lock();
        let wait = state.wait_of(state.waiters.len(), now).unwrap_or(RETRY_AFTER_MIN);
        drop(state);
        let bounded = wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        bounded.mul_f64(rand::rng().random_range(0.8..=1.2))
    }

    fn note(&self, state: &State) {
        self.waiting.store(state.waiters.len(), Ordering::Relaxed);
        self.figure.set(count(state.waiters.len()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, ticket: Ticket) {
        self.waiters.remove(&ticket);
        self.asleep.remove(&ticket);
        if self.waiters.is_empty() {
            self.takes.clear();
        }
    }

    /// A slot went to one of ours.
    fn taken(&mut self, now: Instant) {
        if self.waiters.is_empty() {
            // From here on the pauses are idleness, not the queue's pace.
            self.takes.clear();
            return;
        }
        self.takes.push_back(now);
        if self.takes.len() > RATE_TAKES {
            self.takes.pop_front();
        }
    }

    /// How long so many waiters take at the pace measured; `None` while that is unknown.
    fn wait_of(&self, waiters: usize, now: Instant) -> Option<Duration> {
        if self.takes.len() < RATE_TAKES_MIN {
            return None;
        }
        let first = self.takes.front()?;
        let takes = u32::try_from(self.takes.len()).ok()?;
        let pause = now.saturating_duration_since(*first) / takes;
        Some(pause.saturating_mul(u32::try_from(waiters).unwrap_or(u32::MAX)))
    }

    /// Tells the oldest that it is the head. One whose session has ended without leaving must not stand
    /// in everybody's way: nobody behind it would ever ask.
    fn tell_head(&mut self) {
        while let Some((ticket, turns)) = self.waiters.first_key_value() {
            let ticket = *ticket;
            if !turns.is_closed() {
                let told =
                    self.told == Some(ticket) || turns.try_send(Mail::Turn(Turn::Head)).is_ok();
                self.told = told.then_some(ticket);
                return;
            }
            debug_assert!(false, "a session leaves the hold before it ends");
            self.remove(ticket);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; bounded by waiting_max")]
fn count(waiters: usize) -> f64 {
    waiters as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 100;

    fn hold() -> Hold {
        Hold::new(Gauge::noop())
    }

    fn offer(number: u32) -> Subject {
        Subject::new(&format!("w.o.{number}")).unwrap()
    }

    fn next(mail: &mut mpsc::Receiver<Mail>) -> String {
        match mail.try_recv() {
            Ok(Mail::Turn(Turn::Head)) => "head".to_owned(),
            Ok(Mail::Turn(Turn::Ask)) => "ask".to_owned(),
            Ok(Mail::Turn(Turn::Full)) => "full".to_owned(),
            Ok(Mail::Turn(Turn::Offered(direct))) => direct.to_string(),
            Ok(Mail::Reply { .. }) => "other".to_owned(),
            Err(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn an_offer_goes_to_the_oldest_and_the_next_becomes_the_head() {
        let (hold, now) = (hold(), Instant::now());
        let (first, mut first_mail) = mpsc::channel(8);
        let (second, mut second_mail) = mpsc::channel(8);
        hold.enter(None, Why::Busy, first, MANY).unwrap();
        hold.enter(None, Why::Busy, second, MANY).unwrap();
        assert_eq!(next(&mut first_mail), "head");
        assert_eq!(next(&mut second_mail), "nothing", "there is one head");
        assert_eq!(hold.offer(offer(1), now), Ok(()));
        assert_eq!(next(&mut first_mail), "w.o.1");
        assert_eq!(next(&mut second_mail), "head");
        assert_eq!(hold.offer(offer(2), now), Ok(()));
        assert_eq!(hold.offer(offer(3), now), Err(offer(3)), "nobody waits: it is declined");
    }

    #[test]
    fn asking_costs_nobody_its_place() {
        let hold = hold();
        let (first, mut first_mail) = mpsc::channel(8);
        let (second, _second_mail) = mpsc::channel(8);
        let ticket = hold.enter(None, Why::Busy, first.clone(), MANY).unwrap();
        hold.enter(None, Why::Busy, second, MANY).unwrap();
        assert_eq!(next(&mut first_mail), "head");
        hold.leave(ticket);
        assert!(!hold.is_head(ticket));
        assert_eq!(hold.enter(Some(ticket), Why::Busy, first, MANY), Some(ticket));
        assert!(hold.is_head(ticket));
        assert_eq!(next(&mut first_mail), "head", "and it is told again");
    }

    #[test]
    fn an_offer_passes_by_whoever_has_ended() {
        let (hold, now) = (hold(), Instant::now());
        let (gone, gone_mail) = mpsc::channel(8);
        let (waits, mut mail) = mpsc::channel(8);
        hold.enter(None, Why::Busy, gone, MANY).unwrap();
        hold.enter(None, Why::Busy, waits, MANY).unwrap();
        drop(gone_mail);
        assert_eq!(hold.offer(offer(1), now), Ok(()));
        assert_eq!(next(&mut mail), "w.o.1");
    }

    #[test]
    fn a_queue_without_members_wakes_those_who_wait_a_few_for_each_sign() {
        let hold = hold();
        let budget = Duration::from_secs(1);
        let mut mails = Vec::new();
        for _ in 0..3 {
            let (turns, mail) = mpsc::channel(8);
            hold.enter(None, Why::NoWorkers, turns, MANY).unwrap();
            mails.push(mail);
        }
        assert_eq!(hold.admit(budget, 4, Instant::now()), Admission::Wait);
        assert_eq!(next(&mut mails[0]), "head");
        hold.has_members();
        let told: Vec<_> = mails.iter_mut().map(next).collect();
        assert_eq!(told, ["ask", "ask", "nothing"]);
        hold.has_members();
        assert_eq!(next(&mut mails[2]), "ask");
        assert_eq!(hold.admit(budget, 4, Instant::now()), Admission::Free);
    }

    #[test]
    fn who_would_wait_too_long_or_in_too_long_a_line_is_shed_at_once() {
        let (hold, start) = (hold(), Instant::now());
        let mut mails = Vec::new();
        let enter = |mails: &mut Vec<_>| {
            let (turns, mail) = mpsc::channel(8);
            mails.push(mail);
            hold.enter(None, Why::Busy, turns, MANY).unwrap();
        };
        for _ in 0..4 {
            enter(&mut mails);
        }
        assert_eq!(hold.admit(Duration::from_secs(9), 4, start), Admission::Shed, "four may wait");
        for second in 1..=10 {
            let now = start + Duration::from_secs(second);
            assert_eq!(hold.offer(offer(1), now), Ok(()));
            enter(&mut mails);
        }
        hold.offer(offer(1), start + Duration::from_secs(10)).unwrap();
        let now = start + Duration::from_secs(10);
        assert_eq!(hold.admit(Duration::from_mins(1), 4, now), Admission::Free);
        assert_eq!(hold.admit(Duration::from_secs(1), 4, now), Admission::Shed, "3 s at that pace");
    }

    #[test]
    fn no_more_wait_than_may_and_the_youngest_goes_first() {
        let hold = hold();
        let (first, _first_mail) = mpsc::channel(8);
        let (second, mut second_mail) = mpsc::channel(8);
        let (third, _third_mail) = mpsc::channel(8);
        let ticket = hold.enter(None, Why::Busy, first.clone(), 2).unwrap();
        hold.enter(None, Why::NoWorkers, second.clone(), 2).unwrap();
        assert_eq!(hold.enter(None, Why::Busy, third.clone(), 2), None);
        assert_eq!(hold.waiting(), 2);
        // The head asks, another takes its room meanwhile, and it comes back.
        hold.leave(ticket);
        let third_ticket = hold.enter(None, Why::Busy, third, 2).unwrap();
        assert_eq!(hold.enter(Some(ticket), Why::Busy, first, 2), Some(ticket));
        assert!(!hold.is_head(third_ticket));
        assert_eq!(hold.waiting(), 2, "the youngest had to go");
        hold.leave(ticket);
        assert_eq!(next(&mut second_mail), "head");
        assert_eq!(hold.enter(None, Why::Busy, second, 0), None, "nobody may wait");
    }
}
