//! Returns free memory to the kernel after a burst.
//!
//! mimalloc keeps the free memory of each thread until the thread has made enough new allocations.
//! An idle process would keep the memory of its last burst forever, so every thread of the runtime
//! frees such memory before it goes to sleep.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The shortest time between two collections by a thread. One collection takes about a millisecond.
const INTERVAL: Duration = Duration::from_secs(5);
/// mimalloc collects a thread's free memory once every 10,000 allocations that its free lists do not serve
/// (`generic_collect` among its options). The crate does not export the function that collects immediately.
const ALLOCATIONS: u32 = 10_000;
/// The size of these allocations, in bytes: above 1 KiB, no free list serves an allocation.
const ALLOCATION_BYTES: usize = 4 * 1024;
/// The size of an allocation that mimalloc requests from the kernel. Releasing it makes mimalloc
/// return the memory that threads freed more than one second ago. The pages of the allocation are
/// never touched.
const PURGE_BYTES: usize = 4 * 1024 * 1024;

thread_local! {
    static COLLECTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Frees the unused memory of this thread, at most once in `INTERVAL`. Call it whenever a thread of the runtime parks.
pub fn collect() {
    let now = Instant::now();
    if COLLECTED.get().is_some_and(|last| now.duration_since(last) < INTERVAL) {
        return;
    }
    COLLECTED.set(Some(now));
    for _ in 0..ALLOCATIONS {
        drop(black_box(Vec::<u8>::with_capacity(ALLOCATION_BYTES)));
    }
    drop(black_box(Vec::<u8>::with_capacity(PURGE_BYTES)));
}
