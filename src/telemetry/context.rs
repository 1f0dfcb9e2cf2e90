//! Which request the running task serves: its ids are on every line that is logged meanwhile, whoever logs it.

use std::sync::Arc;

/// The ids of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The request's id.
    pub request_id: String,
    /// The id of its trace; empty when the caller made none.
    pub trace_id: String,
}

tokio::task_local! {
    static SERVED: Arc<Served>;
}

/// Runs a future for a request. As safe to drop as the future is; what is logged while it is dropped has the ids too.
pub async fn serving<F: Future>(served: Arc<Served>, future: F) -> F::Output {
    SERVED.scope(served, future).await
}

/// The same future, for the request that is served now: for what goes on in a task of its own.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let served = current();
    async move {
        match served {
            Some(served) => SERVED.scope(served, future).await,
            None => future.await,
        }
    }
}

/// The request that is served now.
#[must_use]
pub fn current() -> Option<Arc<Served>> {
    SERVED.try_with(Arc::clone).ok()
}

/// Adds the ids to a finished line of the log, a break at its end, unless it names its request itself.
pub(super) fn sign(line: &mut Vec<u8>, is_json: bool) {
    let Some(served) = current() else { return };
    let end = if is_json { "}\n" } else { "\n" };
    let Some(text) = str::from_utf8(line).ok().and_then(|text| text.strip_suffix(end)) else {
        return;
    };
    if text.contains(if is_json { "\"request_id\":" } else { " request_id=" }) {
        return;
    }
    let Served { request_id, trace_id } = &*served;
    let ids = if is_json {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        format!(",\"request_id\":{},\"trace_id\":{}", quoted(request_id), quoted(trace_id))
    } else {
        format!(" request_id={request_id} trace_id={trace_id}")
    };
    line.truncate(text.len());
    line.extend_from_slice(ids.as_bytes());
    line.extend_from_slice(end.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(line: &str, is_json: bool) -> String {
        let mut line = line.as_bytes().to_vec();
        sign(&mut line, is_json);
        String::from_utf8(line).unwrap()
    }

    #[tokio::test]
    async fn a_line_of_a_request_has_its_ids_once() {
        let served = Served { request_id: "r\"1".to_owned(), trace_id: "t1".to_owned() };
        assert_eq!(signed("{\"a\":1}\n", true), "{\"a\":1}\n", "of no request");
        serving(Arc::new(served), async {
            let both = "{\"a\":1,\"request_id\":\"r\\\"1\",\"trace_id\":\"t1\"}\n";
            assert_eq!(signed("{\"a\":1}\n", true), both);
            assert_eq!(signed(both, true), both);
            assert_eq!(signed("a b=1\n", false), "a b=1 request_id=r\"1 trace_id=t1\n");
            assert_eq!(carried(async { signed("{}\n", true) }).await.len(), 39);
        })
        .await;
    }
}
