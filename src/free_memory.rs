//! Returns free memory to the kernel after a burst.
//!
//! mimalloc keeps the free memory of each thread until the thread has made enough new allocations. An idle process
//! would therefore keep the memory of its last burst indefinitely. To prevent this, every thread of the runtime frees
//! such memory before it goes to sleep.

use std::cell::Cell;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// The minimum time between two collections by the same thread. A collection takes about a millisecond.
const INTERVAL: Duration = Duration::from_secs(5);
/// The number of allocations after which mimalloc collects a thread's free memory, not counting those that its free
/// lists serve (the option `generic_collect`). The crate does not export the function that collects immediately.
const ALLOCATIONS: u32 = 10_000;
/// The size of these allocations in bytes. Free lists do not serve allocations larger than 1 KiB.
const ALLOCATION_BYTES: usize = 4 * 1024;
/// The size of an allocation that mimalloc requests directly from the kernel. Releasing it makes mimalloc return the
/// memory that threads freed more than one second ago. The pages of this allocation are never touched.
const PURGE_BYTES: usize = 4 * 1024 * 1024;

thread_local! {
    static COLLECTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Frees the unused memory of this thread, at most once per `INTERVAL`. Call this whenever a thread of the runtime
/// parks.
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

/// Runs `work` in a separate thread and waits for the result. Intended for work that allocates much memory and keeps
/// little of it. When the thread ends, mimalloc returns to the kernel the memory that the thread has freed. The memory
/// of the result is returned when another thread frees it. If the thread kept running, the freed memory would be kept
/// until the thread allocated again.
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
            // The system cannot start another thread, so this thread does the work.
            Err(_) => work(),
        }
    })
}
