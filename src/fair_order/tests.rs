//! Tests the order with random waiters that join, leave, are served or are put back.

use proptest::prelude::*;

use super::*;

type Order = FairOrder<char, u32>;

fn push_all(order: &mut Order, owner: char, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        order.push(owner, number);
    }
}

fn serve_all(order: &mut Order) -> Vec<u32> {
    std::iter::from_fn(|| order.serve_first()).collect()
}

#[test]
fn owners_take_turns_and_the_waiters_of_one_are_served_in_order_of_arrival() {
    let mut order = Order::default();
    push_all(&mut order, 'a', 0..4);
    assert_eq!(order.serve_first(), Some(0));
    push_all(&mut order, 'b', 10..12);
    push_all(&mut order, 'c', [20]);
    assert_eq!(order.len(), 6);
    assert_eq!(serve_all(&mut order), [1, 10, 20, 2, 11, 3]);
    assert!(order.is_empty() && order.owners.is_empty() && order.turns.is_empty());
    assert!(order.turns_by_len.is_empty());
}

#[test]
fn an_endless_stream_of_new_owners_starves_nobody() {
    let mut order = Order::default();
    push_all(&mut order, 'a', 0..3);
    let mut served_at = Vec::new();
    for step in 0..20_u32 {
        push_all(&mut order, char::from_u32(0x1000 + step).unwrap(), [100 + step]);
        if order.serve_first().unwrap() < 3 {
            served_at.push(step);
        }
    }
    assert_eq!(served_at, [0, 2, 5]);
}

/// The first 29 of 30 waiters give up, as happens when a page is reloaded.
#[test]
fn an_owner_whose_waiters_leave_keeps_its_turn() {
    let mut order = Order::default();
    let given_up: Vec<_> = (0..29).map(|number| order.push('a', number)).collect();
    push_all(&mut order, 'a', [29]);
    push_all(&mut order, 'b', [100]);
    for position in given_up {
        assert!(order.remove(position).is_some());
    }
    assert_eq!(serve_all(&mut order), [29, 100]);
}

#[test]
fn a_waiter_that_is_served_out_of_order_delays_only_its_own_owner() {
    let mut order = Order::default();
    let many: Vec<_> = (0..60).map(|number| order.push('a', number)).collect();
    assert!(order.take(many[40]).is_some());
    push_all(&mut order, 'b', [100]);
    assert_eq!(order.serve_first(), Some(0));
    assert_eq!(order.serve_first(), Some(100));
    assert_eq!(order.serve_first(), Some(1));
}

#[test]
fn a_waiter_that_is_not_served_returns_to_its_position_and_its_owner_to_its_turn() {
    let mut order = Order::default();
    let first = order.push('a', 1);
    push_all(&mut order, 'a', [2]);
    push_all(&mut order, 'b', [10]);
    let (taken, number) = order.take(first).unwrap();
    assert!(order.take(first).is_none() && order.remove(first).is_none());
    assert_eq!(order.first().unwrap().1, &10, "the turn was used");
    assert!(order.restore(taken, number));
    assert!(!order.restore(taken, 3), "it is there already");
    assert_eq!((order.len(), order.get(first)), (3, Some(&3)));
    assert_eq!(serve_all(&mut order), [3, 10, 2]);
    let only = order.push('a', 1);
    push_all(&mut order, 'b', [10]);
    let (taken, number) = order.take(only).unwrap();
    push_all(&mut order, 'a', [2]);
    assert!(order.restore(taken, number));
    assert_eq!(serve_all(&mut order), [1, 10, 2]);
}

#[test]
fn the_newest_waiter_of_the_owner_with_the_most_is_evicted_first() {
    let mut order = Order::default();
    assert!(order.would_be_evicted('a'));
    push_all(&mut order, 'a', 0..3);
    assert!(order.would_be_evicted('a') && !order.would_be_evicted('b'));
    push_all(&mut order, 'b', 10..12);
    push_all(&mut order, 'c', 20..22);
    let evicted: Vec<_> = order.in_eviction_order().map(|(_, number)| *number).collect();
    assert_eq!(evicted, [2, 1, 0, 21, 20, 11, 10]);
    assert!(order.would_be_evicted('b'), "b would have as many waiters as a, and a later turn");
    assert!(!order.would_be_evicted('d'));
}

