//! Returns free memory to the kernel after a burst.
//!
//! mimalloc keeps the free memory of each thread until the thread has made enough new allocations.
//! An idle process would keep the memory of its last burst forever, so every thread of the runtime
//! frees such memory before it goes to sleep.

use std::cell::Cell;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

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

/// Runs `work`, which allocates much memory and keeps little of it, in a thread of its own, and
/// waits for the result. When the thread ends, mimalloc returns the memory that the thread has
/// freed. The rest is returned when another thread frees it; if the thread were still running, this
/// memory would be kept until the thread allocates again.
pub fn run_in_own_thread<T: Send>(work: impl Fn() -> T + Sync) -> T {
    let runtime = Handle::try_current();
    let run = || {
        let _entered = runtime.as_ref().map(Handle::enter);
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, run);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system cannot start another thread.
            Err(_) => work(),
        }
    })
}
