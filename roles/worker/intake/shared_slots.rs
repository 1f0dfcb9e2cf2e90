//! The slots of a queue behind a lock, together with their load.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::roles::worker::observation::load::{Load, SlotUsage};

use super::slots::Slots;

/// The slots of a queue. Every change is recorded in the load.
#[derive(Debug)]
pub(super) struct SharedSlots<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    slots: Slots<W>,
    load: Load,
}

impl<W> SharedSlots<W> {
    pub(super) fn new(slots: Slots<W>, mut load: Load) -> Self {
        load.record(usage(&slots), Instant::now());
        Self { state: Mutex::new(State { slots, load }) }
    }

    /// Calls `read` with the slots.
    pub(super) fn read<R>(&self, read: impl FnOnce(&Slots<W>) -> R) -> R {
        read(&self.lock().slots)
    }

    /// Calls `change` with the slots and the current time, and records the load.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Slots<W>, Instant) -> R) -> R {
        let mut state = self.lock();
        let State { slots, load } = &mut *state;
        let now = Instant::now();
        let result = change(slots, now);
        load.record(usage(slots), now);
        result
    }

    /// Returns the current usage, the total slot time, and the total time during which all slots were
    /// in use.
    pub(super) fn usage(&self) -> (SlotUsage, Duration, Duration) {
        let mut state = self.lock();
        let State { slots, load } = &mut *state;
        let usage = usage(slots);
        load.record(usage, Instant::now());
        let (slot_time, saturated_time) = load.totals();
        (usage, slot_time, saturated_time)
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usage<W>(slots: &Slots<W>) -> SlotUsage {
    SlotUsage {
        limit: slots.limit(),
        running: slots.running(),
        waiting: slots.waiting(),
        offered: slots.offered(),
        is_full: slots.is_full(),
    }
}
