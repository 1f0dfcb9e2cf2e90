//! The ids of the request that a task is serving. Every log line of the task contains them,
//! including lines from libraries.

use std::sync::{Arc, LazyLock};

use tokio::task::futures::TaskLocalFuture;

use super::traceparent;

/// The ids of a request. They appear in every log line about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogContext {
    /// The request's id.
    pub request_id: Arc<str>,
    /// The request's `traceparent` (W3C Trace Context). Empty if the sender set none.
    pub traceparent: Arc<str>,
}

impl LogContext {
    /// Returns the trace id. Empty if there is no valid `traceparent`.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        traceparent::trace_id(&self.traceparent).unwrap_or_default()
    }
}

tokio::task_local! {
    static LOG_CONTEXT: Arc<LogContext>;
}

/// The value for tasks that serve no request.
static NO_REQUEST: LazyLock<Arc<LogContext>> = LazyLock::new(Arc::default);

/// Returns the trace id of a valid `traceparent`.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent::trace_id(traceparent)
}

/// Runs a future in the context of a request. Cancel safe if the future is. Lines logged while the
/// future is being dropped also contain the ids.
///
/// This is not an `async fn`, because an `async fn` would store the future twice: as its argument
/// and while awaiting it.
pub fn scope<F: Future>(ids: Arc<LogContext>, future: F) -> TaskLocalFuture<Arc<LogContext>, F> {
    LOG_CONTEXT.scope(ids, future)
}

/// Runs a function in the context of a request.
pub fn sync_scope<T>(ids: &Arc<LogContext>, work: impl FnOnce() -> T) -> T {
    LOG_CONTEXT.sync_scope(Arc::clone(ids), work)
}

/// Runs a future in the context of the current task's request. Wrap a future with this function
/// before spawning it as a task.
pub fn inherit<F: Future>(future: F) -> TaskLocalFuture<Arc<LogContext>, F> {
    scope(current().unwrap_or_else(|| Arc::clone(&NO_REQUEST)), future)
}

/// Returns the ids of the request that the current task is serving.
#[must_use]
pub fn current() -> Option<Arc<LogContext>> {
    LOG_CONTEXT.try_with(Arc::clone).ok().filter(|ids| !Arc::ptr_eq(ids, &NO_REQUEST))
}

/// Adds the ids to a line of text that ends with a line break. Does nothing if the line already
/// contains a request id.
pub(super) fn append_ids(line: &mut Vec<u8>) {
    let Some(ids) = current() else { return };
    if line.pop_if(|last| *last == b'\n').is_none() {
        return;
    }
    if !str::from_utf8(line).is_ok_and(|text| text.contains(" request_id=")) {
        let (request_id, trace_id) = (&ids.request_id, ids.trace_id());
        line.extend_from_slice(format!(" request_id={request_id} trace_id={trace_id}").as_bytes());
    }
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ids(line: &str) -> String {
        let mut line = line.as_bytes().to_vec();
        append_ids(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[tokio::test]
    async fn the_log_line_of_a_request_contains_its_ids_once() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        let ids = LogContext { request_id: "r\"1".into(), traceparent };
        assert_eq!(with_ids("a b=1\n"), "a b=1\n", "the task serves no request");
        assert_eq!(
            inherit(async { with_ids("a b=1\n") }).await,
            "a b=1\n",
            "the task serves no request"
        );
        scope(Arc::new(ids), async {
            let both = "a b=1 request_id=r\"1 trace_id=0af7651916cd43dd8448eb211c80319c\n";
            assert_eq!(with_ids("a b=1\n"), both);
            assert_eq!(with_ids(both), both);
            assert_eq!(inherit(async { with_ids("a b=1\n") }).await, both);
        })
        .await;
    }
}
