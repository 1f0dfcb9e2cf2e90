//! Tests the order with random waiters that join, are served and leave.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// The number of times that an owner is overtaken by another one before it is served.
const OVERTAKEN_MAX: usize = 2;

/// Adds a waiter, whose value is its number.
fn join(order: &mut FairOrder<char, u32>, owner: char, number: u32) -> FairPosition {
    let position = order.next_position(owner);
    order.insert(position, owner, number);
    position
}

/// Serves the next waiter.
fn serve(order: &mut FairOrder<char, u32>) -> Option<u32> {
    let (position, _) = order.first()?;
    order.record_served(position);
    order.remove(position)
}

fn serve_all(order: &mut FairOrder<char, u32>) -> Vec<u32> {
    std::iter::from_fn(|| serve(order)).collect()
}

#[test]
fn owners_take_turns_and_the_waiters_of_one_are_served_in_order_of_arrival() {
    let mut order = FairOrder::default();
    for number in 0..4 {
        join(&mut order, 'a', number);
    }
    assert_eq!(serve(&mut order), Some(0));
    join(&mut order, 'b', 10);
    join(&mut order, 'b', 11);
    join(&mut order, 'c', 20);
    assert_eq!(order.len(), 6);
    assert_eq!(serve_all(&mut order), [1, 10, 20, 2, 11, 3]);
    assert!(order.is_empty() && order.owners.is_empty());
}

#[test]
fn an_owner_with_one_waiter_at_a_time_does_not_starve_one_with_many() {
    let mut order = FairOrder::default();
    for number in 0..5 {
        join(&mut order, 'a', number);
    }
    let mut served = Vec::new();
    join(&mut order, 'b', 10);
    for _ in 0..8 {
        let number = serve(&mut order).unwrap();
        served.push(number);
        if number >= 10 {
            join(&mut order, 'b', number + 1);
        }
    }
    assert_eq!(served, [0, 10, 1, 11, 2, 12, 3, 13]);
}

#[test]
fn an_endless_stream_of_new_owners_starves_nobody() {
    let mut order = FairOrder::default();
    for number in 0..3 {
        join(&mut order, 'a', number);
    }
    let mut served_at = Vec::new();
    for step in 0..20_u32 {
        let stranger = char::from_u32(0x1000 + step).unwrap();
        join(&mut order, stranger, 100 + step);
        if serve(&mut order).unwrap() < 3 {
            served_at.push(step);
        }
    }
    assert_eq!(served_at.len(), 3, "{served_at:?}");
}

#[test]
fn a_waiter_that_returns_keeps_its_position() {
    let mut order = FairOrder::default();
    let first = join(&mut order, 'a', 1);
    let second = join(&mut order, 'b', 2);
    assert_eq!(order.remove(first), Some(1));
    assert_eq!(order.remove(first), None);
    assert_eq!(order.first(), Some((second, &2)));
    order.insert(first, 'a', 1);
    order.insert(first, 'a', 3);
    assert_eq!((order.len(), order.get(first)), (2, Some(&3)));
    assert_eq!(order.after(first).map(|(_, number)| *number).collect::<Vec<_>>(), [2]);
    assert_eq!(serve_all(&mut order), [3, 2]);
}

#[test]
fn a_turn_that_is_given_up_is_free_again() {
    let mut order = FairOrder::default();
    join(&mut order, 'a', 1);
    for number in 2..100 {
        let given_up = join(&mut order, 'a', number);
        order.remove(given_up);
    }
    let second = join(&mut order, 'a', 100);
    assert_eq!(second.round, 2);
}