#[test]
fn the_estimate_follows_the_length_of_the_rounds() {
    let mut order = Order::default();
    push_all(&mut order, 'a', 0..10);
    assert_eq!((order.ahead_of_new('a'), order.ahead_of_new('b')), (10, 1));
    for number in 0..6 {
        push_all(&mut order, 'b', [100 + number]);
        push_all(&mut order, 'c', [200 + number]);
        assert!(order.serve_first().is_some());
        if number == 0 {
            assert_eq!(order.ahead_of_new('a'), 9 + 2, "b and c may not return");
        }
        assert!(order.serve_first().is_some() && order.serve_first().is_some());
    }
    // Every third waiter served belonged to `a`, and four of the ten waiters of `a` are left.
    assert_eq!(order.ahead_of_new('a'), 3 * 5 - 1);
    assert!(order.serve_first().is_some());
    assert_eq!(order.ahead_of_new('a'), 3 * 4 - 1);
    assert!(order.serve_first().is_some() && order.serve_first().is_some());
    assert_eq!(order.ahead_of_new('a'), 2, "its last three rounds were 3, 1 and 1 long");
}

#[derive(Clone, Debug)]
enum Step {
    Join(char),
    Serve,
    /// The nth waiter leaves.
    Leave(usize),
    /// The first waiter is taken for an attempt.
    TakeFirst,
    /// The nth waiter is taken for an attempt.
    Take(usize),
    /// A worker refuses the nth attempt, and the waiter is put back.
    Return(usize),
    /// A worker accepts the nth attempt.
    Accept(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nth = 0..12_usize;
    let step = prop_oneof![
        5 => prop::char::range('a', 'e').prop_map(Step::Join),
        3 => Just(Step::Serve),
        1 => nth.clone().prop_map(Step::Leave),
        2 => Just(Step::TakeFirst),
        1 => nth.clone().prop_map(Step::Take),
        2 => nth.clone().prop_map(Step::Return),
        1 => nth.prop_map(Step::Accept),
    ];
    prop::collection::vec(step, 1..300)
}

/// The owners in the order of their turns, each with its waiters in order of arrival.
#[derive(Debug, Default)]
struct Turns(Vec<(char, Vec<u32>)>);

impl Turns {
    fn join(&mut self, owner: char, number: u32) {
        match self.0.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, waiters)) => waiters.push(number),
            None => self.0.push((owner, vec![number])),
        }
    }

    fn serve(&mut self) -> Option<u32> {
        if self.0.is_empty() {
            return None;
        }
        let (owner, mut waiters) = self.0.remove(0);
        let served = waiters.remove(0);
        self.0.push((owner, waiters));
        self.0.retain(|(_, waiters)| !waiters.is_empty());
        Some(served)
    }

    fn leave(&mut self, number: u32) {
        self.0.iter_mut().for_each(|(_, waiters)| waiters.retain(|waiter| *waiter != number));
        self.0.retain(|(_, waiters)| !waiters.is_empty());
    }

    fn all(&self) -> Vec<u32> {
        self.0.iter().flat_map(|(_, waiters)| waiters.clone()).collect()
    }

    fn evicted_first(&self) -> Option<u32> {
        self.0.iter().max_by_key(|(_, waiters)| waiters.len())?.1.last().copied()
    }
}

fn nth(order: &Order, n: usize) -> Option<(FairPosition<char>, u32)> {
    order.iter().nth(n).map(|(position, number)| (position, *number))
}

/// Counts how often a waiting owner is overtaken by every other owner.
#[derive(Debug, Default)]
struct Overtaken {
    /// The step at which each owner started waiting for its turn.
    since: HashMap<char, u32>,
    /// The number of times that a waiting owner was overtaken, keyed by the waiting owner and the owner that was
    /// served.
    times: HashMap<(char, char), i32>,
}

/// A waiter that was taken.
#[derive(Clone, Copy, Debug)]
struct TakenWaiter {
    position: FairPosition<char>,
    number: u32,
    taken_at: u32,
    is_in_turn: bool,
}

impl Overtaken {
    /// Starts a turn for each owner that has joined, and ends the turns of owners without waiters.
    fn update(&mut self, order: &Order, step: u32) {
        self.since.retain(|owner, _| order.owners.contains_key(owner));
        self.times.retain(|(waits, _), _| order.owners.contains_key(waits));
        for owner in order.owners.keys() {
            self.since.entry(*owner).or_insert(step);
        }
    }

