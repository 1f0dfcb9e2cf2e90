//! Callers that keep a fleet busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjord::lifecycle::Tasks;
use tokio::task::JoinHandle;

use super::client::Client;

/// Callers that run until they are stopped. Each caller sends one request at a time.
#[derive(Debug)]
pub(crate) struct CallerPool(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl CallerPool {
    /// Starts `number` callers of `path`, which expect `status`.
    pub(crate) fn start(
        clients: &[Client],
        path: &'static str,
        status: u16,
        number: usize,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |client: &Client| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            Tasks::new().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.get(path).await.is(status);
                }
            })
        };
        let callers = clients.iter().cycle().take(number).map(caller).collect();
        Self(stop, callers)
    }

    /// Stops the callers, and waits until their last requests have been answered.
    pub(crate) async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        for caller in self.1 {
            caller.await.expect("every response has the expected status");
        }
    }
}
