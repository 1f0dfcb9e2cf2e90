//! Which request the running task serves: its ids are on every line that is logged meanwhile, whoever logs it.

use std::sync::{Arc, LazyLock};

use tokio::task::futures::TaskLocalFuture;

use super::traceparent;

/// The ids of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The request's id.
    pub request_id: Arc<str>,
    /// What it is in its trace (W3C Trace Context); empty when the caller made none.
    pub traceparent: Arc<str>,
}

impl Served {
    /// The id of its trace; empty when the caller made none that is valid.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        traceparent::trace_id(&self.traceparent).unwrap_or_default()
    }
}

tokio::task_local! {
    static SERVED: Arc<Served>;
}

/// What a task serves that serves no request.
static NOBODY: LazyLock<Arc<Served>> = LazyLock::new(Arc::default);

/// Runs a future for a request. As safe to drop as the future is; what is logged while it is dropped has the ids too.
///
/// No `async fn`: that would hold the future twice, as its argument and as what it awaits.
pub fn serving<F: Future>(served: Arc<Served>, future: F) -> TaskLocalFuture<Arc<Served>, F> {
    SERVED.scope(served, future)
}

/// Does for a request what takes no time.
pub fn within<T>(served: &Arc<Served>, work: impl FnOnce() -> T) -> T {
    SERVED.sync_scope(Arc::clone(served), work)
}

/// The same future, for the request that is served now: for what goes on in a task of its own.
pub fn carried<F: Future>(future: F) -> TaskLocalFuture<Arc<Served>, F> {
    serving(current().unwrap_or_else(|| Arc::clone(&NOBODY)), future)
}

/// The request that is served now.
#[must_use]
pub fn current() -> Option<Arc<Served>> {
    SERVED.try_with(Arc::clone).ok().filter(|served| !Arc::ptr_eq(served, &NOBODY))
}

/// Adds the ids to a finished line of text, a break at its end, unless it names its request itself.
pub(super) fn sign(line: &mut Vec<u8>) {
    let Some(served) = current() else { return };
    if line.pop_if(|last| *last == b'\n').is_none() {
        return;
    }
    if !str::from_utf8(line).is_ok_and(|text| text.contains(" request_id=")) {
        let (request_id, trace_id) = (&served.request_id, served.trace_id());
        line.extend_from_slice(format!(" request_id={request_id} trace_id={trace_id}").as_bytes());
    }
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(line: &str) -> String {
        let mut line = line.as_bytes().to_vec();
        sign(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[tokio::test]
    async fn a_line_of_a_request_has_its_ids_once() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        let served = Served { request_id: "r\"1".into(), traceparent };
        assert_eq!(signed("a b=1\n"), "a b=1\n", "of no request");
        assert_eq!(carried(async { signed("a b=1\n") }).await, "a b=1\n", "of no request");
        serving(Arc::new(served), async {
            let both = "a b=1 request_id=r\"1 trace_id=0af7651916cd43dd8448eb211c80319c\n";
            assert_eq!(signed("a b=1\n"), both);
            assert_eq!(signed(both), both);
            assert_eq!(carried(async { signed("a b=1\n") }).await, both);
        })
        .await;
    }
}