    fn take(&mut self, taken: char, is_in_turn: bool) {
        self.since.remove(&taken);
        self.times.retain(|(waits, _), _| *waits != taken);
        for waits in self.since.keys().filter(|_| is_in_turn) {
            *self.times.entry((*waits, taken)).or_insert(0) += 1;
        }
    }

    /// Handles a waiter that was put back. It has not been served, so its owner may be served once more. If the attempt
    /// was out of turn, this applies only to owners that have started waiting since the attempt.
    fn give_back(&mut self, attempt: TakenWaiter) {
        let returned = attempt.position.owner;
        for (waits, since) in &self.since {
            if attempt.is_in_turn || *since > attempt.taken_at {
                *self.times.entry((*waits, returned)).or_insert(0) -= 1;
            }
        }
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_a_list_of_turns(steps in steps()) {
        let (mut order, mut turns) = (Order::default(), Turns::default());
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Join(owner) => {
                    let _position = order.push(owner, number);
                    turns.join(owner, number);
                }
                Step::Serve => prop_assert_eq!(order.serve_first(), turns.serve()),
                Step::Leave(n) => {
                    let Some((position, number)) = nth(&order, n) else { continue };
                    prop_assert_eq!(order.remove(position), Some(number));
                    turns.leave(number);
                }
                _ => continue,
            }
            let all: Vec<_> = order.iter().map(|(_, number)| *number).collect();
            prop_assert_eq!(&all, &turns.all());
            prop_assert_eq!(order.len(), all.len());
            let evicted = order.in_eviction_order().next().map(|(_, number)| *number);
            prop_assert_eq!(evicted, turns.evicted_first());
        }
    }

    #[test]
    fn an_owner_that_waits_is_overtaken_once_by_each_other_one(steps in steps()) {
        let mut order = Order::default();
        let mut attempts: Vec<TakenWaiter> = Vec::new();
        let mut overtaken = Overtaken::default();
        for (step_number, step) in (0..).zip(steps) {
            match step {
                Step::Join(owner) => {
                    let _position = order.push(owner, step_number);
                }
                Step::Serve | Step::TakeFirst | Step::Take(_) => {
                    let (n, is_in_turn) = if let Step::Take(n) = step { (n, n == 0) } else { (0, true) };
                    let Some((position, _)) = nth(&order, n) else { continue };
                    let (position, number) = order.take(position).unwrap();
                    overtaken.take(position.owner, is_in_turn);
                    if !matches!(step, Step::Serve) {
                        attempts.push(TakenWaiter { position, number, taken_at: step_number, is_in_turn });
                    }
                }
                Step::Leave(n) => {
                    let Some((position, number)) = nth(&order, n) else { continue };
                    prop_assert_eq!(order.remove(position), Some(number));
                }
                Step::Return(n) if n < attempts.len() => {
                    let attempt = attempts.swap_remove(n);
                    prop_assert!(order.restore(attempt.position, attempt.number));
                    overtaken.give_back(attempt);
                }
                Step::Accept(n) if n < attempts.len() => {
                    attempts.swap_remove(n);
                }
                Step::Return(_) | Step::Accept(_) => {}
            }
            overtaken.update(&order, step_number);
            prop_assert!(overtaken.times.values().all(|times| *times <= 1), "{overtaken:?}");
            for owner in order.owners.keys() {
                let numbers: Vec<_> = order.of_owner(*owner).map(|(_, number)| *number).collect();
                prop_assert!(numbers.is_sorted(), "first come, first served: {numbers:?}");
            }
            let numbers: usize = order.owners.values().map(|known| known.waiters.len()).sum();
            let indexed: usize = order.turns_by_len.values().map(BTreeSet::len).sum();
            prop_assert_eq!(order.len(), numbers);
            prop_assert_eq!((order.turns.len(), indexed), (order.owners.len(), order.owners.len()));
        }
    }

    /// If no waiters are added, the estimate is at most one round too high.
    #[test]
    fn the_estimate_is_the_number_of_waiters_served_before_a_new_one(
        owners in prop::collection::vec(prop::char::range('a', 'f'), 1..100)
    ) {
        let mut order = Order::default();
        for owner in owners {
            push_all(&mut order, owner, [0]);
        }
        let estimate = order.ahead_of_new('a');
        let owners = order.owners.len();
        push_all(&mut order, 'a', [1]);
        let ahead = serve_all(&mut order).iter().position(|number| *number == 1).unwrap();
        prop_assert!((ahead..=ahead + owners).contains(&estimate), "{estimate} for {ahead}");
    }
}