#[test]
fn an_owner_with_few_waiters_precedes_the_last_waiter_of_one_with_many() {
    let mut order = FairOrder::default();
    assert!(!order.would_precede_last('a'));
    for number in 0..3 {
        join(&mut order, 'a', number);
    }
    assert_eq!((order.ahead_of_new('a'), order.ahead_of_new('b')), (3, 1));
    assert!(!order.would_precede_last('a') && order.would_precede_last('b'));
    join(&mut order, 'b', 10);
    assert_eq!(
        (order.ahead_of_new('a'), order.ahead_of_new('b'), order.ahead_of_new('c')),
        (4, 4, 2)
    );
    assert!(order.would_precede_last('b'));
    join(&mut order, 'b', 11);
    assert!(!order.would_precede_last('b') && order.would_precede_last('c'));
}

#[derive(Clone, Debug)]
enum Step {
    Join(char),
    Serve,
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::char::range('a', 'e').prop_map(Step::Join),
        3 => Just(Step::Serve),
        1 => (0..50_usize).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..300)
}

type Waiter = (u32, FairPosition);

/// The waiters of each owner in order of arrival, and how often each owner was overtaken by another one.
#[derive(Debug, Default)]
struct Model {
    queues: HashMap<char, VecDeque<Waiter>>,
    overtaken: HashMap<(char, char), usize>,
    turns_given_up: HashMap<char, usize>,
}

impl Model {
    /// Serves a waiter. Fails if it is not its owner's first, or if its owner has overtaken another one too often.
    fn serve(&mut self, served: Waiter) -> Result<(), String> {
        let owner = self.owner(served);
        let first = self.queues.get_mut(&owner).and_then(VecDeque::pop_front);
        if first != Some(served) {
            return Err(format!("{served:?} was served before {first:?}"));
        }
        self.overtaken.retain(|(waits, _), _| *waits != owner);
        self.forget_owners_without_waiters();
        for waits in self.queues.keys().copied().filter(|waits| *waits != owner) {
            let times = self.overtaken.entry((waits, owner)).or_insert(0);
            *times += 1;
            let allowed = OVERTAKEN_MAX + self.turns_given_up.get(&waits).copied().unwrap_or(0);
            if *times > allowed {
                return Err(format!("{owner} overtook {waits} {times} times"));
            }
        }
        Ok(())
    }

    fn leave(&mut self, left: Waiter) {
        let owner = self.owner(left);
        let Some(queue) = self.queues.get_mut(&owner) else { return };
        if queue.back() != Some(&left) {
            *self.turns_given_up.entry(owner).or_insert(0) += 1;
        }
        queue.retain(|waiter| *waiter != left);
        self.forget_owners_without_waiters();
    }

    fn owner(&self, waiter: Waiter) -> char {
        let mut queues = self.queues.iter();
        queues.find(|(_, queue)| queue.contains(&waiter)).map(|(owner, _)| *owner).unwrap()
    }

    fn forget_owners_without_waiters(&mut self) {
        self.queues.retain(|_, queue| !queue.is_empty());
        self.overtaken.retain(|(waits, _), _| self.queues.contains_key(waits));
        self.turns_given_up.retain(|waits, _| self.queues.contains_key(waits));
    }
}

proptest! {
    /// A waiter that leaves gives up its owner's turn, unless it is the owner's last one.
    #[test]
    fn no_owner_is_overtaken_more_than_twice_before_it_is_served(steps in steps()) {
        let mut order = FairOrder::default();
        let mut model = Model::default();
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Join(owner) => {
                    let position = join(&mut order, owner, number);
                    model.queues.entry(owner).or_default().push_back((number, position));
                }
                Step::Serve => {
                    let Some((position, _)) = order.first() else { continue };
                    let served = serve(&mut order).unwrap();
                    let overtaken = model.serve((served, position));
                    prop_assert!(overtaken.is_ok(), "{overtaken:?}");
                }
                Step::Leave(index) => {
                    let nth = order.iter().nth(index).map(|(position, number)| (*number, position));
                    let Some((number, position)) = nth else { continue };
                    order.remove(position);
                    model.leave((number, position));
                }
            }
            prop_assert_eq!(order.len(), model.queues.values().map(VecDeque::len).sum::<usize>());
            prop_assert_eq!(order.owners.len(), model.queues.len(), "only owners with waiters take memory");
        }
    }
}
